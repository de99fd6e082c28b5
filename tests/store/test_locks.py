"""Locks: one process works, the others wait and learn who it is; a dead holder blocks nobody."""

import errno
import fcntl
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.store.workload import run_one, run_stage
from tinygpt.errors import BusyError, StorageError
from tinygpt.store import Store, files, locks

HOLD = """
import sys, time
from pathlib import Path
from tinygpt.store import locks
with locks.hold(Path(sys.argv[1]), timeout=5, on_wait=print):
    print("held", flush=True)
    {forked}
    time.sleep(60)
"""
FORK = "import os\n    if os.fork() == 0: time.sleep(60); os._exit(0)"

StartHolder = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "train-0123456789ab.lock"


@pytest.fixture
def start_holder(lock: Path) -> StartHolder:
    """Starts a process that holds the lock, and returns once it does."""

    def start(forked: str = "") -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", HOLD.format(forked=forked), str(lock)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        return process

    return start


def end(process: "subprocess.Popen[str]") -> None:
    """End the holder and the children of its own session."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def hold(path: Path, timeout: float = 0, *, shared: bool = False) -> AbstractContextManager[None]:
    return locks.hold(path, timeout=timeout, on_wait=print, shared=shared)


def test_a_waiting_process_learns_who_holds_the_lock_and_gives_up_in_time(
    lock: Path, start_holder: StartHolder
) -> None:
    process = start_holder()
    notes: list[str] = []
    try:
        with (
            pytest.raises(BusyError, match=f"process {process.pid} .*started 20") as caught,
            locks.hold(lock, timeout=1.3, on_wait=notes.append),
        ):
            pass
        assert caught.value.exit_code == 9
        assert len(notes) == 1
        assert f"process {process.pid}" in notes[0]
    finally:
        end(process)


@pytest.mark.parametrize("forked", ["", FORK])
def test_the_lock_of_a_killed_holder_is_free_within_a_second_even_if_its_child_lives(
    lock: Path, start_holder: StartHolder, forked: str
) -> None:
    process = start_holder(forked)
    try:
        threading.Timer(0.2, lambda: os.kill(process.pid, signal.SIGKILL)).start()
        began = time.monotonic()
        with hold(lock, timeout=10):
            assert time.monotonic() - began < 1.2
    finally:
        end(process)
    assert lock.exists()


def test_control_without_the_fork_hook_a_child_would_keep_the_lock(lock: Path) -> None:
    fd = files.open_lock(lock)  # held, but unknown to the hook
    assert locks._try_lock(fd, lock, shared=False)
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    os.close(fd)
    try:
        with pytest.raises(BusyError), hold(lock, timeout=0.2):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_shared_holders_allow_each_other_but_no_exclusive_one(lock: Path) -> None:
    with hold(lock, shared=True), hold(lock, shared=True):
        assert not locks.is_held(lock)
        with pytest.raises(BusyError), hold(lock, timeout=0.05):
            pass
    with hold(lock):
        assert locks.is_held(lock)
    assert not locks.is_held(lock)


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_an_error(
    lock: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(error, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StorageError, match="no file locks"), hold(lock):
        pass


def test_a_link_in_place_of_a_lock_file_is_refused(lock: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    lock.symlink_to(precious)
    with pytest.raises(StorageError), hold(lock):
        pass
    assert precious.read_text() == "mine"


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"pid": "x"}', b"\xff" * 100, b"[" * 4096])
def test_nonsense_in_a_lock_file_does_no_harm(lock: Path, text: bytes) -> None:
    with hold(lock):
        lock.write_bytes(text)
        with pytest.raises(BusyError, match="another process"), hold(lock):
            pass


def race(
    root: Path, delay: float, results: "multiprocessing.Queue[tuple[bool, str]]", log: Path
) -> None:
    """Make the corpus after a delay; each process that computes it adds a line to the log."""

    def slow_stage(*arguments: object) -> None:
        with log.open("a") as file:
            file.write("ran\n")
        time.sleep(0.05)
        run_stage(*arguments)  # type: ignore[arg-type]

    time.sleep(delay)
    outcome = run_one(Store(root), "corpus", {}, runner=slow_stage, lock_timeout=20)
    results.put((outcome.cached, outcome.artifact.digest))


@pytest.mark.parametrize("races", [5, pytest.param(100, marks=pytest.mark.proof)])
def test_of_many_processes_one_computes_and_all_get_its_result(tmp_path: Path, races: int) -> None:
    context = multiprocessing.get_context("fork")
    rng = random.Random(races)
    for number in range(races):
        log = tmp_path / f"{number}.log"
        results = context.Queue()
        count = (2, 4, 8)[number % 3]
        processes = []
        for _ in range(count):
            arguments = (tmp_path / str(number), rng.random() * 0.1, results, log)
            processes.append(context.Process(target=race, args=arguments))
        for process in processes:
            process.start()
        outcomes = [results.get(timeout=30) for _ in processes]
        for process in processes:
            process.join()
            assert process.exitcode == 0
        assert log.read_text() == "ran\n"
        assert sorted(cached for cached, _ in outcomes) == [False] + [True] * (count - 1)
        assert len({digest for _, digest in outcomes}) == 1
