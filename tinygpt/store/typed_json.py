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
    try:
        adapter = _adapter(record)  # type: ignore[arg-type]
        value = adapter.validate_python(from_json(data, allow_inf_nan=False), strict=True)
        json.dumps(value, allow_nan=False)  # 1e999 is infinite
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"`{place}`: {first['msg'].lower()}" if place else first["msg"]) from None
    return value  # type: ignore[no-any-return]


@cache
def _adapter(record: Any) -> TypeAdapter[Any]:
    return TypeAdapter(record)
