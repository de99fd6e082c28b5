"""The text in a record: an object of JSON, a row of Parquet or of a dataset of the hub."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tinygpt.errors import InputError

_FIELD_HINT = "name the field that holds the text, e.g., `--set data.text_field=story`"


def text_of(record: object, field: str, where: str) -> str:
    """The text in a record: the record itself if it is a string, else its `field`; empty for null.

    Args:
        record: a string, or an object with fields.
        field: the field that holds the text; `story.text` is the field `text` of the object in
            `story`, unless a field has this very name.
        where: file and line, for errors.

    Raises:
        InputError: there is no such field, or it does not hold text.
    """
    if isinstance(record, str):
        return record
    if not isinstance(record, Mapping):
        expected = f"expected an object with the field `{field}`"
        raise InputError(f"{where}: {expected}, found {record!r:.60}")
    try:
        value = _value(record, field)
    except KeyError:
        raise _missing(field, list(_names(record)), where) from None
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise not_utf_8(error, field, where) from error
    if not isinstance(value, str | None):
        raise InputError(
            f"{where}: the field `{field}` holds {value!r:.60}, not text", hint=_FIELD_HINT
        )
    return value or ""


def column_of(names: Sequence[str], field: str, where: str) -> int:
    """The index of the one column that has the name `field`.

    Args:
        names: of all columns; those of fields in a struct are paths.
        field: the name.
        where: the file, for errors.

    Raises:
        InputError: no column has this name, or several have.
    """
    if field not in names:
        raise _missing(field, names, where)
    if names.count(field) > 1:
        raise InputError(
            f"{where}: {names.count(field)} columns have the name `{field}`",
            hint="rename all but one of them",
        )
    return names.index(field)


def _missing(field: str, present: Sequence[str], where: str) -> InputError:
    shown = ", ".join(f"`{name:.60}`" for name in present[:20]) or "none"
    more = f" and {len(present) - 20:,} more" if len(present) > 20 else ""
    return InputError(
        f"{where}: no field `{field}`; fields present: {shown}{more}", hint=_FIELD_HINT
    )


def not_utf_8(error: UnicodeDecodeError, field: str, where: str) -> InputError:
    """The error for bytes in a field that are not UTF-8."""
    wrong_byte = f"byte 0x{error.object[error.start]:02x} at position {error.start + 1}"
    return InputError(f"{where}: `{field}` is not UTF-8 ({wrong_byte})", hint=_FIELD_HINT)


def _value(record: Mapping[str, Any], field: str) -> Any:
    """The value of a field by its own name or its path; KeyError if there is none."""
    if field in record:
        return record[field]
    outer, _, inner = field.partition(".")
    value = record[outer]
    if value is None and inner:
        return None
    if not inner or not isinstance(value, Mapping):
        raise KeyError(field)
    return _value(value, inner)


def _names(record: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The names of all fields, those of inner objects as paths."""
    for name, value in record.items():
        if isinstance(value, Mapping) and value:
            yield from _names(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def reason(error: Exception) -> str:
    """The first line of what a library said, without a final period."""
    said = error.strerror if isinstance(error, OSError) else None
    text = said or str(error) or type(error).__name__
    return text.strip().splitlines()[0].rstrip(".")
