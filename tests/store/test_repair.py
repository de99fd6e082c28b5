"""`verify --repair` mends file by file, keeps models, and loses nothing wherever it is killed."""

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from tests.proofs.figures import RecordFigure
from tests.store.test_upkeep import OTHER_KEY, refuse_reads
from tests.store.workload import (
    ERRORS,
    FailAt,
    KillAt,
    KilledError,
    overwrite,
    run_all,
    run_one,
    run_train,
    save_checkpoint,
    watched,
)
from tinygpt.errors import BusyError, CorruptArtifactError, StorageError
from tinygpt.hashing import hash_bytes
from tinygpt.pipeline import digests
from tinygpt.store import Artifact, Store, files, upkeep
from tinygpt.store.files import Hook

pytestmark = pytest.mark.usefixtures("fast")
SNAPSHOT = "snapshots/2"


@pytest.fixture
def full(tmp_path: Path) -> Store:
    """A store with one artifact of each stage up to the model."""
    run_all(tmp_path / "store")
    return Store(tmp_path / "store")


@pytest.fixture
def model(full: Store) -> Artifact:
    """Its model; `tokenizer.json` equals `data.bin` of the tokenizer, the rest stands alone."""
    return full.list("train")[0]


def done(store: Store) -> list[str]:
    """What a repair says it did."""
    return [what for _, what in upkeep.repair(store)]


def contents(root: Path) -> set[str]:
    """The bytes of all files in a store, as hashes; links and lock files left out."""
    return {
        hash_bytes(path.read_bytes())
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink() and path.suffix != ".lock"
    }


def test_a_file_is_restored_in_a_store_without_a_folder_for_unfinished_work(
    full: Store, model: Artifact
) -> None:
    shutil.rmtree(full.partial)
    model.path("tokenizer.json").unlink()
    assert "restored from" in done(full)[0]
    model.check()


def test_an_artifact_returns_to_a_stage_whose_folder_is_gone(full: Store, model: Artifact) -> None:
    (corpus,) = full.list("corpus")
    corpus.folder.rename(model.folder.with_name(corpus.id))
    corpus.folder.parent.rmdir()
    assert done(full) == [f"renamed to `corpus/{corpus.id}`"]
    assert full.list("corpus") == [corpus]


