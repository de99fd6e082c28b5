"""Event files as TensorBoard itself reads them, exported and while a run trains."""

import errno
import json
import struct
import sys

import pytest
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from tests.exports.privacy import private_in
from tests.helpers import prepare, run_training
from tinygpt.errors import StorageError, UsageError, VerificationError
from tinygpt.exports import tensorboard
from tinygpt.exports.formats import export
from tinygpt.exports.model import open_model
from tinygpt.exports.tensorboard import LiveEvents
from tinygpt.store import Store, files

RUN = "3f9a1c0b2d4e"
TAGS = {
    "train/loss": ("step", "loss"),
    "train/learning_rate": ("step", "learning_rate"),
    "train/grad_norm": ("step", "grad_norm"),
    "val/loss": ("eval", "val_loss"),
    "val/perplexity": ("eval", "val_perplexity"),
}


@pytest.fixture(scope="module")
def trained(finished):
    """A finished run."""
    return finished.artifacts("train")[0]


def rows_of(trained):
    """The rows of metrics.jsonl."""
    return [json.loads(line) for line in trained.read("metrics.jsonl").splitlines()]


def write(trained, target, notes=None):
    """Export to `target`; the line about the check."""
    notes = [] if notes is None else notes
    return export(open_model(trained), target, "tensorboard", None, False, notes.append)


def read(folder):
    """What TensorBoard finds in a folder, without leaving out what was written twice."""
    sizes = {"scalars": 0, "tensors": 0}
    return EventAccumulator(str(folder), sizes, purge_orphaned_data=False).Reload()


def float32(value):
    """A number as 32 bits hold it."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def check_values(found, rows):
    """Every value of the rows is there, once."""
    assert set(found.Tags()["scalars"]) == set(TAGS)
    for tag, (kind, key) in TAGS.items():
        wanted = [(row["step"], float32(row[key])) for row in rows if row["kind"] == kind]
        assert [(event.step, event.value) for event in found.Scalars(tag)] == wanted
    samples = [(row["step"], row["sample"]) for row in rows if row["kind"] == "eval"]
    assert [
        (event.step, event.tensor_proto.string_val[0].decode())
        for event in found.Tensors("val/sample")
    ] == samples
    assert found.summary_metadata["val/sample"].plugin_data.plugin_name == "text"


def test_tensorboard_reads_every_value_and_every_sample(trained, tmp_path):
    notes = []
    said = write(trained, tmp_path / "out", notes)
    rows = rows_of(trained)
    found = read(tmp_path / "out")
    check_values(found, rows)
    scalars = 3 * 4 + 2 * sum(row["kind"] == "eval" for row in rows)
    assert said.startswith(f"{scalars} scalars and {scalars // 2 - 6} texts read by tensorboard")
    assert "use the step axis" in notes[0]
    assert {event.wall_time for tag in TAGS for event in found.Scalars(tag)} == {0.0}


def test_equal_runs_give_equal_files_without_host_process_and_place(
    tiny_config, tmp_path, monkeypatch, hostname
):
    """Control: TensorBoard's own writer puts the host into the name of the file."""
    found = []
    for name, now in (("one", 1e9), ("two", 2e9)):
        store, inputs = prepare(tmp_path / f"store-{name}", tiny_config)
        run = run_training(store, inputs, tiny_config).artifact
        monkeypatch.setattr("time.time", lambda now=now: now)
        write(run, tmp_path / name)
        found.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert found[0] == found[1]
    assert set(found[0]) == {f"events.out.tfevents.0000000001.{run.id}", ".tinygpt-export.json"}
    assert private_in(tmp_path / "one", tmp_path) == []
    EventFileWriter(str(tmp_path / "own")).close()
    assert private_in(tmp_path / "own", tmp_path) == [hostname]


def test_events_of_a_run_that_trains_have_real_times(trained, tmp_path, monkeypatch):
    contents = []
    for now in (1e9, 2e9):
        monkeypatch.setattr("time.time", lambda now=now: now)
        folder = tmp_path / str(now)
        watch(folder, rows_of(trained))
        (path,) = folder.iterdir()
        contents.append(path.read_bytes())
        assert {event.wall_time for event in read(folder).Scalars("train/loss")} == {now}
    assert contents[0] != contents[1]


