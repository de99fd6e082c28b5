"""The process is killed, an operation fails or the power is lost, at every operation of the store.

Afterwards, whatever is listed is intact, and running again gives the same bytes.
"""

import errno
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from tests.proofs.figures import RecordFigure, Size
from tests.store.workload import (
    ERRORS,
    FailAt,
    KillAt,
    KilledError,
    Recorder,
    faults,
    overwrite,
    problems,
    run_all,
    run_one,
    watched,
)
from tinygpt.config.tables import Config
from tinygpt.errors import ArtifactError, StorageError
from tinygpt.progress import Reporter
from tinygpt.store import Artifact, ArtifactWriter, Store, upkeep
from tinygpt.store.files import Hook, Operation
from tinygpt.store.new_folder import NewFolder

pytestmark = pytest.mark.usefixtures("fast")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digest of each stage when nothing goes wrong."""
    return run_all(tmp_path_factory.mktemp("reference") / "store")


def record(root: Path) -> tuple[list[Operation], dict[str, int]]:
    """The operations of a whole run, and how many had happened when each stage was done."""
    recorder = Recorder()
    operations_at_end: dict[str, int] = {}

    class Done(list[str]):
        def append(self, name: str) -> None:
            operations_at_end[name] = len(recorder.log)

    with watched(recorder):
        run_all(root, done=Done())
    return recorder.log, operations_at_end


def count_operations(tmp_path: Path) -> int:
    log, _ = record(tmp_path / "count")
    return len(log)


def test_running_again_after_a_kill_at_every_operation_gives_the_same_bytes(
    tmp_path: Path, reference: dict[str, str], size: Size, figure: RecordFigure
) -> None:
    numbers = range(1, count_operations(tmp_path) + 1, size(7, 1))
    bad = []
    for number in numbers:
        root = tmp_path / str(number)
        done: list[str] = []
        with watched(KillAt(number)), pytest.raises(KilledError):
            run_all(root, done=done)
        bad += problems(root, done, reference)
    assert bad == []
    figure("G1", "kills, each before another operation of the store", len(numbers))


def test_control_kills_do_harm_if_files_are_written_where_the_artifact_will_be(
    tmp_path: Path, reference: dict[str, str], figure: RecordFigure, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = range(7, 22, 2)
    bad = 0
    for number in numbers:
        root = tmp_path / str(number)
        (root / "corpus").mkdir(parents=True)
        with monkeypatch.context() as patch:
            patch.setattr(Store, "_fresh", lambda self, name: self.root / name.replace("-", "/"))
            with watched(KillAt(number)), suppress(KilledError):
                run_all(root, names=("corpus",))
        bad += problems(root, [], reference) != []
    figure("G1", "kills of a store that writes in place", len(numbers), bad, control=True)


def test_running_again_after_two_kills_gives_the_same_bytes(
    tmp_path: Path, reference: dict[str, str], size: Size, figure: RecordFigure
) -> None:
    rng = random.Random(1)
    total = count_operations(tmp_path)
    cases = size(10, 200)
    bad = []
    for case in range(cases):
        root = tmp_path / str(case)
        done: list[str] = []
        for _ in range(2):
            with watched(KillAt(rng.randint(1, total))), suppress(KilledError):
                run_all(root, done=done)
        bad += problems(root, done, reference)
    assert bad == []
    figure("G1", "double kills at random operations", cases, seed=1)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("for_ever", [False, True])
def test_an_error_at_every_operation_publishes_nothing_broken(
    tmp_path: Path,
    reference: dict[str, str],
    error: int,
    for_ever: bool,
    size: Size,
    figure: RecordFigure,
) -> None:
    numbers = range(1, count_operations(tmp_path) + 1, size(17, 1))
    bad = []
    for number in numbers:
        root = tmp_path / str(number)
        hook = FailAt(number, error, for_ever=for_ever)
        done: list[str] = []
        with watched(hook), suppress(StorageError):
            run_all(root, done=done)
        assert hook.failed_kind
        bad += problems(root, done, reference)
    assert bad == []
    what = "errors from an operation on" if for_ever else "errors of one operation"
    figure("G3", f"{what} (ENOSPC, EIO, EDQUOT)", len(numbers))


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_while_writing_leaves_no_temporary_files(
    tmp_path: Path, error: int, size: Size, figure: RecordFigure
) -> None:
    numbers, left = folders_left_by_errors(tmp_path, error, size(5, 1))
    assert left == []
    figure("G3", "errors of a write, none of which leaves a temporary file", numbers)


def test_control_without_discarding_an_error_leaves_temporary_files(
    tmp_path: Path, figure: RecordFigure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NewFolder, "discard", lambda self: None)
    numbers, left = folders_left_by_errors(tmp_path, errno.ENOSPC, 5)
    figure("G3", "errors of a write without `discard`", numbers, len(left), control=True)


def folders_left_by_errors(tmp_path: Path, error: int, every: int) -> tuple[int, list[Path]]:
    """How many writes were made to fail, and an unfinished folder of each that left one."""
    log, _ = record(tmp_path / "count")
    last_publication = max(
        index
        for index, operation in enumerate(log)
        if operation.target and "train" in operation.target.parts
    )
    left: list[Path] = []
    failed = 0
    for number in range(1, last_publication + 1, every):
        if not writes_an_unpublished_file(log[number - 1]):
            continue
        failed += 1
        root = tmp_path / str(number)
        with watched(FailAt(number, error)), pytest.raises(StorageError):
            run_all(root)
        unfinished = [path for path in (root / ".partial").glob("*") if "." in path.name]
        left += [*unfinished, *(root / ".partial").glob("*/.new.*")][:1]
    return failed, left


def writes_an_unpublished_file(operation: Operation) -> bool:
    writes = operation.kind in ("create", "write", "chmod", "fsync", "fsync folder", "mkdir")
    path = operation.path
    return writes and ".partial" in path.parts and "checkpoint" not in str(path)


def test_a_failed_fsync_is_not_repeated_and_nothing_is_published(
    tmp_path: Path, figure: RecordFigure
) -> None:
    log, _ = record(tmp_path / "count")
    fsyncs = [number for number, operation in enumerate(log, 1) if operation.kind == "fsync"]
    for number in fsyncs:
        recorder = Recorder()
        fail = FailAt(number, errno.EIO)

        def hook(operation: Operation, recorder: Recorder = recorder, fail: FailAt = fail) -> None:
            recorder(operation)
            fail(operation)

        root = tmp_path / str(number)
        with watched(hook), pytest.raises(StorageError):
            run_all(root)
        failed = recorder.log[number - 1]
        later = recorder.log[number:]
        assert ("fsync", failed.path) not in [(after.kind, after.path) for after in later]
        stage = failed.path.relative_to(root).parts[1].rpartition("-")[0]
        assert Store(root).list(stage) == []
    figure("G3", "failed fsyncs: none is repeated, nothing is published", len(fsyncs))


def write_other(
    config: Config, inputs: Mapping[str, Artifact], out: ArtifactWriter, reporter: Reporter
) -> None:
    out.bytes("data.bin", b"other")


@pytest.mark.parametrize("hook", [KillAt, lambda number: FailAt(number, errno.EIO)])
def test_a_forced_run_that_ends_anywhere_leaves_the_old_artifact_the_new_one_or_none(
    tmp_path: Path, hook: Callable[[int], Hook]
) -> None:
    for number in range(1, 26):  # a forced run has 21 operations
        store = Store(tmp_path / str(number))
        old_digest = run_all(store.root, names=("corpus",))["corpus"]
        with watched(hook(number)), suppress(StorageError, KilledError):
            run_one(store, "corpus", {}, runner=write_other, force=True)
        for artifact in store.list():
            artifact.check()
            assert artifact.digest == old_digest or artifact.names() == ["data.bin"]
        assert faults(store) == []


def test_a_forced_run_that_cannot_be_published_leaves_the_old_artifact(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    old_digest = run_all(store.root, names=("corpus",))["corpus"]

    def refuse_to_publish(operation: Operation) -> None:
        if operation.kind == "rename" and ".partial" in operation.path.parts:
            raise OSError(errno.EIO, "injected")

    with watched(refuse_to_publish), pytest.raises(StorageError):
        run_one(store, "corpus", {}, runner=write_other, force=True)
    (artifact,) = store.list()
    artifact.check()
    assert artifact.digest == old_digest
    assert upkeep.verify(store) == []


@pytest.mark.parametrize("old", [False, True])
def test_a_publication_that_may_not_last_is_undone(tmp_path: Path, old: bool) -> None:
    """The folder is renamed into place, and the fsync after it fails."""
    store = Store(tmp_path / "store")
    if old:
        run_all(store.root, names=("corpus",))
    before = [artifact.digest for artifact in store.list()]
    published = False

    def refuse_the_next_fsync(operation: Operation) -> None:
        nonlocal published
        if published and operation.kind == "fsync folder":
            published = False
            raise OSError(errno.EIO, "injected")
        published |= operation.kind == "rename" and ".partial" in operation.path.parts

    with watched(refuse_the_next_fsync), pytest.raises(StorageError):
        run_one(store, "corpus", {}, runner=write_other, force=True)
    assert [artifact.digest for artifact in store.list()] == before
    assert upkeep.verify(store) == []


@pytest.mark.parametrize("most", [1, 7])
def test_short_writes_are_continued(
    tmp_path: Path, reference: dict[str, str], most: int, figure: RecordFigure
) -> None:
    writes = 0

    def write_less(operation: Operation) -> int:
        nonlocal writes
        writes += operation.kind == "write"
        return most

    with watched(write_less):
        assert run_all(tmp_path / "store") == reference
    assert upkeep.verify(Store(tmp_path / "store")) == []
    figure("G3", "short writes", writes)


# Power loss, after the idea of ALICE (Pillai et al. 2014): what a disk may hold if the power goes
# off at some point of the recorded log. A name is certain to be there once its folder was synced,
# and the bytes of a file once the file was. Anything else is there, there in part, or missing.


def crash_state(
    log: list[Operation],
    old_root: Path,
    new_root: Path,
    name_survives: Callable[[], bool],
    share: float,
) -> None:
    """Build in `new_root` what the disk may hold after `log`, which was recorded in `old_root`.

    Args:
        name_survives: called for each name that was not synced.
        share: how much of the bytes that were not synced survives, from 0 to 1.
    """

    def moved(path: Path) -> Path:
        if path.is_relative_to(old_root):
            return new_root / path.relative_to(old_root)
        return new_root

    for index, operation in enumerate(log):
        if operation.kind not in ("mkdir", "create", "rename", "unlink", "rmdir"):
            continue
        if not (is_name_synced(log, index) or name_survives()):
            continue
        path = moved(operation.path)
        with suppress(OSError):  # it needs a name that was lost
            match operation.kind:
                case "create":
                    path.write_bytes(surviving_bytes(log, index, share))
                case "mkdir":
                    path.mkdir(parents=path == new_root, exist_ok=True)
                case "rename":
                    assert operation.target
                    path.replace(moved(operation.target))
                case "rmdir":
                    path.rmdir()
                case "unlink":
                    path.unlink()


def is_name_synced(log: list[Operation], index: int) -> bool:
    """Whether the folder that the operation changed was synced after it."""
    changed = log[index].target or log[index].path
    return any(
        later.kind == "fsync folder" and later.path == changed.parent for later in log[index + 1 :]
    )


def surviving_bytes(log: list[Operation], created: int, share: float) -> bytes:
    """What a file holds that was created by operation `created`."""
    path = log[created].path
    own = [operation for operation in log[created:] if operation.path == path]
    data = b"".join(operation.data for operation in own if operation.kind == "write")
    if any(operation.kind == "fsync" for operation in own):
        return data
    return data[: int(len(data) * share)]


CHANCES = (
    (0.0, 0.0),
    (1.0, 0.0),
    (1.0, 0.5),
    (0.5, 0.0),
    (0.5, 0.5),
    (0.5, 1.0),
    (0.8, 1.0),
    (0.8, 0.0),
    (0.2, 0.5),
)
"""How likely a name survives that was not synced, and the share of such bytes that does."""


def crash_states(
    log: list[Operation], old_root: Path, scratch: Path, every: int
) -> Iterator[tuple[int, Path]]:
    """Disks after a power loss, each with the number of operations before it."""
    rng = random.Random(every)
    for end in range(0, len(log) + 1, every):
        for case, (chance, share) in enumerate(CHANCES):
            root = scratch / f"{end}-{case}" / "store"
            root.parent.mkdir(parents=True)

            def name_survives(chance: float = chance) -> bool:
                return rng.random() < chance

            crash_state(log[:end], old_root, root, name_survives, share)
            yield end, root


def bad_states(
    log: list[Operation],
    operations_at_end: dict[str, int],
    tmp_path: Path,
    reference: dict[str, str],
    every: int,
) -> tuple[int, list[str]]:
    """How many disks after a power loss were looked at, and those on which something is wrong."""
    bad = []
    count = 0
    for end, root in crash_states(log, tmp_path / "store", tmp_path / "states", every):
        count += 1
        done = [name for name, number in operations_at_end.items() if number <= end]
        found = problems(root, done, reference)
        if found:
            bad.append(f"{root}: {found}")
    return count, bad


def test_power_loss_loses_nothing_that_was_reported_done(
    tmp_path: Path, reference: dict[str, str], size: Size, figure: RecordFigure
) -> None:
    log, operations_at_end = record(tmp_path / "store")
    every = size(31, 5, 1)
    count, bad = bad_states(log, operations_at_end, tmp_path, reference, every)
    assert bad == []
    figure("G2", "disks as a power loss may leave them", count, seed=every)


@pytest.mark.parametrize("left_out", ["fsync", "fsync folder"])
def test_control_without_fsync_power_loss_does_harm(
    tmp_path: Path, reference: dict[str, str], left_out: str, size: Size, figure: RecordFigure
) -> None:
    log, operations_at_end = record(tmp_path / "store")
    log_without_syncs = [
        Operation("chmod", operation.path) if operation.kind == left_out else operation
        for operation in log
    ]
    every = size(37, 37, 5)
    count, bad = bad_states(log_without_syncs, operations_at_end, tmp_path, reference, every)
    figure("G2", f"disks without `{left_out}`", count, len(bad), seed=every, control=True)


def test_control_without_hashes_a_half_written_file_would_be_read(
    tmp_path: Path, reference: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all(tmp_path / "store")
    (artifact,) = Store(tmp_path / "store").list("train")
    overwrite(artifact.path("model.safetensors"), bytes(32))
    with pytest.raises(ArtifactError):
        artifact.read("model.safetensors")
    recorded_hash = artifact.manifest.files["model.safetensors"]["sha256"]
    monkeypatch.setattr("tinygpt.store.artifact.hash_bytes", lambda data: recorded_hash)
    assert artifact.read("model.safetensors") == bytes(32)
