"""G3 below Python: calls of the C library fail, one after the other, while a store is written.

What fails is chosen in tests/proofs/failing_calls.c, a library that is loaded before libc, not by
the hook of store/files.py.
"""

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.proofs import failing_server as calls
from tests.proofs.figures import RecordFigure, Size
from tests.store.workload import Recorder, run_all, watched

pytestmark = pytest.mark.proof
SOURCE = Path(__file__).with_name("failing_calls.c")


class Server:
    """The process in which calls fail."""

    def __init__(self, library: Path, scratch: Path) -> None:
        line = [sys.executable, "-m", "tests.proofs.failing_server", str(library), str(scratch)]
        environment = {**os.environ, "LD_PRELOAD": str(library)}
        self.process = subprocess.Popen(
            line,
            cwd=ROOT,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self, number: int, error: int, kinds: int, *, stays: bool = False) -> dict[str, Any]:
        """Make a store while call `number` of these kinds fails; 0 for none."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps([number, error, int(stays), kinds]) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and a C compiler, to let calls of the C library fail")
    library = tmp_path_factory.mktemp("calls") / "failing_calls.so"
    options = ["-shared", "-fPIC", "-Wall", "-Werror", "-O1"]
    subprocess.run([compiler, *options, "-o", library, SOURCE, "-ldl"], check=True)
    # Whether a call fails does not depend on the disk, and the memory is faster
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as scratch:
        server = Server(library, Path(scratch))
        yield server
        server.process.communicate()


def wrong(answer: dict[str, Any], expected: tuple[int, ...]) -> list[str]:
    """What is wrong with a store whose calls failed."""
    found = [*answer["faults"], *answer["problems"]]
    if answer["code"] not in expected:
        found.append(f"ended with {answer['code']}")
    return found


@pytest.mark.parametrize(
    ("kinds", "errors", "most"),
    [
        (calls.CHANGES, (errno.ENOSPC, errno.EIO, errno.EDQUOT), 400),
        (calls.READ | calls.OPEN, (errno.EIO,), 100),
        (calls.CLOSE, (errno.EIO,), 60),
        (calls.FLOCK, (errno.ENOLCK,), 40),
        (calls.FTRUNCATE, (errno.EIO,), 20),
    ],
    ids=["changes", "reads", "close", "flock", "ftruncate"],
)
def test_a_call_that_fails_is_a_storage_error_and_leaves_a_valid_store(
    server: Server,
    kinds: int,
    errors: tuple[int, ...],
    most: int,
    size: Size,
    figure: RecordFigure,
) -> None:
    total = server.ask(0, 0, kinds)["calls"]
    assert total > 5
    chance = random.Random(1)
    bad = []
    cases = refused = 0
    for index in range(size(6, 30, most)):
        number = chance.randint(1, total) if total > most else index % total + 1
        error = chance.choice(errors)
        stays = kinds == calls.CHANGES and chance.random() < 0.25
        answer = server.ask(number, error, kinds, stays=stays)
        expected = (0, calls.STORAGE_ERROR, calls.CORRUPT)
        bad += [f"{errno.errorcode[error]} {number}: {text}" for text in wrong(answer, expected)]
        cases += 1
        refused += answer["code"] != 0
    assert bad == []
    print(f"{refused} of {cases} ended the command")
    figure("G3", "calls of the C library that fail", cases, seed=1)


def test_every_fsync_that_the_hook_sees_reaches_the_c_library(
    server: Server, tmp_path: Path, figure: RecordFigure
) -> None:
    recorder = Recorder()
    root = tmp_path / "store"
    with watched(recorder):
        run_all(root)
    fsyncs = [operation.path for operation in recorder.log if "fsync" in operation.kind]
    seen = [path for path in fsyncs if path.is_relative_to(root)]
    assert server.ask(0, 0, calls.FSYNC)["calls"] == len(seen)
    figure("G2", "fsyncs of the layer, each of which reaches the C library", len(seen))
