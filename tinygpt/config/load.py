"""From files, presets, environment and flags to one frozen Config that knows where each value came from."""

import difflib
import os
import re
import tomllib
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from tinygpt.config.fields import FIELDS, TABLES, read_text, requirement, spell
from tinygpt.config.source import FileSource, parse_source
from tinygpt.config.tables import Config
from tinygpt.errors import ConfigError

CONFIG_NAME = "tinygpt.toml"
PRESETS_FOLDER = Path(__file__).parents[1] / "presets"
PRESETS = tuple(sorted(path.stem for path in PRESETS_FOLDER.glob("*.toml")))
NO_TEXT = re.compile("[\0\ud800-\udfff]")


class LoadedConfig(NamedTuple):
    """A configuration and where it came from.

    Args:
        origins: for each key ("train.max_steps") "default", "preset laptop", the name of the file, "environment TINYGPT_...",
            "--set" or the flag ("--max-steps").
        preset: the preset below the file, or instead of one, if any.
        notes: lines the user should see.
    """

    config: Config
    origins: Mapping[str, str]
    preset: str | None
    notes: tuple[str, ...]


_Setting = tuple[str, object, str]
"""One value from one place: the key, the value, the place."""


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

    Without `config_file`, a tinygpt.toml is looked for upwards from `cwd`; a preset replaces it. A file may name its base by a
    first key `preset = "laptop"`. Relative paths start from the folder of the file that sets them, elsewhere from `cwd`.

    Args:
        sets: "table.key=value", read by the key's type.
        flags: key -> (flag as typed, value); a value of None is a flag that was not given, a str is read like one of `sets`.
        cwd: the working directory; None for the process's own.
        environ: variables such as TINYGPT_TRAIN_MAX_STEPS (an empty one counts as unset).

    Raises:
        ConfigError: the first thing that is wrong, the place it came from, and what to write instead.
    """
    cwd = Path.cwd() if cwd is None else cwd
    chosen = preset or environ.get("TINYGPT_PRESET")
    found = find_config(cwd)
    path = config_file if config_file is not None or chosen else found
    tables = read_config_file(cwd / path) if path else {}
    base = tables.pop("preset", None)
    notes = []
    if chosen and found and config_file is None:
        notes.append(f"preset {chosen} replaces {found}; `--config {found}` lays the file over the preset")
    if chosen and base and chosen != base:
        notes.append(f"preset {chosen} is used instead of preset {base}, which {path} names")
    name = chosen or base

    settings: list[_Setting] = []
    if name:
        if name not in PRESETS:
            raise ConfigError(f"{spell(name)} is not a preset", hint=f"the presets are {', '.join(PRESETS)}")
        settings += _from_tables(read_config_file(PRESETS_FOLDER / f"{name}.toml"), f"preset {name}", PRESETS_FOLDER)
    if path:
        settings += _from_tables(tables, path.name, cwd / path.parent)
    typed_flags = [(key, value, flag) for key, (flag, value) in (flags or {}).items() if value is not None]
    for key, value, origin in (*_environment(environ), *_sets(sets), *typed_flags):
        settings.append(_setting(key, read_text(key, value) if isinstance(value, str) else value, origin, cwd))
    merged = {key: (value, origin) for key, value, origin in settings}
    origins = {key: merged[key][1] if key in merged else "default" for key in FIELDS}
    return LoadedConfig(_validated(merged), origins, name, tuple(notes))


class _Loader(yaml.SafeLoader):
    """YAML in which 3e-4 is a number: YAML 1.1 wants a dot in it, everybody who writes a learning rate does not.

    A key that stands twice is an error, as in TOML, where PyYAML would take the second.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        for number, (key, _) in enumerate(node.value):
            if key.value in keys[:number]:
                raise yaml.constructor.ConstructorError(problem=f"{key.value} stands there twice", problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


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
        raise ConfigError(f"`{path}` cannot be read: {error.strerror}", hint="`tinygpt init` writes a tinygpt.toml") from error
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:  # all PyYAML's
        why = " ".join(str(error).split())
        raise ConfigError(f"`{path}` is not valid {language}: {why}", hint="correct the file there") from error
    if not isinstance(values, dict | None):
        raise ConfigError(f"`{path}` holds no tables", hint="write, e.g., `train:` and below it, indented, `max_steps: 1000`")
    return {str(name): table for name, table in (values or {}).items()}


def find_config(cwd: Path) -> Path | None:
    """The tinygpt.toml in `cwd` or in the nearest folder above it."""
    return next((folder / CONFIG_NAME for folder in (cwd, *cwd.parents) if (folder / CONFIG_NAME).is_file()), None)


def store_root(flag: Path | None, *, cwd: Path | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of the store: `--store`, TINYGPT_STORE, artifacts/ beside the tinygpt.toml found from `cwd`, or `cwd`/artifacts.

    It does not depend on `--config` and `--preset`: recipes tried in one place share one store.
    """
    cwd = Path.cwd() if cwd is None else cwd
    if named := flag or environ.get("TINYGPT_STORE"):
        return cwd / Path(named).expanduser()
    found = find_config(cwd)
    return (found.parent if found else cwd) / "artifacts"


def _from_tables(tables: Mapping[str, Any], origin: str, folder: Path) -> Iterator[_Setting]:
    for table, values in tables.items():
        if table not in TABLES:
            raise _unknown(table, origin)
        if not isinstance(values, dict | None):
            wrong = f"`{table}` = {_shown(values)} is not a table (from {origin})"
            raise ConfigError(wrong, hint=f"write `[{table}]` and its keys below it")
        for key, value in (values or {}).items():
            yield _setting(f"{table}.{key}", value, origin, folder)


def _environment(environ: Mapping[str, str]) -> Iterator[_Setting]:
    for variable, text in environ.items():
        match = re.fullmatch(r"TINYGPT_([A-Z]+)_(\w+)", variable)
        if text and match and match[1].lower() in TABLES:
            yield f"{match[1]}.{match[2]}".lower(), text, f"environment {variable}"


def _sets(sets: Iterable[str]) -> Iterator[_Setting]:
    for item in sets:
        name, equals, text = item.partition("=")
        if not equals:
            hint = "write `--set table.key=value`, e.g., `--set train.max_steps=1000`"
            raise ConfigError(f"`--set {item}` has no value", hint=hint)
        yield name.strip(), text, "--set"


def _setting(name: str, value: object, origin: str, folder: Path) -> _Setting:
    """The setting, a relative path in it made absolute, if there is such a key and its value can be written down again."""
    if name not in FIELDS:
        raise _unknown(name, origin)
    if (isinstance(value, str) and NO_TEXT.search(value)) or (isinstance(value, int) and abs(value) >= 2**63):
        raise ConfigError(f"`{name}` (from {origin}) holds a character that is no text, or a number that 64 bits do not hold")
    if name == "data.source" and isinstance(value, str) and value:
        source = parse_source(value, folder)
        value = os.path.normpath(source.pattern) if isinstance(source, FileSource) else value
    elif name == "eval.text" and isinstance(value, str) and value != "none":
        value = os.path.normpath(folder / value)
    return name, value, origin


def _unknown(name: str, origin: str) -> ConfigError:
    """An unknown table or key; the hint is in the spelling that the place uses."""
    elsewhere = [known for known in FIELDS if known.endswith(f".{name.rpartition('.')[2]}")]
    shown, near = name, elsewhere or difflib.get_close_matches(name, [*FIELDS, *TABLES], 1)
    if origin.startswith("environment "):
        shown, near = origin.split()[1], [f"TINYGPT_{known.replace('.', '_').upper()}" for known in near]
    hint = f"did you mean `{near[0]}`?" if near else "`tinygpt config show` lists the tables and their keys"
    return ConfigError(f"the configuration has no `{shown}` (from {origin})", hint=hint)


def _validated(merged: Mapping[str, tuple[object, str]]) -> Config:
    tables: dict[str, dict[str, object]] = {}
    for name, (value, _) in merged.items():
        table, _, key = name.partition(".")
        tables.setdefault(table, {})[key] = value
    try:
        return Config.model_validate(tables)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    if len(first["loc"]) < 2:  # keys that do not fit each other: the table's own words, "what; what to do"
        wrong, _, hint = str(first["ctx"]["error"]).partition("; ")
        raise ConfigError(wrong, hint=hint or None)
    name = ".".join(map(str, first["loc"][:2]))
    value, origin = merged[name]
    wrong = f"`{name}` = {_shown(value)} is not valid: must be {requirement(name)} (from {origin})"
    raise ConfigError(wrong, hint=f"{FIELDS[name].description}; the default is {spell(FIELDS[name].default)}")


def _shown(value: object) -> str:
    text = spell(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
