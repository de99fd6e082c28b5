"""Files of documents: finding them, and the fingerprint of their bytes. readers.py reads them."""

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


class DocumentFile(NamedTuple):
    """A file of documents.

    Args:
        path: where it is.
        name: its name in errors.
        label: its name in the fingerprint, which ends in its format.
    """

    path: Path
    name: str
    label: str

    @property
    def format(self) -> str:
        """`.txt`, `.jsonl`, ..., without `.gz`."""
        return _format(self.label).removesuffix(".gz")

    @property
    def packed(self) -> bool:
        """Whether the bytes on disk are compressed by gzip."""
        return self.label.lower().endswith(".gz")

    def open(self) -> BinaryIO:
        """The bytes, decompressed."""
        return cast(BinaryIO, gzip.open(self.path)) if self.packed else self.path.open("rb")


def find(pattern: str) -> list[DocumentFile]:
    """The files that a file name, a folder (with its subfolders), a glob pattern or `-` names.

    They are sorted by name. The label of a single file is its format; the label of one of several
    is its name inside the common folder. So moving or renaming the file or folder that was asked
    for does not make another corpus.

    Raises:
        InputError: there is none, or it has a format that tinygpt does not read.
    """
    if pattern == "-":
        return [_standard_input()]
    path = Path(pattern)
    if path.is_dir():
        candidates = [file for file in path.rglob("*") if not _hidden(file.relative_to(path))]
    elif path.exists():
        candidates = [path]
    else:
        # pathlib's glob takes no absolute pattern
        candidates = [Path(name) for name in glob.glob(pattern, recursive=True)]  # noqa: PTH207
    found = [file for file in candidates if file.is_file() and _format(file.name)]
    if not found:
        raise _nothing_found(pattern)
    if found == [path]:
        return [DocumentFile(path, path.name, _format(path.name))]
    base = path if path.is_dir() else Path(os.path.commonpath([file.parent for file in found]))
    path_by_name = {file.relative_to(base).as_posix(): file for file in found}
    return [DocumentFile(path_by_name[name], name, name) for name in sorted(path_by_name)]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _nothing_found(pattern: str) -> InputError:
    path = Path(pattern)
    if path.is_dir():
        problem = "contains no text file that tinygpt can read"
    elif path.exists():
        problem = "is not a text file that tinygpt can read"
    else:
        problem = "does not exist"
    formats = f"text files end in {', '.join(TEXT_SUFFIXES)} (each also .gz)"
    return InputError(
        f"`{pattern}` {problem}", hint=f"{formats}; datasets of the hub are written `org/name`"
    )


@functools.cache
def _standard_input() -> DocumentFile:
    """Standard input, copied once to a temporary file that is removed at exit.

    It is read as JSON lines if it starts with `{`, else as text.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError(
            "standard input is a terminal",
            hint="pipe the text in, e.g., `tinygpt run --source - < my.txt`",
        )
    folder = Path(tempfile.mkdtemp(prefix="tinygpt-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "stdin"
    with path.open("w+b") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.seek(0)
        label = ".jsonl" if copy.read(1) == b"{" else ".txt"
    return DocumentFile(path, "standard input", label)


def fingerprint(files: Sequence[DocumentFile]) -> str:
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
    """The suffix that decides how a file is read, in lower case and with `.gz`; empty for none."""
    match = _FORMAT.search(name)
    return match[0].lower() if match else ""
