"""Documents out of files: text, JSON, CSV and Parquet, each also compressed with gzip.

Text (.txt): a line `<|endoftext|>` separates documents. In a file without such a line, two or more
blank lines separate documents if they occur anywhere between lines of text; otherwise each blank
line does; a file without blank lines is one document.
JSON (.jsonl, .json): each line is an object with the text field, or a string; a .json file may
instead be one array of these.
CSV and Parquet: the readers of `datasets`, one column of text.

JSON does not go through `datasets`. Its reader, which is pyarrow's, kills the process on deeply
nested brackets, turns texts that look like dates into dates, takes a record without the field for a
null, and reports no line numbers.
"""

import glob
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinygpt.corpus.files import DocumentFile
from tinygpt.errors import InputError
from tinygpt.progress import Reporter

SEPARATOR = "<|endoftext|>"
_FIELD_HINT = "name the field that holds the text, e.g., `--set data.text_field=story`"
_RULES = (
    " and no blank line, so it is one document",
    ", so each blank line ends a document",
    ", so two or more blank lines end a document",
)
"""What separates documents, by the result of _separating_blank_lines."""


def documents(files: Sequence[DocumentFile], field: str, reporter: Reporter) -> Iterator[str]:
    """The texts in the files, in order, empty ones included.

    One document is in memory at a time; of a .json array, one file.

    Args:
        files: from files.find.
        field: the column or JSON field that holds the text.
        reporter: if there is only one file, receives a note on how it is split.

    Raises:
        InputError: a file is not what its name says; the message names file and line.
    """
    for file in files:
        try:
            if not file.path.stat().st_size:
                continue
            if file.format == ".txt":
                yield from _text(file, reporter if len(files) == 1 else None)
            elif file.format in (".jsonl", ".json"):
                yield from _json(file, field)
            else:
                yield from _table(file, field)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"cannot read `{file.name}`: {reason(error)}") from error


