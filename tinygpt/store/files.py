"""The one seam through which the store changes the disk: every create, write, fsync, rename and unlink is here.

A test may watch the seam: its hook is called before each operation and can record it, fail it, shorten a write or end everything.
Files are created under fresh names, never opened for overwriting, and are read-only once finished.
"""

import errno
import hashlib
import io
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from typing_extensions import TypedDict

from tinygpt.errors import StorageError

FILE_MODE, FOLDER_MODE = 0o444, 0o755
_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC
_NAME = re.compile(r"(?!.*\.\Z)[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_MAX_DEPTH = 8

Kind = Literal["mkdir", "create", "write", "chmod", "fsync", "rename", "fsync folder", "unlink", "rmdir", "lock"]


class FileRecord(TypedDict):
    """What a manifest says of a file."""

    sha256: str
    bytes: int


class Operation(NamedTuple):
    """One change of the disk, as a hook sees it just before it happens."""

    kind: Kind
    path: Path
    target: Path | None = None
    data: bytes = b""


Hook = Callable[[Operation], int | None]
"""Called before each operation. It may raise an OSError (the operation fails so) or return how many bytes a write may take."""

hook: Hook | None = None


def is_safe_name(name: str) -> bool:
    """Whether a file name of a manifest stays inside its folder on every system: plain characters, relative, never climbing."""
    parts = name.split("/")
    return len(parts) <= _MAX_DEPTH and all(_NAME.fullmatch(part) for part in parts)


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """What the system refuses in the block is a StorageError about `path`."""
    try:
        yield
    except OSError as error:
        raise StorageError.refused(error, path) from error


@contextmanager
def _operation(kind: Kind, path: Path, target: Path | None = None, data: bytes | memoryview = b"") -> Iterator[int | None]:
    with refusals(path):
        yield hook(Operation(kind, path, target, bytes(data))) if hook else None


class NewFile(io.FileIO):
    """A file being written under a name that did not exist: hashed as it is written, durable and read-only once finished."""

    def __init__(self, path: Path) -> None:
        self._path, self._hash = path, hashlib.sha256()
        with _operation("create", path):
            super().__init__(path, "x", opener=lambda name, flags: os.open(name, flags | _SAFE, FILE_MODE))

    def write(self, data: Any, /) -> int:
        """Write all of `data`, however little the system takes at a time."""
        view = memoryview(data).cast("B")
        total = len(view)
        while view:
            with _operation("write", self._path, data=view) as limit:
                written = super().write(view[:limit])
            self._hash.update(view[:written])
            view = view[written:]
        return total

    def finish(self) -> FileRecord:
        """Make the bytes durable. An fsync that failed is never repeated: it would claim success for lost pages."""
        with _operation("chmod", self._path):  # the umask may have taken bits away
            os.fchmod(self.fileno(), FILE_MODE)
        with _operation("fsync", self._path):
            size = self.tell()
            os.fsync(self.fileno())
            self.close()
        return {"sha256": self._hash.hexdigest(), "bytes": size}


def write_file(path: Path, data: bytes | memoryview) -> FileRecord:
    """Create `path` with `data`, durable."""
    with NewFile(path) as file:
        file.write(data)
        return file.finish()


def replace_file(path: Path, data: bytes) -> None:
    """Put `data` at `path` in one step, whatever was there, durable."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        write_file(fresh, data)
        rename(fresh, path)
    except StorageError:
        discard(fresh)
        raise


def make_folder(path: Path) -> None:
    """Create the folder `path` unless it is there; its parent is synced. A link or a file in its place is an error."""
    if not os.path.lexists(path):
        with _operation("mkdir", path):
            path.mkdir(exist_ok=True)
            path.chmod(FOLDER_MODE)
        fsync_folder(path.parent)
    elif path.is_symlink() or not path.is_dir():
        raise StorageError(f"`{path}` is in the way: it is not a folder", hint="move it elsewhere, then repeat the command")


def fsync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    with _operation("fsync folder", path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def rename(path: Path, target: Path) -> None:
    """Move a folder to a name that is free, or a file to any name, and make that durable."""
    with _operation("rename", path, target):
        path.replace(target)
    fsync_folder(target.parent)
    if path.parent != target.parent:
        fsync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove a file or a whole folder; links are removed, never followed."""
    if path.is_dir() and not path.is_symlink():
        for entry in entries(path):
            remove(entry)
        with _operation("rmdir", path):
            path.rmdir()
        return
    with _operation("unlink", path):
        path.unlink()


def discard(path: Path) -> None:
    """Remove what an error left unfinished, as far as the disk lets us; the error itself is what matters."""
    with suppress(StorageError):
        if os.path.lexists(path):
            remove(path)


def set_aside(path: Path, trash: Path, label: str) -> Path:
    """Move a file or folder into the trash under a name that tells what it was."""
    make_folder(trash)
    target = trash / f"{label}.{secrets.token_hex(6)}"
    rename(path, target)
    return target


def entries(folder: Path) -> list[Path]:
    """What is in a folder, in the order of the names; nothing if it is not there or is a link."""
    with refusals(folder):
        return sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []


def open_beneath(root: Path, path: Path) -> BinaryIO:
    """Open a regular file for reading; no link is followed at any component below `root`, and a pipe never blocks.

    Raises:
        OSError: ELOOP for a link, EISDIR for anything that is not a regular file, and what the system says otherwise.
    """
    parts = path.relative_to(root).parts
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts:
        folder = fd
        try:
            fd = os.open(part, os.O_RDONLY | os.O_NONBLOCK | _SAFE, dir_fd=folder)
        finally:
            os.close(folder)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EISDIR, "not a regular file", parts[-1])
    return os.fdopen(fd, "rb")


def open_lock(path: Path) -> int:
    """The descriptor of a lock file, created if need be, never truncated and never removed."""
    with _operation("lock", path):
        return os.open(path, os.O_RDWR | os.O_CREAT | _SAFE, 0o644)


def write_lock(fd: int, data: bytes) -> None:
    """Say in a lock file who holds it; only told to people, so a full disk stops nobody here."""
    with suppress(OSError):
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, data)
