"""The answer of an experiment: what its cells reached, the paired differences, and the tests."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tinygpt.experiments import statistics
from tinygpt.experiments.plan import NthLook, plan_hash
from tinygpt.experiments.records import (
    ArmResult,
    CellRecord,
    Comparison,
    FailureRecord,
    FailuresByValue,
    Plan,
    Result,
    Spread,
)
from tinygpt.experiments.statistics import Interval, Numbers
from tinygpt.experiments.verdict import judge
from tinygpt.lm.evaluation import Parts

FEWEST_PARTS = 20  # documents or blocks, from which on an interval over them is given
BLOCKS = 50  # of neighboring documents, where these are parts of one text


class Measured(NamedTuple):
    """What a cell reached.

    Args:
        arm: number of its arm.
        seed: of the cell.
        step: the last whole one.
        last_loss: of that step, if training diverged.
        train: id of the model; None if training diverged, and then the rest says nothing.
        seconds: of training; None if unknown.
        parts: of the validation text, as the last weights predict them.
        unigram: loss of the unigram model on the same tokens.
        unit: "paragraph" or "line" if the documents are such parts of one text.
        tokenizer: digest of the tokenizer.
    """

    arm: int
    seed: int
    step: int
    last_loss: float | None
    train: str | None = None
    seconds: float | None = None
    parts: Parts | None = None
    unigram: float = math.inf
    unit: str | None = None
    tokenizer: str = ""

    @property
    def loss(self) -> float:
        """Nats per token; infinite without a model."""
        return math.inf if self.parts is None else self.parts.nats.sum() / self.parts.tokens.sum()

    @property
    def bits_per_byte(self) -> float:
        """Infinite without a model."""
        if self.parts is None:
            return math.inf
        return float(self.parts.nats.sum() / self.parts.bytes.sum() / math.log(2))

    @property
    def failure(self) -> str | None:
        """Why the cell does not count as trained; None if it does."""
        if self.parts is None:
            return "not finite"
        return "above the unigram baseline" if self.loss > self.unigram else None


class Answer:
    """Measured cells with their plan; `result` is what result.json says.

    Args:
        plan: of the experiment.
        look: which one it is.
        cells: all, in any order.
        refusals: why there can be no verdict, besides what plan and cells show.
    """

    def __init__(
        self, plan: Plan, look: NthLook, cells: Sequence[Measured], refusals: Sequence[str] = ()
    ) -> None:
        self.plan = plan
        self.look = look
        self.cells = {(cell.arm, cell.seed): cell for cell in cells}
        self.names = [arm["name"] for arm in plan["arms"]]
        self.comparisons = len(self.names) - 1
        self.models = [cell for cell in cells if cell.parts is not None]
        self.same_tokenizer = len({cell.tokenizer for cell in self.models}) <= 1
        self.same_text = len({_text(cell) for cell in self.models}) <= 1
        self.refusals = [*refusals, *self._refusals()]

    def _refusals(self) -> list[str]:
        """Why plan and cells allow no verdict."""
        needed = self.look.seeds_needed(self.comparisons)
        seeds = len(self.plan["seeds"])
        reasons = []
        if not self.same_text:
            reasons.append("the arms were evaluated on different texts")
        if needed is None:
            reasons.append("this question has been answered three times; there is no fourth look")
        elif seeds < needed:
            reasons.append(f"{seeds} of the {needed} seeds that a verdict needs")
        return reasons

    def result(self) -> Result:
        """Everything; where there are refusals, no comparison has a verdict."""
        compared = [self._compare(arm) for arm in range(1, len(self.names))]
        adjusted = statistics.holm([one["p"] for one in compared], self.comparisons)
        of_failures = statistics.holm([one["failure_p"] for one in compared], self.comparisons)
        for one, p, failure_p in zip(compared, adjusted, of_failures, strict=True):
            one["adjusted_p"] = p
            one["failure_p"] = failure_p
            judge(one, self.plan, self.look, self.comparisons, self.refusals)
        cells = [cell for _, cell in sorted(self.cells.items())]
        failures = [self._failure(cell) for cell in cells if cell.failure]
        return {
            "plan": plan_hash(self.plan),
            "look": self.look.number,
            "level": self.look.level,
            "seeds_needed": self.look.seeds_needed(self.comparisons),
            "judged": not self.refusals,
            "documents": self._documents(),
            "arms": [self._arm(arm) for arm in range(len(self.names))],
            "comparisons": compared,
            "failures": failures,
            "failures_by_value": self._failures_by_value() if failures else [],
            "cells": [self._cell(cell) for cell in cells],
            "notes": self._notes(),
        }

    def _of_arm(self, arm: int) -> list[Measured]:
        return [self.cells[arm, seed] for seed in self.plan["seeds"] if (arm, seed) in self.cells]

    def _arm(self, arm: int) -> ArmResult:
        cells = self._of_arm(arm)
        failures = sum(cell.failure is not None for cell in cells)
        ranked = [math.inf if cell.failure else cell.bits_per_byte for cell in cells]
        median = float(np.median(ranked))
        seconds = [cell.seconds for cell in cells if cell.seconds is not None]
        has_loss = not failures and self.same_tokenizer and self.same_text
        return {
            "name": self.names[arm],
            "cells": len(cells),
            "failures": failures,
            "bits_per_byte": None if failures else _spread(ranked),
            "loss": _spread([cell.loss for cell in cells]) if has_loss else None,
            "median": median if math.isfinite(median) else None,
            "seconds": float(np.mean(seconds)) if seconds else None,
        }

    def _cell(self, cell: Measured) -> CellRecord:
        return {
            "arm": self.names[cell.arm],
            "seed": cell.seed,
            "train": cell.train,
            "bits_per_byte": None if cell.parts is None else cell.bits_per_byte,
            "loss": None if cell.parts is None else cell.loss,
            "seconds": cell.seconds,
        }

    def _failure(self, cell: Measured) -> FailureRecord:
        return {
            "arm": self.names[cell.arm],
            "seed": cell.seed,
            "kind": str(cell.failure),
            "step": cell.step,
            "last_loss": cell.last_loss if cell.parts is None else cell.loss,
        }

    def _compare(self, arm: int) -> Comparison:
        """An arm against the first, without its verdict; of failed pairs, only that they failed."""
        pairs = [
            (one, self.cells[arm, one.seed])
            for one in self._of_arm(0)
            if (arm, one.seed) in self.cells
        ]
        fails = [(one.failure is not None, other.failure is not None) for one, other in pairs]
        if any(map(any, fails)):
            only_first, only_second = (fails.count(kind) for kind in ((True, False), (False, True)))
            failure_p = statistics.mcnemar(only_first, only_second)
        else:
            failure_p = None
        models = [pair for pair, failed in zip(pairs, fails, strict=True) if not any(failed)]
        first = np.array([one.bits_per_byte for one, _ in models])
        differences = np.array([other.bits_per_byte for _, other in models]) - first
        is_tested = failure_p is None and len(models) > 1
        return {
            "arm": self.names[arm],
            "baseline": self.names[0],
            "seeds": [one.seed for one, _ in models],
            "differences": differences.tolist(),
            "difference": float(differences.mean()) if models and failure_p is None else None,
            "intervals": self._intervals(models) if is_tested else {},
            "p": statistics.sign_flip(differences) if is_tested else None,
            "adjusted_p": None,
            "correlation": _correlation(first, first + differences),
            "deviation": _deviation(differences),
            "baseline_deviation": _deviation(first),
            "failed": [sum(failed[0] for failed in fails), sum(failed[1] for failed in fails)],
            "failure_p": failure_p,
            "verdict": "none",
            "words": "",
        }

    def _intervals(self, models: Sequence[tuple[Measured, Measured]]) -> dict[str, Interval | None]:
        """Of the difference; "strict" is that of the level of this look and all comparisons."""
        differences = np.array([b.bits_per_byte - a.bits_per_byte for a, b in models])
        strict = 1 - (self.look.level or statistics.LEVELS[-1]) / self.comparisons
        levels = {"95 %": 0.95, "90 %": 0.9, "strict": strict}
        parts = self._parts(models) if self.same_text else None
        of_documents: list[Interval | None] = [None] * len(levels)
        if parts is not None:
            of_documents = statistics.document_intervals(*parts, list(levels.values()))
        found: dict[str, Interval | None] = {}
        for (name, level), documents in zip(levels.items(), of_documents, strict=True):
            seeds = statistics.seed_interval(differences, level)
            both = statistics.over_both(float(differences.mean()), [seeds, documents])
            found |= {f"{name} over seeds": seeds, f"{name} over documents": documents}
            found[f"{name} over both"] = both
        return found

    def _parts(self, pairs: Sequence[tuple[Measured, Measured]]) -> tuple[Numbers, Numbers] | None:
        """Difference in bits, mean over seeds, and bytes of each document or block; None if few."""
        one, other = (np.array([pair[side].parts.nats for pair in pairs]) for side in (0, 1))  # type: ignore[union-attr]
        first = pairs[0][0]
        assert first.parts is not None
        # Blocks of one text are counted in tokens, so they are others with another tokenizer
        if one.shape != other.shape or not (self.same_tokenizer or _has_documents(first)):
            return None
        differences = (other - one).mean(axis=0) / math.log(2)
        text_bytes = first.parts.bytes.astype(float)
        if first.unit is not None:
            places = np.linspace(0, len(text_bytes), min(BLOCKS, len(text_bytes)), endpoint=False)
            differences = np.add.reduceat(differences, places.astype(int))
            text_bytes = np.add.reduceat(text_bytes, places.astype(int))
        return (differences, text_bytes) if len(text_bytes) >= FEWEST_PARTS else None

    def _documents(self) -> str:
        """What the interval over documents is about, or why there is none."""
        if not self.models or not self.same_text:
            return "none"
        first = self.models[0]
        pair = self._parts([(first, self.models[-1])])
        if pair is None:
            return "this text only"
        is_one_text = first.unit is not None or not _has_documents(first)
        return f"{len(pair[1]):,} {'blocks of one text' if is_one_text else 'documents'}"

    def _failures_by_value(self) -> list[FailuresByValue]:
        """The failures of each value of a key over all values of the others; [] for one key."""
        found: list[FailuresByValue] = []
        for key in self.plan["varied"] if len(self.plan["varied"]) > 1 else ():
            fails: dict[str, dict[object, bool]] = {}
            for (arm, seed), cell in self.cells.items():
                settings = dict(self.plan["arms"][arm]["settings"])
                value = str(settings.pop(key))
                fails.setdefault(value, {})[*settings.items(), seed] = cell.failure is not None
            first = next(iter(fails.values()))
            counts = {value: [sum(of.values()), len(of)] for value, of in fails.items()}
            others = {value: of for value, of in fails.items() if first.keys() & of.keys()}
            if len(others) > 1:  # else the key changes together with another
                p = {value: _mcnemar(first, of) for value, of in others.items() if of is not first}
                found.append({"key": key, "failures": counts, "p": p})
        return found

    def _notes(self) -> list[str]:
        notes = []
        if not self.plan["planned"]:
            notes.append("the runs were chosen after they were made, not planned before")
        if not self.same_tokenizer:
            notes.append("the arms have different tokenizers: only bits per byte can be compared")
        if not self.same_text:
            notes.append("the arms have different validation texts: only bits per byte are shown")
        for arm in range(1, len(self.names)):
            if [cell.loss for cell in self._of_arm(arm)] == [cell.loss for cell in self._of_arm(0)]:
                same = f"{self.names[arm]} and {self.names[0]} reached the same losses to the bit"
                notes.append(f"{same}: {' and '.join(self.plan['varied'])} changes nothing here")
        return notes


def _text(cell: Measured) -> object:
    """What distinguishes validation texts: the bytes of their documents.

    The first document counts without its first token, which is not predicted.
    """
    assert cell.parts is not None
    sizes = np.bincount(cell.parts.document, cell.parts.bytes)
    return tuple(sizes[1:])


def _has_documents(cell: Measured) -> bool:
    """Whether the parts of its text are documents, not blocks of a few."""
    assert cell.parts is not None
    return len(np.unique(cell.parts.document)) == len(cell.parts.document)


def _mcnemar(first: Mapping[object, bool], second: Mapping[object, bool]) -> float:
    pairs = [(first[place], second[place]) for place in first if place in second]
    return statistics.mcnemar(pairs.count((True, False)), pairs.count((False, True)))


def _spread(values: Sequence[float]) -> Spread:
    return {"mean": float(np.mean(values)), "deviation": _deviation(np.array(values))}


def _deviation(values: Numbers) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None


def _correlation(first: Numbers, second: Numbers) -> float | None:
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])
