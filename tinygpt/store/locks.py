"""Locks that end with their holder: flock on files that are never removed.

The kernel holds the lock, not the file, so that the lock of a killed process is free at once. A
forked child does not inherit it.
"""

import fcntl
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from tinygpt.errors import BusyError, StorageError
from tinygpt.store import files

_NOTIFY_AFTER_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 0.005
_LONGEST_PAUSE_SECONDS = 0.1
_STARTED = datetime.now().astimezone()
_LONGEST_COMMAND = 200  # characters

OnWait = Callable[[str], None]
"""Called with a sentence that says what the command waits for."""

_held: set[int] = set()


def _forget_after_fork() -> None:
    for fd in _held:
        os.close(fd)
    _held.clear()


os.register_at_fork(after_in_child=_forget_after_fork)


@contextmanager
def hold(
    path: Path, *, timeout: float | None, on_wait: OnWait, shared: bool = False
) -> Iterator[None]:
    """Hold the lock of `path` while the block runs.

    Args:
        path: the lock file; created if it does not exist.
        timeout: seconds to wait; None for no limit.
        on_wait: called once, after a second, with a sentence that names the holder.
        shared: allow other shared holders, but no exclusive one.
    Raises:
        BusyError: the lock was not free in time.
        StorageError: the file system has no locks.
    """
    fd = files.open_lock(path)
    _held.add(fd)
    try:
        _wait(fd, path, shared, timeout, on_wait)
        if not shared:
            files.write_lock(fd, _describe_this_process())
        yield
        if not shared and fd in _held:
            files.write_lock(fd, b"")
    finally:
        if fd in _held:  # else this is a forked child, which has closed it
            _held.discard(fd)
            os.close(fd)  # releases the lock


def is_held(path: Path) -> bool:
    """Whether another process or thread holds the lock of `path` now; changes nothing."""
    with suppress(OSError), files.open_beneath(path.parent, path) as file:
        return not _try_lock(file.fileno(), path, shared=True)
    return False


def _wait(fd: int, path: Path, shared: bool, timeout: float | None, on_wait: OnWait) -> None:
    begin = time.monotonic()
    pause = _FIRST_PAUSE_SECONDS
    notified = False
    while not _try_lock(fd, path, shared):
        waited = time.monotonic() - begin
        if timeout is not None and waited >= timeout:
            raise BusyError(
                f"{_describe_holder(path)} is still using `{path.stem}` after {timeout:g} s",
                hint="wait until it ends; stages can wait with `--set runtime.lock_timeout=none`",
            )
        if waited >= _NOTIFY_AFTER_SECONDS and not notified:
            on_wait(f"waiting for {_describe_holder(path)}, which is using `{path.stem}`")
            notified = True
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _try_lock(fd: int, path: Path, shared: bool) -> bool:
    """Take the lock if it is free; returns whether it was."""
    mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(fd, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise StorageError(
            f"the file system of `{path.parent}` has no file locks ({reason})",
            hint="put the store on a local disk with `--store DIR`",
        ) from error
    return True


def _describe_this_process() -> bytes:
    called = Path(sys.argv[0])
    name = called.parent.name if called.name == "__main__.py" else called.name
    command = shlex.join([name, *sys.argv[1:]])[:_LONGEST_COMMAND]
    # No backticks: in them, a command is spelled as the one who waits would type it
    text = f"process {os.getpid()} ({command}, started {_STARTED:%Y-%m-%d %H:%M:%S})"
    return text.encode("utf-8", "backslashreplace")


def _describe_holder(path: Path) -> str:
    """What the holder wrote into the lock file.

    Those that share a lock write nothing there, but one of them has a lock for itself.
    """
    for held in filter(is_held, (path, *sorted(path.parent.glob("*.lock")))):
        with suppress(OSError), files.open_beneath(held.parent, held) as file:
            text = file.read(4 * _LONGEST_COMMAND).decode("utf-8", "replace")
            if text.startswith("process "):
                return text
    return "another process"
