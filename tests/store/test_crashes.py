"""Killed, failing or powerless at every operation of the seam: what is listed is whole, and running again gives equal bytes."""

import errno
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from tests.store.workload import CONFIG, ERRORS, OUTSIDE, FailAt, KillAt, KilledError, Recorder, run_all, watched
from tinygpt.config.tables import Config
from tinygpt.errors import ArtifactError, StorageError, TinygptError
from tinygpt.pipeline import STAGES, execute
from tinygpt.report import Report, SilentReport
from tinygpt.store import Artifact, Out, Store, upkeep
from tinygpt.store.files import Hook, Operation

pytestmark = pytest.mark.usefixtures("fast")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return run_all(tmp_path_factory.mktemp("reference") / "store")


def record(root: Path) -> tuple[list[Operation], dict[str, int]]:
    """The operations of a whole run, and after how many of them each stage was reported done."""
    recorder = Recorder()
    marks: dict[str, int] = {}

    class Done(list[str]):
        def append(self, name: str) -> None:
            marks[name] = len(recorder.log)

    with watched(recorder):
        run_all(root, done=Done())
    return recorder.log, marks


def problems(root: Path, done: list[str], reference: dict[str, str]) -> list[str]:
    """What is wrong with a store after a crash."""
    try:
        store = Store(root)
        found = [f"{fault.kind} {fault.path}" for fault in upkeep.verify(store) if fault.kind != "leftover"]
        listed = {artifact.stage: artifact.digest for artifact in store.list()}
        found += [f"{name} was done and is lost" for name in done if listed.get(name) != reference[name]]
        if run_all(root) != reference:
            found.append("running again gave other bytes")
        found += [f"{fault.kind} {fault.path} after running again" for fault in upkeep.verify(store) if fault.kind != "leftover"]
    except TinygptError as error:
        found = [error.message]
    return found


def operations(tmp_path: Path) -> int:
    return len(record(tmp_path / "count")[0])


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.full)])
def test_killed_at_every_operation_then_run_again_gives_the_same_bytes(
    tmp_path: Path, reference: dict[str, str], every: int
) -> None:
    for number in range(1, operations(tmp_path) + 1, every):
        root, done = tmp_path / str(number), list[str]()
        with watched(KillAt(number)), pytest.raises(KilledError):
            run_all(root, done=done)
        assert problems(root, done, reference) == [], number


@pytest.mark.full
def test_killed_twice(tmp_path: Path, reference: dict[str, str]) -> None:
    rng, total = random.Random(1), operations(tmp_path)
    for case in range(200):
        root, done = tmp_path / str(case), list[str]()
        for _ in range(2):
            with watched(KillAt(rng.randint(1, total))), suppress(KilledError):
                run_all(root, done=done)
        assert problems(root, done, reference) == [], case


@pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.full)])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("for_ever", [False, True])
def test_an_error_at_every_operation_publishes_nothing_broken(
    tmp_path: Path, reference: dict[str, str], error: int, for_ever: bool, every: int
) -> None:
    for number in range(1, operations(tmp_path) + 1, every):
        root, done, hook = tmp_path / f"{number}", list[str](), FailAt(number, error, for_ever=for_ever)
        with watched(hook), suppress(StorageError):
            run_all(root, done=done)
        assert hook.failed
        assert problems(root, done, reference) == [], (number, hook.failed)


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.full)])
@pytest.mark.parametrize("error", ERRORS)
def test_an_error_while_writing_leaves_no_temporary_files(tmp_path: Path, error: int, every: int) -> None:
    log, _ = record(tmp_path / "count")
    wanted = {"create", "write", "chmod", "fsync", "fsync folder", "mkdir"}
    published = max(number for number, operation in enumerate(log) if operation.target and "train" in operation.target.parts)
    for number in range(1, published + 1, every):
        operation = log[number - 1]
        if operation.kind in wanted and ".partial" in operation.path.parts and "checkpoint" not in str(operation.path):
            root = tmp_path / str(number)
            with watched(FailAt(number, error)), pytest.raises(StorageError):
                run_all(root)
            left = [path for path in (root / ".partial").glob("*") if "." in path.name]
            left += (root / ".partial").glob("*/.new.*")
            assert left == [], (number, operation.kind)


def test_a_failed_fsync_is_not_retried_and_nothing_is_published(tmp_path: Path) -> None:
    log, _ = record(tmp_path / "count")
    for number, operation in enumerate(log, start=1):
        if operation.kind == "fsync":
            recorder, fail = Recorder(), FailAt(number, errno.EIO)

            def hook(seen: Operation, recorder: Recorder = recorder, fail: FailAt = fail) -> None:
                recorder(seen)
                fail(seen)

            root = tmp_path / str(number)
            with watched(hook), pytest.raises(StorageError):
                run_all(root)
            failed = recorder.log[number - 1]
            assert [o.kind for o in recorder.log[number:] if o.path == failed.path and o.kind == "fsync"] == []
            stage = failed.path.relative_to(root).parts[1].rpartition("-")[0]
            assert [artifact.stage for artifact in Store(root).list(stage)] == []


