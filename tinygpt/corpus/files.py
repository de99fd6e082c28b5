"""Files of documents: finding them, and the fingerprint of their bytes. readers.py reads them."""

import atexit
import codecs
import functools
import glob
import gzip
import itertools
import os
import re
import shutil
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from tinygpt.config.source import RECORD_SUFFIXES, SUFFIX
from tinygpt.errors import InputError
from tinygpt.hashing import hash_file, hash_json
from tinygpt.progress import Reporter

_SAME_FORMAT = {".ndjson": ".jsonl", ".tsv": ".csv"}
_GZIP = b"\x1f\x8b"
_HEAD = 1 << 16
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # begins with the mark of UTF-16, so it comes first
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_JSON = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:\{\s*[\"}]|(\[)\s*[\[{\"\]])")

_JUNK_FOLDERS = {"__pycache__", "node_modules"}
_FOLDER_MARKERS = {".tinygpt-store", ".partial", "pyvenv.cfg"}
"""What is found in stores of tinygpt and in environments of Python."""
_JUNK = re.compile(
    r"(~|\.bak|\.orig|\.tmp|\.lock|\.map|\.min\.js|\.min\.css|^package-lock\.json|^tinygpt\.toml)$"
)
"""Names of copies and of files that no one reads."""


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
        """`.jsonl`, `.json`, `.csv` or `.parquet`, without `.gz` and `.zst`; `.txt` for text."""
        suffix = re.sub(r"\.(gz|zst)$", "", _suffix(self.label))
        return _SAME_FORMAT.get(suffix, suffix if suffix in RECORD_SUFFIXES else ".txt")

    @property
    def packed(self) -> bool:
        """Whether the bytes on disk are compressed: by the name, or by gzip's first two bytes."""
        if self.label.lower().endswith((".gz", ".zst")):
            return True
        with self.path.open("rb") as stream:
            return stream.read(2) == _GZIP

    def open(self) -> BinaryIO:
        """The bytes, decompressed."""
        if self.label.lower().endswith(".zst"):
            import pyarrow

            return cast(BinaryIO, pyarrow.input_stream(str(self.path), compression="zstd"))
        return cast(BinaryIO, gzip.open(self.path)) if self.packed else self.path.open("rb")


def find(pattern: str, reporter: Reporter | None = None) -> list[DocumentFile]:
    """The files that a file name, a folder (with its subfolders), a glob pattern or `-` names.

    A file that is named is taken whatever its name. In a folder and for a pattern, those with a
    suffix of TEXT_SUFFIXES or RECORD_SUFFIXES are, and others whose bytes are text; hidden files,
    copies such as `a.txt~`, lock files, Python environments and stores of tinygpt are left out.

    They are sorted by name. The label of a single file is its format; the label of one of several
    is its name inside the common folder. So moving or renaming the file or folder that was asked
    for does not make another corpus.

    Args:
        pattern: what is asked for.
        reporter: receives a note on files that are skipped; None for silence.

    Raises:
        InputError: there is none.
    """
    if pattern == "-":
        return [_standard_input()]
    path = Path(pattern)
    if path.is_file():
        return [DocumentFile(path, path.name, _suffix(path.name) or _sniffed_suffix(path))]
    candidates = list(_below(path) if path.is_dir() else _matches(pattern))
    found = [file for file in candidates if _is_document(file)]
    if not found:
        raise _nothing_found(pattern)
    if reporter is not None:
        _note_skipped(sorted(set(candidates) - set(found)), reporter)
    base = path if path.is_dir() else Path(os.path.commonpath([file.parent for file in found]))
    path_by_name = {file.relative_to(base).as_posix(): file for file in found}
    return [DocumentFile(path_by_name[name], name, name) for name in sorted(path_by_name)]


def by_ending(paths: Iterable[Path]) -> str:
    """How many files have which ending, e.g., "12 .md, 3 .txt, 1 without ending"."""
    endings = Counter(path.suffix.lower() or "without ending" for path in paths)
    ordered = sorted(endings.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {ending}" for ending, count in ordered)


def marked_encoding(head: bytes) -> str | None:
    """The encoding of a text that begins with a byte order mark of UTF-16 or UTF-32."""
    encodings = (name for mark, name in _BYTE_ORDER_MARKS.items() if head.startswith(mark))
    return next(encodings, None)


def _below(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _is_left_out(Path(root, name))]
        paths = (Path(root, name) for name in names if not name.startswith("."))
        yield from (path for path in paths if path.is_file())


def _matches(pattern: str) -> Iterator[Path]:
    # a folder that the pattern names is meant, whatever it is called
    named = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))
    # pathlib's glob takes no absolute pattern
    for path in map(Path, glob.glob(pattern, recursive=True)):  # noqa: PTH207
        folders = set(path.parents) - {named, *named.parents}
        if path.is_file() and not any(map(_is_left_out, folders)):
            yield path


