"""Where the heads look, drawn with what each of them is worth."""

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from tinygpt.figures.findings import Findings
from tinygpt.figures.style import add_axes, drawable
from tinygpt.lm.analysis import Array

SCALE = PowerNorm(0.5, 0, 1)  # a weight of a few percent is seen, and all heads share one scale
TICKS = (0, 0.02, 0.1, 0.25, 0.5, 1)


def head_maps(findings: Findings) -> Iterator[tuple[int, int, Figure]]:
    """A picture of each head as (layer, head, figure). The figure is one object, redrawn each time: use it before the next."""
    maps = findings.final.maps
    size = max(3.6, 0.16 * len(findings.labels))  # inches of the map: room for a label at each token
    left, bottom = 1.2, 1.75
    width, height = max(left + size + 0.25, 6.6), bottom + size + 0.85
    figure = Figure(figsize=(width, height))
    axes = add_axes(figure, left, bottom, size, size)
    image = _draw_map(axes, maps[0, 0])
    names = [drawable(label) for label in findings.labels]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7.5)
    axes.set_yticks(range(len(names)), names, fontsize=7.5)
    axes.tick_params(length=2, pad=2)
    axes.set(xlabel="looked at (key)", ylabel="looking (query)")
    _draw_scale(figure, image, left, size, "attention weight (a row sums to 1)")
    title = figure.text(0.12 / width, 1 - 0.1 / height, "", va="top", fontsize=11, fontweight="bold")
    lines = figure.text(0.12 / width, 1 - 0.34 / height, "", va="top", fontsize=8, linespacing=1.5)
    for layer, head in np.ndindex(maps.shape[:2]):
        image.set_data(_causal(maps[layer, head]))
        title.set_text(f"layer {layer}, head {head}")
        lines.set_text(_describe(findings, layer, head))
        yield layer, head, figure


def _describe(findings: Findings, layer: int, head: int) -> str:
    """The scores of one head and what happens without it, in two lines."""
    of_head = {name.replace("_", " "): f"{score[layer, head]:.2f}" for name, score in vars(findings.final.scores).items()}
    of_head["entropy"] += " bits"
    scores, worth = "  ·  ".join(map(" ".join, of_head.items())), findings.worth
    if worth is None:
        return scores
    change, error = worth.change[layer, head], worth.standard_error[layer, head]
    spread = "" if np.isnan(error) else f" ± {error:.4f}"
    rank = f"rank {worth.rank(layer, head)} of {worth.change.size}"
    return f"{scores}\nwithout this head: loss {change:+z.4f}{spread} nats/token on {worth.tokens:,} validation tokens ({rank})"


def _causal(weights: Array) -> Array:
    """The weights with what lies in the future left out, which a drawing leaves blank."""
    return np.asanyarray(np.ma.masked_where(~np.tri(len(weights), dtype=bool), weights))


def _draw_map(axes: Axes, weights: Array) -> AxesImage:
    T = len(weights)
    axes.grid(False)
    axes.set_facecolor("#f4f4f4")
    corners = np.repeat(np.arange(T + 1), 2) - 0.5  # the staircase between past and future
    axes.plot(corners[1:], corners[:-1], color="#808080", lw=0.6)
    # One hue that grows darker: the same to all kinds of colour vision and in black and white
    return axes.imshow(_causal(weights), cmap="Blues", norm=SCALE, interpolation="nearest", extent=(-0.5, T - 0.5, T - 0.5, -0.5))


def _draw_scale(figure: Figure, image: AxesImage, left: float, width: float, label: str) -> None:
    scale = add_axes(figure, left, 0.5, width, 0.11)
    figure.colorbar(image, cax=scale, orientation="horizontal", label=label, ticks=TICKS, format="{x:g}")


def overview(findings: Findings) -> Figure:
    """All heads side by side, a row for each layer, each with the change of loss without it."""
    maps, worth = findings.final.maps, findings.worth
    L, H = maps.shape[:2]
    cell, gap, left, top, bottom = 1.15, 0.3, 0.75, 0.75, 0.75
    width, height = max(left + H * (cell + 0.12) + 0.1, 5.2), top + L * (cell + gap) + bottom
    figure = Figure(figsize=(width, height))
    for layer, head in np.ndindex(L, H):
        axes = add_axes(figure, left + head * (cell + 0.12), height - top - layer * (cell + gap) - cell, cell, cell)
        image = _draw_map(axes, maps[layer, head])
        axes.set(xticks=(), yticks=())
        if layer == 0:
            axes.set_title(f"head {head}", fontsize=9)
        if head == 0:
            axes.set_ylabel(f"layer {layer}", fontsize=9)
        if worth:
            axes.set_xlabel(f"{worth.change[layer, head]:+z.4f}", fontsize=8, labelpad=2)
    _draw_scale(figure, image, left, min(H * (cell + 0.12), 4), "attention weight")
    below = "\nbelow each: change of loss without this head [nats/token]" if worth else ""
    figure.text(0.12 / width, 1 - 0.1 / height, f"rows look at columns{below}", va="top", fontsize=8.5)
    return figure
