"""Writes a configuration as TOML, YAML or JSON, each key with its meaning or with where its value came from."""

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path

from tinygpt.config.fields import FIELDS, TABLES, requirement, spell
from tinygpt.config.load import load_config
from tinygpt.config.tables import Config

_HEAD = """\
# The configuration of tinygpt. Every key is here with its meaning, the values it takes and its default; a key that is left out
# has its default, and a key that tinygpt does not know is an error. "none" is off.
"""


_FORMS = {"toml": ("[{}]", "{} = {}", '"none"'), "yaml": ("{}:", "  {}: {}", "null")}
"""How each language writes the head of a table, a key with its value, and None."""


def render(config: Config, language: str, origins: Mapping[str, str] | None = None) -> str:
    """The whole configuration in a language: a complete tinygpt.toml, the same in YAML, or its tables as one JSON object.

    Args:
        language: toml, yaml or json.
        origins: LoadedConfig.origins, to say behind each value where it came from (in JSON: beside "config" as "origins"); None
            to explain each key above it.
    """
    if language == "json":
        tables = config.model_dump(mode="json")
        said = {"config": tables, "origins": dict(origins)} if origins else tables
        return json.dumps(said, indent=2, ensure_ascii=False) + "\n"
    header, line, none = _FORMS[language]
    indent = line[: len(line) - len(line.lstrip())]
    blocks = [] if origins else [_HEAD]
    for table, fields in TABLES.items():
        lines = [header.format(table)] if origins else [f"# {(fields.__doc__ or '').splitlines()[0]}", header.format(table)]
        for key, value in getattr(config, table):
            name, setting = f"{table}.{key}", line.format(key, spell(value, none=none))
            if origins:
                lines.append(f"{setting}  # {spell(origins[name])[1:-1]}")
            else:
                meaning = f"{FIELDS[name].description} ({requirement(name)}; default {spell(FIELDS[name].default, none=none)})"
                lines += textwrap.wrap(meaning, 118, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
                lines.append(setting)
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def render_init(preset: str, source: str | None = None, *, cwd: Path | None = None) -> str:
    """What `tinygpt init --preset P --source S` writes: the preset's values, complete and explained.

    Args:
        source: a value of `data.source`, relative to `cwd`; None keeps the preset's.

    Raises:
        ConfigError: no such preset.
    """
    loaded = load_config(preset=preset, flags={"data.source": ("--source", source)}, cwd=cwd, environ={})
    return f"# Written by `tinygpt init --preset {preset}`.\n" + render(loaded.config, "toml")
