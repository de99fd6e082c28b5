"""JSON: one value a line, or one array; a text is a string or a field of an object.

Python's own parser reads it. That of `datasets`, which is pyarrow's, ends the process on deeply
nested brackets, turns texts that look like dates into dates, takes a record without the field for a
null, and reports no line numbers.
"""

import json
from collections.abc import Iterator
from typing import Any

from tinygpt.corpus.decoding import lines
from tinygpt.corpus.fields import reason, text_of
from tinygpt.corpus.files import DocumentFile
from tinygpt.errors import InputError


def documents(file: DocumentFile, field: str) -> Iterator[str]:
    """The texts in a file, in order, empty ones included; blank lines are none.

    One line is in memory at a time; of an array, the whole file.

    Args:
        file: what is read.
        field: see fields.text_of.

    Raises:
        InputError: it is not JSON, or a record has no such field; the message names the line.
    """
    first_line = next((line for line in lines(file) if line.strip()), "")
    if first_line.lstrip().startswith("["):
        records = _parsed("".join(lines(file)), f"`{file.name}`")
        for number, record in enumerate(records, 1):
            yield text_of(record, field, f"`{file.name}`, record {number}")
        return
    for number, line in enumerate(lines(file), 1):
        if line.strip():
            where = f"`{file.name}`, line {number}"
            yield text_of(_parsed(line, where), field, where)


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{where}: not valid JSON: {reason(error)}",
            hint="write one JSON value a line, or one array of them",
        ) from error