def test_a_source_that_changes_after_it_was_found_restores_nothing(
    full: Store, model: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.path("tokenizer.json").unlink()
    copy_file = files.copy_file

    def copy_changed(root: Path, source: Path, target: Path) -> object:
        overwrite(source, bytes(source.stat().st_size))
        return copy_file(root, source, target)

    monkeypatch.setattr(files, "copy_file", copy_changed)
    assert "moved to `.trash/`" in done(full)
    assert not model.path("tokenizer.json").exists()
    assert files.entries(full.partial) == []


class TestModels:
    def test_a_damaged_snapshot_alone_goes_to_the_trash_and_the_model_can_be_used(
        self, full: Store, model: Artifact
    ) -> None:
        overwrite(model.path(SNAPSHOT), b"wrong")
        with pytest.raises(CorruptArtifactError) as caught:
            model.read(SNAPSHOT)
        assert "`tinygpt artifacts verify --repair`" in str(caught.value.hint)
        assert done(full) == ["moved to `.trash/`"]
        assert [path.read_bytes() for path in files.entries(full.trash)] == [b"wrong"]
        kept = full.find("train", model.key)
        assert kept is not None
        kept.check()
        assert (kept.digest, kept.missing()) == (model.digest, [SNAPSHOT])
        assert run_one(full, "train", inputs_of(full, model)).cached
        with pytest.raises(CorruptArtifactError, match=f"`{SNAPSHOT}` is missing"):
            kept.read(SNAPSHOT)

    def test_what_it_lacks_is_reported_for_good_and_a_second_repair_changes_nothing(
        self, full: Store, model: Artifact
    ) -> None:
        overwrite(model.path(SNAPSHOT), b"wrong")
        upkeep.repair(full)
        paths = sorted(full.root.rglob("*"))
        (fault,) = upkeep.verify(full)
        assert (fault.kind, fault.is_mendable) == ("missing", False)
        assert fault.text == f"model `{model.id}` lacks `{SNAPSHOT}`, and can be used without it"
        assert done(full) == ["no equal file is in the store"]
        assert upkeep.verify(full) == [fault]
        assert sorted(full.root.rglob("*")) == paths

    def test_without_its_weights_it_goes_to_the_trash_with_all_its_files(
        self, full: Store, model: Artifact
    ) -> None:
        overwrite(model.path("model.safetensors"), b"wrong")
        before = contents(full.root)
        assert done(full) == ["moved to `.trash/`"]
        (moved,) = files.entries(full.trash)
        assert (moved / "model.safetensors").read_bytes() == b"wrong"
        assert len(list((moved / "snapshots").iterdir())) == 3
        assert contents(full.root) == before
        assert full.list("train") == upkeep.verify(full) == []

    @pytest.mark.parametrize("name", ["model.safetensors", SNAPSHOT, "manifest.json"])
    @pytest.mark.parametrize("error", [errno.EACCES, errno.EIO])
    def test_what_cannot_be_read_now_is_not_moved(
        self, full: Store, model: Artifact, monkeypatch: pytest.MonkeyPatch, name: str, error: int
    ) -> None:
        with monkeypatch.context() as patch:
            refuse_reads(patch, model.path(name), error)
            (fault,) = upkeep.verify(full)
            assert fault.kind in ("unreadable", "read error")
            upkeep.repair(full)
        assert upkeep.verify(full) == files.entries(full.trash) == []

    def test_a_renamed_folder_gets_its_name_back(self, full: Store, model: Artifact) -> None:
        model.folder.rename(model.folder.with_name("my best model"))
        assert done(full) == [f"renamed to `train/{model.id}`"]
        assert full.list("train") == [model]
        assert upkeep.verify(full) == files.entries(full.trash) == []

    def test_a_copy_beside_the_original_goes_to_the_trash(
        self, full: Store, model: Artifact
    ) -> None:
        shutil.copytree(model.folder, model.folder.with_name(f"{model.id} copy"))
        assert done(full) == ["moved to `.trash/`"]
        assert full.list("train") == [model]
        assert upkeep.verify(full) == []

    def test_what_is_made_from_it_has_another_key_while_files_are_missing(
        self, full: Store, model: Artifact
    ) -> None:
        whole = digests({"train": model})
        aside = full.root.parent / "aside"
        model.path(SNAPSHOT).rename(aside)
        lacking = digests({"train": model})
        assert whole["train"] == model.digest
        assert lacking != whole
        aside.rename(model.path(SNAPSHOT))
        assert digests({"train": model}) == whole

    def test_training_again_replaces_it_while_files_are_missing(
        self, full: Store, model: Artifact
    ) -> None:
        overwrite(model.path(SNAPSHOT), b"wrong")
        upkeep.repair(full)
        again = run_one(full, "train", inputs_of(full, model), force=True).artifact
        assert (again.digest, again.missing()) == (model.digest, [])
        assert upkeep.verify(full) == []


def inputs_of(store: Store, artifact: Artifact) -> dict[str, Artifact]:
    """What an artifact was made from."""
    return {name: store.list(name)[0] for name in artifact.manifest.inputs}


class TestEqualFiles:
    @pytest.mark.parametrize("place", ["tokenize", "latest", "trash", "checkpoint", "foreign"])
    def test_a_file_is_restored_from_an_equal_one_anywhere_in_the_store(
        self, full: Store, model: Artifact, place: str
    ) -> None:
        name = "tokenizer.json" if place == "tokenize" else SNAPSHOT
        right = model.read(name)
        match place:
            case "latest":
                full.put_latest({"sample.txt": right})
            case "trash":
                full.trash.mkdir()
                (full.trash / "anything").write_bytes(right)
            case "checkpoint":
                run = full.begin("train", OTHER_KEY).unfinished_run
                run.save(1, {"model.safetensors": right}, keep=1)
            case "foreign":
                (full.root / "foreign").mkdir()
                (full.root / "foreign" / "mine").write_bytes(right)
        overwrite(model.path(name), b"w" * len(right))
        (what,) = [what for _, what in upkeep.repair(full) if what.startswith("restored")]
        assert place in what
        assert model.read(name) == right
        model.check()
        assert model.path(name).stat().st_mode & 0o777 == 0o444
        assert b"w" * len(right) in [
            path.read_bytes() for path in files.entries(full.trash) if path.is_file()
        ]
        assert upkeep.verify(full) == []

    def test_weights_are_restored_from_the_snapshot_of_the_last_step(self, full: Store) -> None:
        def run_with_equal_snapshot(*arguments: object) -> None:
            run_train(*arguments)  # type: ignore[arg-type]
            out = arguments[2]
            state = (out.folder / "model.safetensors").read_bytes()  # type: ignore[attr-defined]
            out.bytes("snapshots/last", state)  # type: ignore[attr-defined]

        inputs = inputs_of(full, full.list("train")[0])
        model = run_one(full, "train", inputs, runner=run_with_equal_snapshot, force=True).artifact
        upkeep.gc(full)
        model.path("model.safetensors").unlink()
        assert done(full) == [f"restored from `train/{model.id}/snapshots/last`"]
        model.check()

    def test_links_with_the_right_bytes_are_no_source(self, full: Store, model: Artifact) -> None:
        outside = full.root.parent / "outside"
        model.path(SNAPSHOT).rename(outside)
        (full.root / "link").symlink_to(outside)
        model.path(SNAPSHOT).symlink_to(outside)
        assert done(full) == ["moved to `.trash/`"]
        assert outside.is_file()

    def test_a_checkpoint_is_mended_too(self, full: Store) -> None:
        run = full.begin("train", OTHER_KEY).unfinished_run
        save_checkpoint(run, 1)
        newest = save_checkpoint(run, 2)
        overwrite(newest.path("best/model.bin"), b"????")
        assert done(full)[0].startswith("restored from `.partial/train-")
        assert [artifact.read("best/model.bin") for artifact in (run.load(1), run.load(2))] == [
            b"best",
            b"best",
        ]


class TestWhatStandsInTheWay:
    @pytest.mark.parametrize("kind", ["link", "file", "folder", "pipe"])
    def test_it_is_moved_itself_and_nothing_outside_is_touched(
        self, full: Store, model: Artifact, kind: str
    ) -> None:
        """A link or a file in place of the folder `snapshots`, or in place of one snapshot."""
        outside = full.root.parent / "outside"
        model.path("snapshots").rename(outside)
        match kind:
            case "link":
                model.path("snapshots").symlink_to(outside)
            case "file":
                model.path("snapshots").write_bytes(b"no folder")
            case "folder":
                model.path(SNAPSHOT).mkdir(parents=True)
            case "pipe":
                model.path("snapshots").mkdir()
                os.mkfifo(model.path(SNAPSHOT))
        upkeep.repair(full)
        assert [path.name for path in files.entries(outside)] == ["1", "2", "3"]
        model.check()
        assert model.missing() == [f"snapshots/{step}" for step in (1, 2, 3)]
        full.put_latest({name: (outside / name).read_bytes() for name in ("1", "2", "3")})
        assert len(done(full)) == 3
        assert model.missing() == upkeep.verify(full) == []

    @pytest.mark.parametrize(
        "name", ["notes.txt", "x" * 255, "b\udcffad", "..", "snapshots/more/deep"]
    )
    def test_a_stray_file_goes_to_the_trash_alone(
        self, full: Store, model: Artifact, name: str
    ) -> None:
        stray = model.path(name if name != ".." else "\u202e..")
        stray.parent.mkdir(parents=True, exist_ok=True)
        stray.write_bytes(b"mine")
        assert done(full) == ["moved to `.trash/`"]
        assert [path.read_bytes() for path in files.entries(full.trash)] == [b"mine"]
        assert full.list("train") == [model]
        assert upkeep.verify(full) == []

    def test_foreign_files_are_left_alone(self, full: Store) -> None:
        foreign = [full.root / "mine.txt", full.root / "train" / "notes.txt", full.root / "x" / "y"]
        for path in foreign:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"mine")
        links = [full.root / "downloads", full.root / "broken"]
        links[0].symlink_to(full.root.parent)
        links[1].symlink_to("nowhere")
        assert upkeep.verify(full) == upkeep.repair(full) == []
        assert all(path.is_file() for path in foreign)
        assert all(path.is_symlink() for path in links)

    def test_a_link_in_place_of_a_stage_goes_to_the_trash_without_what_it_leads_to(
        self, full: Store, model: Artifact
    ) -> None:
        elsewhere = full.root.parent / "train"
        model.folder.parent.rename(elsewhere)
        model.folder.parent.symlink_to(elsewhere)
        assert done(full) == ["moved to `.trash/`"]
        assert Artifact.load(elsewhere / model.id).digest == model.digest
        assert upkeep.verify(full) == []


