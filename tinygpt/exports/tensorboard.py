"""tensorboard: the event files of a training run, as an export and while the run trains.

They are written with tensorboard's own record writer and event protos. Its SummaryWriter would put
the host's name, the process id and the time into the name of the file.

| tag | what |
|---|---|
| train/loss, train/learning_rate, train/grad_norm | of each step |
| val/loss, val/perplexity | of each evaluation during training |
| val/sample | the text that was generated then |
"""

import io
import re
import secrets
import shlex
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from tinygpt.errors import StorageError, UsageError, VerificationError
from tinygpt.exports.model import ModelToExport
from tinygpt.exports.target import ExportFolder
from tinygpt.records import MetricsRow
from tinygpt.runs.trained_weights import Note
from tinygpt.store import files
from tinygpt.store.store import MARKER as STORE_MARKER

try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.summary.writer.record_writer import RecordWriter
except ImportError as missing:
    raise UsageError(
        "the package tensorboard is not installed", hint="`pip install tensorboard` installs it"
    ) from missing

SCALARS = {
    "step": {
        "train/loss": "loss",
        "train/learning_rate": "learning_rate",
        "train/grad_norm": "grad_norm",
    },
    "eval": {"val/loss": "val_loss", "val/perplexity": "val_perplexity"},
}
"""For each kind of row the tags, and the keys of the row."""

SAMPLE = "val/sample"
FILE_VERSION = "brain.Event:2"
EXPORT_TIME = 0.0
"""The wall time of every exported event: equal runs give equal bytes."""
EVENTS = "tfevents"
"""What tensorboard knows an event file by."""
MODE = 0o644

Values = dict[str, list[tuple[int, float | str]]]
"""For each tag, step and value of each event."""


def write(model: ModelToExport, out: ExportFolder, dtype: str, note: Note) -> str:
    """Write an event file, and compare what tensorboard reads in it with metrics.jsonl.

    Args:
        model, out: what is exported, and where it goes.
        dtype: not used; events hold no weights.
        note: receives a line about the time axis.
    Returns:
        One line: how many events were compared.
    Raises:
        MissingArtifactError: no training is recorded with the model.
        VerificationError: tensorboard reads another value.
    """
    rows = model.metrics()
    events = [Event(wall_time=EXPORT_TIME, file_version=FILE_VERSION)]
    events += [event_of(row, EXPORT_TIME) for row in rows]
    name = file_name(1, model.id)
    with out.stream(name) as stream:
        writer = RecordWriter(stream)
        for event in events:
            writer.write(event.SerializeToString())
    note("every event has the same wall time: use the step axis")
    return _check(out.folder, rows)


def file_name(number: int, run: str) -> str:
    """The name of an event file, without host, process and time.

    Args:
        number: tensorboard reads the files of a folder in the order of their names.
        run: id of the run.
    """
    return f"events.out.{EVENTS}.{number:010d}.{run}"


def event_of(row: MetricsRow, wall_time: float) -> "Event":
    """A step or an evaluation as an event.

    Args:
        wall_time: seconds since 1970.
    """
    summary = Summary()
    for tag, key in SCALARS[row["kind"]].items():
        summary.value.add(tag=tag, simple_value=row[key])  # type: ignore[literal-required]
    if row["kind"] == "eval" and row["sample"]:
        text = TensorProto(
            dtype=DT_STRING, string_val=[row["sample"].encode()], tensor_shape=TensorShapeProto()
        )
        plugin = SummaryMetadata.PluginData(plugin_name="text")
        summary.value.add(tag=SAMPLE, tensor=text, metadata=SummaryMetadata(plugin_data=plugin))
    return Event(wall_time=wall_time, step=row["step"], summary=summary)


def _check(folder: Path, rows: Sequence[MetricsRow]) -> str:
    """Compare what tensorboard reads in a folder with the record of the training."""
    read = read_events(folder)
    wanted = _recorded(rows)
    for tag in read.keys() | wanted.keys():
        if read.get(tag) != wanted.get(tag):
            raise VerificationError(f"tensorboard reads other values of `{tag}` than were written")
    texts = len(wanted.get(SAMPLE, ()))
    scalars = sum(map(len, wanted.values())) - texts
    return (
        f"{scalars:,} scalars and {texts:,} texts read by tensorboard: "
        "all equal those of metrics.jsonl, as 32-bit numbers"
    )


