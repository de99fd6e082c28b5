"""A configuration file as tables: TOML, or YAML where the file's name says so."""

import codecs
import re
import stat
import tomllib
from collections.abc import Hashable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from tinygpt.errors import ConfigError

MAX_BYTES = 1 << 18  # a hundred times what a configuration takes; a parser takes seconds beyond
# tomllib takes memory that grows with the square of the parts of `a.b.c...`
_LONG_KEY = re.compile(r"""(\.[\w"'-]+){100}""")

_SAVE_AS_TEXT = "save it as UTF-8; a configuration is a text file in TOML or YAML"

# PyYAML raises all of these; tomllib raises ValueError and RecursionError.
_PARSE_ERRORS = (
    yaml.YAMLError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    RecursionError,
)


class _Loader(yaml.SafeLoader):
    """YAML in which 3e-4 is a number, although YAML 1.1 demands 3.0e-4.

    A key that appears twice in a table is an error, as in TOML; PyYAML would take the second. So is
    an alias that is not of a single value: it may contain itself, or expand without end.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        is_alias = self.check_event(yaml.AliasEvent)
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        if is_alias and not isinstance(node, yaml.ScalarNode):
            raise yaml.composer.ComposerError(
                problem="an alias of a table or list (write it out instead)", problem_mark=mark
            )
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        problem=f"{key.value} appears twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_config_file(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, or of a YAML file if its name ends in .yaml or .yml.

    Raises:
        ConfigError: the file is missing, unreadable, not a regular file, larger than MAX_BYTES, not
            UTF-8, or not what its name says.
    """
    language = "YAML" if path.suffix.lower() in (".yaml", ".yml") else "TOML"
    text = _read_text(path)
    try:
        values = _parse(text, language)
    except _PARSE_ERRORS as error:
        reason = " ".join(str(error).split()).replace(' in "<unicode string>",', " at")
        hint = _other_language(text, path, language) or "correct the file there"
        raise ConfigError(f"`{path}` is not valid {language}: {reason}", hint=hint) from error
    if not isinstance(values, dict | None):
        example = "write, e.g., `train:` and below it, indented, `max_steps: 1000`"
        raise ConfigError(
            f"`{path}` contains no tables", hint=_other_language(text, path, language) or example
        )
    return {str(name): table for name, table in (values or {}).items()}


def _read_text(path: Path) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would block, a device may never end
            raise ConfigError(f"`{path}` cannot be read: it is not a file", hint=_name_a_file(path))
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"`{path}` cannot be read: {error.strerror}",
            hint="check the path; `tinygpt init` writes a tinygpt.toml",
        ) from error
    if len(data) > MAX_BYTES:
        raise ConfigError(
            f"`{path}` has more than {MAX_BYTES:,} bytes, too many for a configuration",
            hint="text for training is named by `--source`, not `--config`",
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        is_utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        found = "is UTF-16" if is_utf_16 else f"is not UTF-8 (byte {error.start:,})"
        raise ConfigError(f"`{path}` {found}", hint=_SAVE_AS_TEXT) from error
    if "\0" in text:
        raise ConfigError(f"`{path}` contains NUL characters", hint=_SAVE_AS_TEXT)
    return text


def _name_a_file(path: Path) -> str:
    if path.is_dir():
        return f"name a file in it, e.g., `--config {path / 'tinygpt.toml'}`"
    return "copy it to a file first; pipes and devices are not read"


def _parse(text: str, language: str) -> Any:
    if language == "YAML":
        return _Loader(text).get_single_data()
    if _LONG_KEY.search(text):
        raise ValueError("a key of more than 100 parts")
    return tomllib.loads(text)


def _other_language(text: str, path: Path, language: str) -> str | None:
    """A hint, if a file of one language has the ending of the other."""
    other = "TOML" if language == "YAML" else "YAML"
    with suppress(*_PARSE_ERRORS):
        if isinstance(_parse(text, other), dict):
            renamed = path.with_suffix(f".{other.lower()}").name
            return f"it is {other}: rename it to `{renamed}`"
    return None
