"""Locks: one process works, the others wait and learn who; a dead holder blocks nobody."""

import errno
import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tinygpt.errors import BusyError, StorageError
from tinygpt.store import files, locks

HOLD = """
import sys, time
from pathlib import Path
from tinygpt.store import locks
with locks.hold(Path(sys.argv[1]), timeout=5, waiting=print):
    print("held", flush=True)
    {forked}
    time.sleep(60)
"""
FORK = "import os\n    if os.fork() == 0: time.sleep(60); os._exit(0)"


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "train-0123456789ab.lock"


@pytest.fixture
def holder(lock: Path) -> Callable[[str], subprocess.Popen[str]]:
    def start(forked: str = "") -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD.format(forked=forked), str(lock)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        return process

    return start


def end(process: subprocess.Popen[str]) -> None:
    """End the holder and the children of its own session."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_the_waiter_is_told_who_holds_it_and_gives_up_in_time(lock: Path, holder: Callable[..., subprocess.Popen[str]]) -> None:
    process, told = holder(), list[str]()
    try:
        who = f"process {process.pid} .*started.*UTC"
        with pytest.raises(BusyError, match=who) as caught, locks.hold(lock, timeout=1.3, waiting=told.append):
            pass
        assert caught.value.exit_code == 9
        assert len(told) == 1
        assert f"process {process.pid}" in told[0]
    finally:
        end(process)


@pytest.mark.parametrize("forked", ["", FORK])
def test_a_killed_holder_is_followed_within_a_second_even_if_its_child_lives(
    lock: Path, holder: Callable[..., subprocess.Popen[str]], forked: str
) -> None:
    process = holder(forked)
    try:
        threading.Timer(0.2, lambda: os.kill(process.pid, signal.SIGKILL)).start()
        began = time.monotonic()
        with locks.hold(lock, timeout=10, waiting=print):
            assert time.monotonic() - began < 1.2
    finally:
        end(process)
    assert lock.exists()


def test_control_without_the_fork_hook_the_child_would_keep_the_lock(lock: Path) -> None:
    fd = files.open_lock(lock)  # held, but unknown to the hook
    assert locks._try(fd, lock, shared=False)
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    os.close(fd)
    try:
        with pytest.raises(BusyError), locks.hold(lock, timeout=0.2, waiting=print):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_shared_holders_share_and_keep_the_exclusive_one_out(lock: Path) -> None:
    with locks.hold(lock, timeout=0, waiting=print, shared=True), locks.hold(lock, timeout=0, waiting=print, shared=True):
        assert not locks.is_held(lock)
        with pytest.raises(BusyError), locks.hold(lock, timeout=0.05, waiting=print):
            pass
    with locks.hold(lock, timeout=0, waiting=print):
        assert locks.is_held(lock)
    assert not locks.is_held(lock)


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_an_error(lock: Path, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(error, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StorageError, match="no file locks"), locks.hold(lock, timeout=0, waiting=print):
        pass


def test_a_link_in_place_of_a_lock_is_refused(lock: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    lock.symlink_to(precious)
    with pytest.raises(StorageError), locks.hold(lock, timeout=0, waiting=print):
        pass
    assert precious.read_text() == "mine"


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"pid": "x"}', b"\xff" * 100, b"[" * 4096])
def test_nonsense_in_a_lock_file_does_no_harm(lock: Path, text: bytes) -> None:
    with locks.hold(lock, timeout=0, waiting=print):
        lock.write_bytes(text)
        with pytest.raises(BusyError, match="another process"), locks.hold(lock, timeout=0, waiting=print):
            pass


def _race(root: Path, delay: float, results: "multiprocessing.Queue[tuple[bool, str]]", log: Path) -> None:
    from tests.store.workload import CONFIG, OUTSIDE, run_stage
    from tinygpt.pipeline import STAGES, execute
    from tinygpt.report import SilentReport
    from tinygpt.store import Store

    def runner(*arguments: object) -> None:
        with log.open("a") as file:
            file.write("ran\n")
        time.sleep(0.05)
        run_stage(*arguments)  # type: ignore[arg-type]

    time.sleep(delay)
    store, silent = Store(root), SilentReport()
    outcome = execute(STAGES["corpus"], CONFIG, {}, store=store, outside=OUTSIDE, runner=runner, report=silent, lock_timeout=20)
    results.put((outcome.cached, outcome.artifact.digest))


@pytest.mark.parametrize("races", [5, pytest.param(100, marks=pytest.mark.proof)])
def test_of_many_processes_one_computes_and_all_get_its_result(tmp_path: Path, races: int) -> None:
    import random

    context, rng = multiprocessing.get_context("fork"), random.Random(races)
    for race in range(races):
        root, log, results = tmp_path / str(race), tmp_path / f"{race}.log", context.Queue()
        count = (2, 4, 8)[race % 3]
        processes = [
            context.Process(target=_race, args=(root, rng.random() * 0.1, results, log))  # type: ignore[attr-defined]
            for _ in range(count)
        ]
        for process in processes:
            process.start()
        outcomes = [results.get(timeout=30) for _ in processes]
        for process in processes:
            process.join()
            assert process.exitcode == 0
        assert log.read_text() == "ran\n"
        assert sorted(cached for cached, _ in outcomes) == [False] + [True] * (count - 1)
        assert len({digest for _, digest in outcomes}) == 1
