"""Writes a configuration as TOML, YAML or JSON, with the meaning or the origin of each value."""

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tinygpt.config.fields import FIELDS, TABLES, requirement, spell
from tinygpt.config.load import load_config
from tinygpt.config.tables import Config

WIDTH = 100

_HEAD = """\
# The configuration of tinygpt: every key with its meaning, the values it takes and its default.
# A key that is left out has its default; an unknown key is an error. "none" means off.
"""


class _Language(NamedTuple):
    """How a language writes the head of a table, a key with its value, and None."""

    table: str
    setting: str
    none: str
    indent: str
    """Before each key of a table."""


_LANGUAGES = {
    "toml": _Language(table="[{}]", setting="{} = {}", none='"none"', indent=""),
    "yaml": _Language(table="{}:", setting="{}: {}", none="null", indent="  "),
}


def render(config: Config, language: str, origins: Mapping[str, str] | None = None) -> str:
    """The whole configuration in a language.

    Args:
        config: the configuration.
        language: "toml" for a complete tinygpt.toml, "yaml" for the same in YAML, "json" for the
            tables as one object.
        origins: LoadedConfig.origins, to write behind each value where it came from (in JSON: as
            "origins" beside "config"); None to explain each key above it.
    """
    if language == "json":
        tables = config.model_dump(mode="json", by_alias=True)
        content = {"config": tables, "origins": dict(origins)} if origins else tables
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    written_in = _LANGUAGES[language]
    if origins:
        blocks = [_table_with_origins(config, table, written_in, origins) for table in TABLES]
    else:
        blocks = [_HEAD, *(_explained_table(config, table, written_in) for table in TABLES)]
    return "\n".join(blocks)


def _table_with_origins(
    config: Config, table: str, language: _Language, origins: Mapping[str, str]
) -> str:
    lines = [language.table.format(table)]
    for key, value in getattr(config, table).model_dump(by_alias=True).items():
        setting = _setting(key, value, language)
        origin = spell(origins[f"{table}.{key}"])[1:-1]  # escaped, without its quotes
        lines.append(f"{setting}  # {origin}")
    return "\n".join(lines) + "\n"


def _explained_table(config: Config, table: str, language: _Language) -> str:
    summary = (TABLES[table].__doc__ or "").splitlines()[0]
    lines = [f"# {summary}", language.table.format(table)]
    comment = f"{language.indent}# "
    for key, value in getattr(config, table).model_dump(by_alias=True).items():
        field = FIELDS[f"{table}.{key}"]
        default = spell(field.default, none=language.none)
        meaning = f"{field.description} ({requirement(f'{table}.{key}')}; default {default})"
        lines += textwrap.wrap(
            meaning,
            WIDTH,
            initial_indent=comment,
            subsequent_indent=comment,
            break_on_hyphens=False,
        )
        lines.append(_setting(key, value, language))
    return "\n".join(lines) + "\n"


def _setting(key: str, value: object, language: _Language) -> str:
    return language.indent + language.setting.format(key, spell(value, none=language.none))


def render_init(preset: str, source: str | None = None, *, cwd: Path | None = None) -> str:
    """What `tinygpt init --preset P --source S` writes: the preset, complete and explained.

    Args:
        preset: name of the preset.
        source: a value of `data.source`, relative to `cwd`; None keeps the preset's.
        cwd: the working directory; None for the process's own.

    Raises:
        ConfigError: no such preset.
    """
    loaded = load_config(
        preset=preset, flags={"data.source": ("--source", source)}, cwd=cwd, environ={}
    )
    return f"# Written by `tinygpt init --preset {preset}`.\n" + render(loaded.config, "toml")
