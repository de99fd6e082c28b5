"""Read files, presets, environment and flags into a frozen Config, with each value's origin."""

import difflib
import os
import re
import tomllib
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml
from pydantic import ValidationError

from tinygpt.config.fields import FIELDS, TABLES, read_text, requirement, spell
from tinygpt.config.source import FileSource, parse_source
from tinygpt.config.tables import Config
from tinygpt.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

CONFIG_NAME = "tinygpt.toml"
DEFAULT_PRESET = "laptop"
PRESETS_FOLDER = Path(__file__).parents[1] / "presets"
PRESETS = tuple(sorted(path.stem for path in PRESETS_FOLDER.glob("*.toml")))
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")

# PyYAML raises all of these; tomllib raises ValueError and RecursionError.
_PARSE_ERRORS = (
    yaml.YAMLError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    RecursionError,
)


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
    cwd: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> LoadedConfig:
    """Read the configuration: flag > `sets` > environment > file > preset > default.

    Without `config_file`, a tinygpt.toml is searched from `cwd` upwards, unless a preset is named.
    A file can name the preset it builds on in a first key, `preset = "laptop"`. Where there is
    neither a file nor a preset, DEFAULT_PRESET is used. Relative paths start from the folder of the
    file that sets them, and from `cwd` where no file does.

    Args:
        config_file: the file to read; None to search for one.
        preset: name of a preset; None to take TINYGPT_PRESET, if set.
        sets: "table.key=value", read by the key's type.
        flags: key -> (flag as typed, value). A value of None means that the flag was not given; a
            str is read like one of `sets`.
        cwd: the working directory; None for the process's own.
        environ: variables such as TINYGPT_TRAIN_MAX_STEPS (an empty one counts as unset).

    Raises:
        ConfigError: the first mistake, where it is, and what to write instead.
    """
    cwd = Path.cwd() if cwd is None else cwd
    chosen_preset = preset or environ.get("TINYGPT_PRESET")
    found = find_config(cwd)
    path = config_file
    if config_file is None and not chosen_preset:
        path = found
    tables = read_config_file(cwd / path) if path else {}
    file_preset = tables.pop("preset", None)

    base = chosen_preset or file_preset or None
    notes: tuple[str, ...] = ()
    default_notes: tuple[str, ...] = ()
    if chosen_preset and found and config_file is None:
        lay_over = f"`--config {found}` lays the file over the preset"
        notes = (f"preset {chosen_preset} replaces {found}; {lay_over}",)
    elif chosen_preset and file_preset and chosen_preset != file_preset:
        instead_of = f"instead of preset {file_preset}, which {path} names"
        notes = (f"preset {chosen_preset} is used {instead_of}",)
    elif not chosen_preset and not path:
        base = DEFAULT_PRESET
        default_notes = (f"no {CONFIG_NAME} here: using preset {DEFAULT_PRESET}",)

    settings: list[Setting] = []  # in the order in which they override each other
    if base:
        settings += _from_preset(base)
    if path:
        settings += _from_tables(tables, path.name, cwd / path.parent)
    settings += _from_environment(environ, cwd)
    settings += _from_sets(sets, cwd)
    settings += _from_flags(flags or {}, cwd)
    winners = {setting.key: setting for setting in settings}
    origins = {key: winners[key].origin if key in winners else "default" for key in FIELDS}
    return LoadedConfig(_validated(winners), origins, base, notes, default_notes)


class _Loader(yaml.SafeLoader):
    """YAML in which 3e-4 is a number, although YAML 1.1 demands 3.0e-4.

    A key that appears twice in a table is an error, as in TOML; PyYAML would take the second.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = []
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value} appears twice", problem_mark=key.start_mark
                )
            seen.append(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_config_file(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, or of a YAML file if its name ends in .yaml or .yml.

    Raises:
        ConfigError: the file is missing, unreadable, not UTF-8, or not what its name says.
    """
    language = "YAML" if path.suffix.lower() in (".yaml", ".yml") else "TOML"
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = _Loader(text).get_single_data() if language == "YAML" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(
            f"`{path}` cannot be read: {error.strerror}",
            hint="`tinygpt init` writes a tinygpt.toml",
        ) from error
    except _PARSE_ERRORS as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"`{path}` is not valid {language}: {reason}", hint="correct the file there"
        ) from error
    if not isinstance(values, dict | None):
        raise ConfigError(
            f"`{path}` contains no tables",
            hint="write, e.g., `train:` and below it, indented, `max_steps: 1000`",
        )
    return {str(name): table for name, table in (values or {}).items()}


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


def _from_environment(environ: Mapping[str, str], cwd: Path) -> Iterator[Setting]:
    for variable, text in environ.items():
        match = re.fullmatch(r"TINYGPT_([A-Z]+)_(\w+)", variable)
        if text and match and match[1].lower() in TABLES:
            key = f"{match[1]}.{match[2]}".lower()
            yield _setting(key, read_text(key, text), f"environment {variable}", cwd)


def _from_sets(sets: Iterable[str], cwd: Path) -> Iterator[Setting]:
    for item in sets:
        name, equals, text = item.partition("=")
        if not equals:
            raise ConfigError(
                f"`--set {item}` has no value",
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
    if key == "eval.text" and isinstance(value, str) and value != "none":
        return os.path.normpath(folder / value)
    return value


def _unknown(name: str, origin: str) -> ConfigError:
    """The error for a table or key that does not exist, with the nearest one that does.

    If it was set by an environment variable, both are spelled as environment variables.
    """
    is_variable = origin.startswith("environment ")
    written = origin.removeprefix("environment ") if is_variable else name
    in_other_tables = [known for known in FIELDS if known.endswith(f".{name.rpartition('.')[2]}")]
    near = in_other_tables or difflib.get_close_matches(name, [*FIELDS, *TABLES], 1)
    hint = "`tinygpt config show` lists the tables and their keys"
    if near and is_variable:
        hint = f"did you mean `TINYGPT_{near[0].replace('.', '_').upper()}`?"
    elif near:
        hint = f"did you mean `{near[0]}`?"
    return ConfigError(f"the configuration has no `{written}` (from {origin})", hint=hint)


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
    text = spell(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