def _lines(file: DocumentFile) -> Iterator[tuple[int, str]]:
    """Numbered lines, decoded strictly, without a byte order mark."""
    with file.open() as stream:
        for number, line in enumerate(stream, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                wrong_byte = f"byte 0x{line[error.start]:02x} at position {error.start + 1}"
                raise InputError(
                    f"`{file.name}`, line {number}: not UTF-8 ({wrong_byte})",
                    hint="convert it, e.g., `iconv -f latin1 -t utf-8 old.txt > new.txt`",
                ) from error
            yield number, text


def _separating_blank_lines(file: DocumentFile) -> int | None:
    """How many blank lines separate the documents of a text file: 1 or 2.

    0 means that the whole file is one document; None, that `<|endoftext|>` separates documents.
    """
    longest_gap = 0
    blank = 0
    text_seen = False
    for _, line in _lines(file):
        content = line.strip()
        if content == SEPARATOR:
            return None
        if not content:
            blank += 1
            continue
        if text_seen:
            longest_gap = max(longest_gap, blank)
        text_seen = True
        blank = 0
    return min(longest_gap, 2)


def _text(file: DocumentFile, reporter: Reporter | None) -> Iterator[str]:
    gap = _separating_blank_lines(file)
    if reporter is not None and gap is not None:
        reporter.note(f"`{file.name}` has no line `{SEPARATOR}`{_RULES[gap]}")
    document: list[str] = []
    blank = 0
    for _, line in _lines(file):
        content = line.strip()
        blank = 0 if content else blank + 1
        if content == SEPARATOR or (gap and blank == gap):
            # nothing between two separators is an empty document; surplus blank lines are not
            if document or content == SEPARATOR:
                yield "".join(document).strip()
            document = []
        elif content or document:
            document.append(line.rstrip("\r\n") + "\n")
    if document:
        yield "".join(document).strip()


def _json(file: DocumentFile, field: str) -> Iterator[str]:
    if file.format == ".json" and _starts_with_bracket(file):
        with file.open() as stream:
            records = _parsed(stream.read(), f"`{file.name}`")
        for number, record in enumerate(records, 1):
            yield text_of(record, field, f"`{file.name}`, record {number}")
        return
    for number, line in _lines(file):
        if line.strip():
            where = f"`{file.name}`, line {number}"
            yield text_of(_parsed(line, where), field, where)


def _starts_with_bracket(file: DocumentFile) -> bool:
    """Whether `[` is the first byte after a byte order mark and white space."""
    with file.open() as stream:
        return stream.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def _parsed(text: str | bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON: {reason(error)}") from error


def _table(file: DocumentFile, field: str) -> Iterator[str]:
    kind = file.format.removeprefix(".")
    if kind == "csv":
        options: dict[str, Any] = {"keep_default_na": False, "na_filter": False}
    else:
        options = {"batch_size": 1_000}
    with tempfile.TemporaryDirectory(prefix="tinygpt-") as folder:
        path = file.path
        if file.packed:
            path = Path(folder, "unpacked")
            with file.open() as packed, path.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        try:
            rows = import_datasets().load_dataset(
                kind,
                data_files=glob.escape(str(path)),
                cache_dir=folder,
                split="train",
                streaming=True,
                **options,
            )
            yield from texts_of(rows, field, f"`{file.name}`")
        # pandas and pyarrow raise these on bad bytes
        except (ValueError, TypeError, KeyError, NotImplementedError) as error:
            raise InputError(f"`{file.name}` cannot be read as {kind}: {reason(error)}") from error


def import_datasets() -> Any:
    """The `datasets` library without its progress bars, logs and download counts.

    By a request to its server it counts every use, also of local files, unless that is switched off
    before it is imported.
    """
    os.environ["HF_UPDATE_DOWNLOAD_COUNTS"] = "0"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    import datasets
    import huggingface_hub

    datasets.disable_progress_bars()
    for library in (datasets, huggingface_hub):
        # critical messages only: every failure reaches the user as an error of our own
        library.utils.logging.set_verbosity(50)
    return datasets


def text_of(record: object, field: str, where: str) -> str:
    """The text in a record: the record itself if it is a string, else its `field`; empty for null.

    Args:
        record: a string, or an object with fields.
        field: the field that holds the text.
        where: file and line, for errors.

    Raises:
        InputError: there is no such field, or it does not hold text.
    """
    if isinstance(record, str):
        return record
    if not isinstance(record, Mapping):
        expected = f"expected an object with the field `{field}`"
        raise InputError(f"{where}: {expected}, found {record!r:.60}")
    if field not in record:
        present = ", ".join(f"`{name}`" for name in record) or "none"
        raise InputError(
            f"{where}: no field `{field}`; fields present: {present}", hint=_FIELD_HINT
        )
    value = record[field]
    if not isinstance(value, str | None):
        raise InputError(
            f"{where}: the field `{field}` holds {value!r:.60}, not text", hint=_FIELD_HINT
        )
    return value or ""


def texts_of(dataset: Any, field: str, name: str) -> Iterator[str]:
    """One column of a streamed dataset as texts.

    Args:
        dataset: a `datasets.IterableDataset`.
        field: the column.
        name: of the dataset, for errors.

    Raises:
        InputError: there is no such column, or it does not hold text.
    """
    rows = dataset
    if dataset.column_names:  # known before the first row
        text_of(dict.fromkeys(dataset.column_names), field, name)  # raises if there is no `field`
        # other columns may need a decoder (images, audio), so they are never read
        rows = dataset.select_columns([field])
    for number, row in enumerate(rows, 1):
        yield text_of(row, field, f"{name}, row {number}")


def reason(error: Exception) -> str:
    """The first line of what a library said, without a final period."""
    said = error.strerror if isinstance(error, OSError) else None
    text = said or str(error) or type(error).__name__
    return text.strip().splitlines()[0].rstrip(".")
