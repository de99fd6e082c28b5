"""verify, repair, gc and pins."""

import errno
import io
import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.proofs.figures import RecordFigure, Size
from tests.store.workload import (
    KillAt,
    KilledError,
    Recorder,
    faults,
    overwrite,
    run_all,
    run_one,
    run_stage,
    run_train,
    save_checkpoint,
    watched,
)
from tinygpt.config.tables import Config, DataConfig, DatasetConfig, TrainConfig
from tinygpt.errors import ArtifactError, BusyError
from tinygpt.hashing import Key, hash_json
from tinygpt.pipeline import Runner
from tinygpt.progress import Reporter
from tinygpt.store import Artifact, ArtifactWriter, Inputs, Store, files, upkeep

pytestmark = pytest.mark.usefixtures("fast")
OTHER_KEY = Key(hash_json("other"))


@pytest.fixture
def full(tmp_path: Path) -> Store:
    """A store with one artifact of each stage."""
    run_all(tmp_path / "store")
    return Store(tmp_path / "store")


def build_dataset(store: Store, val_fraction: float, runner: Runner = run_stage) -> Artifact:
    """Another dataset from the oldest corpus and tokenizer."""
    config = Config(dataset=DatasetConfig(val_fraction=val_fraction))
    inputs = {name: store.list(name)[-1] for name in ("corpus", "tokenize")}
    outcome = run_one(
        store, "build-dataset", inputs, config=config, runner=runner, lock_timeout=None
    )
    return outcome.artifact


def build_corpus(store: Store, max_documents: int) -> Artifact:
    """A corpus whose bytes depend on its configuration."""

    def write_number(
        config: Config, inputs: Inputs, out: ArtifactWriter, reporter: Reporter
    ) -> None:
        out.bytes("data.bin", str(config.data.max_documents).encode())

    config = Config(data=DataConfig(max_documents=max_documents))
    return run_one(store, "corpus", {}, config=config, runner=write_number).artifact


