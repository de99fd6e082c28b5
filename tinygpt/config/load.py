"""From files, presets, environment and flags to one frozen Config that knows where each value came from."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tinygpt.config.fields import FIELDS, TABLES, nearest, quoted, read_text, requirement, spell
from tinygpt.config.files import read_config_file, read_preset
from tinygpt.config.source import FileSource, parse_source
from tinygpt.config.tables import Config
from tinygpt.errors import ConfigError

CONFIG_NAME = "tinygpt.toml"
PRESET_VARIABLE = "TINYGPT_PRESET"
STORE_VARIABLE = "TINYGPT_STORE"
PATH_KEYS = ("data.source", "eval.text")


@dataclass(frozen=True)
class LoadedConfig:
    """A configuration and where it came from.

    Args:
        origins: for each key ("train.max_steps") "default", "preset laptop", the name of the file, "environment TINYGPT_...",
            "--set" or the flag ("--max-steps").
        path: the file that was read, if any.
        preset: the preset below the file, or instead of one, if any.
        notes: lines the user should see.
    """

    config: Config
    origins: Mapping[str, str]
    path: Path | None
    preset: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Setting:
    """One value for one key, from one place."""

    name: str
    value: object
    origin: str


def load_config(
    *,
    config_file: Path | None = None,
    preset: str | None = None,
    sets: Sequence[str] = (),
    flags: Mapping[str, tuple[str, object]] | None = None,
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> LoadedConfig:
    """Read the configuration: flag > `sets` > environment > file > preset > default.

    Without `config_file`, a tinygpt.toml is looked for upwards from `cwd`; a preset replaces it. A file may name its base by a
    first key `preset = "laptop"`. Relative paths start from the folder of the file that sets them, elsewhere from `cwd`.

    Args:
        sets: "table.key=value", read by the key's type.
        flags: key -> (flag as typed, value); a value of None is a flag that was not given, a str is read like one of `sets`.
        cwd: the working directory; None for the process's own.
        environ: variables such as TINYGPT_TRAIN_MAX_STEPS (an empty one counts as unset); None for the process's own.

    Raises:
        ConfigError: the first thing that is wrong, the place it came from, and what to write instead.
    """
    cwd = Path.cwd() if cwd is None else cwd
    environ = os.environ if environ is None else environ
    chosen = preset or environ.get(PRESET_VARIABLE) or None
    found = find_config(cwd)
    path = config_file if config_file is not None or chosen else found
    notes = []
    if chosen and found and config_file is None:
        notes.append(f"preset {chosen} replaces {found}; `--config {found}` lays the file over the preset")
    tables = read_config_file(cwd / path) if path else {}
    base = tables.pop("preset", None)
    if base is not None and not isinstance(base, str):
        raise ConfigError(
            f"`preset` = {spell(base)} in {path} is not the name of a preset", hint='write, e.g., `preset = "laptop"`'
        )
    if chosen and base and chosen != base:
        notes.append(f"preset {chosen} is used instead of preset {base}, which {path} names")
    name = chosen or base

    settings = list(_from_tables(read_preset(name), f"preset {name}", None) if name else [])
    settings += _from_tables(tables, path.name, cwd / path.parent) if path else []
    settings += [
        _resolved(setting, cwd) for setting in [*_from_environment(environ), *_from_sets(sets), *_from_flags(flags or {})]
    ]
    merged = {setting.name: setting for setting in settings}
    origins = {key: merged[key].origin if key in merged else "default" for key in FIELDS}
    return LoadedConfig(_validated(merged), origins, path, name, tuple(notes))


def find_config(cwd: Path) -> Path | None:
    """The tinygpt.toml in `cwd` or in the nearest folder above it."""
    return next((folder / CONFIG_NAME for folder in (cwd, *cwd.parents) if (folder / CONFIG_NAME).is_file()), None)


def store_root(flag: Path | None, *, cwd: Path | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """The folder of the store: `--store`, TINYGPT_STORE, artifacts/ beside the tinygpt.toml found from `cwd`, or `cwd`/artifacts.

    It does not depend on `--config` and `--preset`: recipes tried in one place share one store.
    """
    cwd = Path.cwd() if cwd is None else cwd
    named = flag or (os.environ if environ is None else environ).get(STORE_VARIABLE)
    if named:
        return cwd / Path(named).expanduser()
    found = find_config(cwd)
    return (found.parent if found else cwd) / "artifacts"


def _from_tables(tables: Mapping[str, Any], origin: str, folder: Path | None) -> Iterator[_Setting]:
    """The settings of a file in `folder`, or of a preset (None), whose paths are no paths of the user's."""
    for table, values in tables.items():
        if table not in TABLES:
            raise _unknown(table, origin)
        if not isinstance(values, dict | None):
            raise ConfigError(
                f"`{table}` = {_shown(values)} is not a table (from {origin})", hint=f"write `[{table}]` and its keys below it"
            )
        for key, value in (values or {}).items():
            setting = _known(f"{table}.{key}", value, origin)
            yield _resolved(setting, folder) if folder else setting


