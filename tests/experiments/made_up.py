"""Made-up cells of experiments whose truth is known."""

from collections.abc import Sequence

import numpy as np

from tinygpt.experiments.answer import Answer, Measured
from tinygpt.experiments.plan import NthLook
from tinygpt.experiments.records import MEASURE, Plan
from tinygpt.lm.evaluation import Parts

LN2 = np.log(2)
BYTES = 1_000  # of a document


def made_up_plan(
    arms: Sequence[str] = ("pre", "post"), seeds: int = 6, min_effect: float = 0.01
) -> Plan:
    """A plan of an experiment on `model.norm`, or on two keys for arms such as "pre 1e-3"."""
    keys = ("model.norm", "train.learning_rate")
    settings = [dict(zip(keys, arm.split(" "), strict=False)) for arm in arms]
    return {
        "question": "model.norm: pre or post",
        "question_id": "q",
        "varied": list(settings[0]),
        "arms": [
            {
                "name": arm,
                "settings": of_arm,
                "max_steps": 10,
                "tokens": 100,
                "precision": "fp32",
                "step_seconds": None,
                "recipe": {},
            }
            for arm, of_arm in zip(arms, settings, strict=True)
        ],
        "seeds": list(range(1, seeds + 1)),
        "measure": MEASURE,
        "budget": "tokens",
        "min_effect": min_effect,
        "conditions": {},
        "code": {},
        "versions": {},
        "jobs": 1,
        "planned": True,
    }


def cell(
    arm: int, seed: int, bits: float | np.ndarray, documents: int = 30, **facts: object
) -> Measured:
    """A cell that reached `bits` bits per byte, alike or in each of its documents."""
    of_each = np.broadcast_to(np.asarray(bits, float), documents)
    parts = Parts(
        np.arange(documents),
        of_each * BYTES * LN2,
        np.full(documents, 250),
        np.full(documents, BYTES),
    )
    facts = {"train": f"{arm}{seed}", "seconds": 2.0, "parts": parts, **facts}
    return Measured(arm, seed, 10, None, **facts)  # type: ignore[arg-type]


def diverged(arm: int, seed: int) -> Measured:
    """A cell whose training diverged after step 3."""
    return Measured(arm, seed, 3, 9.5)


def pairs(
    rng: np.random.Generator,
    *,
    effect: float,
    seeds: int,
    spread: float = 0.01,
    documents: int = 60,
    document_spread: float = 0.02,
) -> list[Measured]:
    """Cells of two arms whose difference is `effect` for all seeds and all documents there are.

    Args:
        spread: of the difference over seeds.
        document_spread: of the difference over documents.
    """
    base = rng.normal(1.0, 0.1, documents)
    by_document = rng.normal(0, document_spread, documents)
    cells = []
    for seed in range(1, seeds + 1):
        own = rng.normal(0, 0.02)  # of the seed, in both arms
        difference = effect + rng.normal(0, spread) + by_document
        cells.append(cell(0, seed, base + own, documents))
        cells.append(cell(1, seed, base + own + difference, documents))
    return cells


def verdict(cells: Sequence[Measured], look: int = 1, seeds: int | None = None) -> str:
    """The verdict on two arms, judged on the first `seeds` seeds."""
    count = max(one.seed for one in cells) if seeds is None else seeds
    chosen = [one for one in cells if one.seed <= count]
    answer = Answer(made_up_plan(seeds=count), NthLook(look), chosen)
    return answer.result()["comparisons"][0]["verdict"]
