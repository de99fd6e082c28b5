"""JSON that is read as a type of tinygpt.records, and refused where it is something else."""

import json
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

Record = TypeVar("Record")


def parse(data: bytes, record: type[Record]) -> Record:
    """The value of a JSON file, checked against its type; keys that the type lacks are dropped.

    Raises:
        ValueError: it is not JSON, has another type, or a number in it is not finite. The text is
            one line.
    """
    return as_record(from_json(data, allow_inf_nan=False), record)


def as_record(value: object, record: type[Record]) -> Record:
    """A value as a type; see `parse`."""
    try:
        checked = _adapter(record).validate_python(value, strict=True)  # type: ignore[arg-type]
        json.dumps(checked, allow_nan=False)  # 1e999 is infinite
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"`{place}`: {first['msg'].lower()}" if place else first["msg"]) from None
    return checked  # type: ignore[no-any-return]


@cache
def _adapter(record: Any) -> TypeAdapter[Any]:
    return TypeAdapter(record)
