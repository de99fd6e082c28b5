"""verify, repair, gc and pins."""

import errno
import io
import os
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.store.test_checkpoints import save
from tests.store.workload import CONFIG, OUTSIDE, KillAt, KilledError, run_all, run_stage, run_train, watched
from tinygpt.config.tables import Config, DatasetConfig
from tinygpt.errors import ArtifactError, BusyError
from tinygpt.hashing import Key, hash_json
from tinygpt.pipeline import STAGES, execute
from tinygpt.report import SilentReport
from tinygpt.store import Artifact, Store, files, upkeep

pytestmark = pytest.mark.usefixtures("fast")


@pytest.fixture
def full(tmp_path: Path) -> Store:
    run_all(tmp_path / "store")
    return Store(tmp_path / "store")


def rewrite(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def plant(store: Store, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One fault of a kind."""
    artifact = store.list("tokenize")[0]
    path = artifact.path("data.bin")
    match kind:
        case "missing":
            path.unlink()
        case "changed":
            rewrite(path, bytes(32))
        case "truncated":
            rewrite(path, path.read_bytes()[:-1])
        case "grown":
            rewrite(path, path.read_bytes() + b"x")
        case "misnamed":
            artifact.folder.rename(artifact.folder.with_name(f"{artifact.id} (1)"))
        case "symlink":
            path.rename(store.root.parent / "aside")
            path.symlink_to(store.root.parent / "aside")
        case "not a file":
            path.unlink()
            path.mkdir()
        case "leftover":
            with watched(KillAt(12)), pytest.raises(KilledError):
                run_all(store.root, force=True)
        case "stray":  # and a twin on a disk that does not tell cases apart
            path.with_name("Data.bin").write_bytes(path.read_bytes())
        case "dangling":
            store.pin(artifact)
            artifact.folder.rename(store.root.parent / "gone")
        case "unreadable" | "read error":
            _refuse(monkeypatch, path, errno.EACCES if kind == "unreadable" else errno.EIO)


def _refuse(monkeypatch: pytest.MonkeyPatch, path: Path, number: int) -> None:
    real = files.open_beneath

    class Failing(io.RawIOBase):
        def fileno(self) -> int:
            return self.real.fileno()

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object) -> int:
            raise OSError(number, "injected")

    def opened(root: Path, wanted: Path) -> object:
        stream = real(root, wanted)
        if wanted == path and os.fstat(stream.fileno()).st_ino == inode:
            failing = Failing()
            failing.real = stream  # type: ignore[attr-defined]
            return failing
        return stream

    inode = path.stat().st_ino
    monkeypatch.setattr("tinygpt.store.artifact.open_beneath", opened)


KINDS = [
    "missing",
    "changed",
    "truncated",
    "grown",
    "misnamed",
    "symlink",
    "not a file",
    "unreadable",
    "read error",
]
KINDS += ["leftover", "stray", "dangling"]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_damage_is_found_named_quarantined_and_healed(
    full: Store, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    before = {artifact.stage: artifact.digest for artifact in full.list()}
    assert upkeep.verify(full) == []
    plant(full, kind, monkeypatch)
    (fault,) = upkeep.verify(full)
    assert fault.kind == kind
    assert str(fault.path.name) in fault.text
    trash = len(list(full.trash.iterdir())) if full.trash.exists() else 0
    assert upkeep.repair(full) == [fault]
    assert len(list(full.trash.iterdir())) == trash + 1
    assert upkeep.verify(full) == []
    assert run_all(full.root) == before
    assert upkeep.verify(full) == []


def test_verify_goes_on_after_the_first_fault(full: Store) -> None:
    for artifact in full.list():
        for name in artifact.names():
            artifact.path(name).unlink()
    assert len(upkeep.verify(full)) == sum(len(artifact.names()) for artifact in full.list())


def test_work_in_progress_is_no_fault(full: Store) -> None:
    key = Key(hash_json("other"))
    with full.lock("train", key):
        out = full.begin("train", key)
        out.bytes("a", b"")
        save(out.checkpoints, 1)
        assert upkeep.verify(full) == []
    assert [fault.kind for fault in upkeep.verify(full)] == ["leftover"]


def test_damage_inside_damage_is_quarantined_once(full: Store) -> None:
    run = full.begin("train", Key(hash_json("other"))).checkpoints
    checkpoint = save(run, 1)
    rewrite(checkpoint.path("model.bin"), b"?")
    checkpoint.path("best/model.bin").unlink()
    assert {fault.kind for fault in upkeep.verify(full)} == {"missing", "changed", "leftover"}
    upkeep.repair(full)
    assert upkeep.verify(full) == []


def changed(store: Store, val_fraction: float) -> Artifact:
    """Another build-dataset from the same corpus."""
    config = Config(dataset=DatasetConfig(val_fraction=val_fraction))
    inputs = {name: store.list(name)[-1] for name in ("corpus", "tokenize")}
    stage = STAGES["build-dataset"]
    return execute(stage, config, inputs, store=store, outside=OUTSIDE, runner=run_stage, report=SilentReport()).artifact


def test_gc_keeps_models_newest_pinned_and_all_they_were_made_from(full: Store) -> None:
    old = full.list()
    one, two, three = changed(full, 0.2), changed(full, 0.3), changed(full, 0.4)
    assert [artifact.id for artifact in upkeep.garbage(full)] == [two.id, one.id]
    full.pin(one)
    assert full.is_pinned(one)
    collected, _ = upkeep.gc(full)
    assert [artifact.id for artifact in collected] == [two.id]
    assert {artifact.id for artifact in full.list()} == {artifact.id for artifact in [*old, one, three]}
    full.pin(one, pinned=False)
    assert [artifact.id for artifact in upkeep.gc(full)[0]] == [one.id]
    assert upkeep.verify(full) == []
    assert list(full.trash.iterdir()) == []


def test_gc_keeps_what_an_unfinished_run_reads(full: Store) -> None:
    base = changed(full, 0.2)
    stage = STAGES["train"]

    def interrupted(*arguments: object) -> None:
        run_train(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    inputs = {"build-dataset": base, "tokenize": full.list("tokenize")[0]}
    with pytest.raises(KeyboardInterrupt):
        execute(stage, CONFIG, inputs, store=full, outside=OUTSIDE, runner=interrupted, report=SilentReport())
    changed(full, 0.3)
    assert len(full.unfinished()) == 1
    upkeep.gc(full)
    assert base.id in {artifact.id for artifact in full.list()}
    assert full.unfinished()[0].step == 3


def test_gc_killed_while_it_removes_a_finished_run_leaves_nothing_that_looks_damaged(full: Store, tmp_path: Path) -> None:
    (run,) = full.list("train")
    leftover = full.checkpoints("train", run.key)
    for step in (1, 2):
        save(leftover, step)
    survived = 0
    for number in range(1, 100):
        store = Store(shutil.copytree(full.root, tmp_path / str(number)))
        with watched(KillAt(number)), suppress(KilledError):
            upkeep.gc(store)
            break
        survived += 1
        assert {fault.kind for fault in upkeep.verify(store)} <= {"leftover"}, number
    assert survived > 5


def test_gc_does_nothing_when_an_artifact_cannot_be_read(full: Store) -> None:
    changed(full, 0.2)
    changed(full, 0.3)
    rewrite(full.list("train")[0].folder / "manifest.json", b"{}")
    with pytest.raises(ArtifactError):
        upkeep.gc(full)
    assert len(full.list()) == 5


def test_gc_removes_what_a_killed_process_left_and_nothing_it_can_continue_from(full: Store) -> None:
    key = Key(hash_json("other"))
    out = full.begin("train", key)
    out.bytes("a", b"x" * 100)
    save(out.checkpoints, 1)
    assert sum(upkeep.gc(full)[1].values()) == 100
    assert [path.name for path in full.partial.iterdir()] == [f"train-{key[:12]}"]
    assert full.checkpoints("train", key).newest() is not None


@pytest.mark.parametrize("races", [3, pytest.param(50, marks=pytest.mark.full)])
def test_gc_waits_for_a_paused_writer_and_takes_nothing_of_its(full: Store, races: int) -> None:
    for race in range(races):
        writing, go_on = threading.Event(), threading.Event()
        made: list[Artifact] = []

        def paused(*arguments: object, writing: threading.Event = writing, go_on: threading.Event = go_on) -> None:
            run_stage(*arguments)  # type: ignore[arg-type]
            writing.set()
            assert go_on.wait(10)

        def write(runner: Callable[..., None] = paused, race: int = race, made: list[Artifact] = made) -> None:
            config = Config(dataset=DatasetConfig(val_fraction=0.1 + race / 1000))
            inputs = {name: full.list(name)[-1] for name in ("corpus", "tokenize")}
            stage = STAGES["build-dataset"]
            outcome = execute(stage, config, inputs, store=full, outside=OUTSIDE, runner=runner, report=SilentReport())
            made.append(outcome.artifact)

        thread = threading.Thread(target=write)
        thread.start()
        assert writing.wait(10)
        with pytest.raises(BusyError):
            upkeep.gc(full, timeout=0.05)
        go_on.set()
        upkeep.gc(full, timeout=10)
        thread.join()
        made[0].check()
        assert upkeep.verify(full) == []


def test_gc_killed_at_every_operation_never_leaves_a_half_removed_artifact(full: Store) -> None:
    number, finished = 0, False
    while not finished:
        number += 1
        changed(full, 0.2)
        changed(full, 0.3)
        try:
            with watched(KillAt(number)):
                upkeep.gc(full)
            finished = True
        except KilledError:
            assert [fault for fault in upkeep.verify(full) if fault.kind != "leftover"] == []
    assert number > 10
