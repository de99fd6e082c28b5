"""Where the heads look, drawn with what each of them is worth."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from tinygpt.figures.style import Array, drawable, grid, layer_lines, mark_steps, new_figure
from tinygpt.lm.analysis import HeadScores, HeadWorth

COLOURS = "Blues"  # one hue that grows darker: the same to all kinds of colour vision and in black and white
SCALE = PowerNorm(0.5, 0, 1)  # a weight of a few percent is seen, and all heads share one scale
TICKS = (0, 0.02, 0.1, 0.25, 0.5, 1)
NAMED_HEADS = 40  # more bars than this have no room for their names


@dataclass(frozen=True)
class Attention:
    """All heads on one text.

    Args:
        labels: the T tokens.
        maps: attention weights, (L, H, T, T).
        scores: of every head.
        worth: None where no head was ablated.
    """

    labels: Sequence[str]
    maps: Array
    scores: HeadScores
    worth: HeadWorth | None

    def describe(self, layer: int, head: int) -> str:
        """The scores of one head and what happens without it, in two lines."""
        s = self.scores
        scores = (
            f"entropy {s.entropy[layer, head]:.2f} bits  ·  previous token {s.previous_token[layer, head]:.2f}  ·  "
            f"first token {s.first_token[layer, head]:.2f}  ·  induction {s.induction[layer, head]:.2f}"
        )
        if self.worth is None:
            return scores
        change, error = self.worth.change[layer, head], self.worth.standard_error[layer, head]
        spread = "" if np.isnan(error) else f" ± {error:.4f}"
        rank = f"rank {self.worth.rank(layer, head)} of {self.worth.change.size}"
        tokens = f"{self.worth.tokens:,} validation tokens"
        return f"{scores}\nwithout this head: loss {change:+z.4f}{spread} nats/token on {tokens} ({rank})"


def head_maps(attention: Attention) -> Iterator[tuple[int, int, Figure]]:
    """A picture of each head as (layer, head, figure). The figure is one object, redrawn each time: use it before the next."""
    size = max(3.6, 0.16 * len(attention.labels))  # inches of the map: room for a label at each token
    left, bottom, strip = 1.2, 1.75, 2.3 if attention.worth else 0.0
    width, height = max(left + size + 0.25 + strip, 6.6), bottom + size + 0.85
    figure = new_figure(width, height, constrained=False)

    def place(x: float, y: float, w: float, h: float) -> Axes:
        return figure.add_axes((x / width, y / height, w / width, h / height))

    axes = place(left, bottom, size, size)
    image = _draw_map(axes, attention.maps[0, 0])
    _name_tokens(axes, attention.labels)
    scale = place(left, 0.5, size, 0.11)
    figure.colorbar(
        image, cax=scale, orientation="horizontal", label="attention weight (a row sums to 1)", ticks=TICKS, format="{x:g}"
    )
    bars = _draw_worth(place(left + size + 0.7, bottom, strip - 0.65, size), attention.worth) if attention.worth else {}
    title = figure.text(0.12 / width, 1 - 0.1 / height, "", va="top", fontsize=11, fontweight="bold")
    lines = figure.text(0.12 / width, 1 - 0.34 / height, "", va="top", fontsize=8, linespacing=1.5)
    for layer, head in np.ndindex(attention.maps.shape[:2]):
        image.set_data(_causal(attention.maps[layer, head]))
        title.set_text(f"layer {layer}, head {head}")
        lines.set_text(attention.describe(layer, head))
        for name, bar in bars.items():
            bar.set_facecolor("black" if name == (layer, head) else "#b8b8b8")
        yield layer, head, figure


def _causal(weights: Array) -> Array:
    """The weights with what lies in the future left out, which a drawing leaves blank."""
    masked: Array = np.ma.masked_where(~np.tri(len(weights), dtype=bool), weights)
    return masked


def _draw_map(axes: Axes, weights: Array) -> AxesImage:
    T = len(weights)
    axes.grid(False)
    axes.set_facecolor("#f4f4f4")
    corners = np.repeat(np.arange(T + 1), 2) - 0.5  # the staircase between past and future
    axes.plot(corners[1:], corners[:-1], color="#808080", lw=0.6)
    return axes.imshow(_causal(weights), cmap=COLOURS, norm=SCALE, interpolation="nearest", extent=(-0.5, T - 0.5, T - 0.5, -0.5))


def _name_tokens(axes: Axes, labels: Sequence[str]) -> None:
    names = [drawable(label) for label in labels]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7.5)
    axes.set_yticks(range(len(names)), names, fontsize=7.5)
    axes.tick_params(length=2, pad=2)
    axes.set_xlabel("looked at (key)")
    axes.set_ylabel("looking (query)")


def _draw_worth(axes: Axes, worth: HeadWorth) -> Mapping[tuple[int, int], Rectangle]:
    """A bar for each head, the dearest on top; returned by (layer, head)."""
    order = sorted(np.ndindex(worth.change.shape), key=lambda place: -worth.change[place])
    places = [(int(layer), int(head)) for layer, head in order]
    bars = axes.barh(range(len(places)), [worth.change[place] for place in places], height=0.8)
    named = len(places) <= NAMED_HEADS
    axes.set_yticks(
        range(len(places)) if named else (), [f"{layer}.{head}" for layer, head in places] if named else (), fontsize=7.5
    )
    axes.set_ylim(len(places) - 0.4, -0.6)
    axes.axvline(0, color="black", lw=0.7)
    axes.grid(False, axis="y")
    axes.locator_params(axis="x", nbins=3)
    axes.tick_params(axis="x", labelsize=7.5)
    axes.set_ylabel("layer.head" if named else "all heads", fontsize=8)
    axes.set_xlabel("change of loss without it\n[nats/token]", fontsize=8)
    return dict(zip(places, bars, strict=True))


def overview(attention: Attention) -> Figure:
    """All heads side by side, a row for each layer, each with the change of loss without it."""
    L, H = attention.maps.shape[:2]
    cell, gap, left, top, bottom = 1.15, 0.3, 0.75, 0.75, 0.75
    width, height = max(left + H * (cell + 0.12) + 0.1, 5.2), top + L * (cell + gap) + bottom
    figure = new_figure(width, height, constrained=False)
    for layer, head in np.ndindex(L, H):
        x, y = left + head * (cell + 0.12), height - top - layer * (cell + gap) - cell
        axes = figure.add_axes((x / width, y / height, cell / width, cell / height))
        image = _draw_map(axes, attention.maps[layer, head])
        axes.set_xticks(())
        axes.set_yticks(())
        if layer == 0:
            axes.set_title(f"head {head}", fontsize=9)
        if head == 0:
            axes.set_ylabel(f"layer {layer}", fontsize=9)
        if attention.worth:
            axes.set_xlabel(f"{attention.worth.change[layer, head]:+z.4f}", fontsize=8, labelpad=2)
    bar = figure.add_axes((left / width, 0.5 / height, min(H * (cell + 0.12), 4) / width, 0.11 / height))
    figure.colorbar(image, cax=bar, orientation="horizontal", label="attention weight", ticks=TICKS, format="{x:g}")
    below = "\nbelow each: change of loss without this head [nats/token]" if attention.worth else ""
    figure.text(0.12 / width, 1 - 0.1 / height, f"rows look at columns{below}", va="top", fontsize=8.5)
    return figure


def scores_over_time(steps: Array, scores: Sequence[HeadScores]) -> Figure:
    """The scores of every head at each snapshot; lines take their colour from the layer."""
    figure = new_figure(9, 6)
    panels = grid(figure, 2, 2, sharex=True)
    titles = {
        "entropy": "entropy [bits]",
        "previous_token": "previous token",
        "first_token": "first token",
        "induction": "induction",
    }
    for axes, (name, title) in zip(panels.flat, titles.items(), strict=True):
        values = np.stack([getattr(s, name) for s in scores])  # (S, L, H)
        for layer, look in enumerate(layer_lines(values.shape[1])):
            lines = axes.plot(steps, values[:, layer], marker=".", **look)
            lines[0].set_label(f"layer {layer}")
        axes.set_title(title)
        mark_steps(axes, steps)
        axes.set_ylim(0, None)
    for axes in panels[1]:
        axes.set_xlabel("step")
    _layer_legend(figure, panels[0, 0])
    return figure


def token_losses_over_time(labels: Sequence[str], steps: Array, losses: Array) -> Figure:
    """How well each token of a text is predicted from those before it at each snapshot.

    Args:
        labels: the T tokens; the first is predicted from nothing and left out.
        losses: nats, (snapshots, T - 1).
    """
    figure = new_figure(max(5, 0.19 * len(labels) + 1.8), max(2.2, 0.2 * len(steps) + 1.6))
    axes = figure.add_subplot()
    axes.grid(False)
    image = axes.imshow(losses, cmap=COLOURS, vmin=0, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(labels) - 1), [drawable(label) for label in labels[1:]], rotation=90, fontsize=7.5)
    axes.set_yticks(range(len(steps)), [f"{step:,}" for step in steps], fontsize=7.5)
    axes.set_xlabel("token")
    axes.set_ylabel("step")
    figure.colorbar(image, label="loss [nats]", pad=0.01)
    return figure


def _layer_legend(figure: Figure, axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center")
