"""Stories out of files: text and JSON read here, CSV and Parquet by the readers of `datasets`, each also compressed with gzip.

Text (.txt): a line `<|endoftext|>` separates stories. In a file without one, two or more blank lines separate stories if they
occur anywhere between lines of text; else each blank line does; a file without blank lines is one story.
JSON (.jsonl, .json): one object with the text field, or one string, a line; a .json file may also be one array of these.

JSON does not go through `datasets`: its reader (pyarrow's) ends the process on deeply nested brackets, turns stories that look
like dates into dates, takes a record without the field for a null, and names no line. A line of JSON needs nothing but `json`.
"""

import glob
import itertools
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinygpt.corpus.files import StoryFile
from tinygpt.errors import InputError
from tinygpt.report import Report

SEPARATOR = "<|endoftext|>"
_HINT = "name the field of the stories, e.g., `--set data.text_field=story`"
_RULES = ("and no blank line: it is one story", "so its stories end at a blank line", "so its stories end at two blank lines")


def stories(files: Sequence[StoryFile], field: str, report: Report) -> Iterator[str]:
    """The texts in the files, in order, empty ones included; one story (of a .json array: one file) is in memory at a time.

    Raises:
        InputError: a file is not what its name says; the message names file and line.
    """
    for file in files:
        try:
            if not file.path.stat().st_size:
                continue
            if file.format == ".txt":
                yield from _text(file, report if len(files) == 1 else None)
            elif file.format in (".jsonl", ".json"):
                yield from _json(file, field)
            else:
                yield from _table(file, field)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"cannot read `{file.name}`: {reason(error)}") from error


def _lines(file: StoryFile) -> Iterator[tuple[int, str]]:
    """Numbered lines, decoded strictly, without a byte order mark."""
    with file.open() as stream:
        for number, line in enumerate(stream, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                where = f"byte 0x{line[error.start]:02x} at position {error.start + 1}"
                hint = "convert it, e.g., `iconv -f latin1 -t utf-8 old.txt > new.txt`"
                raise InputError(f"`{file.name}`, line {number}: not UTF-8 ({where})", hint=hint) from error
            yield number, text


def _blank_lines(file: StoryFile) -> int | None:
    """How many blank lines separate the stories of a text file: None, if `<|endoftext|>` does; 0, if it is one story."""
    most = blank = 0
    contents = (line.strip() for _, line in _lines(file))
    for content in itertools.dropwhile(lambda content: not content, contents):
        if content == SEPARATOR:
            return None
        if content:
            most = max(most, min(blank, 2))
        blank = 0 if content else blank + 1
    return most


def _text(file: StoryFile, report: Report | None) -> Iterator[str]:
    gap = _blank_lines(file)
    if report is not None and gap is not None:
        report.note(f"`{file.name}` has no line `{SEPARATOR}`, {_RULES[gap]}")
    story: list[str] = []
    blank = 0
    for _, line in _lines(file):
        content = line.strip()
        blank = 0 if content else blank + 1
        if content == SEPARATOR if gap is None else gap and blank == gap:
            if story or gap is None:
                yield "".join(story).strip()
            story = []
        elif content or story:
            story.append(line.rstrip("\r\n") + "\n")
    if story:
        yield "".join(story).strip()


def _json(file: StoryFile, field: str) -> Iterator[str]:
    """Records a line or, in a file that starts with a bracket, an array of them."""
    with file.open() as stream:
        if file.format == ".json" and stream.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
            stream.seek(0)
            for number, record in enumerate(_parsed(stream.read(), f"`{file.name}`"), 1):
                yield text_of(record, field, f"`{file.name}`, record {number}")
            return
    for number, line in _lines(file):
        if line.strip():
            where = f"`{file.name}`, line {number}"
            yield text_of(_parsed(line, where), field, where)


def _parsed(text: str | bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON: {reason(error)}") from error


def _table(file: StoryFile, field: str) -> Iterator[str]:
    kind = file.format.removeprefix(".")
    options = {"keep_default_na": False, "na_filter": False} if kind == "csv" else {"batch_size": 1_000}
    with tempfile.TemporaryDirectory(prefix="tinygpt-") as folder:
        path = file.path
        if file.packed:
            path = Path(folder, "unpacked")
            with file.open() as packed, path.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        try:
            where = {"data_files": glob.escape(str(path)), "cache_dir": folder}
            rows = import_datasets().load_dataset(kind, **where, split="train", streaming=True, **options)
            yield from texts_of(rows, field, f"`{file.name}`")
        except (ValueError, TypeError, KeyError, NotImplementedError) as error:  # what pandas and pyarrow raise on bad bytes
            raise InputError(f"`{file.name}` cannot be read as {kind}: {reason(error)}") from error


def import_datasets() -> Any:
    """The `datasets` library without its bars, logs and counting of downloads.

    It counts each use, of local files too, by a request to a server of its own; that must be switched off before it is imported.
    """
    os.environ["HF_UPDATE_DOWNLOAD_COUNTS"] = "0"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    import datasets
    import huggingface_hub

    datasets.disable_progress_bars()
    for library in (datasets, huggingface_hub):
        library.utils.logging.set_verbosity(50)  # critical only: every failure reaches the user as one of our errors
    return datasets


def text_of(record: object, field: str, where: str) -> str:
    """The story in a record: the record itself where it is text, else its `field`; empty for a null.

    Raises:
        InputError: no such field, or what it holds is not text. `where` names the file and line.
    """
    if isinstance(record, str):
        return record
    if not isinstance(record, Mapping):
        raise InputError(f"{where}: expected an object with the field `{field}`, found {record!r:.60}")
    if field not in record:
        names = ", ".join(f"`{name}`" for name in record) or "none"
        raise InputError(f"{where}: no field `{field}`; fields present: {names}", hint=_HINT)
    value = record[field]
    if not isinstance(value, str | None):
        raise InputError(f"{where}: the field `{field}` holds {value!r:.60}, not text", hint=_HINT)
    return value or ""


def texts_of(dataset: Any, field: str, name: str) -> Iterator[str]:
    """One column of a streamed data set as texts.

    Raises:
        InputError: as text_of.
    """
    if dataset.column_names:  # known before the first row: columns that need a decoder (images, audio) are never touched
        text_of(dict.fromkeys(dataset.column_names), field, name)  # raises if there is no such field
        dataset = dataset.select_columns([field])
    for number, row in enumerate(dataset, 1):
        yield text_of(row, field, f"{name}, row {number}")


def reason(error: Exception) -> str:
    """The first line of what a library said, without a final period."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return text.strip().splitlines()[0].rstrip(".")
