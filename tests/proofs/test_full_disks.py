"""G3 without hooks: file systems that are full at every level, or turn read-only at any moment.

Afterwards the store is valid, and with more space the same bytes are made.
"""

import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import CONFIG, environment
from tests.proofs.figures import RecordFigure
from tests.proofs.mounts import call, tmpfs
from tests.store.workload import faults, problems, run_all
from tinygpt.errors import StorageError
from tinygpt.store import Store

pytestmark = pytest.mark.proof
LARGE = "size=64m,nr_inodes=10000"


def work(root: Path, before: Callable[[], object] = lambda: None) -> int:
    """Make all stages in a process of its own; 0, 8 if the disk refuses, or what ended it.

    Args:
        before: called in that process first.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        before()
        run_all(root)
        status = 0
    except StorageError:
        status = 8
    finally:
        os._exit(status)


def leftovers(root: Path) -> list[Path]:
    """Temporary files of unfinished work; what can be continued is no leftover."""
    return [path for path in (root / ".partial").glob("*") if "." in path.name]


@pytest.mark.parametrize(
    ("kind", "levels"),
    [("size={}k", range(4, 1000, 4)), ("nr_inodes={}", range(2, 400))],
    ids=["bytes", "inodes"],
)
def test_a_file_system_full_at_any_level_leaves_a_valid_store(
    tmp_path: Path, kind: str, levels: range, figure: RecordFigure
) -> None:
    reference = run_all(tmp_path / "reference")
    full = 0
    for level in levels:
        with tmpfs(tmp_path / "mounted", kind.format(level)) as place:
            root = place / "store"
            code = work(root)
            assert code in (0, 8), level
            assert faults(Store(root)) == [], level
            assert leftovers(root) == [], level
            call("mount", "-o", f"remount,{LARGE}", place)
            assert problems(root, [], reference) == [], level
        if code == 0:
            break
        full += 1
    assert code == 0
    figure("G3", "levels at which a tmpfs is full, in bytes or in files", full)


def test_control_a_full_file_system_is_noticed_if_half_an_artifact_stays(
    tmp_path: Path, figure: RecordFigure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinygpt.store.new_folder.NewFolder.discard", lambda self: None)
    levels = range(20, 100, 8)
    bad = 0
    for level in levels:
        with tmpfs(tmp_path / "mounted", f"size={level}k") as place:
            work(place / "store")
            bad += leftovers(place / "store") != []
    what = "levels at which a tmpfs is full, `discard` switched off"
    figure("G3", what, len(levels), bad, control=True)


def test_a_file_system_that_turns_read_only_leaves_a_valid_store(
    tmp_path: Path, figure: RecordFigure
) -> None:
    reference = run_all(tmp_path / "reference")
    chance = random.Random(1)
    times = 40
    refused = 0
    for number in range(times):
        with tmpfs(tmp_path / "mounted", LARGE) as place:
            root = place / "store"
            child = os.fork()
            if child == 0:
                os._exit(work(root))
            time.sleep(chance.uniform(0, 0.2))
            while call("mount", "-o", "remount,ro", place).returncode:
                time.sleep(0.001)  # a file is open for writing
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert code in (0, 8), number
            refused += code == 8
            assert faults(Store(root)) == [], number
            call("mount", "-o", "remount,rw", place)
            assert problems(root, [], reference) == [], number
    assert refused > 0
    figure("G3", "file systems that turn read-only at random moments", times, seed=1)


def test_a_limit_on_the_size_of_files_leaves_a_valid_store(
    tmp_path: Path, figure: RecordFigure
) -> None:
    """RLIMIT_FSIZE, with the signal SIGXFSZ as Python leaves it: ignored."""
    reference = run_all(tmp_path / "reference")
    made = [path for path in (tmp_path / "reference").rglob("*") if path.is_file()]
    largest = max(path.stat().st_size for path in made)
    limits = range(0, largest, max(1, largest // 40))
    for limit in limits:
        root = tmp_path / str(limit)

        def refuse_more(limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        assert work(root, refuse_more) == 8, limit
        assert faults(Store(root)) == [], limit
        assert leftovers(root) == [], limit
        assert problems(root, [], reference) == [], limit
    figure("G3", "limits on the size of a file", len(limits))


def test_a_whole_pipeline_on_a_full_file_system_ends_with_8_and_then_with_the_same_bytes(
    tmp_path: Path, figure: RecordFigure
) -> None:
    recipe = CONFIG + '[runtime]\nthreads = 1\nprogress = "none"\n'

    def run(folder: Path) -> "subprocess.CompletedProcess[str]":
        (folder / "tinygpt.toml").write_text(recipe)
        return subprocess.run(
            [sys.executable, "-m", "tinygpt", "run"],
            cwd=folder,
            env={**environment(), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    def digests(folder: Path) -> dict[str, str]:
        return {made.stage: made.digest for made in Store(folder / "artifacts").list()}

    straight = tmp_path / "straight"
    straight.mkdir()
    assert run(straight).returncode == 0
    reference = digests(straight)
    kibibytes = [40, 120, 240, 400, 600, 840]
    full = 0
    for level in kibibytes:
        with tmpfs(tmp_path / "mounted", f"size={level}k") as place:
            done = run(place)
            assert done.returncode in (0, 8), (level, done.stderr)
            assert "Traceback" not in done.stderr
            assert "unexpected" not in done.stderr
            full += done.returncode == 8
            assert faults(Store(place / "artifacts")) == [], level
            call("mount", "-o", f"remount,{LARGE}", place)
            again = run(place)
            assert again.returncode == 0, (level, again.stderr)
            made = digests(place)
            assert [name for name in reference if made.get(name) != reference[name]] == [], level
    figure("G3", "levels at which a tmpfs is full during `tinygpt run`", full)
