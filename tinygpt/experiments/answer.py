"""The answer of an experiment: what its cells reached, the paired differences, and the tests."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygpt.experiments import statistics
from tinygpt.experiments.plan import Look, plan_hash
from tinygpt.experiments.records import (
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

FEWEST_PARTS = 20  # documents or blocks, from which on an interval over them is given
BLOCKS = 50  # of neighboring documents, where these are parts of one text


@dataclass(frozen=True)
class Measured:
    """What a cell reached; all None if its training diverged.

    Args:
        document: number of the document of each part of the validation text, (P,).
        nats, tokens, bytes: of each part, (P,).
        unigram: loss of the unigram model on the same tokens.
        unit: "paragraph" or "line" if the documents are such parts of one text.
        tokenizer: digest of the tokenizer.
    """

    arm: int
    seed: int
    train: str | None = None
    seconds: float | None = None
    document: Numbers | None = None
    nats: Numbers | None = None
    tokens: Numbers | None = None
    bytes: Numbers | None = None
    unigram: float = math.inf
    unit: str | None = None
    tokenizer: str = ""
    step: int = 0
    last_loss: float | None = None

    @property
    def loss(self) -> float:
        """Nats per token; infinite without a model."""
        if self.nats is None or self.tokens is None:
            return math.inf
        return float(self.nats.sum() / self.tokens.sum())

    @property
    def bits_per_byte(self) -> float:
        """Infinite without a model."""
        if self.nats is None or self.bytes is None:
            return math.inf
        return float(self.nats.sum() / self.bytes.sum() / math.log(2))

    @property
    def failure(self) -> str | None:
        """Why the cell does not count as trained; None if it does."""
        if not math.isfinite(self.loss):
            return "not finite"
        return "above the unigram baseline" if self.loss > self.unigram else None


class Answer:
    """Measured cells with their plan; `result` is what result.json says.

    Args:
        plan: of the experiment.
        look: which one it is.
        cells: all, in any order.
        refusals: why there can be no verdict, besides what the cells show.
    """

    def __init__(
        self, plan: Plan, look: Look, cells: Sequence[Measured], refusals: Sequence[str] = ()
    ) -> None:
        self.plan = plan
        self.look = look
        self.cells = {(cell.arm, cell.seed): cell for cell in cells}
        self.names = [arm["name"] for arm in plan["arms"]]
        self.seeds = plan["seeds"]
        self.comparisons = len(self.names) - 1
        self.needed = look.seeds_needed(self.comparisons)
        with_model = [cell for cell in cells if cell.nats is not None]
        self.same_tokenizer = len({cell.tokenizer for cell in with_model}) <= 1
        self.same_text = _same_text(with_model)
        self.unit = with_model[0].unit if with_model else None
        self.refusals = [*refusals, *self._refusals()]

    def of_arm(self, arm: int) -> list[Measured]:
        """The cells of an arm, by seed."""
        return [self.cells[arm, seed] for seed in self.seeds if (arm, seed) in self.cells]

    def _refusals(self) -> list[str]:
        """Why there can be no verdict."""
        reasons = []
        if not self.same_text:
            reasons.append("the arms were evaluated on different texts")
        if self.needed is None:
            reasons.append("this question has been answered three times; there is no fourth look")
        elif len(self.seeds) < self.needed:
            seeds = f"{len(self.seeds)} seed{'s' * (len(self.seeds) > 1)}"
            reasons.append(
                f"{seeds}; {self.comparisons} comparison{'s' * (self.comparisons > 1)} at level "
                f"{self.look.level:.4g} take{'s' * (self.comparisons == 1)} {self.needed}"
            )
        return reasons

    def result(self) -> Result:
        """Everything; a comparison with a refusal has no verdict."""
        compared = [self._compare(arm) for arm in range(1, len(self.names))]
        p_values = [one["p"] for one in compared]
        failure_p = [one["failure_p"] for one in compared]
        adjusted = statistics.holm(p_values, self.comparisons)
        adjusted_failures = statistics.holm(failure_p, self.comparisons)
        for one, p, of_failures in zip(compared, adjusted, adjusted_failures, strict=True):
            one["adjusted_p"] = p
            one["failure_p"] = of_failures
            judge(one, self.plan, self.look, self.comparisons, self.refusals)
        failures = self._failures()
        return {
            "plan": plan_hash(self.plan),
            "look": self.look.number,
            "level": self.look.level,
            "seeds_needed": self.needed,
            "judged": not self.refusals,
            "documents": self._documents_in_words(),
            "arms": [self._arm(arm) for arm in range(len(self.names))],  # type: ignore[misc]
            "comparisons": compared,
            "failures": failures,
            "failures_by_value": self._failures_by_value() if failures else [],
            "cells": [self._cell(cell) for _, cell in sorted(self.cells.items())],
            "notes": self._notes(),
        }

    def _arm(self, arm: int) -> dict[str, Any]:
        cells = self.of_arm(arm)
        failures = sum(cell.failure is not None for cell in cells)
        ranked = [math.inf if cell.failure else cell.bits_per_byte for cell in cells]
        median = float(np.median(ranked)) if ranked else math.inf
        seconds = [cell.seconds for cell in cells if cell.seconds is not None]
        has_loss = self.same_tokenizer and self.same_text
        return {
            "name": self.names[arm],
            "cells": len(cells),
            "failures": failures,
            "bits_per_byte": None if failures else _spread(ranked),
            "loss": None if failures or not has_loss else _spread([cell.loss for cell in cells]),
            "median": median if math.isfinite(median) else None,
            "seconds": float(np.mean(seconds)) if seconds else None,
        }

    def _cell(self, cell: Measured) -> CellRecord:
        usable = cell.failure is None
        return {
            "arm": self.names[cell.arm],
            "seed": cell.seed,
            "train": cell.train,
            "bits_per_byte": cell.bits_per_byte if usable else None,
            "loss": cell.loss if usable else None,
            "seconds": cell.seconds,
        }

    def _failures(self) -> list[FailureRecord]:
        found: list[FailureRecord] = []
        for _, cell in sorted(self.cells.items()):
            if cell.failure is not None:
                last = cell.last_loss if cell.nats is None else cell.loss
                place = {"arm": self.names[cell.arm], "seed": cell.seed, "kind": cell.failure}
                found.append({**place, "step": cell.step, "last_loss": last})  # type: ignore[typeddict-item]
        return found

    def _compare(self, arm: int) -> Comparison:
        """An arm against the first, without its verdict."""
        pairs = [
            (self.cells[0, seed], self.cells[arm, seed])
            for seed in self.seeds
            if (0, seed) in self.cells and (arm, seed) in self.cells
        ]
        failed = [(one.failure is not None, other.failure is not None) for one, other in pairs]
        models = [pair for pair, fails in zip(pairs, failed, strict=True) if not any(fails)]
        first = np.array([one.bits_per_byte for one, _ in models])
        second = np.array([other.bits_per_byte for _, other in models])
        differences = second - first
        any_failed = any(map(any, failed))
        has_test = not any_failed and len(models) > 1
        failure_p = None
        if any_failed:
            counts = [sum(fails == kind for fails in failed) for kind in ((1, 0), (0, 1))]
            failure_p = statistics.mcnemar(*counts)
        parts = self._parts(models) if has_test else None
        return {
            "arm": self.names[arm],
            "baseline": self.names[0],
            "seeds": [one.seed for one, _ in models],
            "differences": differences.tolist(),
            "difference": float(differences.mean()) if models and not any_failed else None,
            "seed_interval": _listed(statistics.seed_interval(differences, 0.95), has_test),
            "seed_interval_90": _listed(statistics.seed_interval(differences, 0.9), has_test),
            "document_interval": _over_documents(parts, 0.95),
            "document_interval_90": _over_documents(parts, 0.9),
            "p": statistics.sign_flip(differences) if has_test else None,
            "adjusted_p": None,
            "correlation": _correlation(first, second),
            "deviation": _deviation(differences),
            "baseline_deviation": _deviation(first),
            "failed": [sum(fails[0] for fails in failed), sum(fails[1] for fails in failed)],
            "failure_p": failure_p,
            "verdict": "none",
            "words": "",
        }

    def _parts(self, pairs: Sequence[tuple[Measured, Measured]]) -> tuple[Numbers, Numbers] | None:
        """Differences in bits, averaged over seeds, and bytes, of each document or block."""
        if not self.same_text:
            return None
        total = 0.0
        for one, other in pairs:
            assert one.nats is not None and other.nats is not None
            if len(one.nats) != len(other.nats):
                return None  # blocks of different tokens
            total = total + (other.nats - one.nats) / math.log(2) / len(pairs)
        first = pairs[0][0]
        assert first.bytes is not None and first.document is not None
        differences, weights = np.asarray(total), first.bytes
        are_blocks = len(np.unique(first.document)) < len(first.document)
        if are_blocks and not self.same_tokenizer:
            return None  # blocks are counted in tokens
        if self.unit is not None:
            places = np.linspace(0, len(weights), min(BLOCKS, len(weights)), endpoint=False)
            starts = places.astype(int)
            differences = np.add.reduceat(differences, starts)
            weights = np.add.reduceat(weights, starts)
        if len(weights) < FEWEST_PARTS:
            return None
        return differences, weights

    def _documents_in_words(self) -> str:
        """What the interval over documents is about."""
        with_model = [cell for cell in self.cells.values() if cell.nats is not None]
        if not with_model or not self.same_text:
            return "none: the arms were evaluated on different texts" if with_model else "none"
        first = with_model[0]
        assert first.document is not None
        pair = self._parts([(first, cell) for cell in with_model[1:2]] or [(first, first)])
        if pair is None:
            return "none: this text only, it has too few parts to resample"
        count = f"{len(pair[1]):,}"
        if self.unit is not None or len(np.unique(first.document)) < len(first.document):
            return f"{count} contiguous blocks of one text"
        return f"{count} documents"

    def _failures_by_value(self) -> list[FailuresByValue]:
        """The failures of each value of a key over all values of the others; [] for one key."""
        if len(self.plan["varied"]) < 2:
            return []
        found: list[FailuresByValue] = []
        for key in self.plan["varied"]:
            fails: dict[str, dict[object, bool]] = {}
            for (arm, seed), cell in self.cells.items():
                settings = self.plan["arms"][arm]["settings"]
                rest = (*((name, value) for name, value in settings.items() if name != key), seed)
                fails.setdefault(str(settings[key]), {})[rest] = cell.failure is not None
            first, *others = fails
            found.append(
                {
                    "key": key,
                    "failures": {value: [sum(of.values()), len(of)] for value, of in fails.items()},
                    "p": {value: _mcnemar(fails[first], fails[value]) for value in others},
                }
            )
        return found

    def _notes(self) -> list[str]:
        notes = [f"no verdict: {reason}" for reason in self.refusals]
        if not self.plan["planned"]:
            notes.append("the runs were chosen after they were made, not planned before")
        if not self.same_tokenizer:
            notes.append("the arms have different tokenizers: only bits per byte can be compared")
        if not self.same_text:
            notes.append("the arms have different validation texts: only bits per byte are shown")
        for arm in range(1, len(self.names)):
            pairs = list(zip(self.of_arm(0), self.of_arm(arm), strict=False))
            if pairs and all(one.loss == other.loss for one, other in pairs):
                same = f"`{self.names[arm]}` and `{self.names[0]}` reached equal losses to the bit"
                notes.append(f"{same}: here, {' and '.join(self.plan['varied'])} changes nothing")
        return notes


def _same_text(cells: Sequence[Measured]) -> bool:
    """Whether all were evaluated on one text, by the bytes of its documents.

    The first token is not predicted, so with another tokenizer the first document may lack others.
    """
    texts = set()
    for cell in cells:
        assert cell.bytes is not None and cell.document is not None
        sizes = np.bincount(cell.document.astype(int), cell.bytes)
        texts.add(tuple(sizes[1:].tolist()) or len(sizes))
    return len(texts) <= 1


def _mcnemar(first: Mapping[object, bool], second: Mapping[object, bool]) -> float:
    shared = [place for place in first if place in second]
    only_first = sum(first[place] and not second[place] for place in shared)
    only_second = sum(second[place] and not first[place] for place in shared)
    return statistics.mcnemar(only_first, only_second)


def _spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    return {"mean": float(np.mean(values)), "deviation": _deviation(np.array(values))}


def _deviation(values: Numbers) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None


def _correlation(first: Numbers, second: Numbers) -> float | None:
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _listed(interval: Interval | None, wanted: bool) -> list[float] | None:
    return list(interval) if wanted and interval is not None else None


def _over_documents(parts: tuple[Numbers, Numbers] | None, confidence: float) -> list[float] | None:
    if parts is None:
        return None
    return _listed(statistics.document_interval(*parts, confidence), True)
