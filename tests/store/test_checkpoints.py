"""Checkpoints: the newest whole one is found, old ones go only after the new one was read again."""

from pathlib import Path

import pytest

from tests.store.workload import KillAt, KilledError, Recorder, watched
from tinygpt.errors import MissingArtifactError
from tinygpt.hashing import Key, hash_json
from tinygpt.store import Artifact, Checkpoints, Store, upkeep

pytestmark = pytest.mark.usefixtures("fast")
KEY = Key(hash_json("test"))


def checkpoints(root: Path) -> Checkpoints:
    return Store(root).begin("train", KEY, tables={"train": {"max_steps": 9}}).checkpoints


def save(run: Checkpoints, step: int, keep: int = 2) -> Artifact:
    return run.save(step, {"model.bin": b"%d" % step, "best/model.bin": b"best"}, keep=keep)


def spoil(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"?" * path.stat().st_size)


def test_the_newest_is_found_again_and_old_ones_are_removed(tmp_path: Path) -> None:
    run = checkpoints(tmp_path)
    assert run.newest() is None
    for step in (5, 9, 100, 12_345_678_901):
        assert save(run, step).read("model.bin") == b"%d" % step
    assert run.steps() == [100, 12_345_678_901]
    again = Store(tmp_path).checkpoints("train", KEY).newest()
    assert again
    assert (again.stage, again.key, again.manifest.provenance["step"]) == ("checkpoint", KEY, 12_345_678_901)
    assert again.read("best/model.bin") == b"best"
    assert again.manifest.tables == {"train": {"max_steps": 9}}


@pytest.mark.parametrize("name", ["model.bin", "best/model.bin", "manifest.json"])
def test_a_damaged_newest_is_skipped_and_found(tmp_path: Path, name: str) -> None:
    run = checkpoints(tmp_path)
    save(run, 1)
    spoil(save(run, 2).folder / name)
    newest = run.newest()
    assert newest
    assert newest.manifest.provenance["step"] == 1
    faults = [fault for fault in upkeep.verify(Store(tmp_path)) if fault.kind != "leftover"]
    assert [fault.culprit for fault in faults] == [run.folder / "checkpoint/step-00000002"]


@pytest.mark.parametrize("rotations", [3, pytest.param(30, marks=pytest.mark.proof)])
def test_killed_anywhere_in_the_rotation_there_is_a_whole_checkpoint(tmp_path: Path, rotations: int) -> None:
    def rotate(root: Path, saved: list[int]) -> None:
        run = checkpoints(root)
        for step in range(1, rotations + 1):
            save(run, step, keep=1 + step % 2)
            saved.append(step)

    recorder = Recorder()
    with watched(recorder):
        rotate(tmp_path / "count", [])
    for number in range(1, len(recorder.log) + 1):
        root, saved = tmp_path / str(number), list[int]()
        with watched(KillAt(number)), pytest.raises(KilledError):
            rotate(root, saved)
        newest = Store(root).checkpoints("train", KEY).newest()
        step = newest.manifest.provenance["step"] if newest else 0
        assert step in (len(saved), len(saved) + 1), number


def test_side_files_are_kept_and_replaced(tmp_path: Path) -> None:
    run = checkpoints(tmp_path)
    run.keep("snapshot-1", b"one")
    run.keep("snapshot-1", b"two")
    assert run.kept("snapshot-1") == b"two"
    with pytest.raises(MissingArtifactError):
        run.kept("snapshot-2")
    for name in ("../escape", "a/b", "", ".", "/etc/passwd"):
        with pytest.raises(ValueError):
            run.keep(name, b"")
        with pytest.raises(ValueError):
            run.kept(name)


def test_an_unfinished_run_is_listed_with_its_recipe_until_it_is_set_aside(tmp_path: Path) -> None:
    store, run = Store(tmp_path), checkpoints(tmp_path)
    assert store.unfinished() == []
    save(run, 7)
    (unfinished,) = store.unfinished()
    assert (unfinished.stage, unfinished.key12, unfinished.step) == ("train", KEY[:12], 7)
    assert unfinished.recipe.tables == {"train": {"max_steps": 9}}
    moved = run.set_aside("before-fresh")
    assert moved.parent == store.trash
    assert moved.name.startswith("before-fresh")
    assert store.unfinished() == []
    assert run.newest() is None


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 100_000])
def test_an_unfinished_run_is_described_by_the_newest_checkpoint_whose_manifest_is_sound(tmp_path: Path, data: bytes) -> None:
    store, run = Store(tmp_path), checkpoints(tmp_path)
    save(run, 1)
    save(run, 2)
    for step, described in ((2, True), (1, False)):
        path = run.folder / f"checkpoint/step-{step:08d}/manifest.json"
        path.chmod(0o644)
        path.write_bytes(data)
        assert [other.recipe.tables for other in store.unfinished()] == [{"train": {"max_steps": 9}}] * described
        assert "changed" in {fault.kind for fault in upkeep.verify(store)}


def test_publishing_ends_the_unfinished_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    out = store.begin("train", KEY)
    save(out.checkpoints, 1)
    out.bytes("model.bin", b"done")
    store.publish(out)
    assert store.unfinished() == []
    assert list(store.partial.iterdir()) == []
