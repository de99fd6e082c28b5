"""Files of stories: which ones a spelling means, and the fingerprint of their bytes. readers.py reads them."""

import difflib
import functools
import glob
import gzip
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from tinygpt.config.source import TEXT_SUFFIXES
from tinygpt.errors import InputError
from tinygpt.hashing import hash_file, hash_json

FIRST_LINE_BYTES = 16 << 20
"""Bytes of standard input that are looked at to tell JSON lines from text."""

_FORMATS = ", ".join(TEXT_SUFFIXES)


@dataclass(frozen=True)
class StoryFile:
    """A file of stories: where it is, how errors call it, how the fingerprint calls it."""

    path: Path
    name: str
    label: str

    @property
    def format(self) -> str:
        """`.txt`, `.jsonl`, ..., without `.gz`."""
        return _format(self.label).removesuffix(".gz")

    @property
    def packed(self) -> bool:
        """Whether the bytes on disk are gzip's."""
        return self.label.lower().endswith(".gz")

    def open(self) -> BinaryIO:
        """The bytes, decompressed."""
        return cast(BinaryIO, gzip.open(self.path)) if self.packed else self.path.open("rb")


def find(pattern: str) -> list[StoryFile]:
    """The files that a file name, a folder (with its subfolders) or a glob pattern stands for, sorted by name.

    The label of a single file is its format, that of others their name inside the folder: moving or renaming what was asked for
    does not make another corpus.

    Raises:
        InputError: there is none, or it has a format that tinygpt does not read.
    """
    path = Path(pattern)
    if path.is_dir():
        found = [file for file in path.rglob("*") if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    elif path.exists():
        if not path.is_file():
            raise InputError(f"`{pattern}` is neither a file nor a folder", hint="a pipe is read with `--source -`")
        if not _format(path.name):
            raise InputError(f"`{pattern}` ends in none of {_FORMATS} (each also .gz)", hint="rename plain text to `.txt`")
        return [StoryFile(path, path.name, _format(path.name))]
    else:
        found = [Path(name) for name in glob.glob(pattern, recursive=True)]  # noqa: PTH207  (pathlib's glob takes no absolute one)
    found = [file for file in found if file.is_file() and _format(file.name)]
    if not found:
        raise _nothing(path)
    base = path if path.is_dir() else Path(os.path.commonpath([file.parent for file in found]))
    names = {file.relative_to(base).as_posix(): file for file in found}
    return [StoryFile(names[name], name, name) for name in sorted(names)]


def spool() -> StoryFile:
    """Standard input, copied once per process to a temporary file that goes with the process.

    It is read as JSON lines if its first line is a JSON object, else as text.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError("standard input is a terminal", hint="pipe the stories in, e.g., `tinygpt run --source - < stories.txt`")
    path = Path(_spooled().name) / "stdin"
    with path.open("rb") as stream:
        try:
            is_json = isinstance(json.loads(stream.readline(FIRST_LINE_BYTES)), dict)
        except (ValueError, RecursionError):
            is_json = False
    return StoryFile(path, "standard input", ".jsonl" if is_json else ".txt")


@functools.cache
def _spooled() -> "tempfile.TemporaryDirectory[str]":
    folder = tempfile.TemporaryDirectory(prefix="tinygpt-")  # kept by the cache, removed as the process ends
    with (Path(folder.name) / "stdin").open("wb") as target:
        shutil.copyfileobj(sys.stdin.buffer, target)
    return folder


def fingerprint(files: Sequence[StoryFile]) -> str:
    """SHA-256 over the labels and bytes of the files. Within a process, an unchanged file is hashed once.

    Raises:
        InputError: a file cannot be read.
    """
    rows = []
    for file in files:
        try:
            stat = file.path.stat()
            rows.append([file.label, _hash(file.path, stat.st_size, stat.st_mtime_ns, stat.st_ino)])
        except OSError as error:
            raise InputError(f"cannot read `{file.name}`: {error.strerror or error}") from error
    return f"files:{hash_json('tinygpt.files', rows)}"


@functools.cache
def _hash(path: Path, size: int, mtime_ns: int, inode: int) -> str:
    return hash_file(path)


def _format(name: str) -> str:
    """The ending that decides how a file is read, in lower case, `.gz` included; empty if tinygpt does not read it."""
    lower = name.lower()
    packed = ".gz" if lower.endswith(".gz") else ""
    suffix = next((suffix for suffix in TEXT_SUFFIXES if lower.removesuffix(".gz").endswith(suffix)), "")
    return suffix + packed if suffix else ""


def _nothing(path: Path) -> InputError:
    if path.is_dir():
        return InputError(f"the folder `{path}` holds no file ending in {_FORMATS} (each also .gz)")
    there = sorted(item.name for item in path.parent.iterdir()) if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, there, n=3, cutoff=0.5)
    hint = f"nearest names there: {', '.join(f'`{name}`' for name in near)}" if near else "data sets of the hub are `org/name`"
    return InputError(f"no file, folder or pattern of files `{path}`", hint=hint)
