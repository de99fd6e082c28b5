"""G2 without hooks: the power of a real ext4 is cut while a store is written; only root can do it.

What was reported done has to be there after the restart, and running again gives the same bytes.
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import CONFIG, environment
from tests.proofs.figures import RecordFigure
from tests.proofs.mounts import Disk, disk
from tests.store.workload import faults, problems, run_all
from tinygpt.store import Store

pytestmark = pytest.mark.proof
CUTS = 200
CONTROL_CUTS = 20
CUTS_OF_RUNS = 15
REPORTED = re.compile(r"^([a-z-]+) [0-9a-f]{12}$", re.MULTILINE)
"""What `tinygpt run` prints when a stage is done; behind that of a cached one stands more."""


def start_work(root: Path, *, fsync: bool) -> tuple[int, int]:
    """A process that makes all stages; its id, and where it writes the name of each that is done.

    Args:
        fsync: whether it calls fsync; without it, nothing is certain to be on the disk.
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if child:
        os.close(write_end)
        return child, read_end
    status = 1
    try:
        if not fsync:
            os.fsync = lambda fd: None

        class Done(list[str]):
            def append(self, name: str) -> None:
                os.write(write_end, f"{name}\n".encode())

        run_all(root, done=Done())
        status = 0
    finally:
        os._exit(status)


def cut(on: Disk, root: Path, after_seconds: float, *, fsync: bool = True) -> list[str]:
    """Work, cut the power and restart; the stages that were reported done before."""
    child, reported = start_work(root, fsync=fsync)
    time.sleep(after_seconds)
    on.cut_power()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reported) as lines:
        done = lines.read().split()
    on.restart()
    return done


def seconds_of_work(on: Disk) -> float:
    """How long all stages take on this disk."""
    began = time.monotonic()
    run_all(on.place / "measured")
    return time.monotonic() - began


def bad_cuts(tmp_path: Path, cuts: int, *, fsync: bool) -> tuple[int, list[list[str]]]:
    """How many stages were reported done before a cut, and what was wrong after each."""
    reference = run_all(tmp_path / "reference")
    chance = random.Random(cuts)
    bad = []
    reported = 0
    with disk(tmp_path) as on:
        longest = 1.2 * seconds_of_work(on)
        for number in range(cuts // 2):
            root = on.place / str(number)
            done: list[str] = []
            for again in (False, True):  # the second cut hits what continues after the first
                done += cut(on, root, chance.uniform(0, longest), fsync=fsync)
                store = Store(root)
                listed = {artifact.stage: artifact.digest for artifact in store.list()}
                lost = [name for name in done if listed.get(name) != reference[name]]
                wrong = [name for name in listed if listed[name] != reference[name]]
                found = [*lost, *wrong, *faults(store)]
                if again:
                    found += problems(root, done, reference)
                if found:
                    bad.append(found)
            reported += len(set(done))
    return reported, bad


def test_what_was_reported_done_is_there_after_a_power_cut(
    tmp_path: Path, figure: RecordFigure
) -> None:
    reported, bad = bad_cuts(tmp_path, CUTS, fsync=True)
    assert bad == []
    figure("G2", "power cuts of an ext4 at random moments", CUTS, seed=CUTS)
    figure("G2", "stages reported done before such a cut, all of them there after it", reported)


def test_control_without_fsync_a_power_cut_loses_what_was_reported_done(
    tmp_path: Path, figure: RecordFigure
) -> None:
    _, bad = bad_cuts(tmp_path, CONTROL_CUTS, fsync=False)
    what = "power cuts of an ext4 without fsync"
    figure("G2", what, CONTROL_CUTS, len(bad), seed=CONTROL_CUTS, control=True)


def run_pipeline(folder: Path) -> "subprocess.Popen[str]":
    """`tinygpt run` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tinygpt", "run"],
        cwd=folder,
        env={**environment(), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def digests(folder: Path) -> dict[str, str]:
    return {artifact.stage: artifact.digest for artifact in Store(folder / "artifacts").list()}


def test_a_whole_pipeline_whose_power_is_cut_ends_with_the_same_bytes(
    tmp_path: Path, figure: RecordFigure
) -> None:
    recipe = CONFIG + '[runtime]\nthreads = 1\nprogress = "none"\ncheckpoint_every = 1\n'
    straight = tmp_path / "straight"
    straight.mkdir()
    (straight / "tinygpt.toml").write_text(recipe)
    began = time.monotonic()
    assert run_pipeline(straight).wait() == 0
    seconds = time.monotonic() - began
    reference = digests(straight)
    chance = random.Random(CUTS_OF_RUNS)
    reported = 0
    with disk(tmp_path) as on:
        for number in range(CUTS_OF_RUNS):
            folder = on.place / str(number // 3)  # three cuts of each
            folder.mkdir(exist_ok=True)
            (folder / "tinygpt.toml").write_text(recipe)
            subprocess.run(["sync"], check=True)
            process = run_pipeline(folder)
            time.sleep(chance.uniform(0, seconds))
            on.cut_power()
            process.kill()
            _, err = process.communicate()
            on.restart()
            left = digests(folder)
            done = REPORTED.findall(err)
            reported += len(done)
            assert [name for name in done if name not in left] == []
            assert {name: reference[name] for name in left} == left
            assert faults(Store(folder / "artifacts")) == []
            if number % 3 == 2:
                assert run_pipeline(folder).wait() == 0
                assert digests(folder) == reference
    figure("G2", "power cuts during `tinygpt run`", CUTS_OF_RUNS, seed=CUTS_OF_RUNS)
    assert reported > 0
