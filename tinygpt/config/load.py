"""Read files, presets, environment and flags into a frozen Config, with each value's origin."""

import difflib
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from tinygpt.config.fields import FIELDS, TABLES, read_text, requirement, spell
from tinygpt.config.file import read_config_file
from tinygpt.config.other_names import OTHER_NAMES
from tinygpt.config.source import FileSource, file_pattern, parse_source
from tinygpt.config.tables import Config
from tinygpt.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

CONFIG_NAME = "tinygpt.toml"
DEFAULT_PRESET = "laptop"
PRESETS_FOLDER = Path(__file__).parents[1] / "presets"
PRESETS = tuple(sorted(path.stem for path in PRESETS_FOLDER.glob("*.toml")))
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")


class LoadedConfig(NamedTuple):
    """A configuration and where its values came from.

    Args:
        config: the configuration.
        origins: for each key ("train.max_steps") "default", "preset laptop", the name of the file,
            "environment TINYGPT_...", "--set" or the flag ("--max-steps").
        preset: the preset that the other values override; None if there is none.
        notes: lines the user should see.
        default_notes: lines for the user about a preset that was used because none was named.
    """

    config: Config
    origins: Mapping[str, str]
    preset: str | None
    notes: tuple[str, ...]
    default_notes: tuple[str, ...] = ()


class Setting(NamedTuple):
    """The value that one place gives to a key."""

    key: str
    value: object
    origin: str


