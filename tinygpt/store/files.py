"""The file-system layer: every create, write, fsync, rename and unlink of the store is here.

A test may set `hook`, which is called before each operation: it can record the operation, let it
fail, shorten a write or end the process. A file is created under a new name, never opened for
overwriting, and is read-only once it is finished.
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

FILE_MODE = 0o444
FOLDER_MODE = 0o755
_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC
_NAME = re.compile(r"(?!.*\.\Z)[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_MAX_DEPTH = 8

Kind = Literal[
    "mkdir",
    "create",
    "write",
    "chmod",
    "fsync",
    "rename",
    "fsync folder",
    "unlink",
    "rmdir",
    "lock",
]


class FileRecord(TypedDict):
    """What a manifest records about a file."""

    sha256: str
    bytes: int


class Operation(NamedTuple):
    """One change of the disk, as a hook sees it just before it happens.

    Args:
        target: the new name, of a rename.
        data: the bytes, of a write.
    """

    kind: Kind
    path: Path
    target: Path | None = None
    data: bytes = b""


Hook = Callable[[Operation], int | None]
"""Called before each operation.

It may raise an OSError, with which the operation fails, or return how many bytes a write may take.
"""

hook: Hook | None = None


def is_safe_name(name: str) -> bool:
    """Whether a relative file name stays inside its folder and is allowed on every system."""
    parts = name.split("/")
    return len(parts) <= _MAX_DEPTH and all(_NAME.fullmatch(part) for part in parts)


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a StorageError about `path`."""
    try:
        yield
    except OSError as error:
        raise StorageError.refused(error, path) from error


@contextmanager
def _operation(
    kind: Kind, path: Path, target: Path | None = None, data: bytes | memoryview = b""
) -> Iterator[int | None]:
    with refusals(path):
        yield hook(Operation(kind, path, target, bytes(data))) if hook else None


class NewFile(io.FileIO):
    """A file that is created under a free name and hashed while it is written.

    `finish` makes it durable; it has its mode, read-only in a store, from the start.
    """

    def __init__(self, path: Path, mode: int = FILE_MODE) -> None:
        self._path = path
        self._mode = mode
        self._hash = hashlib.sha256()
        with _operation("create", path):
            super().__init__(
                path, "x", opener=lambda name, flags: os.open(name, flags | _SAFE, mode)
            )

    def write(self, data: Any, /) -> int:
        """Write all of `data`, even if the system takes only a part of it at a time."""
        view = memoryview(data).cast("B")
        total = len(view)
        while view:
            with _operation("write", self._path, data=view) as limit:
                written = super().write(view[:limit])
            self._hash.update(view[:written])
            view = view[written:]
        return total

    def finish(self) -> FileRecord:
        """Make the bytes durable, and close the file."""
        # The umask may have cleared bits when the file was created
        with _operation("chmod", self._path):
            os.fchmod(self.fileno(), self._mode)
        # An fsync that failed is not repeated: the second one could succeed although pages are lost
        with _operation("fsync", self._path):
            size = self.tell()
            os.fsync(self.fileno())
            self.close()
        return {"sha256": self._hash.hexdigest(), "bytes": size}


def write_file(path: Path, data: bytes | memoryview, mode: int = FILE_MODE) -> FileRecord:
    """Create the file `path` with `data`; it is durable on return."""
    with NewFile(path, mode) as file:
        file.write(data)
        return file.finish()


def copy_file(root: Path, source: Path, target: Path) -> FileRecord:
    """Create `target` with the bytes of a regular file below `root`; it is durable on return."""
    try:
        with refusals(source), open_beneath(root, source) as stream, NewFile(target) as file:
            while piece := stream.read(1 << 20):
                file.write(piece)
            return file.finish()
    except StorageError:
        discard(target)
        raise


def replace_file(
    path: Path, data: bytes, mode: int = FILE_MODE, *, prepared_in: Path | None = None
) -> None:
    """Write `data` to `path`, replacing any old file in one step; it is durable on return.

    Args:
        mode: of the new file.
        prepared_in: the folder where the new file is written first; None for that of `path`.
    """
    fresh = (prepared_in or path.parent) / f".{path.name}.{secrets.token_hex(6)}"
    try:
        write_file(fresh, data, mode)
        rename(fresh, path)
    except (StorageError, KeyboardInterrupt):
        discard(fresh)
        raise


def make_folder(path: Path) -> None:
    """Create the folder `path` unless it exists; a new one is durable on return.

    Raises:
        StorageError: a file or a link is in its place, or the folder cannot be created.
    """
    if not os.path.lexists(path):
        with _operation("mkdir", path):
            path.mkdir(exist_ok=True)
            path.chmod(FOLDER_MODE)
        fsync_folder(path.parent)
    elif path.is_symlink() or not path.is_dir():
        kind = "a symbolic link" if path.is_symlink() else "a file"
        raise StorageError(
            f"`{path}` must be a folder, but it is {kind}",
            hint="move it elsewhere, then repeat the command",
        )


def fsync_folder(path: Path) -> None:
    """Make durable which names a folder contains."""
    with _operation("fsync folder", path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def rename(path: Path, target: Path) -> None:
    """Rename a folder to a free name, or a file to any name; the new name is durable on return."""
    with _operation("rename", path, target):
        path.replace(target)
    fsync_folder(target.parent)
    if path.parent != target.parent:
        fsync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove a file or a folder with all it contains; links are removed, never followed."""
    if path.is_dir() and not path.is_symlink():
        for entry in entries(path):
            remove(entry)
        with _operation("rmdir", path):
            path.rmdir()
        return
    with _operation("unlink", path):
        path.unlink()


def discard(path: Path) -> None:
    """Remove what a failed operation left; an error here is ignored, as the first one matters."""
    with suppress(StorageError):
        if os.path.lexists(path):
            remove(path)


def set_aside(path: Path, trash: Path, label: str) -> Path:
    """Move a file or folder into the trash, under a name that begins with `label`.

    Returns:
        Its new path.
    """
    make_folder(trash)
    target = trash / f"{label}.{secrets.token_hex(6)}"
    rename(path, target)
    return target


def entries(folder: Path) -> list[Path]:
    """What a folder contains, sorted by name; empty if it does not exist or is a link."""
    with refusals(folder):
        if folder.is_dir() and not folder.is_symlink():
            return sorted(folder.iterdir())
        return []


def open_beneath(root: Path, path: Path) -> BinaryIO:
    """Open a regular file for reading without following a link anywhere below `root`.

    Raises:
        OSError: ELOOP for a link, EISDIR for anything else that is not a regular file (a pipe does
            not block), and whatever else the system refuses.
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
    """The descriptor of a lock file, created if it does not exist; never truncated or removed."""
    with _operation("lock", path):
        return os.open(path, os.O_RDWR | os.O_CREAT | _SAFE, 0o644)


def write_lock(fd: int, data: bytes) -> None:
    """Write into a lock file who holds it; errors are ignored, as only people read it."""
    with suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, data, 0)
