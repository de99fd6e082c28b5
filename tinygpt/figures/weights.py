"""What training did to the weights, beside where they began."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from tinygpt.figures.style import BLUE, GREY, Array, grid, layer_lines, mark_steps, new_figure
from tinygpt.lm.analysis import BLOCK_MATRICES, KINDS, Part, Spectrum

BINS = 81
MEASURES = {"spectral_norm": "spectral norm", "stable_rank": "stable rank"}
Spectra = Mapping[Part, Spectrum]


def histograms(final: Mapping[Part, Array], initial: Mapping[Part, Array], layer: int | None) -> Figure:
    """How each group of weights of a layer (None: outside the blocks) is distributed, filled, and was at first, outlined."""
    chosen = [part for part in final if part.layer == layer]
    columns = min(4, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = new_figure(3 * columns, 2.4 * rows + 0.7)
    panels = grid(figure, rows, columns)
    for axes, part in zip(panels.flat, chosen, strict=False):
        _histogram(axes, final[part].ravel(), initial[part].ravel())
        axes.set_title(f"{part.kind} ({final[part].size:,})", fontsize=9)
    for axes in panels.flat[len(chosen) :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel("share of weights")
    figure.suptitle("outside the blocks" if layer is None else f"layer {layer}", fontsize=11, fontweight="bold")
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2)
    return figure


def _histogram(axes: Axes, final: Array, initial: Array) -> None:
    both = np.concatenate([final, initial])
    low, high = (float(end) for end in np.quantile(both, (0.0005, 0.9995)))
    margin = max((high - low) * 0.1, 1e-3)
    edges = np.linspace(low - margin, high + margin, BINS)
    looks: tuple[tuple[Array, Any], ...] = (
        (final, {"histtype": "stepfilled", "color": BLUE, "alpha": 0.45, "label": "trained"}),
        (initial, {"histtype": "step", "color": "black", "lw": 1.1, "label": "at initialisation"}),
    )
    for values, options in looks:
        inside = values.clip(edges[0], edges[-1])  # outliers are counted at the ends
        axes.hist(inside, bins=edges.tolist(), weights=np.full(len(values), 1 / len(values)), **options)
    axes.set_yscale("log")  # tails are seen
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axes.yaxis.set_minor_formatter("")
    axes.locator_params(axis="x", nbins=4)
    axes.tick_params(labelsize=7.5)


def norms_by_layer(final: Spectra, initial: Spectra) -> Figure:
    """Spectral norm and stable rank of each matrix against its layer, and at initialisation."""
    figure = new_figure(11, 4.6)
    panels = grid(figure, 2, len(BLOCK_MATRICES), sharex=True, sharey="row")
    layers = sorted({part.layer for part in final if part.layer is not None})
    for row, (measure, title) in zip(panels, MEASURES.items(), strict=True):
        for axes, kind in zip(row, BLOCK_MATRICES, strict=True):
            for spectra, options in (
                (final, {"color": BLUE, "marker": "o", "ms": 4, "label": "trained"}),
                (initial, {"color": GREY, "marker": "s", "ms": 4, "mfc": "white", "ls": "--", "label": "at initialisation"}),
            ):
                axes.plot(layers, [getattr(spectra[Part(layer, kind)], measure) for layer in layers], **options)
            axes.set_xticks(layers[:: -(-len(layers) // 6)])
            axes.set_xlim(-0.5, len(layers) - 0.5)
        row[0].set_ylabel(title)
        row[0].set_ylim(0, None)
    _name_columns(figure, panels, "layer")
    return figure


def norms_over_time(steps: Array, snapshots: Sequence[Spectra]) -> Figure:
    """Spectral norm and stable rank of each matrix against the step."""
    figure = new_figure(11, 4.6)
    panels = grid(figure, 2, len(BLOCK_MATRICES), sharex=True, sharey="row")
    L = 1 + max(part.layer for part in snapshots[0] if part.layer is not None)
    for row, (measure, title) in zip(panels, MEASURES.items(), strict=True):
        for axes, kind in zip(row, BLOCK_MATRICES, strict=True):
            for layer, look in enumerate(layer_lines(L)):
                values = [getattr(spectra[Part(layer, kind)], measure) for spectra in snapshots]
                axes.plot(steps, values, marker=".", label=f"layer {layer}", **look)
            mark_steps(axes, steps)
        row[0].set_ylabel(title)
        row[0].set_ylim(0, None)
    _name_columns(figure, panels, "step")
    return figure


def _name_columns(figure: Figure, panels: Array, x_label: str) -> None:
    for axes, kind in zip(panels[0], BLOCK_MATRICES, strict=True):
        axes.set_title(kind)
    for axes in panels[-1]:
        axes.set_xlabel(x_label)
        axes.tick_params(labelsize=7.5)
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 8))


def singular_values(final: Spectra, initial: Spectra) -> Figure:
    """The whole spectrum of each matrix, a line for each layer, and at initialisation."""
    kinds = sorted({part.kind for part in final}, key=KINDS.index)
    figure = new_figure(11, 2.6 * -(-len(kinds) // 3) + 0.5)
    panels = grid(figure, -(-len(kinds) // 3), 3)
    looks = layer_lines(1 + max(part.layer or 0 for part in final))
    for axes, kind in zip(panels.flat, kinds, strict=False):
        for part in (part for part in final if part.kind == kind):
            look = {"color": "black"} if part.layer is None else looks[part.layer]
            axes.plot(initial[part].values, color=GREY, lw=0.9, ls=(0, (1, 3)), label="at initialisation")
            axes.plot(final[part].values, label="outside the blocks" if part.layer is None else f"layer {part.layer}", **look)
        axes.set_title(kind)
        axes.set_ylim(0, None)
        axes.set_ylabel("singular value")
        axes.set_xlabel("index, largest first")
    for axes in panels.flat[len(kinds) :]:
        axes.set_axis_off()
    legend = {name: handle for axes in panels.flat for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=min(len(legend), 8))
    return figure
