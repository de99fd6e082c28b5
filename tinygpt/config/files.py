"""Reads a configuration file, TOML or YAML, as plain tables; whatever is wrong with the file is a ConfigError that names it."""

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

from tinygpt.config.fields import spell
from tinygpt.errors import ConfigError

PRESETS_FOLDER = Path(__file__).parents[1] / "presets"
PRESETS = tuple(sorted(path.stem for path in PRESETS_FOLDER.glob("*.toml")))


class _Loader(yaml.SafeLoader):
    """YAML in which 3e-4 is a number: YAML 1.1 wants a dot in it, everybody who writes a learning rate does not."""


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


def read_preset(name: object) -> dict[str, Any]:
    """The tables of a preset.

    Raises:
        ConfigError: there is no preset of this name.
    """
    if name not in PRESETS:
        raise ConfigError(f"{spell(name)} is not a preset", hint=f"the presets are {', '.join(PRESETS)}")
    return read_config_file(PRESETS_FOLDER / f"{name}.toml")
