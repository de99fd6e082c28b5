"""Attention maps, each with the scores of its head and the result of head ablation."""

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from tinygpt.analysis.run_analysis import RunAnalysis
from tinygpt.figures.style import add_axes, drawable
from tinygpt.lm.weights import Array

SCALE = PowerNorm(0.5, 0, 1)  # shows a weight of a few percent; all heads share one scale
TICKS = (0, 0.02, 0.1, 0.25, 0.5, 1)
MARGIN = 0.12  # inches from the left edge of a picture to its text


def head_maps(analysis: RunAnalysis) -> Iterator[tuple[int, int, Figure]]:
    """A picture of each head's attention on the text.

    Yields:
        Layer, head and figure. The figure is one object that is redrawn each time, so use it before
        asking for the next.
    """
    maps = analysis.final.maps  # (L, H, T, T)
    size = max(3.6, 0.16 * len(analysis.labels))  # inches of the map: room for each token's label
    left, bottom = 1.2, 1.75
    width, height = max(left + size + 0.25, 6.6), bottom + size + 0.85
    figure = Figure(figsize=(width, height))
    axes = add_axes(figure, left, bottom, size, size)
    image = _draw_map(axes, maps[0, 0])
    names = [drawable(label) for label in analysis.labels]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7.5)
    axes.set_yticks(range(len(names)), names, fontsize=7.5)
    axes.tick_params(length=2, pad=2)
    axes.set(xlabel="key token", ylabel="query token")
    _draw_scale(figure, image, left, size, "attention weight (each row sums to 1)")
    x = MARGIN / width
    title = figure.text(x, 1 - 0.1 / height, "", va="top", fontsize=11, fontweight="bold")
    lines = figure.text(x, 1 - 0.34 / height, "", va="top", fontsize=8, linespacing=1.5)
    for layer, head in np.ndindex(maps.shape[:2]):
        image.set_data(_causal(maps[layer, head]))
        title.set_text(f"layer {layer}, head {head}")
        lines.set_text(_describe(analysis, layer, head))
        yield layer, head, figure


def _describe(analysis: RunAnalysis, layer: int, head: int) -> str:
    """The scores of a head and its loss increase, a line each."""
    scores = []
    for name, score in vars(analysis.final.scores).items():
        unit = " bits" if name == "entropy" else ""
        scores.append(f"{name.replace('_', ' ')} {score[layer, head]:.2f}{unit}")
    description = "  ·  ".join(scores)
    ablation = analysis.ablation
    if ablation is None:
        return description
    increase = f"{ablation.loss_increase[layer, head]:+z.4f}"
    if not np.isnan(ablation.standard_error[layer, head]):
        increase += f" ± {ablation.standard_error[layer, head]:.4f}"
    rank = f"rank {ablation.rank(layer, head)} of {ablation.loss_increase.size}"
    where = f"on {ablation.tokens:,} validation tokens ({rank})"
    return f"{description}\nhead ablation: loss increase {increase} nats/token {where}"


def _causal(weights: Array) -> Array:
    """The attention weights (T, T), with the future masked so that it is left blank."""
    future = ~np.tri(len(weights), dtype=bool)
    return np.asanyarray(np.ma.masked_where(future, weights))


def _draw_map(axes: Axes, weights: Array) -> AxesImage:
    """Draw the attention weights of one head, (T, T)."""
    T = len(weights)
    axes.grid(False)
    axes.set_facecolor("#f4f4f4")
    corners = np.repeat(np.arange(T + 1), 2) - 0.5  # the staircase between past and future
    axes.plot(corners[1:], corners[:-1], color="#808080", lw=0.6)
    # One hue from light to dark looks the same to the color-blind, and in black and white
    return axes.imshow(
        _causal(weights),
        cmap="Blues",
        norm=SCALE,
        interpolation="nearest",
        extent=(-0.5, T - 0.5, T - 0.5, -0.5),
    )


def _draw_scale(figure: Figure, image: AxesImage, left: float, width: float, label: str) -> None:
    """Draw the color bar at the bottom; left and width in inches."""
    figure.colorbar(
        image,
        cax=add_axes(figure, left, 0.5, width, 0.11),
        orientation="horizontal",
        label=label,
        ticks=TICKS,
        format="{x:g}",
    )


def overview(analysis: RunAnalysis) -> Figure:
    """All heads side by side, a row for each layer, each with its loss increase."""
    maps = analysis.final.maps
    ablation = analysis.ablation
    L, H = maps.shape[:2]
    cell = 1.15  # inches, as are the others
    column, row = cell + 0.12, cell + 0.3
    left, top, bottom = 0.75, 0.75, 0.75
    width, height = max(left + H * column + 0.1, 5.2), top + L * row + bottom
    figure = Figure(figsize=(width, height))
    for layer, head in np.ndindex(L, H):
        x = left + head * column
        y = height - top - layer * row - cell
        axes = add_axes(figure, x, y, cell, cell)
        image = _draw_map(axes, maps[layer, head])
        axes.set(xticks=(), yticks=())
        if layer == 0:
            axes.set_title(f"head {head}", fontsize=9)
        if head == 0:
            axes.set_ylabel(f"layer {layer}", fontsize=9)
        if ablation is not None:
            axes.set_xlabel(f"{ablation.loss_increase[layer, head]:+z.4f}", fontsize=8, labelpad=2)
    _draw_scale(figure, image, left, min(H * column, 4), "attention weight")
    legend = "rows: query tokens, columns: key tokens"
    if ablation is not None:
        legend += "\nbelow each map: loss increase without this head [nats/token]"
    figure.text(MARGIN / width, 1 - 0.1 / height, legend, va="top", fontsize=8.5)
    return figure
