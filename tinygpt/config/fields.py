"""What is known of each key: the values it takes, in words; its value as a text; a text as its value."""

import difflib
import json
import tomllib
from types import MappingProxyType
from typing import Annotated, Any, Literal, cast, get_args, get_origin

from pydantic.fields import FieldInfo

from tinygpt.config.tables import Config, Table

TABLES: MappingProxyType[str, type[Table]] = MappingProxyType(
    {name: cast(type[Table], field.annotation) for name, field in Config.model_fields.items()}
)
"""The tables by name, in the order of tinygpt.toml."""

FIELDS: MappingProxyType[str, FieldInfo] = MappingProxyType(
    {f"{name}.{key}": field for name, table in TABLES.items() for key, field in table.model_fields.items()}
)
"""Every key by its full name, e.g., "train.max_steps"."""


def requirement(name: str) -> str:
    """The values a key takes, in words, e.g., 'an integer, at least 1, or "none"'."""
    kind, bounds, optional = _anatomy(FIELDS[name].annotation, FIELDS[name].metadata)
    if get_origin(kind) is Literal:
        words = " or ".join(f'"{choice}"' for choice in get_args(kind))
    else:
        noun = {bool: "true or false", int: "an integer", float: "a number", str: "text"}.get(kind, "a list of texts")
        limits = " and ".join(filter(None, (_limit(bound, whole=kind is int) for bound in bounds)))
        words = f"{noun}, {limits}" if limits else noun
    if optional:
        words += ', or "none"' if "," in words else ' or "none"'
    return words


def read_text(name: str, text: str) -> object:
    """The value that `--set`, a flag or the environment spells for a key; the text itself where it spells none.

    What is returned is checked with all other values later, so a text of the wrong type is refused there with its key's name.
    """
    kind, _, _ = _anatomy(FIELDS[name].annotation, [])
    try:
        if kind is bool:
            return {"true": True, "false": False}[text]
        if kind is int or kind is float:
            return kind(text)
        if get_origin(kind) is tuple:
            return tomllib.loads(f"list = {text}")["list"]
    except (ValueError, KeyError, RecursionError):
        pass
    return text


def nearest(name: str) -> str | None:
    """The known key that an unknown one most probably means, or the table if the name has no dot; None if nothing is near."""
    table, _, key = name.rpartition(".")
    elsewhere = [known for known in FIELDS if known.endswith(f".{key}")]
    in_table = [known for known in FIELDS if known.startswith(f"{table}.")]
    for candidates, cutoff in ((elsewhere, 0.0), (in_table or list(TABLES), 0.6), (FIELDS, 0.6)):
        if found := difflib.get_close_matches(name, candidates, 1, cutoff):
            return found[0]
    return None


def spell(value: object, *, none: str = '"none"') -> str:
    """A value as TOML writes it, which YAML reads as the same value where `none` is "null"."""
    match value:
        case None:
            return none
        case bool():
            return "true" if value else "false"
        case float():
            mantissa, e, exponent = repr(value).partition("e")
            # YAML 1.1 takes 1e-05 for a text; both languages take 1.0e-05 for a number
            return f"{mantissa}.0e{exponent}" if e and "." not in mantissa else repr(value)
        case str():
            return quoted(value)
        case list() | tuple():
            return "[" + ", ".join(spell(item) for item in value) + "]"
        case _:
            return str(value)


def quoted(text: str) -> str:
    """`text` between double quotes, on one line, as TOML and YAML both read it; what does not print is escaped."""
    return "".join(char if char == " " or char.isprintable() else _escape(char) for char in json.dumps(text, ensure_ascii=False))


def _escape(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def _anatomy(annotation: Any, bounds: list[Any]) -> tuple[Any, list[Any], bool]:
    """The type without None and Annotated, the bounds found on the way, and whether None is allowed."""
    if get_origin(annotation) is Annotated:
        inner, *extra = get_args(annotation)
        return _anatomy(inner, [*bounds, *(bound for info in extra for bound in info.metadata)])
    members = get_args(annotation)
    if type(None) not in members:
        return annotation, bounds, False
    kind, bounds, _ = _anatomy(next(member for member in members if member is not type(None)), bounds)
    return kind, bounds, True


def _limit(bound: object, *, whole: bool) -> str:
    """A constraint of a field in words; "" for one that says nothing about the value."""
    if whole and hasattr(bound, "gt"):
        return f"at least {bound.gt + 1}"
    if hasattr(bound, "min_length"):
        return "not empty"
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    return next((f"{words[name]} {getattr(bound, name)}" for name in words if hasattr(bound, name)), "")
