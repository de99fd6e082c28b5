"""Each key of the configuration: its values in words, its value as text, and text as its value."""

import json
import tomllib
from typing import Any, cast

from pydantic import TypeAdapter

from tinygpt.config.table import Table
from tinygpt.config.tables import Config

TABLES: dict[str, type[Table]] = {
    name: cast(type[Table], field.annotation) for name, field in Config.model_fields.items()
}
"""The tables by name, in the order of tinygpt.toml."""

FIELDS = {
    f"{name}.{field.alias or key}": field
    for name, table in TABLES.items()
    for key, field in table.model_fields.items()
}
"""Every key by its full name, e.g., "train.max_steps"."""

_KINDS = {
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
    "array": "a list of texts",
    "null": '"none"',
}
_LIMITS = {
    "exclusiveMinimum": "more than",
    "minimum": "at least",
    "exclusiveMaximum": "less than",
    "maximum": "at most",
}


def requirement(name: str) -> str:
    """The values a key takes, in words, e.g., 'an integer, at least 1, or "none"'."""
    table, _, key = name.partition(".")
    schema = TABLES[table].model_json_schema()["properties"][key]
    kinds = schema.get("anyOf", [schema])  # a key that takes values of several kinds
    words = [_words(kind) for kind in kinds]
    comma = "," if "," in words[0] and len(words) > 1 else ""
    return " or ".join([words[0] + comma, *words[1:]])


def _words(kind: dict[str, Any]) -> str:
    """A JSON schema of one kind of values in words."""
    if "const" in kind:
        return f'"{kind["const"]}"'
    if "enum" in kind:
        return " or ".join(f'"{choice}"' for choice in kind["enum"])
    words = _KINDS[kind["type"]]
    limits = [f"{limit} {kind[key]}" for key, limit in _LIMITS.items() if key in kind]
    if "minLength" in kind:
        limits.append("not empty")
    return f"{words}, {' and '.join(limits)}" if limits else words


def read_text(name: str, text: str) -> object:
    """The value that a text (of `--set`, a flag or the environment) spells for a key.

    A text that does not spell a value of the key's type is returned unchanged: load_config checks
    all values together later, and refuses it there with the name of its key.
    """
    try:
        kind: Any = FIELDS[name].annotation
        if kind == tuple[str, ...]:
            return tomllib.loads(f"list = {text}")["list"]
        return TypeAdapter(kind).validate_strings(text)
    except (KeyError, ValueError, RecursionError):
        return text


def spell(value: object, *, none: str = '"none"') -> str:
    """A value as TOML writes it; what does not print is escaped.

    YAML reads the same value from it, if `none` is "null".
    """
    if value is None:
        return none
    text = json.dumps(value, ensure_ascii=False, default=str, skipkeys=True)
    if isinstance(value, float) and "." not in text:
        # YAML 1.1 reads 1e-05 as text; both languages read 1.0e-05 as a number
        text = text.replace("e", ".0e")
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in text)
