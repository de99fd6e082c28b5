"""Measure one set of weights on one text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tinygpt.analysis.ablation import text_losses
from tinygpt.analysis.attention import (
    HeadScores,
    attention_maps,
    entropy,
    first_token,
    induction_scores,
    previous_token,
)
from tinygpt.analysis.weight_groups import Spectrum, WeightGroup, arrays_of, spectra
from tinygpt.lm.model import GPT
from tinygpt.lm.weights import Array


@dataclass(frozen=True)
class ModelAnalysis:
    """What is known of one set of weights; L layers, H heads, a text of T tokens.

    Args:
        step: optimizer steps that made the weights; 0 for the initialization.
        maps: attention weights on the text, (L, H, T, T).
        scores: of the heads.
        losses: of each token of the text but the first [nats], (T - 1,).
        spectra: of the matrices.
    """

    step: int
    maps: Array
    scores: HeadScores
    losses: Array
    spectra: Mapping[WeightGroup, Spectrum]

    @classmethod
    def of(cls, model: GPT, token_ids: Sequence[int], step: int) -> "ModelAnalysis":
        """Analyze a model that was trained for `step` steps on a text, (T,)."""
        maps = attention_maps(model, token_ids)
        scores = HeadScores(
            entropy=entropy(maps),
            previous_token=previous_token(maps),
            first_token=first_token(maps),
            induction=induction_scores(model),
        )
        losses = text_losses(model, token_ids)
        return cls(step, maps, scores, losses, spectra(arrays_of(model)))
