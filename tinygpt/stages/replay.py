"""Take the steps of a training run again: do they lead to the same weights, bit for bit?"""

from collections.abc import Mapping
from typing import Any

from tinygpt.config import Config
from tinygpt.errors import VerificationError
from tinygpt.hashing import hash_bytes
from tinygpt.lm.training import train
from tinygpt.lm.weights import read_arrays
from tinygpt.report import Report
from tinygpt.stages.train_run import Run, changes
from tinygpt.store import Artifact, Inputs


def replay(config: Config, inputs: Inputs, made: Artifact, stored: dict[int, str], start: Artifact | None, report: Report) -> str:
    """Train without writing anything, and compare with every stored state of the weights on the way.

    Args:
        config: that of the run; only [runtime] may differ.
        inputs: see stages.train.run.
        made: what the run left: its artifact, or a checkpoint.
        stored: steps whose weights `made` holds, and in which of its files; the highest is the last step taken.
        start: a checkpoint of the run to start from; None for its beginning.
        report: told the progress.
    Returns:
        The SHA-256 of the last weights.
    Raises:
        VerificationError: naming the first tensor that differs, the first step whose loss or gradient does, and the likely cause.
    """
    session, drift, last = Run(config, inputs, start), "", max(stored)
    chains = {row["step"]: row["chain"] for row in made.read_rows("metrics.jsonl") if row["kind"] == "step"}
    report.task("replay", last, unit="steps", done=session.state.step)
    for record in train(session.state, session.batches, config.train):
        session.record(record)
        report.advance(1, loss=record.loss)
        if not drift and session.progress.chain[:16] != chains[record.step]:
            drift = f"; losses or gradients differ from step {record.step:,} on"
        if record.step in stored:
            here, there = session.model_bytes(), made.read(stored[record.step])
            if here != there or (drift and record.step == last):
                text = f"replayed to step {record.step:,}, {first_difference(here, there)}{drift}"
                raise VerificationError(text, hint=likely_cause(made, session.progress.environment))
        if record.step == last:
            break
    return hash_bytes(here)


def first_difference(here: bytes, there: bytes) -> str:
    """Which tensor of two safetensors files of one model is the first to differ, by name."""
    ours, theirs = read_arrays(here), read_arrays(there)
    differing = [name for name in sorted(theirs) if (ours[name] != theirs[name]).any()]
    return f"`{differing[0]}` is the first of {len(differing)} tensors that differ" if differing else "the weights are the same"


def likely_cause(made: Artifact, environment: Mapping[str, str]) -> str:
    """Why a replay may differ, from what was recorded when the run was made."""
    facts: dict[str, Any] = made.read_json("state.json") if "state.json" in made.names() else made.manifest.provenance
    if not facts["exact"]:
        return "the run itself went on under other conditions after a stop (exact: false), so it cannot be repeated to the bit"
    if changed := changes(facts.get("environment", facts), environment):
        return f"it was made under other conditions: {', '.join(changed)}; make them the same"
    return "the conditions are those recorded, so the code that trains, or what is stored, has been changed"
