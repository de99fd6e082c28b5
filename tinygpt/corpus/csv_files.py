"""CSV, checked (RFC 4180): every value is text, and every row has the fields of its header.

Python's strict reader refuses what others guess at: text after a closing quote, a quote that is
never closed, a carriage return outside quotes. The number of fields is checked here, so that a
comma in a text without quotes is an error and never another column.
"""

import csv
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from tinygpt.corpus.decoding import lines
from tinygpt.corpus.fields import column_of
from tinygpt.corpus.files import DocumentFile
from tinygpt.errors import InputError
from tinygpt.progress import Reporter

if TYPE_CHECKING:
    import _csv

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_START = 1 << 16
_QUOTING = (
    "put a text with separators, quotes or line ends in quotes, and double the quotes in it: "
    '`"He said ""Stop"", and left."`'
)


class Dialect(NamedTuple):
    """How a file is written.

    Args:
        delimiter: what separates fields: a key of DELIMITERS.
        spaced: whether a space follows each delimiter in the header; then it belongs to no field.
        newline: what ends a row: LF (also as CR-LF) or, in a file without LF, CR.
    """

    delimiter: str
    spaced: bool
    newline: str

    def __str__(self) -> str:
        return f"fields separated by {DELIMITERS[self.delimiter]}"


def sniff(file: DocumentFile, field: str) -> Dialect:
    """The dialect in which the header has a column `field`, else the most columns."""
    with file.open() as stream:
        start = stream.read(_START)
    newline = "\r" if b"\r" in start and b"\n" not in start else "\n"
    candidates = []
    for delimiter in DELIMITERS:
        dialect = Dialect(delimiter, spaced=False, newline=newline)
        names: list[str] = []
        # a wrong delimiter may stand after a closing quote, so this is not strict
        with suppress(csv.Error):
            names = next(filter(None, _reader(file, dialect, strict=False)), [])
        if len(names) > 1 and all(name.startswith(" ") for name in names[1:]):
            dialect = dialect._replace(spaced=True)
        found = field in [name.strip(' "') for name in names]
        candidates.append((found, len(names), dialect))
    return max(candidates, key=lambda candidate: candidate[:2])[2]


def documents(
    file: DocumentFile, field: str, dialect: Dialect, reporter: Reporter
) -> Iterator[str]:
    """One column as texts, in order, empty ones included; CR-LF within a text becomes LF.

    Rows may end in empty fields for which the header has no name, if all of them do.

    Args:
        file: what is read.
        field: the name of the column.
        dialect: from `sniff`.
        reporter: receives a note on the dialect.

    Raises:
        InputError: there is no such column, its name stands twice, or a row is malformed; the
            message names the line.
    """
    rows = _numbered_rows(file, dialect)
    _, header = next(rows, (0, [""]))
    names = [name.strip() for name in header]
    while len(names) > 1 and not names[-1]:
        names.pop()
    column = column_of(names, field, f"`{file.name}` ({dialect})")
    reporter.note(f"`{file.name}`: {dialect}, text in column `{field}`")
    width = None
    for number, row in rows:
        if not "".join(row).strip():
            yield ""
            continue
        if width is None:
            # in a single column, a comma at the end of a row belongs to its text
            width = len(header) if len(names) == 1 else max(len(row), len(names))
        if len(row) != width or any(row[len(names) :]):
            raise _wrong_width(f"`{file.name}`, line {number}", len(row), len(names), width)
        yield row[column].replace("\r\n", "\n")


def _reader(file: DocumentFile, dialect: Dialect, *, strict: bool) -> "_csv.Reader":
    csv.field_size_limit(2**31 - 1)  # Python's own limit is 128 KiB, less than a short novel
    return csv.reader(
        lines(file, dialect.newline),
        delimiter=dialect.delimiter,
        skipinitialspace=dialect.spaced,
        strict=strict,
    )


def _numbered_rows(file: DocumentFile, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of its first line."""
    reader = _reader(file, dialect, strict=True)
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            problem = _problem(str(error), number, reader.line_num)
            raise InputError(f"`{file.name}`, {problem}", hint=_QUOTING) from error
        if row is None:
            return
        if row:
            yield number, row


def _problem(error: str, first_line: int, line: int) -> str:
    """What Python's reader said, in words of a table instead of a parser."""
    if "unexpected end" in error:
        return f"line {first_line}: a quote is opened and never closed"
    if "expected after" in error:
        return f"line {line}: there is text after a closing quote"
    if "new-line character" in error:
        return f"line {line}: there is a carriage return outside quotes"
    return f"line {line}: {error}"


def _wrong_width(where: str, found: int, names: int, width: int) -> InputError:
    """The error for a row with another number of fields than the rows before it or the header."""
    if found >= width:
        problem = f"more fields than the header ({found} and {names})"
    elif width == names:
        problem = f"fewer fields than the header ({found} and {names})"
    else:
        problem = f"fewer fields than the rows before it ({found} and {width})"
    hint = _QUOTING
    if names == 1:
        hint += "; or, if each line is a text, name the file .txt: `--set data.separator=lines`"
    return InputError(f"{where} has {problem}", hint=hint)
