"""Records to pictures: matplotlib's object API only, never pyplot. Call everything here inside `style()`."""

from tinygpt.figures.attention import Attention, head_maps, overview, scores_over_time, token_losses_over_time
from tinygpt.figures.curves import training_curves
from tinygpt.figures.style import Format, style, to_bytes
from tinygpt.figures.weights import histograms, norms_by_layer, norms_over_time, singular_values

__all__ = [
    "Attention",
    "Format",
    "head_maps",
    "histograms",
    "norms_by_layer",
    "norms_over_time",
    "overview",
    "scores_over_time",
    "singular_values",
    "style",
    "to_bytes",
    "token_losses_over_time",
    "training_curves",
]