def _from_environment(environ: Mapping[str, str]) -> Iterator[_Setting]:
    for table in TABLES:
        prefix = f"TINYGPT_{table.upper()}_"
        for variable in sorted(environ):
            if variable.startswith(prefix) and (text := environ[variable]):
                name = f"{table}.{variable.removeprefix(prefix).lower()}"
                yield _from_text(name, text, f"environment {variable}")


def _from_sets(sets: Iterable[str]) -> Iterator[_Setting]:
    for item in sets:
        name, equals, text = item.partition("=")
        if not equals:
            raise ConfigError(
                f"`--set {quoted(item)[1:-1]}` has no value",
                hint="write `--set table.key=value`, e.g., `--set train.max_steps=1000`",
            )
        yield _from_text(name.strip(), text, "--set")


def _from_flags(flags: Mapping[str, tuple[str, object]]) -> Iterator[_Setting]:
    for name, (flag, value) in flags.items():
        if isinstance(value, str | os.PathLike):
            yield _from_text(name, os.fspath(value), flag)
        elif value is not None:
            yield _known(name, value, flag)


def _from_text(name: str, text: str, origin: str) -> _Setting:
    return _known(name, read_text(name, text) if name in FIELDS else text, origin)


def _known(name: str, value: object, origin: str) -> _Setting:
    """The setting, if there is such a key and its value can be written down again."""
    if name not in FIELDS:
        raise _unknown(name, origin)
    for item in value if isinstance(value, list | tuple) else [value]:
        if isinstance(item, str) and any("\ud800" <= char <= "\udfff" or char == "\0" for char in item):
            raise ConfigError(
                f"`{name}` = {_shown(value)} holds a character that is no text (from {origin})", hint="write it in UTF-8"
            )
        if isinstance(item, int) and abs(item) >= 2**63:
            raise ConfigError(f"`{name}` is a number that 64 bits do not hold (from {origin})", hint=FIELDS[name].description)
    return _Setting(name, value, origin)


def _unknown(name: str, origin: str) -> ConfigError:
    """An unknown key, or an unknown table where the name has no dot; the hint is in the spelling that the place uses."""
    shown, known = quoted(name)[1:-1], nearest(name)
    if origin.startswith("environment "):
        shown, known = origin.split()[1], known and f"TINYGPT_{known.replace('.', '_').upper()}"
    kind = "key" if "." in name or origin == "--set" else "table"
    hint = f"did you mean `{known}`?" if known else "`tinygpt config show` lists the tables and their keys"
    return ConfigError(f"`{shown}` is not a {kind} of the configuration (from {origin})", hint=hint)


def _resolved(setting: _Setting, folder: Path) -> _Setting:
    """The setting with a relative path in it made absolute."""
    value = setting.value
    if (
        setting.name not in PATH_KEYS
        or not isinstance(value, str)
        or not value
        or (setting.name == "eval.text" and value == "none")
    ):
        return setting
    if setting.name == "data.source":
        source = parse_source(value, folder)
        return (
            _Setting(setting.name, os.path.normpath(source.pattern), setting.origin)
            if isinstance(source, FileSource)
            else setting
        )
    return _Setting(setting.name, os.path.normpath(folder / value), setting.origin)


def _validated(merged: Mapping[str, _Setting]) -> Config:
    tables: dict[str, dict[str, object]] = {}
    for setting in merged.values():
        table, _, key = setting.name.partition(".")
        tables.setdefault(table, {})[key] = setting.value
    try:
        return Config.model_validate(tables)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if len(first["loc"]) < 2:  # keys that do not fit each other: the table's own words, "what; what to do"
            message, _, hint = str(first["ctx"]["error"]).partition("; ")
            raise ConfigError(message, hint=hint or None) from None
        setting = merged[".".join(map(str, first["loc"][:2]))]
        field = FIELDS[setting.name]
        raise ConfigError(
            f"`{setting.name}` = {_shown(setting.value)} is not valid: "
            f"must be {requirement(setting.name)} (from {setting.origin})",
            hint=f"{field.description}; the default is {spell(field.default)}",
        ) from None


def _shown(value: object) -> str:
    try:
        text = spell(value) if isinstance(value, str | bool | int | float | None | list) else str(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        text = "(a very long number)"
    return text if len(text) <= 80 else f"{text[:77]}..."