def _recorded(rows: Sequence[MetricsRow]) -> Values:
    """What the events of a training are to say."""
    values: Values = {}
    for row in rows:
        with np.errstate(over="ignore"):
            for tag, key in SCALARS[row["kind"]].items():
                number = np.float32(row[key])  # type: ignore[literal-required]
                values.setdefault(tag, []).append((row["step"], float(number)))
        if row["kind"] == "eval" and row["sample"]:
            values.setdefault(SAMPLE, []).append((row["step"], row["sample"]))
    return values


def read_events(folder: Path) -> Values:
    """What tensorboard reads in the event files of a folder."""
    read = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    tags = read.Tags()
    values: Values = {}
    for tag in tags["scalars"]:
        values[tag] = [(event.step, event.value) for event in read.Scalars(tag)]
    for tag in tags["tensors"]:
        texts = [(event.step, event.tensor_proto.string_val) for event in read.Tensors(tag)]
        values[tag] = [(step, text[0].decode()) for step, text in texts]
    return values


class LiveEvents:
    """The events of a run that trains, with real wall times, in a folder of the user's.

    A run that continues goes on in the same folder, in a further file. Steps that it repeats,
    because it was killed after its last checkpoint, are cut off the earlier ones: none is there
    twice. Nothing is buffered.

    Args:
        folder: created if it does not exist.
        run: id of the run.
        note: receives a line if writing fails later; training goes on then.
    Raises:
        UsageError: the folder holds events of another run, or is in a store.
        StorageError: it cannot be created or written.
    """

    def __init__(self, folder: Path, run: str, note: Note) -> None:
        self._folder = folder.resolve()
        self._path = self._folder / f".tinygpt.{secrets.token_hex(6)}"
        self._run = run
        self._note = note
        self._started = False
        self._check_folder(folder)
        try:
            for above in reversed([above for above in self._folder.parents if not above.exists()]):
                files.make_folder(above)
            files.make_folder(self._folder)
            with ExitStack() as on_error:
                self._file = on_error.enter_context(files.NewFile(self._path, MODE))
                self._write(Event(wall_time=time.time(), file_version=FILE_VERSION))
                on_error.pop_all()
        except StorageError as error:
            files.discard(self._path)
            error.hint = "free some space, check the permissions, or name another folder"
            raise

    def _check_folder(self, folder: Path) -> None:
        for above in (self._folder, *self._folder.parents):
            if (above / STORE_MARKER).exists():
                raise UsageError(
                    f"`{folder}` is in the store `{above}`", hint="name a folder outside of it"
                )
        name = re.compile(rf"events\.out\.{EVENTS}\.\d{{10}}\.{self._run}")
        others = [path for path in self._event_files() if not name.fullmatch(path.name)]
        if others:
            raise UsageError(
                f"`{folder}` holds events of another run, `{others[0].name}`",
                hint="name a folder of its own, e.g., "
                f"`--tensorboard {shlex.quote(str(folder / self._run))}`",
            )

    def _event_files(self) -> list[Path]:
        paths = files.entries(self._folder)
        names = [path.name for path in paths if path.is_file() and not path.name.startswith(".")]
        return [self._folder / name for name in names if EVENTS in name]

    def _write(self, event: "Event") -> None:
        RecordWriter(self._file).write(event.SerializeToString())

    def write(self, row: MetricsRow) -> None:
        """Write a step or an evaluation."""
        if self._file.closed:
            return
        try:
            with files.refusals(self._folder):
                if not self._started:
                    self._start(row["step"])
                self._write(event_of(row, time.time()))
        except StorageError as error:
            self.close()
            self._note(f"{error.message}; training goes on, and its events are no longer written")

    def _start(self, step: int) -> None:
        """Cut earlier files off before a step, and put this one where tensorboard finds it."""
        earlier = self._event_files()
        for path in earlier:
            kept = io.BytesIO()
            writer = RecordWriter(kept)
            for event in LegacyEventFileLoader(str(path)).Load():
                if event.step < step:
                    writer.write(event.SerializeToString())
            if kept.getvalue() != path.read_bytes():
                files.replace_file(path, kept.getvalue(), MODE)
        # All but the first START make a tensorboard forget what it has read from this step on
        self._write(Event(step=step, session_log=SessionLog(status=SessionLog.START)))
        number = int(earlier[-1].name.split(".")[3]) + 1 if earlier else 1
        path = self._folder / file_name(number, self._run)
        files.rename(self._path, path)
        self._path = path
        self._started = True

    def close(self) -> None:
        """Close the file; one without a step is removed."""
        self._file.close()
        if not self._started:
            files.discard(self._path)
