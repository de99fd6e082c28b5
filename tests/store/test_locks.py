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
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest

from tests.proofs.figures import RecordFigure, Size
from tests.store.workload import run_one, run_stage
from tinygpt import pipeline
from tinygpt.errors import BusyError, StorageError
from tinygpt.hashing import Key
from tinygpt.pipeline import Stage
from tinygpt.store import Artifact, Store, files, locks

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
    lock: Path, start_holder: StartHolder, forked: str, size: Size, figure: RecordFigure
) -> None:
    kills = size(1, 5, 25)
    rng = random.Random(kills)
    for _ in range(kills):
        process = start_holder(forked)
        killed = []

        def kill(process: "subprocess.Popen[str]" = process, killed: list[float] = killed) -> None:
            os.kill(process.pid, signal.SIGKILL)
            killed.append(time.monotonic())

        try:
            threading.Timer(rng.uniform(0.05, 0.3), kill).start()
            with hold(lock, timeout=20):
                assert time.monotonic() - killed[0] < 1
        finally:
            end(process)
        assert lock.exists()
    figure("G9", "killed holders of a lock, half of them with a child that lives", kills)


def test_a_forked_child_that_leaves_the_block_closes_nothing(lock: Path) -> None:
    """The hook has closed its copy of the lock, whose number another file may have by then."""
    holding = hold(lock)
    holding.__enter__()
    child = os.fork()
    if child == 0:
        ended = 1
        with suppress(OSError):
            holding.__exit__(None, None, None)
            ended = 0
        os._exit(ended)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert locks.is_held(lock)
    holding.__exit__(None, None, None)


def test_control_without_the_fork_hook_a_child_would_keep_the_lock(
    lock: Path, figure: RecordFigure
) -> None:
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
    figure("G9", "child that keeps the lock without the fork hook", 1, 1, control=True)


def test_shared_holders_allow_each_other_but_no_exclusive_one(lock: Path) -> None:
    with hold(lock, shared=True), hold(lock, shared=True):
        assert not locks.is_held(lock)
        with pytest.raises(BusyError), hold(lock, timeout=0.05):
            pass
    with hold(lock):
        assert locks.is_held(lock)
        assert str(os.getpid()) in lock.read_text()
    assert not locks.is_held(lock)
    assert lock.read_text() == ""  # nobody is named who holds it no more


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


def run_race(folder: Path, count: int, rng: random.Random) -> str:
    """Let `count` processes make one artifact; what is wrong with how that ended."""
    context = multiprocessing.get_context("fork")
    log = folder / "computed"
    results = context.Queue()
    processes = []
    for _ in range(count):
        arguments = (folder / "store", rng.random() * 0.1, results, log)
        processes.append(context.Process(target=race, args=arguments))
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    if any(process.exitcode != 0 for process in processes):
        return "a process failed"
    outcomes = [results.get(timeout=30) for _ in processes]
    if log.read_text() != "ran\n":
        return "several computed"
    if sorted(cached for cached, _ in outcomes) != [False] + [True] * (count - 1):
        return "not all others used the cache"
    return "" if len({digest for _, digest in outcomes}) == 1 else "the digests differ"


def lost_races(tmp_path: Path, races: int) -> list[str]:
    """Races of 2, 4 and 8 processes; what was wrong with each that ended wrongly."""
    rng = random.Random(races)
    lost = []
    for number in range(races):
        folder = tmp_path / str(number)
        folder.mkdir()
        lost.append(run_race(folder, (2, 4, 8)[number % 3], rng))
    return [text for text in lost if text]


def test_of_many_processes_one_computes_and_all_get_its_result(
    tmp_path: Path, size: Size, figure: RecordFigure
) -> None:
    races = size(5, 20, 100)
    assert lost_races(tmp_path, races) == []
    figure("G8", "races of 2, 4 and 8 processes for one result", races, seed=races)


@pytest.mark.parametrize("left_out", ["the lock", "looking again after the wait for it"])
def test_control_several_compute_the_result(
    tmp_path: Path,
    size: Size,
    figure: RecordFigure,
    monkeypatch: pytest.MonkeyPatch,
    left_out: str,
) -> None:
    if left_out == "the lock":
        monkeypatch.setattr(locks, "_try_lock", lambda *_: True)
    else:
        looked_up: set[int] = set()
        find = pipeline._cached

        def find_once(store: Store, stage: Stage, key: Key) -> Artifact | None:
            """Nothing is found the first time, which is before the lock, nor the second."""
            if os.getpid() in looked_up:
                return None
            looked_up.add(os.getpid())
            return find(store, stage, key)

        monkeypatch.setattr(pipeline, "_cached", find_once)
    races = size(3, 6, 12)
    lost = lost_races(tmp_path, races)
    what = f"races of processes without {left_out}"
    figure("G8", what, races, len(lost), seed=races, control=True)