def _is_left_out(folder: Path) -> bool:
    if folder.name.startswith(".") or folder.name in _JUNK_FOLDERS:
        return True
    return any((folder / marker).exists() for marker in _FOLDER_MARKERS)


def _is_document(path: Path) -> bool:
    if _JUNK.search(path.name):
        return False
    return bool(_suffix(path.name)) or _is_text(path)


def _is_text(path: Path) -> bool:
    """Whether the first bytes of a file are Unicode text without NUL."""
    try:
        head = _head(path)
        text = codecs.getincrementaldecoder(marked_encoding(head) or "utf-8")().decode(head)
    except (UnicodeDecodeError, EOFError, zlib.error, gzip.BadGzipFile):
        return False
    except OSError:
        return True  # whoever reads it says why it cannot be read
    return "\0" not in text


def _head(path: Path) -> bytes:
    with DocumentFile(path, path.name, path.name).open() as stream:
        return stream.read(_HEAD)


def _note_skipped(skipped: Sequence[Path], reporter: Reporter) -> None:
    if skipped:
        files = "1 file" if len(skipped) == 1 else f"{len(skipped):,} files"
        names = ", ".join(f"`{file.name}`" for file in skipped[:3])
        more = ", ..." if len(skipped) > 3 else ""
        reporter.note(f"skipped {files} ({by_ending(skipped)}): {names}{more}")


def _nothing_found(pattern: str) -> InputError:
    path = Path(pattern)
    if path.is_dir():
        problem = "contains no text file that tinygpt can read"
    elif path.exists():
        problem = "is not a text file that tinygpt can read"
    elif glob.has_magic(pattern):
        problem = "matches no text file that tinygpt can read"
    else:
        problem = "does not exist"
    records = ", ".join(RECORD_SUFFIXES)
    return InputError(
        f"`{pattern}` {problem}",
        hint=f"text in UTF-8 is read, and {records} (each also .gz and .zst); "
        "datasets of the hub are written `org/name`",
    )


@functools.cache
def _standard_input() -> DocumentFile:
    """Standard input, copied once to a temporary file that is removed at exit."""
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError(
            "standard input is a terminal",
            hint="pipe the text in, e.g., `tinygpt run --source - < my.txt`",
        )
    folder = Path(tempfile.mkdtemp(prefix="tinygpt-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "stdin"
    with path.open("wb") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
    return DocumentFile(path, "standard input", _sniffed_suffix(path))


def _sniffed_suffix(path: Path) -> str:
    """The format of a file whose name does not say it: JSON if it begins like it, else text."""
    try:
        begins_as_json = _JSON.match(_head(path))
    except (OSError, EOFError, zlib.error):
        return ".txt"  # whoever reads it says why it cannot be read
    if not begins_as_json:
        return ".txt"
    return ".json" if begins_as_json[1] else ".jsonl"


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


def _suffix(name: str) -> str:
    """The suffix that decides how a file is read, in lower case and with `.gz`; empty for none."""
    match = SUFFIX.search(name)
    return match[0].lower() if match else ""