def plant(store: Store, kind: str, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    """Make one fault of a kind, of or near a file of the tokenizer."""
    artifact = store.list("tokenize")[0]
    path = artifact.path(file)
    outside = store.root.parent
    match kind:
        case "missing":
            path.unlink()
        case "changed":
            overwrite(path, bytes(path.stat().st_size))
        case "truncated":
            overwrite(path, path.read_bytes()[:-1])
        case "grown":
            overwrite(path, path.read_bytes() + b"x")
        case "misnamed":
            artifact.folder.rename(artifact.folder.with_name(f"{artifact.id} (1)"))
        case "symlink":
            path.rename(outside / "aside")
            path.symlink_to(outside / "aside")
        case "not a file":
            path.unlink()
            path.mkdir()
        case "leftover":
            with watched(KillAt(12)), pytest.raises(KilledError):
                run_all(store.root, force=True)
        case "stray":  # and equal to a listed name on a disk that ignores case
            path.with_name(path.name.title()).write_bytes(path.read_bytes())
        case "dangling":
            store.pin(artifact)
            artifact.folder.rename(outside / "gone")
        case "unreadable":
            refuse_reads(monkeypatch, path, errno.EACCES)
        case "read error":
            refuse_reads(monkeypatch, path, errno.EIO)


class FailingStream(io.RawIOBase):
    """A file whose bytes cannot be read."""

    def __init__(self, stream: BinaryIO, error: int) -> None:
        self.stream = stream
        self.error = error

    def fileno(self) -> int:
        return self.stream.fileno()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        raise OSError(self.error, "injected")


def refuse_reads(monkeypatch: pytest.MonkeyPatch, path: Path, error: int) -> None:
    """Let reading `path` fail, until it is replaced by another file."""
    open_beneath = files.open_beneath
    inode = path.stat().st_ino

    def open_failing(root: Path, wanted: Path) -> object:
        stream = open_beneath(root, wanted)
        if wanted == path and os.fstat(stream.fileno()).st_ino == inode:
            return FailingStream(stream, error)
        return stream

    monkeypatch.setattr("tinygpt.store.artifact.open_beneath", open_failing)
    monkeypatch.setattr(files, "open_beneath", open_failing)


@pytest.mark.parametrize(
    "kind",
    [
        "missing",
        "changed",
        "truncated",
        "grown",
        "misnamed",
        "symlink",
        "not a file",
        "unreadable",
        "read error",
        "leftover",
        "stray",
        "dangling",
    ],
)
@pytest.mark.parametrize("file", ["data.bin", "inner/more.bin"])  # the model has one of them
def test_each_kind_of_damage_is_found_named_and_made_good(
    full: Store, monkeypatch: pytest.MonkeyPatch, kind: str, file: str, figure: RecordFigure
) -> None:
    before = {artifact.stage: artifact.digest for artifact in full.list()}
    assert upkeep.verify(full) == []
    plant(full, kind, monkeypatch, file)
    (fault,) = upkeep.verify(full)
    assert fault.kind == kind
    assert fault.path.name in fault.text
    in_trash = len(files.entries(full.trash))
    assert [found for found, _ in upkeep.repair(full)] == [fault]
    only_put_back = kind == "misnamed" or (kind == "missing" and file == "data.bin")
    assert len(files.entries(full.trash)) == in_trash + (not only_put_back)
    assert upkeep.verify(full) == []
    assert run_all(full.root) == before
    assert upkeep.verify(full) == []
    figure("G11", "faults of 12 kinds, each found, named and mended", 1)


def test_control_without_hashes_damage_that_keeps_the_length_is_not_found(
    full: Store, monkeypatch: pytest.MonkeyPatch, figure: RecordFigure
) -> None:
    monkeypatch.setattr(Artifact, "_check_hash", lambda *_: None)
    missed = 0
    for artifact in full.list():
        path = artifact.path(artifact.names()[0])
        overwrite(path, bytes(path.stat().st_size))
        missed += upkeep.verify(full) == []
    figure("G11", "changed files without comparing hashes", 4, missed, control=True)


def test_verify_goes_on_after_the_first_fault(full: Store) -> None:
    for artifact in full.list():
        for name in artifact.names():
            artifact.path(name).unlink()
    assert len(upkeep.verify(full)) == sum(len(artifact.names()) for artifact in full.list())


def test_unfinished_work_is_a_leftover_only_once_its_process_has_ended(full: Store) -> None:
    with full.lock("train", OTHER_KEY):
        out = full.begin("train", OTHER_KEY)
        out.bytes("a", b"")
        save_checkpoint(out.unfinished_run, 1)
        assert upkeep.verify(full) == []
    assert [fault.kind for fault in upkeep.verify(full)] == ["leftover"]


def test_an_artifact_with_several_faults_is_moved_to_the_trash_once(full: Store) -> None:
    checkpoint = save_checkpoint(full.begin("train", OTHER_KEY).unfinished_run, 1)
    overwrite(checkpoint.path("model.bin"), b"?")
    checkpoint.path("best/model.bin").unlink()
    kinds = {fault.kind for fault in upkeep.verify(full)}
    assert kinds == {"missing", "changed", "leftover"}
    upkeep.repair(full)
    assert upkeep.verify(full) == []


def test_gc_keeps_models_newest_and_pinned_artifacts_and_all_they_were_made_from(
    full: Store,
) -> None:
    original = full.list()
    first = build_dataset(full, 0.2)
    second = build_dataset(full, 0.3)
    third = build_dataset(full, 0.4)
    assert [artifact.id for artifact in upkeep.garbage(full)] == [second.id, first.id]
    full.pin(first)
    assert full.is_pinned(first)
    removed, _ = upkeep.gc(full)
    assert [artifact.id for artifact in removed] == [second.id]
    left = {artifact.id for artifact in full.list()}
    assert left == {artifact.id for artifact in [*original, first, third]}
    full.pin(first, pinned=False)
    removed, _ = upkeep.gc(full)
    assert [artifact.id for artifact in removed] == [first.id]
    assert upkeep.verify(full) == []
    assert list(full.trash.iterdir()) == []


def test_gc_keeps_every_model(full: Store) -> None:
    dataset = build_dataset(full, 0.2)
    inputs = {"build-dataset": dataset, "tokenize": full.list("tokenize")[0]}
    run_one(full, "train", inputs)
    assert len(full.list("train")) == 2
    build_dataset(full, 0.3)
    assert upkeep.garbage(full) == []


def test_gc_keeps_the_sources_of_sources_as_long_as_they_are_needed(full: Store) -> None:
    (original,) = full.list("corpus")
    corpus = build_corpus(full, 5)
    tokenizer = run_one(full, "tokenize", {"corpus": corpus}).artifact
    inputs = {"corpus": original, "tokenize": tokenizer}
    dataset = run_one(full, "build-dataset", inputs).artifact
    run_one(full, "tokenize", {"corpus": build_corpus(full, 6)})
    # The newest dataset needs the tokenizer, which needs the corpus
    assert upkeep.garbage(full) == []
    build_dataset(full, 0.2)
    garbage = [artifact.id for artifact in upkeep.garbage(full)]
    assert garbage == [dataset.id, tokenizer.id, corpus.id]


def test_gc_keeps_what_an_unfinished_run_reads(full: Store) -> None:
    dataset = build_dataset(full, 0.2)

    def interrupted(*arguments: object) -> None:
        run_train(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    inputs = {"build-dataset": dataset, "tokenize": full.list("tokenize")[0]}
    with pytest.raises(KeyboardInterrupt):
        run_one(full, "train", inputs, runner=interrupted)
    build_dataset(full, 0.3)
    assert len(full.unfinished_runs()) == 1
    upkeep.gc(full)
    assert dataset.id in {artifact.id for artifact in full.list()}
    assert full.unfinished_runs()[0].step == 3


def test_an_equal_artifact_that_is_made_again_leaves_nothing(full: Store) -> None:
    (corpus,) = full.list("corpus")
    inode = corpus.folder.stat().st_ino
    assert not run_one(full, "corpus", {}, force=True).cached
    assert corpus.folder.stat().st_ino == inode
    assert files.entries(full.partial) == []


def test_who_makes_an_artifact_again_removes_what_a_kill_left_of_it(full: Store) -> None:
    """Nobody else can: its lock, by which others see that a process has ended, is held."""
    corpus = full.list("corpus")[0]
    left = full.partial / f"corpus-{corpus.id}.0123456789ab"
    left.mkdir()
    with full.lock("corpus", corpus.key):
        full.fresh_folder("corpus", corpus.key)
        assert not left.exists()


def test_the_next_stage_that_runs_sweeps_what_a_kill_left_of_a_finished_run(
    full: Store, tmp_path: Path, figure: RecordFigure
) -> None:
    total = operations_of_training(full, tmp_path / "count")
    swept = 0
    for number in range(total - 30, total + 1):
        store = Store(shutil.copytree(full.root, tmp_path / str(number)))
        with watched(KillAt(number)), suppress(KilledError):
            train_again(store)
        assert {fault.kind for fault in upkeep.verify(store)} <= {"leftover"}
        is_published = len(store.list("train")) == 2
        had_left = len(files.entries(store.partial))
        build_corpus(store, 7)
        left = files.entries(store.partial)
        swept += is_published and had_left > 0
        assert left == [] if is_published else len(left) <= had_left
        assert upkeep.verify(store) == []
    assert swept > 10
    figure("G11", "kills while a finished run is removed, swept by the next stage", swept)


def train_again(store: Store) -> None:
    """Another model from the same dataset."""
    inputs = {name: store.list(name)[0] for name in ("build-dataset", "tokenize")}
    config = Config(train=TrainConfig(seed=5))
    run_one(store, "train", inputs, config=config, runner=run_train)


def operations_of_training(full: Store, root: Path) -> int:
    recorder = Recorder()
    with watched(recorder):
        train_again(Store(shutil.copytree(full.root, root)))
    return len(recorder.log)


def test_the_sweep_leaves_what_a_process_works_on_and_what_can_be_continued(full: Store) -> None:
    other_key = Key(hash_json("yet another"))
    continued = full.unfinished_run("train", OTHER_KEY)
    save_checkpoint(continued, 1)
    mine = full.partial / "notes.txt"
    mine.write_text("mine")
    dead = full.partial / f"eval-{OTHER_KEY[:12]}.0123456789ab"
    dead.mkdir()
    latest = full.partial / "latest.0123456789ab"
    latest.mkdir()
    with full.lock("train", other_key):
        out = full.begin("train", other_key)  # which sweeps, as every beginning does
        assert not dead.exists()
        assert not latest.exists()
        dead.mkdir()
        with full.hold("eval-" + OTHER_KEY[:12], 0, print), full.hold("latest", 0, print):
            latest.mkdir()
            build_corpus(full, 7)
            assert dead.exists()
            assert latest.exists()
        assert out.folder.exists()
    assert continued.steps() == [1]
    assert mine.exists()


def test_a_finished_run_looks_undamaged_wherever_gc_is_killed_while_it_removes_it(
    full: Store, tmp_path: Path, figure: RecordFigure
) -> None:
    leave_a_finished_run(full)
    kills, bad = kills_of_gc_that_leave_a_fault(full, tmp_path)
    assert bad == []
    figure("G10", "kills while gc removes a finished run", kills)


def test_control_gc_that_removes_a_finished_run_in_place_is_noticed(
    full: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: RecordFigure
) -> None:
    rename = files.rename

    def rename_nothing_that_gc_removes(path: Path, target: Path) -> None:
        if path.parent.name != ".partial":
            rename(path, target)
        else:
            files.remove(path)
            target.mkdir()

    leave_a_finished_run(full)
    monkeypatch.setattr(files, "rename", rename_nothing_that_gc_removes)
    kills, bad = kills_of_gc_that_leave_a_fault(full, tmp_path)
    figure("G10", "kills of a gc that removes in place", kills, len(bad), control=True)


def leave_a_finished_run(full: Store) -> None:
    """Two checkpoints of the model that is published, as a killed process leaves them."""
    (model,) = full.list("train")
    leftover = full.unfinished_run("train", model.key)
    save_checkpoint(leftover, 1)
    save_checkpoint(leftover, 2)


def kills_of_gc_that_leave_a_fault(full: Store, tmp_path: Path) -> tuple[int, list[int]]:
    """How many operations of `gc` there are, and those at which a kill leaves a fault."""
    bad = []
    for number in range(1, 100):
        store = Store(shutil.copytree(full.root, tmp_path / str(number)))
        with watched(KillAt(number)), suppress(KilledError):
            upkeep.gc(store)
            break
        if faults(store):
            bad.append(number)
    assert number > 5
    return number - 1, bad


def test_gc_removes_nothing_when_an_artifact_cannot_be_read(full: Store) -> None:
    build_dataset(full, 0.2)
    build_dataset(full, 0.3)
    overwrite(full.list("train")[0].folder / "manifest.json", b"{}")
    with pytest.raises(ArtifactError):
        upkeep.gc(full)
    assert len(full.list()) == 5


def test_gc_removes_what_a_killed_process_left_but_not_its_checkpoints(full: Store) -> None:
    out = full.begin("train", OTHER_KEY)
    out.bytes("a", b"x" * 100)
    save_checkpoint(out.unfinished_run, 1)
    _, sizes = upkeep.gc(full)
    assert sum(sizes.values()) == 100
    assert [path.name for path in full.partial.iterdir()] == [f"train-{OTHER_KEY[:12]}"]
    assert full.unfinished_run("train", OTHER_KEY).newest() is not None


def test_gc_waits_for_a_paused_writer_and_removes_nothing_of_its_own(
    full: Store, size: Size, figure: RecordFigure
) -> None:
    races = size(3, 50)
    for race in range(races):
        writer = PausedWriter(full, val_fraction=0.1 + race / 1000)
        writer.thread.start()
        assert writer.is_writing.wait(10)
        with pytest.raises(BusyError):
            upkeep.gc(full, timeout=0.05)
        writer.may_finish.set()
        upkeep.gc(full, timeout=10)
        writer.thread.join()
        writer.made[0].check()
        assert upkeep.verify(full) == []
    figure("G10", "races of gc with a paused writer", races)


class PausedWriter:
    """A thread that writes a dataset, and waits before it publishes it."""

    def __init__(self, store: Store, val_fraction: float) -> None:
        self.store = store
        self.val_fraction = val_fraction
        self.is_writing = threading.Event()
        self.may_finish = threading.Event()
        self.made: list[Artifact] = []
        self.thread = threading.Thread(target=self.write)

    def write(self) -> None:
        self.made.append(build_dataset(self.store, self.val_fraction, self.run_paused))

    def run_paused(self, *arguments: object) -> None:
        run_stage(*arguments)  # type: ignore[arg-type]
        self.is_writing.set()
        assert self.may_finish.wait(10)


def test_no_artifact_is_half_removed_wherever_gc_is_killed(full: Store) -> None:
    number = 0
    finished = False
    while not finished:
        number += 1
        build_dataset(full, 0.2)
        build_dataset(full, 0.3)
        try:
            with watched(KillAt(number)):
                upkeep.gc(full)
            finished = True
        except KilledError:
            assert faults(full) == []
    assert number > 10
