"""The JSON files of an experiment: plan.json, written before the first cell, and result.json."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from typing_extensions import TypedDict  # pydantic cannot check that of Python 3.11

MEASURE = "bits per byte of the last weights on the validation split"

Verdict = Literal["better", "worse", "no difference", "cannot tell", "none"]


class ArmRecord(TypedDict):
    """An arm of a plan."""

    name: str
    settings: dict[str, Any]
    """The varied keys and their values."""
    max_steps: int
    tokens: int
    """Training tokens of a cell."""
    precision: str
    """Of the matrix products, resolved."""
    step_seconds: float | None
    """Measured before the plan was written, for budget "seconds"; else None."""
    recipe: dict[str, Any]
    """All that enters the keys of the measured stages, but for the seed."""


class Plan(TypedDict):
    """plan.json."""

    question: str
    """In words."""
    question_id: str
    """Looks are counted by it."""
    varied: list[str]
    arms: list[ArmRecord]
    """The first is the one that the others are compared with."""
    seeds: list[int]
    measure: str
    budget: str
    """"tokens", "steps" or "seconds", alike in all arms; "varied" if the steps are varied."""
    min_effect: float
    """The smallest difference that matters [bits per byte]."""
    conditions: dict[str, str]
    """What the last bits depend on besides the recipe: device, threads, torch."""
    code: dict[str, str]
    """Hash of each module that training imports, by path."""
    versions: dict[str, str]
    """Of tinygpt and Python."""
    jobs: int
    """Cells that run side by side."""
    planned: bool
    """Whether the plan was written before the first cell."""


class Divergence(TypedDict):
    """failure.json: how a training that came to no end failed."""

    step: int
    """The last whole step."""
    last_loss: float | None
    """Training loss of that step [nats per token]."""
    message: str


class FailureRecord(TypedDict):
    """A cell without a usable model."""

    arm: str
    seed: int
    kind: str
    """"not finite" or "above the unigram baseline"."""
    step: int
    """The last whole step."""
    last_loss: float | None
    """Training loss of that step, or the final validation loss [nats per token]."""


class CellRecord(TypedDict):
    """A cell."""

    arm: str
    seed: int
    train: str | None
    """Id of its model; None where training failed."""
    bits_per_byte: float | None
    """None if the cell failed."""
    loss: float | None
    """Nats per token; None if the cell failed."""
    seconds: float | None
    """Of training."""


class Spread(TypedDict):
    """Mean and standard deviation over seeds; the latter is None for one seed."""

    mean: float
    deviation: float | None


class ArmResult(TypedDict):
    """What the cells of an arm reached."""

    name: str
    cells: int
    failures: int
    bits_per_byte: Spread | None
    """None if a cell failed."""
    loss: Spread | None
    """None if a cell failed, or if arms have different tokenizers or validation texts."""
    median: float | None
    """Of bits per byte, failed cells ranked last; None if it is a failed one."""
    seconds: float | None
    """Of training, mean."""


class Comparison(TypedDict):
    """An arm against the first one; differences are its bits per byte minus those of the first."""

    arm: str
    baseline: str
    seeds: list[int]
    """In which both have a model."""
    differences: list[float]
    difference: float | None
    """Their mean; None if a cell of either failed."""
    intervals: Mapping[str, Sequence[float] | None]
    """Of the difference, "95 % over seeds" (paired t), "95 % over documents" (bootstrap, None where
    the text gives none) and "95 % over both"; the same for 90 %, and "strict" for the level of this
    look and all comparisons; {} if a cell of either failed."""
    p: float | None
    """Of the sign-flip test."""
    adjusted_p: float | None
    """The same after Holm."""
    correlation: float | None
    """Between both arms over seeds."""
    deviation: float | None
    """Standard deviation of the differences."""
    baseline_deviation: float | None
    """Standard deviation of the first arm over seeds."""
    failed: list[int]
    """Cells that failed: of the first arm, of this one."""
    failure_p: float | None
    """Of McNemar's exact test, after Holm; None where no cell of either failed."""
    verdict: Verdict
    words: str
    """The verdict as a sentence."""


class FailuresByValue(TypedDict):
    """The failures of each value of a key, if several keys are varied."""

    key: str
    failures: dict[str, list[int]]
    """By value: cells that failed, and all cells."""
    p: dict[str, float]
    """By value but the first: McNemar's exact test of its cells against those of the first."""


class ExperimentTable(TypedDict):
    """What the manifest of an experiment says, so that looks are counted quickly."""

    question: str
    """See Plan.question_id."""
    plan: str
    """Hash of plan.json."""
    cells: str
    """Hash of those that were looked at."""
    judged: bool
    """See Result."""


class FailureTable(TypedDict):
    """What the manifest of a failed cell says."""

    train: str
    """Key that its model would have."""
    cell: str
    """In words."""


class Result(TypedDict):
    """result.json."""

    plan: str
    """Hash of plan.json."""
    look: int
    """How often this question has been answered, this time included."""
    level: float | None
    """Of this look; None if there have been three."""
    seeds_needed: int | None
    """For a verdict."""
    judged: bool
    """Whether this counts as a look."""
    documents: str
    """What the interval over documents is about, or why there is none."""
    arms: list[ArmResult]
    comparisons: list[Comparison]
    failures: list[FailureRecord]
    failures_by_value: list[FailuresByValue]
    cells: list[CellRecord]
    notes: list[str]
