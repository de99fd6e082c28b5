"""Stories out of files: text and JSON read here, CSV and Parquet by the readers of `datasets`, each also compressed with gzip.

Text (.txt): a line `<|endoftext|>` separates stories. In a file without one, two or more blank lines separate stories if they
occur anywhere between lines of text; else each blank line does; a file without blank lines is one story.
JSON (.jsonl, .json): one object with the text field, or one string, a line; a .json file may also be one array or object.

JSON does not go through `datasets`: its reader (pyarrow's) ends the process on deeply nested brackets, turns stories that look
like dates into dates, takes a record without the field for a null, and names no line. A line of JSON needs nothing but `json`.
"""

import glob
import json
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from tinygpt.corpus.files import StoryFile
from tinygpt.corpus.rows import import_datasets, reason, text_of, texts_of
from tinygpt.errors import InputError
from tinygpt.report import Report

MAX_STORY_BYTES = 16 << 20
"""A longer story or line is refused: it is a file whose stories are not separated, and would be held in memory whole."""

MAX_ARRAY_BYTES = 256 << 20
"""A larger .json array is refused: an array is parsed whole, lines are streamed."""

SEPARATOR = "<|endoftext|>"
_RULES = ("and no blank line: it is one story", "so its stories end at a blank line", "so its stories end at two blank lines")


def stories(files: Sequence[StoryFile], field: str, report: Report) -> Iterator[str]:
    """The texts in the files, in order, empty ones included; memory does not grow with the files.

    Raises:
        InputError: a file is not what its name says; the message names file and line.
    """
    for file in files:
        try:
            if not file.path.stat().st_size:
                continue
            match file.format:
                case ".txt":
                    yield from _text(file, report if len(files) == 1 else None)
                case ".jsonl":
                    yield from _json_lines(file, field)
                case ".json":
                    yield from _json(file, field)
                case _:
                    yield from _table(file, field)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"cannot read `{file.name}`: {reason(error)}") from error


def _lines(file: StoryFile, stream: BinaryIO) -> Iterator[tuple[int, str]]:
    """Numbered lines, decoded strictly, without a byte order mark."""
    number = 0
    while line := stream.readline(MAX_STORY_BYTES + 1):
        number += 1
        if len(line) > MAX_STORY_BYTES:
            raise _too_long(file, number)
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            message = (
                f"`{file.name}`, line {number}: not UTF-8 (byte 0x{error.object[error.start]:02x} at position {error.start + 1})"
            )
            raise InputError(message, hint="convert it, e.g., `iconv -f latin1 -t utf-8 old.txt > new.txt`") from error
        yield number, text


def _too_long(file: StoryFile, number: int) -> InputError:
    message = f"`{file.name}`, line {number}: a story of more than {MAX_STORY_BYTES >> 20} MiB"
    return InputError(message, hint=f"separate stories by a line `{SEPARATOR}`")


def _blank_lines(file: StoryFile) -> int | None:
    """How many blank lines separate the stories of a text file: None, if `<|endoftext|>` does; 0, if it is one story."""
    most = blank = 0
    text_seen = False
    with file.open() as stream:
        for _, line in _lines(file, stream):
            content = line.strip()
            if content == SEPARATOR:
                return None
            if content:
                most = max(most, min(blank, 2)) if text_seen else 0
                blank, text_seen = 0, True
            else:
                blank += 1
    return most


def _text(file: StoryFile, report: Report | None) -> Iterator[str]:
    gap = _blank_lines(file)
    if report is not None and gap is not None:
        report.note(f"`{file.name}` has no line `{SEPARATOR}`, {_RULES[gap]}")
    story: list[str] = []
    blank = size = 0
    with file.open() as stream:
        for number, line in _lines(file, stream):
            content = line.strip()
            blank = 0 if content else blank + 1
            if content == SEPARATOR if gap is None else gap and blank == gap:
                if story or gap is None:
                    yield "".join(story).strip()
                story, size = [], 0
            elif content or story:
                story.append(line.rstrip("\r\n") + "\n")
                size += len(line)
                if size > MAX_STORY_BYTES:
                    raise _too_long(file, number)
    if story:
        yield "".join(story).strip()


def _json_lines(file: StoryFile, field: str) -> Iterator[str]:
    with file.open() as stream:
        for number, line in _lines(file, stream):
            if line.strip():
                where = f"`{file.name}`, line {number}"
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{where}: not valid JSON: {reason(error)}") from error
                yield text_of(record, field, where)


def _json(file: StoryFile, field: str) -> Iterator[str]:
    """A .json file: lines of objects or strings, else one value, which is an array of records or a record."""
    with file.open() as stream:
        line = stream.readline(MAX_STORY_BYTES).removeprefix(b"\xef\xbb\xbf")
    if not line.startswith(b"[") and _is_record(line):
        yield from _json_lines(file, field)
        return
    with file.open() as stream:
        data = stream.read(MAX_ARRAY_BYTES + 1)
    if len(data) > MAX_ARRAY_BYTES:
        message = f"`{file.name}` is one JSON value of more than {MAX_ARRAY_BYTES >> 20} MiB"
        raise InputError(message, hint="write one record a line, as .jsonl")
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise InputError(f"`{file.name}`, line {error.lineno}: not valid JSON: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"`{file.name}`: not valid JSON: {reason(error)}") from error
    for number, record in enumerate(value if isinstance(value, list) else [value], 1):
        yield text_of(record, field, f"`{file.name}`, record {number}")


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict | str)
    except (ValueError, RecursionError):
        return False


def _table(file: StoryFile, field: str) -> Iterator[str]:
    """CSV or Parquet through `datasets`, which is given a link of a plain name: it takes brackets in a path for a pattern."""
    kind = file.format.removeprefix(".")
    options = {"keep_default_na": False, "na_filter": False} if kind == "csv" else {"batch_size": 1_000}
    datasets = import_datasets()
    with tempfile.TemporaryDirectory(prefix="tinygpt-") as folder:
        plain = Path(folder) / f"stories{file.format}"
        if file.packed:
            with file.open() as stream, plain.open("wb") as target:
                shutil.copyfileobj(stream, target)
        else:
            _link(file.path, plain)
        try:
            paths, cache = glob.escape(str(plain)), str(Path(folder) / "cache")
            rows = datasets.load_dataset(kind, data_files=paths, split="train", streaming=True, cache_dir=cache, **options)
            yield from texts_of(rows, field, f"`{file.name}`")
        except UnicodeDecodeError as error:
            with file.open() as stream:
                for _ in _lines(file, stream):
                    pass  # raises at the line
            raise InputError(f"`{file.name}` holds text that is not UTF-8: {reason(error)}") from error
        except (ValueError, TypeError, KeyError, NotImplementedError) as error:  # what pandas and pyarrow raise on bad bytes
            raise InputError(f"`{file.name}` cannot be read as {kind}: {reason(error)}") from error


def _link(path: Path, link: Path) -> None:
    try:
        link.symlink_to(path.resolve())
    except OSError:  # Windows without the privilege
        shutil.copyfile(path, link)