def damage_everything(store: Store) -> None:
    """Faults of many kinds: to be restored, moved alone, moved with their folder, renamed."""
    model = store.list("train")[0]
    overwrite(model.path("tokenizer.json"), b"?" * 32)
    overwrite(model.path(SNAPSHOT), b"wrong")
    model.path("snapshots/1").unlink()
    model.path("notes.txt").write_bytes(b"notes")
    store.list("build-dataset")[0].path("data.bin").unlink()
    (tokenizer,) = store.list("tokenize")
    tokenizer.folder.rename(tokenizer.folder.with_name("renamed"))
    store.pin(model)
    save_checkpoint(store.begin("train", OTHER_KEY).unfinished_run, 1)


@pytest.mark.parametrize(
    "hook", [KillAt, *(partial(FailAt, error=error) for error in ERRORS)], ids=["kill", *"abc"]
)
def test_wherever_a_repair_ends_nothing_is_lost_and_the_next_one_ends_the_same(
    full: Store, tmp_path: Path, hook: Callable[[int], Hook], figure: RecordFigure
) -> None:
    damage_everything(full)
    before = contents(full.root)
    finished = Store(shutil.copytree(full.root, tmp_path / "finished", symlinks=True))
    upkeep.repair(finished)
    expected = [(fault.kind, fault.text) for fault in upkeep.verify(finished)]
    assert len(expected) == 2  # the model lacks two snapshots
    kills = 0
    for number in range(1, 100):
        store = Store(shutil.copytree(full.root, tmp_path / str(number), symlinks=True))
        with watched(hook(number)), suppress(KilledError, StorageError):
            upkeep.repair(store)
            break
        kills += 1
        assert before <= contents(store.root), number
        upkeep.repair(store)
        assert [(fault.kind, fault.text) for fault in upkeep.verify(store)] == expected, number
        assert before <= contents(store.root), number
        assert [artifact.digest for artifact in store.list()] == [
            artifact.digest for artifact in finished.list()
        ]
    assert kills > 25
    figure("G11", "repairs that are killed, or meet an error, at another operation each", kills)


@pytest.mark.parametrize("act", [upkeep.repair, upkeep.gc])
def test_it_waits_for_a_stage_that_runs_and_changes_nothing(
    full: Store, model: Artifact, act: Callable[..., object]
) -> None:
    overwrite(model.path(SNAPSHOT), b"wrong")
    with full.lock("train", OTHER_KEY):
        before = sorted(full.root.rglob("*"))
        with pytest.raises(BusyError):
            act(full, timeout=0)
        assert sorted(full.root.rglob("*")) == before
