"""Take the steps of a training run again: do they lead to the same weights, bit for bit?"""

from collections.abc import Mapping
from typing import Any

from tinygpt.config import Config
from tinygpt.errors import VerificationError
from tinygpt.hashing import hash_bytes
from tinygpt.lm.training import train
from tinygpt.lm.weights import MAX_HEADER, read_arrays, require
from tinygpt.progress import Reporter
from tinygpt.records import RunState
from tinygpt.runs.code import what_changed
from tinygpt.runs.environment import changes
from tinygpt.runs.training_run import TrainingRun
from tinygpt.store import Artifact, Inputs
from tinygpt.store.metrics import METRICS, read_metrics


def replay(
    config: Config,
    inputs: Inputs,
    recorded: Artifact,
    stored: Mapping[int, str],
    start: Artifact | None,
    reporter: Reporter,
) -> str:
    """Train without writing anything, and compare with every stored state of the weights.

    Args:
        config: that of the run; only [runtime] may differ.
        inputs: see TrainingRun.
        recorded: the artifact of the run, or a checkpoint.
        stored: steps whose weights `recorded` holds, and in which of its files; the highest is the
            last step taken.
        start: a checkpoint of the run to start from; None for its beginning.
        reporter: receives the progress.
    Returns:
        The SHA-256 of the last weights.
    Raises:
        VerificationError: naming the first tensor that differs, the first step whose loss or
            gradient does, and the likely cause.
    """
    run = TrainingRun(config, inputs, start)
    last = max(stored)
    drift = ""
    rows = read_metrics(recorded)
    chains = {row["step"]: row["chain"] for row in rows if row["kind"] == "step"}
    if last > len(chains):
        raise recorded.malformed(METRICS, "the last steps are missing")
    reporter.task("replay", last, unit="steps", done=run.state.step)
    for record in train(run.state, run.batches, config.train):
        run.record(record)
        reporter.advance(1, loss=record.loss)
        if not drift and run.progress.chain[:16] != chains[record.step]:
            drift = f"; losses or gradients differ from step {record.step:,} on"
        if record.step in stored:
            here = run.model_bytes()
            there = recorded.read(stored[record.step], len(here) + MAX_HEADER)
            if here != there or (drift and record.step == last):
                difference = first_difference(here, there)
                message = f"replayed to step {record.step:,}, {difference}{drift}"
                hint = likely_cause(recorded, run.progress.environment)
                raise VerificationError(message, hint=hint)
        if record.step == last:
            break
    return hash_bytes(here)


def first_difference(here: bytes, there: bytes) -> str:
    """Which tensor of two safetensors files of one model is the first to differ, by name."""
    ours, theirs = read_arrays(here), read_arrays(there)
    require({name: array.shape for name, array in ours.items()}, theirs)
    differing = [name for name in sorted(theirs) if (ours[name] != theirs[name]).any()]
    if not differing:
        return "the weights are the same"
    return f"`{differing[0]}` is the first of {len(differing)} tensors that differ"


def likely_cause(recorded: Artifact, environment: Mapping[str, str]) -> str:
    """Why a replay may differ, from the environment that the run recorded."""
    facts: Mapping[str, Any] = recorded.manifest.provenance
    then = facts
    if "state.json" in recorded.names():
        facts = recorded.read_json("state.json", RunState)
        then = facts["environment"]
    if not facts["exact"]:
        return (
            "the run itself continued under other conditions after a stop (exact: false), "
            "so it cannot be repeated to the bit"
        )
    changed = [*changes(then, environment), what_changed(facts["code"])]
    if any(changed):
        differing = ", ".join(filter(None, changed))
        return f"the run was recorded under other conditions: {differing}; replay it under those"
    return "the conditions are those recorded, so the training code or the stored files changed"
