"""A small pipeline for the store's tests, and hooks that kill, fail or record its operations."""

import errno
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from tinygpt.config.tables import Config
from tinygpt.pipeline import STAGES, execute
from tinygpt.report import Report, SilentReport
from tinygpt.store import Artifact, Out, Store, files
from tinygpt.store.files import Hook, Operation

CONFIG = Config()
OUTSIDE = {"data.source": "fingerprint"}
NAMES = ("corpus", "tokenize", "build-dataset", "train")


def run_stage(config: Config, inputs: Mapping[str, Artifact], out: Out, report: Report) -> None:
    """Three files, one of them in a folder and one streamed."""
    recipe = str(config.dataset.val_fraction) if inputs else ""  # no table of the corpus stage
    seed = "".join([recipe, *(artifact.digest for artifact in inputs.values())]).encode()
    out.bytes("data.bin", hashlib.sha256(seed).digest())
    with out.stream("inner/more.bin") as stream:
        for i in range(3):
            stream.write(hashlib.sha256(seed + bytes([i])).digest())
    out.json("summary.json", {"rows": []})


def run_train(config: Config, inputs: Mapping[str, Artifact], out: Out, report: Report) -> None:
    """Three steps with a checkpoint and a kept file each; continues from what is there."""
    newest = out.checkpoints.newest()
    step = int(str(newest.manifest.provenance["step"])) if newest else 0
    state = newest.read("deep/state.bin") if newest else b"start"
    for now in range(step + 1, 4):
        state = hashlib.sha256(state).digest()
        out.checkpoints.keep(f"snapshot-{now}", state[:5])
        out.checkpoints.save(now, {"deep/state.bin": state, "config.json": b"{}"}, keep=1)
    for now in (1, 2, 3):
        out.bytes(f"snapshots/{now}", out.checkpoints.kept(f"snapshot-{now}"))
    out.bytes("model.bin", state)


def run_all(root: Path, *, names: tuple[str, ...] = NAMES, force: bool = False, done: list[str] | None = None) -> dict[str, str]:
    """Run the stages in a store; returns stage -> digest. `done` learns of each stage that was reported finished."""
    store = Store(root)
    made: dict[str, Artifact] = {}
    for name in names:
        stage = STAGES[name]
        inputs = {source: made[source] for source in stage.inputs}
        runner = run_train if name == "train" else run_stage
        outcome = execute(
            stage, CONFIG, inputs, store=store, outside=OUTSIDE, runner=runner, report=SilentReport(), force=force, lock_timeout=5
        )
        made[name] = outcome.artifact
        if done is not None:
            done.append(name)
    return {name: artifact.digest for name, artifact in made.items()}


@contextmanager
def watched(hook: Hook) -> Iterator[None]:
    """See, and spoil, each operation of the seam within the block."""
    with patch.object(files, "hook", hook):
        yield


class KilledError(BaseException):
    """The process is dead; no operation happens any more."""


class KillAt:
    """Dies at operation N and stays dead."""

    def __init__(self, number: int) -> None:
        self.number, self.seen = number, 0

    def __call__(self, operation: Operation) -> None:
        self.seen += 1
        if self.seen >= self.number:
            raise KilledError(operation)


class FailAt:
    """Operation N fails with an error of the system; with `for_ever`, all later ones of its kind too (a full disk stays full)."""

    def __init__(self, number: int, error: int, *, for_ever: bool = False) -> None:
        self.number, self.error, self.for_ever, self.seen, self.failed = number, error, for_ever, 0, ""

    def __call__(self, operation: Operation) -> None:
        self.seen += 1
        frees = operation.kind in ("unlink", "rmdir", "rename", "lock")
        if self.seen == self.number or (self.for_ever and self.failed and not frees):
            self.failed = self.failed or operation.kind
            raise OSError(self.error, "injected")


class Recorder:
    """Remembers every operation."""

    def __init__(self) -> None:
        self.log: list[Operation] = []

    def __call__(self, operation: Operation) -> None:
        self.log.append(operation)


ERRORS = (errno.ENOSPC, errno.EIO)
