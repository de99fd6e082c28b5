"""Checkpoints: the newest intact one is found; old ones go only after the new one was read back."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.proofs.figures import RecordFigure, Size
from tests.store.workload import (
    KillAt,
    KilledError,
    Recorder,
    faults,
    overwrite,
    save_checkpoint,
    watched,
)
from tinygpt.errors import MissingArtifactError, StorageError
from tinygpt.hashing import Key, hash_json
from tinygpt.store import Artifact, Store, UnfinishedRun, upkeep
from tinygpt.store.unfinished import drop

pytestmark = pytest.mark.usefixtures("fast")
KEY = Key(hash_json("test"))
TABLES = {"train": {"max_steps": 9}}


def begin(root: Path) -> UnfinishedRun:
    return Store(root).begin("train", KEY, tables=TABLES).unfinished_run


def newest_step(run: UnfinishedRun) -> object:
    newest = run.newest()
    return newest.manifest.provenance["step"] if newest else 0


def test_the_newest_checkpoint_is_found_again_and_old_ones_are_removed(tmp_path: Path) -> None:
    run = begin(tmp_path)
    assert run.newest() is None
    for step in (5, 9, 100, 12_345_678_901):
        assert save_checkpoint(run, step).read("model.bin") == b"%d" % step
    assert run.steps() == [100, 12_345_678_901]
    found = Store(tmp_path).unfinished_run("train", KEY).newest()
    assert found
    assert found.stage == "checkpoint"
    assert found.key == KEY
    assert found.manifest.provenance["step"] == 12_345_678_901
    assert found.manifest.tables == TABLES
    assert found.read("best/model.bin") == b"best"


@pytest.mark.parametrize("name", ["model.bin", "best/model.bin", "manifest.json"])
def test_a_damaged_newest_checkpoint_is_skipped_and_reported(tmp_path: Path, name: str) -> None:
    run = begin(tmp_path)
    save_checkpoint(run, 1)
    path = save_checkpoint(run, 2).folder / name
    overwrite(path, b"?" * path.stat().st_size)
    assert newest_step(run) == 1
    (fault,) = [fault for fault in upkeep.verify(Store(tmp_path)) if fault.kind != "leftover"]
    assert fault.culprit == run.folder / "checkpoint/step-00000002"


def test_a_checkpoint_replaces_those_of_the_same_and_later_steps(tmp_path: Path) -> None:
    run = begin(tmp_path)
    save_checkpoint(run, 1)
    save_checkpoint(run, 2)
    run.save(1, {"model.bin": b"again"}, keep=2)
    assert run.steps() == [1]
    assert run.load(1).read("model.bin") == b"again"
    assert len(list(Store(tmp_path).trash.iterdir())) == 2
    assert faults(Store(tmp_path)) == []


def test_what_a_killed_process_left_goes_with_the_next_save(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.write_side_file("snapshot-1", b"one")
    (run.folder / ".new.0123456789ab").mkdir()
    (run.folder / "kept" / ".snapshot-2.0123456789ab").write_bytes(b"tw")
    save_checkpoint(run, 1)
    left = {path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*")}
    assert {name for name in left if "/." in f"/{name}"} == set()
    assert "kept/snapshot-1" in left


def rotate(root: Path, rotations: int, saved: list[int]) -> None:
    """Save so many checkpoints, of which one or two are kept; `saved` receives each step."""
    run = begin(root)
    for step in range(1, rotations + 1):
        save_checkpoint(run, step, keep=1 + step % 2)
        saved.append(step)


def kills_that_lose_a_checkpoint(tmp_path: Path, rotations: int) -> tuple[int, list[int]]:
    """How many operations were killed, and those after which not the newest one is found."""
    recorder = Recorder()
    with watched(recorder):
        rotate(tmp_path / "count", rotations, [])
    bad = []
    for number in range(1, len(recorder.log) + 1):
        root = tmp_path / str(number)
        saved: list[int] = []
        with watched(KillAt(number)), pytest.raises(KilledError):
            rotate(root, rotations, saved)
        step = newest_step(Store(root).unfinished_run("train", KEY))
        if step not in (len(saved), len(saved) + 1):
            bad.append(number)
    return len(recorder.log), bad


def test_an_intact_checkpoint_remains_wherever_a_rotation_is_killed(
    tmp_path: Path, size: Size, figure: RecordFigure
) -> None:
    rotations = size(3, 10, 30)
    kills, bad = kills_that_lose_a_checkpoint(tmp_path, rotations)
    assert bad == []
    figure("G17", f"kills in the course of {rotations} rotations of checkpoints", kills)


def test_control_removing_the_old_checkpoint_first_is_noticed(
    tmp_path: Path, figure: RecordFigure, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = UnfinishedRun.save

    def save_later(
        self: UnfinishedRun, step: int, parts: Mapping[str, bytes], *, keep: int
    ) -> Artifact:
        for old_step in self.steps():
            drop(self._place(old_step), self.folder / f".gone.{old_step}")
        return save(self, step, parts, keep=keep)

    monkeypatch.setattr(UnfinishedRun, "save", save_later)
    kills, bad = kills_that_lose_a_checkpoint(tmp_path, 3)
    figure("G17", "kills while the old checkpoint goes first", kills, len(bad), control=True)


def test_a_side_file_can_be_read_and_replaced(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.write_side_file("snapshot-1", b"one")
    run.write_side_file("snapshot-1", b"two")
    assert run.read_side_file("snapshot-1") == b"two"
    with pytest.raises(MissingArtifactError):
        run.read_side_file("snapshot-2")


def test_a_side_file_that_cannot_be_read_is_a_storage_error(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.write_side_file("snapshot-1", b"one")
    link = run.folder / "kept" / "snapshot-2"
    link.symlink_to("snapshot-1")
    with pytest.raises(StorageError, match="snapshot-2"):
        run.read_side_file("snapshot-2")


@pytest.mark.parametrize("name", ["../escape", "a/b", "", ".", "/etc/passwd"])
def test_a_side_file_needs_a_plain_name(tmp_path: Path, name: str) -> None:
    run = begin(tmp_path)
    with pytest.raises(ValueError):
        run.write_side_file(name, b"")
    with pytest.raises(ValueError):
        run.read_side_file(name)


def test_an_unfinished_run_is_listed_with_its_recipe_until_it_is_set_aside(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run = begin(tmp_path)
    assert store.unfinished_runs() == []
    save_checkpoint(run, 7)
    (unfinished,) = store.unfinished_runs()
    assert (unfinished.stage, unfinished.key12, unfinished.step) == ("train", KEY[:12], 7)
    assert unfinished.recipe.tables == TABLES
    moved = run.set_aside("before-fresh")
    assert moved.parent == store.trash
    assert moved.name.startswith("before-fresh")
    assert store.unfinished_runs() == []
    assert run.newest() is None


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 100_000])
def test_an_unfinished_run_is_listed_while_one_of_its_manifests_is_sound(
    tmp_path: Path, data: bytes
) -> None:
    store = Store(tmp_path)
    run = begin(tmp_path)
    checkpoints = [save_checkpoint(run, 1), save_checkpoint(run, 2)]
    overwrite(checkpoints[1].folder / "manifest.json", data)
    (unfinished,) = store.unfinished_runs()
    assert unfinished.recipe.tables == TABLES
    assert "changed" in {fault.kind for fault in upkeep.verify(store)}
    overwrite(checkpoints[0].folder / "manifest.json", data)
    assert store.unfinished_runs() == []
    assert "changed" in {fault.kind for fault in upkeep.verify(store)}


def test_publishing_removes_the_unfinished_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    out = store.begin("train", KEY)
    save_checkpoint(out.unfinished_run, 1)
    out.bytes("model.bin", b"done")
    store.publish(out)
    assert store.unfinished_runs() == []
    assert list(store.partial.iterdir()) == []
