"""What is known of a run when all of it has been looked at: the one record that pictures, tables and report are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygpt.lm.analysis import Array, HeadWorth, Look, Part


@dataclass(frozen=True)
class Curves:
    """The course of a training run, from the rows of metrics.jsonl.

    Args:
        steps: optimizer steps, (N,); loss [nats/token], learning_rate and grad_norm (before clipping) belong to them.
        eval_steps: steps at which the model was judged, (E,); eval_loss [nats/token] and stories belong to them.
        tokens_per_step: training tokens that one step reads.
    """

    steps: Array
    loss: Array
    learning_rate: Array
    grad_norm: Array
    eval_steps: Array
    eval_loss: Array
    stories: tuple[str, ...]
    tokens_per_step: float

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, Any]]) -> "Curves":
        """Sort the rows by kind."""
        steps, evals = ([row for row in rows if row["kind"] == kind] for kind in ("step", "eval"))
        found: dict[str, Any] = {name: np.array([row[name] for row in steps]) for name in ("loss", "learning_rate", "grad_norm")}
        found |= {"steps": np.array([row["step"] for row in steps]), "eval_steps": np.array([row["step"] for row in evals])}
        found |= {"eval_loss": np.array([row["val_loss"] for row in evals]), "stories": tuple(row["story"] for row in evals)}
        return cls(**found, tokens_per_step=rows[-1]["tokens"] / rows[-1]["step"])

    @property
    def best(self) -> int:
        """Index of the evaluation with the lowest loss."""
        return int(self.eval_loss.argmin())


def smooth(values: Array, span: int) -> Array:
    """Mean over the `span` values round each, over fewer at both ends, so that it neither lags nor leads."""
    places = np.arange(len(values))
    reach = np.minimum(np.minimum(places, places[::-1]), span // 2)
    total = np.concatenate([[0.0], values.cumsum(dtype=np.float64)])
    return np.asarray((total[places + reach + 1] - total[places - reach]) / (2 * reach + 1))


def token_labels(tokens: Sequence[bytes]) -> list[str]:
    """Tokens as short texts in which a space, a line break and a broken character can be seen; none is empty."""
    visible = str.maketrans({" ": "␣", "\n": "↵", "\r": "␍", "\t": "⇥"})
    labels = [token.decode("utf-8", errors="backslashreplace").translate(visible) or "<end>" for token in tokens]
    return [label if len(label) <= 12 else label[:11] + "…" for label in labels]


@dataclass(frozen=True)
class Findings:
    """All that is drawn.

    Args:
        labels: the tokens of the text, visible.
        curves: the course of training.
        baselines: losses of other models on the same tokens, nats per token.
        weights: final and initial, by part.
        looks: at the initialisation, at each snapshot, at the final weights.
        worth: of the heads of the final model; None if not measured.
    """

    labels: Sequence[str]
    curves: Curves
    baselines: Mapping[str, float]
    weights: tuple[Mapping[Part, Array], Mapping[Part, Array]]
    looks: Sequence[Look]
    worth: HeadWorth | None

    @property
    def final(self) -> Look:
        """The final weights."""
        return self.looks[-1]
