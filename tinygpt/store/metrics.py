"""metrics.jsonl: the steps and evaluations of a training run."""

from collections.abc import Sequence
from itertools import pairwise

from tinygpt.records import EvalRow, MetricsRow
from tinygpt.store.artifact import Artifact

METRICS = "metrics.jsonl"


def read_metrics(run: Artifact) -> list[MetricsRow]:
    """All rows, in the order of the steps, of which none is missing; one evaluation was the best.

    Args:
        run: a train artifact or a checkpoint.
    Raises:
        CorruptArtifactError: the file is damaged, or something else.
    """
    rows = run.read_rows(METRICS, list[MetricsRow])
    steps = [row["step"] for row in rows if row["kind"] == "step"]
    is_whole = len(steps) > 0 and steps == list(range(1, len(steps) + 1))
    if not is_whole or not any(row["best"] for row in evaluations(rows)):
        raise run.malformed(METRICS, "steps or evaluations are missing")
    if any(after["step"] < before["step"] for before, after in pairwise(rows)):
        raise run.malformed(METRICS, "an evaluation is not in its order")
    return rows


def evaluations(rows: Sequence[MetricsRow]) -> list[EvalRow]:
    """Those of the rows that are evaluations."""
    return [row for row in rows if row["kind"] == "eval"]
