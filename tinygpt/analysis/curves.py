"""The training curves of a run as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinygpt.lm.weights import Array
from tinygpt.records import MetricsRow


@dataclass(frozen=True)
class Curves:
    """What metrics.jsonl says about N optimizer steps and E evaluations.

    Args:
        steps: numbers of the optimizer steps, (N,).
        loss: training loss of each step [nats per token], (N,).
        learning_rate: of each step, (N,).
        grad_norm: of each step, before clipping, (N,).
        eval_steps: the steps after which the model was evaluated, (E,).
        eval_loss: validation loss of each evaluation [nats per token], (E,).
        samples: the text generated at each evaluation, (E,).
        tokens_per_step: training tokens that one step reads.
    """

    steps: Array
    loss: Array
    learning_rate: Array
    grad_norm: Array
    eval_steps: Array
    eval_loss: Array
    samples: tuple[str, ...]
    tokens_per_step: float

    @classmethod
    def from_rows(cls, rows: Sequence[MetricsRow]) -> "Curves":
        """Collect the rows of metrics.jsonl, at least one of them a step."""
        steps = [row for row in rows if row["kind"] == "step"]
        evals = [row for row in rows if row["kind"] == "eval"]
        last = rows[-1]
        return cls(
            steps=np.array([row["step"] for row in steps]),
            loss=np.array([row["loss"] for row in steps]),
            learning_rate=np.array([row["learning_rate"] for row in steps]),
            grad_norm=np.array([row["grad_norm"] for row in steps]),
            eval_steps=np.array([row["step"] for row in evals]),
            eval_loss=np.array([row["val_loss"] for row in evals]),
            samples=tuple(row["sample"] for row in evals),
            tokens_per_step=last["tokens"] / last["step"],
        )

    @property
    def best(self) -> int:
        """Index of the evaluation with the lowest loss."""
        return int(self.eval_loss.argmin())

    @property
    def smoothing_span(self) -> int:
        """Steps over which the training loss is averaged for display; 1 for none."""
        return max(1, len(self.steps) // 40)

    @property
    def smoothed_loss(self) -> Array:
        """Training loss averaged over `smoothing_span` steps, (N,)."""
        return smooth(self.loss, self.smoothing_span)


def smooth(values: Array, span: int) -> Array:
    """Centered moving average, which neither lags nor leads, (N,) -> (N,).

    Each value becomes the mean of the `span` values around it; near both ends, where fewer are on
    one side, of fewer on both sides.
    """
    places = np.arange(len(values))
    to_nearest_end = np.minimum(places, places[::-1])
    reach = np.minimum(to_nearest_end, span // 2)  # values on either side
    sums = np.concatenate([[0.0], values.cumsum(dtype=np.float64)])
    return np.asarray((sums[places + reach + 1] - sums[places - reach]) / (2 * reach + 1))
