"""Files of stories: which ones a spelling means, and the fingerprint of their bytes. readers.py reads them."""

import atexit
import functools
import glob
import gzip
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from tinygpt.config.source import TEXT_SUFFIXES
from tinygpt.errors import InputError
from tinygpt.hashing import hash_file, hash_json

_FORMAT = re.compile(rf"({'|'.join(map(re.escape, TEXT_SUFFIXES))})(\.gz)?$", re.IGNORECASE)


class StoryFile(NamedTuple):
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
    """The files that a file name, a folder (with its subfolders), a glob pattern or `-` stands for, sorted by name.

    The label of a single file is its format, that of others their name inside the folder: moving or renaming what was asked for
    does not make another corpus.

    Raises:
        InputError: there is none, or it has a format that tinygpt does not read.
    """
    if pattern == "-":
        return [_standard_input()]
    path = Path(pattern)
    if path.is_dir():
        found = [file for file in path.rglob("*") if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    elif path.exists():
        found = [path]
    else:
        found = [Path(name) for name in glob.glob(pattern, recursive=True)]  # noqa: PTH207  (pathlib's glob takes no absolute one)
    found = [file for file in found if file.is_file() and _format(file.name)]
    if not found:
        problem = "is no file or folder of stories" if path.exists() else "does not exist"
        formats = f"a file of stories ends in {', '.join(TEXT_SUFFIXES)} (each also .gz)"
        raise InputError(f"`{pattern}` {problem}", hint=f"{formats}; data sets of the hub are `org/name`")
    if found == [path]:
        return [StoryFile(path, path.name, _format(path.name))]
    base = path if path.is_dir() else Path(os.path.commonpath([file.parent for file in found]))
    names = {file.relative_to(base).as_posix(): file for file in found}
    return [StoryFile(names[name], name, name) for name in sorted(names)]


@functools.cache
def _standard_input() -> StoryFile:
    """Standard input, copied once to a temporary file that goes with the process: JSON lines if it starts with `{`, else text."""
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError("standard input is a terminal", hint="pipe the stories in, e.g., `tinygpt run --source - < stories.txt`")
    folder = Path(tempfile.mkdtemp(prefix="tinygpt-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "stdin"
    with path.open("w+b") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.seek(0)
        return StoryFile(path, "standard input", ".jsonl" if copy.read(1) == b"{" else ".txt")


def fingerprint(files: Sequence[StoryFile]) -> str:
    """SHA-256 over the labels and bytes of the files.

    Raises:
        InputError: a file cannot be read.
    """
    rows = []
    for file in files:
        try:
            rows.append([file.label, hash_file(file.path)])
        except OSError as error:
            raise InputError(f"cannot read `{file.name}`: {error.strerror or error}") from error
    return f"files:{hash_json('tinygpt.files', rows)}"


def _format(name: str) -> str:
    """The ending that decides how a file is read, in lower case, `.gz` included; empty if tinygpt does not read it."""
    return match[0].lower() if (match := _FORMAT.search(name)) else ""
