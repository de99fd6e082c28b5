"""A small pipeline for the store tests, and hooks that kill, fail or record its operations."""

import errno
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from tinygpt.config.tables import Config
from tinygpt.errors import TinygptError
from tinygpt.pipeline import STAGES, Outcome, Runner, execute
from tinygpt.progress import Reporter, SilentReporter
from tinygpt.store import Artifact, ArtifactWriter, Inputs, Store, UnfinishedRun, files, upkeep
from tinygpt.store.files import Hook, Operation

CONFIG = Config()
EXTERNAL_DIGESTS = {"data.source": "fingerprint"}
NAMES = ("corpus", "tokenize", "build-dataset", "train")
STEPS = 3
ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT)


def run_stage(
    config: Config, inputs: Mapping[str, Artifact], out: ArtifactWriter, reporter: Reporter
) -> None:
    """Three files, one of them in a folder and streamed."""
    # The configuration of the corpus stage has no table [dataset]
    recipe = str(config.dataset.val_fraction) if inputs else ""
    seed = "".join([recipe, *(artifact.digest for artifact in inputs.values())]).encode()
    out.bytes("data.bin", hashlib.sha256(seed).digest())
    with out.stream("inner/more.bin") as stream:
        for i in range(3):
            stream.write(hashlib.sha256(seed + bytes([i])).digest())
    out.json("summary.json", {"rows": []})


def run_train(
    config: Config, inputs: Mapping[str, Artifact], out: ArtifactWriter, reporter: Reporter
) -> None:
    """Three steps, with a checkpoint and a side file each; continues from the newest checkpoint."""
    run = out.unfinished_run
    newest = run.newest()
    last_step = int(str(newest.manifest.provenance["step"])) if newest else 0
    state = newest.read("deep/state.bin") if newest else b"start"
    for step in range(last_step + 1, STEPS + 1):
        state = hashlib.sha256(state).digest()
        run.write_side_file(f"snapshot-{step}", state[:5])
        run.save(step, {"deep/state.bin": state, "config.json": b"{}"}, keep=1)
    for step in range(1, STEPS + 1):
        out.bytes(f"snapshots/{step}", run.read_side_file(f"snapshot-{step}"))
    out.bytes("model.safetensors", state)
    out.bytes("tokenizer.json", inputs["tokenize"].read("data.bin"))


def run_one(
    store: Store,
    name: str,
    inputs: Inputs,
    *,
    config: Config = CONFIG,
    runner: Runner | None = None,
    reporter: Reporter | None = None,
    force: bool = False,
    lock_timeout: float | None = 5,
) -> Outcome:
    """Run one stage in a store, with `run_train` or `run_stage` unless `runner` is given."""
    return execute(
        STAGES[name],
        config,
        inputs,
        store=store,
        external_digests=EXTERNAL_DIGESTS,
        runner=runner or (run_train if name == "train" else run_stage),
        reporter=reporter or SilentReporter(),
        force=force,
        lock_timeout=lock_timeout,
    )


def run_all(
    root: Path,
    *,
    names: tuple[str, ...] = NAMES,
    force: bool = False,
    done: list[str] | None = None,
) -> dict[str, str]:
    """Run stages in a store.

    Args:
        done: receives the name of each stage once it is reported finished.
    Returns:
        The digest of each stage's artifact, by stage name.
    """
    store = Store(root)
    made: dict[str, Artifact] = {}
    for name in names:
        inputs = {source: made[source] for source in STAGES[name].inputs}
        made[name] = run_one(store, name, inputs, force=force).artifact
        if done is not None:
            done.append(name)
    return {name: artifact.digest for name, artifact in made.items()}


def save_checkpoint(run: UnfinishedRun, step: int, keep: int = 2) -> Artifact:
    """A checkpoint of two files, one of them in a folder."""
    return run.save(step, {"model.bin": b"%d" % step, "best/model.bin": b"best"}, keep=keep)


def overwrite(path: Path, data: bytes) -> None:
    """Replace a file's bytes, but not its modification time and mode, which must not be trusted."""
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(before.st_mode & 0o777)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def faults(store: Store) -> list[str]:
    """What `verify` finds, without the leftovers that any killed process may leave."""
    return [
        f"{fault.kind} {fault.path}" for fault in upkeep.verify(store) if fault.kind != "leftover"
    ]


def problems(root: Path, done: list[str], reference: dict[str, str]) -> list[str]:
    """What is wrong with a store after a crash: lost or damaged, now or after running again.

    Args:
        done: the stages that were reported finished before the crash.
        reference: the digests that `run_all` has to give.
    """
    found: list[str] = []
    try:
        store = Store(root)
        found += faults(store)
        listed = {artifact.stage: artifact.digest for artifact in store.list()}
        for name in done:
            if listed.get(name) != reference[name]:
                found.append(f"{name} was done and is lost")
        if run_all(root) != reference:
            found.append("running again gave other bytes")
        found += [f"{fault} after running again" for fault in faults(store)]
    except TinygptError as error:
        found.append(error.message)
    return found


@contextmanager
def watched(hook: Hook) -> Iterator[None]:
    """Call `hook` before each operation of the file-system layer within the block."""
    with patch.object(files, "hook", hook):
        yield


class KilledError(BaseException):
    """The process is dead; it does no more operations."""


class KillAt:
    """Kills the process at operation `number`, counted from 1, and at every later one."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.seen = 0

    def __call__(self, operation: Operation) -> None:
        self.seen += 1
        if self.seen >= self.number:
            raise KilledError(operation)


class FailAt:
    """Lets operation `number`, counted from 1, fail with an error of the operating system.

    Args:
        for_ever: let all later operations fail, too, except those that free space or take none: a
            full disk stays full.
    """

    def __init__(self, number: int, error: int, *, for_ever: bool = False) -> None:
        self.number = number
        self.error = error
        self.for_ever = for_ever
        self.seen = 0
        self.failed_kind = ""

    def __call__(self, operation: Operation) -> None:
        self.seen += 1
        takes_space = operation.kind not in ("unlink", "rmdir", "rename", "lock")
        fails_again = self.for_ever and self.failed_kind and takes_space
        if self.seen == self.number or fails_again:
            self.failed_kind = self.failed_kind or operation.kind
            raise OSError(self.error, "injected")


class Recorder:
    """Remembers every operation."""

    def __init__(self) -> None:
        self.log: list[Operation] = []

    def __call__(self, operation: Operation) -> None:
        self.log.append(operation)
