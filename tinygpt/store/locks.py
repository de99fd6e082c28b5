"""Locks that end with their holder: flock on files that are never removed.

A killed holder's lock is free at once, because the kernel holds it, not the file; a forked child does not inherit it.
"""

import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from tinygpt.errors import BusyError, StorageError
from tinygpt.store import files

_TOLD_AFTER = 1.0  # seconds
_STARTED = datetime.now(UTC)

Tell = Callable[[str], None]
"""Told what a command waits for."""

_held: set[int] = set()


def _forget_after_fork() -> None:
    for fd in _held:
        os.close(fd)
    _held.clear()


os.register_at_fork(after_in_child=_forget_after_fork)


@contextmanager
def hold(path: Path, *, timeout: float | None, waiting: Tell, shared: bool = False) -> Iterator[None]:
    """Hold the lock of `path` while the block runs.

    Args:
        path: the lock file, made if need be.
        timeout: seconds to wait; None for ever.
        waiting: told once, after a second, who holds it.
        shared: with other shared holders, without an exclusive one.
    Raises:
        BusyError: it was not free in time.
        StorageError: the file system has no locks.
    """
    fd = files.open_lock(path)
    _held.add(fd)
    try:
        _wait(fd, path, shared, timeout, waiting)
        if not shared:
            files.write_lock(fd, _card())
        yield
        if not shared and fd in _held:
            files.write_lock(fd, b"")
    finally:
        if fd in _held:  # else this is a forked child, which has closed it
            _held.discard(fd)
            os.close(fd)  # releases the lock


def is_held(path: Path) -> bool:
    """Whether another holds the lock of `path` now; changes nothing."""
    with suppress(OSError), files.open_beneath(path.parent, path) as file:
        return not _try(file.fileno(), path, shared=True)
    return False


def _wait(fd: int, path: Path, shared: bool, timeout: float | None, waiting: Tell) -> None:
    begin, pause, told = time.monotonic(), 0.005, False
    while not _try(fd, path, shared):
        waited = time.monotonic() - begin
        if timeout is not None and waited >= timeout:
            hint = "wait until it ends, or wait longer with `--set runtime.lock_timeout=none`"
            raise BusyError(f"{_holder(fd)} is still using `{path.stem}` after {timeout:g} s", hint)
        if waited >= _TOLD_AFTER and not told:
            waiting(f"waiting for {_holder(fd)}, which is using `{path.stem}`")
            told = True
        time.sleep(pause)
        pause = min(2 * pause, 0.1)


def _try(fd: int, path: Path, shared: bool) -> bool:
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        wrong = f"the file system of `{path.parent}` has no file locks ({os.strerror(error.errno or 0).lower()})"
        raise StorageError(wrong, hint="put the store on a local disk with `--store DIR`") from error
    return True


def _card() -> bytes:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]])
    started = f"{_STARTED:%Y-%m-%d %H:%M:%S} UTC"
    return f"process {os.getpid()} (`{command}`, started {started})".encode("utf-8", "backslashreplace")


def _holder(fd: int) -> str:
    os.lseek(fd, 0, os.SEEK_SET)
    card = os.read(fd, 400).decode("utf-8", "replace")
    return card if card.startswith("process ") else "another process"