def load_config(
    *,
    config_file: Path | None = None,
    preset: str | None = None,
    sets: Sequence[str] = (),
    flags: Mapping[str, tuple[str, object]] | None = None,
    tables_of_model: Callable[[str], Mapping[str, Any]] | None = None,
    cwd: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> LoadedConfig:
    """Read the configuration: flag > `sets` > environment > file > preset > default.

    Without `config_file`, a tinygpt.toml is searched from `cwd` upwards, unless a preset is named.
    A file can name the preset it builds on in a first key, `preset = "laptop"`. Where there is
    neither a file nor a preset, DEFAULT_PRESET is used. Relative paths start from the folder of the
    file that sets them, and from `cwd` where no file does.

    Where `train.init_from` names a model, its [model] lies below all of these. Where there is
    neither a file nor a preset, so do its other tables, instead of DEFAULT_PRESET; but if
    `data.source` is set, its [data] and [dataset], which describe another text, do not. An imported
    model has no recipe: its shape and its tokenizer are taken, and learning rates must be set.

    Args:
        config_file: the file to read; None to search for one.
        preset: name of a preset; None to take TINYGPT_PRESET, if set.
        sets: "table.key=value", read by the key's type.
        flags: key -> (flag as typed, value). A value of None means that the flag was not given; a
            str is read like one of `sets`.
        tables_of_model: what the model with an id was made with; None to take nothing from it.
        cwd: the working directory; None for the process's own.
        environ: variables such as TINYGPT_TRAIN_MAX_STEPS (an empty one counts as unset).

    Raises:
        ConfigError: the first mistake, where it is, and what to write instead.
    """
    cwd = Path.cwd() if cwd is None else cwd
    chosen_preset = preset or environ.get("TINYGPT_PRESET")
    found = find_config(cwd)
    path = found if config_file is None and not chosen_preset else config_file
    tables = read_config_file(cwd / path) if path else {}
    file_preset = tables.pop("preset", None)

    of_file = _from_tables(tables, path.name, cwd / path.parent) if path else ()
    settings = [
        *of_file,
        *_from_environment(environ, cwd),
        *_from_sets(sets, cwd),
        *_from_flags(flags or {}, cwd),
    ]
    winners = {setting.key: setting for setting in settings}
    is_bare = not chosen_preset and not path
    of_model, is_imported = _from_model(tables_of_model, winners, is_bare)

    base = chosen_preset or file_preset or None
    notes: tuple[str, ...] = ()
    default_notes: tuple[str, ...] = ()
    if chosen_preset and found and config_file is None:
        lay_over = f"`--config {found}` lays the file over the preset"
        notes = (f"preset {chosen_preset} replaces {found}; {lay_over}",)
    elif chosen_preset and file_preset and chosen_preset != file_preset:
        instead_of = f"instead of preset {file_preset}, which {path} names"
        notes = (f"preset {chosen_preset} is used {instead_of}",)
    elif is_bare and of_model and not is_imported:
        default_notes = (f"no {CONFIG_NAME} here: using that of {of_model[0].origin}",)
    elif is_bare:
        base = DEFAULT_PRESET
        default_notes = (f"no {CONFIG_NAME} here: using preset {DEFAULT_PRESET}",)

    of_preset = _from_preset(base) if base else ()
    winners = {setting.key: setting for setting in (*of_model, *of_preset, *settings)}
    if is_imported:
        _require_learning_rate(winners, {setting.key for setting in settings})
    origins = {key: winners[key].origin if key in winners else "default" for key in FIELDS}
    return LoadedConfig(_validated(winners), origins, base, notes, default_notes)


def find_config(cwd: Path) -> Path | None:
    """The tinygpt.toml in `cwd` or in the nearest folder above it."""
    for folder in (cwd, *cwd.parents):
        path = folder / CONFIG_NAME
        if path.is_file():
            return path
    return None


def store_root(
    flag: Path | None, *, cwd: Path | None = None, environ: Mapping[str, str] = os.environ
) -> Path:
    """The folder of the store.

    It is `--store`, else TINYGPT_STORE, else artifacts/ beside the tinygpt.toml found from `cwd`,
    else artifacts/ in `cwd`. It does not depend on `--config` and `--preset`, so recipes tried in
    one place share one store.
    """
    cwd = Path.cwd() if cwd is None else cwd
    named = flag or environ.get("TINYGPT_STORE")
    if named:
        return cwd / Path(named).expanduser()
    found = find_config(cwd)
    return (found.parent if found else cwd) / "artifacts"


def _from_preset(name: object) -> Iterator[Setting]:
    if name not in PRESETS:
        raise ConfigError(
            f"{spell(name)} is not a preset", hint=f"the presets are {', '.join(PRESETS)}"
        )
    tables = read_config_file(PRESETS_FOLDER / f"{name}.toml")
    yield from _from_tables(tables, f"preset {name}", PRESETS_FOLDER)


def _from_tables(tables: Mapping[str, Any], origin: str, folder: Path) -> Iterator[Setting]:
    for table, values in tables.items():
        if table not in TABLES:
            raise _unknown(table, origin)
        if not isinstance(values, dict | None):
            problem = f"`{table}` = {_shown(values)} is not a table (from {origin})"
            raise ConfigError(problem, hint=f"write `[{table}]` and its keys below it")
        for key, value in (values or {}).items():
            yield _setting(f"{table}.{key}", value, origin, folder)


def _from_model(
    tables_of_model: Callable[[str], Mapping[str, Any]] | None,
    settings: Mapping[str, Setting],
    is_bare: bool,
) -> tuple[list[Setting], bool]:
    """What is taken from the model that `train.init_from` names, if it names one; see load_config.

    Args:
        settings: of the user.
        is_bare: there is neither a file nor a preset.
    Returns:
        The settings, and whether the model was imported.
    """
    named = settings.get("train.init_from")
    model = named.value if named else None
    if tables_of_model is None or not isinstance(model, str) or model == "none":
        return [], False
    tables = dict(tables_of_model(model))
    if "data.source" in settings:
        tables.pop("data", None)
        tables.pop("dataset", None)
    is_imported = "train" not in tables  # it has a shape and a tokenizer, and no recipe
    taken = tables if is_bare or is_imported else {"model": tables["model"]}
    return list(_from_tables(taken, f"model {model}", Path())), is_imported


def _require_learning_rate(settings: Mapping[str, Setting], given: Collection[str]) -> None:
    """Refuse to continue an imported model with the learning rate of a recipe from scratch.

    Args:
        settings: by key.
        given: the keys that the user has set.
    Raises:
        ConfigError: a learning rate that matters is not among them.
    """
    optimizer = settings.get("train.optimizer")
    is_muon = optimizer is not None and optimizer.value == "muon"
    needed = ["train.learning_rate"] + ["train.muon_learning_rate"] * is_muon
    missing = [key for key in needed if key not in given]
    if missing:
        model = settings["train.init_from"].value
        adamw = "--set train.optimizer=adamw --set train.learning_rate=5e-5"
        raise ConfigError(
            f"model {model} was imported, so that `{missing[0]}` has to be set: with which one it "
            "was trained is not known",
            hint=f"AdamW and 5e-5 are usual here: `tinygpt train --from {model} {adamw}`",
        )


def _from_environment(environ: Mapping[str, str], cwd: Path) -> Iterator[Setting]:
    for variable, text in environ.items():
        match = re.fullmatch(r"TINYGPT_([A-Z]+)_(\w+)", variable)
        if text and match and match[1].lower() in TABLES:
            key = f"{match[1]}.{match[2]}".lower()
            yield _setting(key, read_text(key, text), f"environment {variable}", cwd)


def _from_sets(sets: Iterable[str], cwd: Path) -> Iterator[Setting]:
    for item in sets:
        name, equals, text = item.partition("=")
        if not equals or not name.strip():
            lacks = "names no key" if equals else "has no value"
            raise ConfigError(
                f"`--set {item}` {lacks}",
                hint="write `--set table.key=value`, e.g., `--set train.max_steps=1000`",
            )
        key = name.strip()
        yield _setting(key, read_text(key, text), "--set", cwd)


def _from_flags(flags: Mapping[str, tuple[str, object]], cwd: Path) -> Iterator[Setting]:
    for key, (flag, given) in flags.items():
        if given is not None:
            value = read_text(key, given) if isinstance(given, str) else given
            yield _setting(key, value, flag, cwd)


def _setting(key: str, value: object, origin: str, folder: Path) -> Setting:
    """The setting, with a relative path in it made absolute.

    Raises:
        ConfigError: there is no such key, or TOML and YAML could not both write its value.
    """
    if key not in FIELDS:
        raise _unknown(key, origin)
    if isinstance(value, str) and _NOT_TEXT.search(value):
        raise ConfigError(f"`{key}` (from {origin}) contains a NUL or surrogate character")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ConfigError(f"`{key}` (from {origin}) is an integer beyond 64 bits")
    return Setting(key, _absolute(key, value, folder), origin)


def _absolute(key: str, value: object, folder: Path) -> object:
    """The value; if it names files, their absolute path."""
    if key == "data.source" and isinstance(value, str) and value:
        source = parse_source(value, folder)
        if isinstance(source, FileSource):
            return os.path.normpath(source.pattern)
    if key == "eval.text" and isinstance(value, str) and value not in ("none", ""):
        return file_pattern(value, folder)
    return value


def _unknown(name: str, origin: str) -> ConfigError:
    """The error for a table or key that does not exist, with the nearest one that does.

    If it was set by an environment variable, both are spelled as environment variables.
    """
    is_variable = origin.startswith("environment ")
    written = origin.removeprefix("environment ") if is_variable else name
    table, _, last = name.rpartition(".")
    near = [known for known in FIELDS if known.endswith(f".{last}")]
    near += [OTHER_NAMES[last]] if last in OTHER_NAMES else []
    key_of = {known.partition(".")[2]: known for known in FIELDS}
    key_of |= {known.partition(".")[2]: known for known in FIELDS if known.startswith(f"{table}.")}
    close = difflib.get_close_matches(last, key_of if table else [*key_of, *TABLES], 1)
    near += [key_of.get(word, word) for word in close]
    if name in TABLES:
        hint = f"`{name}` is a table; write `--set {name}.KEY=VALUE` with one of its keys: "
        hint += _keys(name)
    elif near and is_variable:
        hint = f"did you mean `TINYGPT_{near[0].replace('.', '_').upper()}`?"
    elif near:
        hint = f"did you mean `{near[0]}`?"
    elif table in TABLES:
        hint = f"the keys of `{table}` are {_keys(table)}"
    else:
        hint = f"the tables are {', '.join(TABLES)}"
    return ConfigError(f"the configuration has no `{written}` (from {origin})", hint=hint)


def _keys(table: str) -> str:
    return ", ".join(key.partition(".")[2] for key in FIELDS if key.startswith(f"{table}."))


def _validated(settings: Mapping[str, Setting]) -> Config:
    tables: dict[str, dict[str, object]] = {}
    for name, setting in settings.items():
        table, _, key = name.partition(".")
        tables.setdefault(table, {})[key] = setting.value
    try:
        return Config.model_validate(tables)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _invalid(first, settings) from error


def _invalid(error: "ErrorDetails", settings: Mapping[str, Setting]) -> ConfigError:
    """Our error for what pydantic found wrong in a table or in one of its values."""
    location = error["loc"]
    if len(location) < 2:
        # Keys of one table contradict each other; its validator says "what is wrong; what to do".
        problem, _, advice = str(error["ctx"]["error"]).partition("; ")
        return ConfigError(problem, hint=advice or None)
    key = f"{location[0]}.{location[1]}"
    given = settings[key]
    field = FIELDS[key]
    must_be = f"must be {requirement(key)} (from {given.origin})"
    return ConfigError(
        f"`{key}` = {_shown(given.value)} is not valid: {must_be}",
        hint=f"{field.description}; the default is {spell(field.default)}",
    )


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    text = spell(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
