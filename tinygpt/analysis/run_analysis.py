"""Everything that pictures, tables and the report show of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tinygpt.analysis.ablation import HeadAblation
from tinygpt.analysis.curves import Curves
from tinygpt.analysis.model_analysis import ModelAnalysis
from tinygpt.analysis.weight_groups import WeightGroup
from tinygpt.lm.weights import Array

LABEL_LENGTH = 12
VISIBLE = str.maketrans({" ": "␣", "\n": "↵", "\r": "␍", "\t": "⇥"})


def token_labels(tokens: Sequence[bytes]) -> list[str]:
    """Tokens as short texts that show white space and broken characters; none is empty."""
    return [_label(token) for token in tokens]


def _label(token: bytes) -> str:
    text = token.decode("utf-8", errors="backslashreplace").translate(VISIBLE)
    if not text:
        return "<end>"  # the end-of-text token has no bytes
    if len(text) > LABEL_LENGTH:
        return text[: LABEL_LENGTH - 1] + "…"
    return text


@dataclass(frozen=True)
class RunAnalysis:
    """Everything that is shown of a run.

    Args:
        labels: the tokens of the text, as token_labels gives them.
        curves: the training curves; None for an imported model, whose training is not known.
        baselines: loss of other models on the validation tokens [nats per token], by name.
        weights: the final and the initial weights; no initial ones of an imported model.
        snapshots: the initialization, each weight snapshot, and the final weights; of an imported
            model these alone.
        ablation: of the heads of the final model; None if it was not measured.
    """

    labels: Sequence[str]
    curves: Curves | None
    baselines: Mapping[str, float]
    weights: tuple[Mapping[WeightGroup, Array], Mapping[WeightGroup, Array] | None]
    snapshots: Sequence[ModelAnalysis]
    ablation: HeadAblation | None

    @property
    def final(self) -> ModelAnalysis:
        """The final weights."""
        return self.snapshots[-1]

    @property
    def initial(self) -> ModelAnalysis | None:
        """The initialization; None for an imported model."""
        return None if self.curves is None else self.snapshots[0]