@pytest.mark.parametrize("broken", ["value", "step", "lost", "text"])
def test_an_event_that_is_read_with_another_value_is_refused(
    trained, tmp_path, monkeypatch, broken
):
    original = tensorboard.event_of

    def event_of(row, wall_time):
        changed = {
            "value": {"loss": row.get("loss", 0) * (1 + 1e-6)},
            "step": {"step": row["step"] + (row["step"] == 3)},
            "lost": {"step": row["step"], "kind": row["kind"]},
            "text": {"sample": "x"},
        }[broken]
        if broken == "lost" and row["step"] == 3:
            return tensorboard.Event(wall_time=wall_time, step=3)
        return original({**row, **changed}, wall_time)

    monkeypatch.setattr(tensorboard, "event_of", event_of)
    with pytest.raises(VerificationError, match="other values"):
        write(trained, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_without_tensorboard_the_package_to_install_is_named(trained, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "tinygpt.exports.tensorboard")
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with pytest.raises(UsageError, match="tensorboard is not installed") as refused:
        write(trained, tmp_path / "out")
    assert "`pip install tensorboard`" in refused.value.hint
    assert list(tmp_path.iterdir()) == []


def watch(folder, rows, run=RUN):
    """Write rows as a run that trains does; the notes."""
    notes = []
    events = LiveEvents(folder, run, notes.append)
    for row in rows:
        events.write(row)
    events.close()
    return notes


def up_to(rows, step):
    """The rows of the first steps."""
    return [row for row in rows if row["step"] <= step]


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
@pytest.mark.parametrize("torn", [False, True], ids=["whole", "torn"])
def test_a_run_that_continues_has_no_step_twice(trained, tmp_path, killed, torn):
    rows = rows_of(trained)
    folder = tmp_path / "runs" / "one"
    watch(folder, up_to(rows, 3))
    if torn:  # by a kill within a write
        (path,) = folder.iterdir()
        path.write_bytes(path.read_bytes()[:-3])
    server = plugin_event_accumulator.EventAccumulator(str(folder)).Reload()
    first = 2 if killed or torn else 4  # the step after the last checkpoint
    watch(folder, [row for row in rows if row["step"] >= first])
    check_values(read(folder), rows)
    files_there = sorted(path.name for path in folder.iterdir())
    assert files_there == [f"events.out.tfevents.000000000{number}.{RUN}" for number in (1, 2)]
    server.Reload()  # as a TensorBoard that was running all the time
    for tag, kind in (("train/loss", "step"), ("val/sample", "eval")):
        steps = [row["step"] for row in rows if row["kind"] == kind]
        assert [event.step for event in server.Tensors(tag)] == steps


def test_files_that_only_follow_each_other_have_steps_twice(trained, tmp_path):
    rows = rows_of(trained)
    watch(tmp_path / "one", up_to(rows, 3))
    watch(tmp_path / "two", [row for row in rows if row["step"] >= 2])
    (second,) = (tmp_path / "two").iterdir()
    second.rename(tmp_path / "one" / f"events.out.tfevents.0000000002.{RUN}")
    steps = [event.step for event in read(tmp_path / "one").Scalars("train/loss")]
    assert steps == [1, 2, 3, 2, 3, 4]


def test_a_run_that_starts_over_replaces_the_events_of_its_first_attempt(trained, tmp_path):
    rows = rows_of(trained)
    watch(tmp_path, up_to(rows, 3))
    watch(tmp_path, up_to(rows, 1))
    check_values(read(tmp_path), up_to(rows, 1))


def test_a_call_that_trains_nothing_leaves_no_file(tmp_path):
    watch(tmp_path / "runs", [])
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_folder_with_events_of_another_run_is_refused(trained, tmp_path):
    rows = rows_of(trained)
    watch(tmp_path, up_to(rows, 1), run="0123456789ab")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UsageError, match="events of another run") as refused:
        watch(tmp_path, rows)
    assert sorted(tmp_path.iterdir()) == before
    assert f"`--tensorboard {tmp_path / RUN}`" in refused.value.hint
    watch(tmp_path / RUN, rows)  # as the hint says


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match="it is a file"):
        watch(tmp_path / "file", [])
    with pytest.raises(StorageError, match="not a directory"):
        watch(tmp_path / "file" / "below", [])
    store = Store(tmp_path / "artifacts")
    store.begin("train", "0" * 64).discard()
    with pytest.raises(UsageError, match="is in the store"):
        watch(store.root / "runs", [])
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("kind", ["mkdir", "create", "write"])
def test_a_full_disk_is_an_error_before_training_that_leaves_no_file(tmp_path, monkeypatch, kind):
    def full(operation):
        if operation.kind == kind:
            raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(files, "hook", full)
    with pytest.raises(StorageError, match="no space left") as refused:
        watch(tmp_path / "runs", [])
    assert "name another folder" in refused.value.hint
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_disk_that_is_full_later_does_not_end_the_training(trained, tmp_path, monkeypatch):
    rows = rows_of(trained)
    events = LiveEvents(tmp_path, RUN, (notes := []).append)
    for row in up_to(rows, 2):
        events.write(row)

    def full(operation):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(files, "hook", full)
    for row in rows[3:]:
        events.write(row)
    monkeypatch.undo()
    events.close()
    assert len(notes) == 1
    assert "training goes on" in notes[0]
    check_values(read(tmp_path), up_to(rows, 2))
