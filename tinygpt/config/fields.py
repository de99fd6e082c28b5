"""What is known of each key: the values it takes, in words; its value as a text; a text as its value."""

import json
import tomllib
from typing import Any, cast

from pydantic import TypeAdapter

from tinygpt.config.tables import Config, Table

TABLES: dict[str, type[Table]] = {name: cast(type[Table], field.annotation) for name, field in Config.model_fields.items()}
"""The tables by name, in the order of tinygpt.toml."""

FIELDS = {f"{name}.{key}": field for name, table in TABLES.items() for key, field in table.model_fields.items()}
"""Every key by its full name, e.g., "train.max_steps"."""

_KINDS = {"integer": "an integer", "number": "a number", "boolean": "true or false", "string": "text", "array": "a list of texts"}
_LIMITS = {"exclusiveMinimum": "more than", "minimum": "at least", "exclusiveMaximum": "less than", "maximum": "at most"}


def requirement(name: str) -> str:
    """The values a key takes, in words, e.g., 'an integer, at least 1, or "none"'."""
    table, _, key = name.partition(".")
    schema = TABLES[table].model_json_schema()["properties"][key]
    kind, *none = schema.get("anyOf", [schema])
    if "enum" in kind:
        words = " or ".join(f'"{choice}"' for choice in kind["enum"])
    else:
        limits = [f"{limit} {kind[name]}" for name, limit in _LIMITS.items() if name in kind]
        limits += ["not empty"] if "minLength" in kind else []
        words = _KINDS[kind["type"]] + (f", {' and '.join(limits)}" if limits else "")
    if none:
        words += ', or "none"' if "," in words else ' or "none"'
    return words


def read_text(name: str, text: str) -> object:
    """The value that `--set`, a flag or the environment spells for a key; the text itself where it spells none.

    What is returned is checked with all other values later, so a text of the wrong type is refused there with its key's name.
    """
    try:
        kind: Any = FIELDS[name].annotation
        if kind == tuple[str, ...]:
            return tomllib.loads(f"list = {text}")["list"]
        return TypeAdapter(kind).validate_strings(text)
    except (KeyError, ValueError, RecursionError):
        return text


def spell(value: object, *, none: str = '"none"') -> str:
    """A value as TOML writes it, which YAML reads as the same value where `none` is "null"; what does not print is escaped."""
    if value is None:
        return none
    text = json.dumps(value, ensure_ascii=False, default=str, skipkeys=True)
    if isinstance(value, float) and "." not in text:
        text = text.replace("e", ".0e")  # YAML 1.1 takes 1e-05 for a text; both languages take 1.0e-05 for a number
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in text)
