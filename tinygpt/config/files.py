"""Reads a configuration file, TOML or YAML, as plain tables; whatever is wrong with the file is a ConfigError that names it."""

import re
import tomllib
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from tinygpt.config.fields import quoted
from tinygpt.errors import ConfigError

MAX_BYTES = 1 << 20
PRESETS_FOLDER = Path(__file__).parents[1] / "presets"
PRESETS = tuple(sorted(path.stem for path in PRESETS_FOLDER.glob("*.toml")))


def read_config_file(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, or of a YAML file if its name ends in .yaml or .yml.

    Raises:
        ConfigError: the file is missing, unreadable, larger than 1 MB, not UTF-8, or not what its name says.
    """
    text = _read(path)
    language = "YAML" if path.suffix.lower() in (".yaml", ".yml") else "TOML"
    try:
        values = _StrictLoader(text).get_single_data() if language == "YAML" else tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"`{path}` is nested too deeply", hint="a configuration has tables, and keys in them") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:  # PyYAML lets all of these through
        raise ConfigError(f"`{path}` is not valid {language}: {_where(error)}", hint="correct the file there") from error
    if values is None:  # an empty YAML file
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"`{path}` holds no tables", hint="write, e.g., `train:` and below it, indented, `max_steps: 1000`")
    return {str(name): table for name, table in values.items()}


def read_preset(name: str) -> dict[str, Any]:
    """The tables of a preset.

    Raises:
        ConfigError: there is no preset of this name.
    """
    if name not in PRESETS:
        raise ConfigError(f"{quoted(name)} is not a preset", hint=f"the presets are {', '.join(PRESETS)}")
    return read_config_file(PRESETS_FOLDER / f"{name}.toml")


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"`{path}` does not exist", hint="`tinygpt init` writes a tinygpt.toml") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"`{path}` cannot be read: {reason}") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"`{path}` is larger than 1 MB", hint="a configuration is a few kilobytes; is this another file?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"`{path}` is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}", hint="save it as UTF-8"
        ) from error


def _where(error: Exception) -> str:
    """What a parser says, on one line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"{error.problem} (at line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1})"
    return " ".join(str(error).split()) or type(error).__name__


class _StrictLoader(yaml.SafeLoader):
    """YAML as a configuration needs it: a key once, no references (a few lines of them can fill the memory), 3e-4 is a number."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("references (`*name`) are not read; write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key `{key.value}` stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# YAML 1.1 wants a dot in 3e-4; everybody who writes a learning rate does not
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))
