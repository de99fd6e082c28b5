"""Files are replaced while they are read: the bytes used are those that were checked, or none."""

import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.proofs.figures import RecordFigure, Size
from tinygpt.errors import ArtifactError
from tinygpt.hashing import Key, hash_json
from tinygpt.store import Artifact, Store

pytestmark = pytest.mark.usefixtures("fast")
ORIGINAL = random.Random(0).randbytes(400_000)
NAME = "data.bin"


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    store = Store(tmp_path / "store")
    out = store.begin("corpus", Key(hash_json("test")))
    out.bytes(NAME, ORIGINAL)
    return store.publish(out)


def replace_for_ever(path: Path, scratch: Path, seed: int) -> None:
    """Put other bytes, other lengths, a link, a pipe and the right bytes in place of a file."""
    chance = random.Random(seed)
    fresh = scratch / "fresh"
    wrong = bytearray(ORIGINAL)
    while True:
        fresh.unlink(missing_ok=True)
        match chance.randrange(6):
            case 0:
                fresh.symlink_to(scratch / "elsewhere")
            case 1:
                os.mkfifo(fresh)
            case 2:
                fresh.write_bytes(ORIGINAL[: chance.randrange(len(ORIGINAL))])
            case 3:
                wrong[chance.randrange(len(wrong))] ^= 1
                fresh.write_bytes(wrong)
            case _:
                fresh.write_bytes(ORIGINAL)
        fresh.replace(path)


@contextmanager
def replaced(artifact: Artifact, scratch: Path, seed: int) -> Iterator[None]:
    """Another process replaces the file all the time within the block."""
    (scratch / "elsewhere").write_bytes(bytes(len(ORIGINAL)))
    context = multiprocessing.get_context("fork")
    arguments = (artifact.path(NAME), scratch, seed)
    process = context.Process(target=replace_for_ever, args=arguments, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def read_at_once(artifact: Artifact) -> bytes:
    return artifact.read(NAME)


def read_from_an_open_file(artifact: Artifact) -> bytes:
    with artifact.open(NAME) as stream:
        return stream.read()


def check_and_read_by_name(artifact: Artifact) -> bytes:
    """What a tool does that trusts a name that it has checked."""
    artifact.check()
    time.sleep(0.005)
    fd = os.open(artifact.path(NAME), os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as stream:
        return stream.read()


def race(artifact: Artifact, read: Callable[[Artifact], bytes], races: int) -> tuple[int, int]:
    """How many reads gave the right bytes, and how many gave others; the rest was refused."""
    right = wrong = 0
    chance = random.Random(races)
    for _ in range(races):
        time.sleep(chance.uniform(0, 0.004))
        try:
            data = read(artifact)
        except (ArtifactError, OSError):
            continue
        right += data == ORIGINAL
        wrong += data != ORIGINAL
    return right, wrong


@pytest.mark.parametrize("read", [read_at_once, read_from_an_open_file])
def test_a_file_that_is_replaced_gives_the_checked_bytes_or_is_refused(
    artifact: Artifact,
    tmp_path: Path,
    read: Callable[[Artifact], bytes],
    size: Size,
    figure: RecordFigure,
) -> None:
    races = size(50, 250)
    with replaced(artifact, tmp_path, seed=races):
        right, wrong = race(artifact, read, races)
    assert wrong == 0
    assert 0 < right < races
    figure("G5", "races with a process that replaces the file", races, seed=races)


def test_control_reading_by_name_after_a_check_gives_other_bytes(
    artifact: Artifact, tmp_path: Path, figure: RecordFigure
) -> None:
    races = 200
    with replaced(artifact, tmp_path, seed=races):
        _, wrong = race(artifact, check_and_read_by_name, races)
    figure("G5", "races that read by name after the check", races, wrong, races, control=True)