@pytest.mark.parametrize("hook", [KillAt, lambda number: FailAt(number, errno.EIO)])
def test_a_forced_run_spoilt_anywhere_leaves_the_old_bytes_the_new_or_none(tmp_path: Path, hook: Callable[[int], Hook]) -> None:
    def other(config: Config, inputs: Mapping[str, Artifact], out: Out, report: Report) -> None:
        out.bytes("data.bin", b"other")

    for number in range(1, 26):  # a forced run has 21 operations
        store, notes = Store(tmp_path / str(number)), SilentReport()
        old = run_all(store.root, names=("corpus",))["corpus"]
        with watched(hook(number)), suppress(StorageError, KilledError):
            execute(STAGES["corpus"], CONFIG, {}, store=store, outside=OUTSIDE, runner=other, report=notes, force=True)
        for artifact in store.list():
            artifact.check()
            assert artifact.digest == old or artifact.names() == ["data.bin"]
        assert [fault for fault in upkeep.verify(store) if fault.kind != "leftover"] == []


@pytest.mark.parametrize("most", [1, 7])
def test_short_writes_are_finished(tmp_path: Path, reference: dict[str, str], most: int) -> None:
    with watched(lambda operation: most):
        assert run_all(tmp_path / "store") == reference
    assert upkeep.verify(Store(tmp_path / "store")) == []


# Power loss (ALICE-lite): what a disk may hold after losing power at some point of the recorded log. Names are certain once their
# folder was synced, bytes once their file was; anything else may be there, be there by half, or not.

Choice = Callable[[], bool]


def crash_state(log: list[Operation], old: Path, new: Path, name_survives: Choice, size: float) -> None:
    """Build the disk after `log`: unsynced names survive as `name_survives` says, unsynced bytes up to the share `size`."""

    def moved(path: Path) -> Path:
        return new / path.relative_to(old) if path.is_relative_to(old) else new

    for i, operation in enumerate(log):
        kind, path = operation.kind, moved(operation.path)
        if kind not in ("mkdir", "create", "rename", "unlink", "rmdir"):
            continue
        parent = (operation.target or operation.path).parent
        certain = any(later.kind == "fsync folder" and later.path == parent for later in log[i + 1 :])
        if not (certain or name_survives()):
            continue
        try:
            if kind == "create":
                path.write_bytes(_content(log, i, size))
            elif kind == "mkdir":
                path.mkdir(parents=path == new, exist_ok=True)
            elif operation.target:
                path.replace(moved(operation.target))
            else:
                path.rmdir() if kind == "rmdir" else path.unlink()
        except OSError:
            continue  # it builds on a name that was lost


def _content(log: list[Operation], created: int, size: float) -> bytes:
    path = log[created].path
    own = [operation for operation in log[created:] if operation.path == path]
    data = b"".join(operation.data for operation in own if operation.kind == "write")
    synced = any(operation.kind == "fsync" for operation in own)
    return data if synced else data[: int(len(data) * size)]


# How likely an unsynced name survives, and how much of the unsynced bytes.
CHANCES = ((0.0, 0.0), (1.0, 0.0), (1.0, 0.5), (0.5, 0.0), (0.5, 0.5), (0.5, 1.0), (0.8, 1.0), (0.8, 0.0), (0.2, 0.5))


def crash_states(log: list[Operation], old: Path, scratch: Path, every: int, seed: int) -> Iterator[tuple[int, Path]]:
    rng = random.Random(seed)
    for end in range(0, len(log) + 1, every):
        for case, (chance, share) in enumerate(CHANCES):
            root = scratch / f"{end}-{case}" / "store"
            root.parent.mkdir(parents=True)
            crash_state(log[:end], old, root, lambda chance=chance: rng.random() < chance, share)  # type: ignore[misc]
            yield end, root


def bad_states(log: list[Operation], marks: dict[str, int], tmp_path: Path, reference: dict[str, str], every: int) -> list[str]:
    bad = []
    for end, root in crash_states(log, tmp_path / "store", tmp_path / "states", every, seed=every):
        found = problems(root, [name for name, mark in marks.items() if mark <= end], reference)
        bad += [f"{root}: {found}"] if found else []
    return bad


@pytest.mark.parametrize("every", [31, pytest.param(1, marks=pytest.mark.proof)])
def test_power_loss_loses_nothing_that_was_reported_done(tmp_path: Path, reference: dict[str, str], every: int) -> None:
    log, marks = record(tmp_path / "store")
    assert bad_states(log, marks, tmp_path, reference, every) == []


@pytest.mark.parametrize("left_out", ["fsync", "fsync folder"])
def test_control_without_fsync_power_loss_does_harm(tmp_path: Path, reference: dict[str, str], left_out: str) -> None:
    log, marks = record(tmp_path / "store")
    log = [operation if operation.kind != left_out else Operation("chmod", operation.path) for operation in log]
    assert bad_states(log, marks, tmp_path, reference, 37) != []


def test_control_without_checks_half_written_artifacts_would_be_used(
    tmp_path: Path, reference: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "store"
    run_all(root)
    artifact = Store(root).list("train")[0]
    artifact.path("model.bin").chmod(0o644)
    artifact.path("model.bin").write_bytes(bytes(32))
    with pytest.raises(ArtifactError):
        artifact.read("model.bin")
    monkeypatch.setattr("tinygpt.store.artifact.hash_bytes", lambda data: artifact.manifest.files["model.bin"]["sha256"])
    assert artifact.read("model.bin") == bytes(32)
