"""What training did to the weights, beside where they began."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tinygpt.figures.style import BLUE, GREY, layer_lines, legend_below
from tinygpt.lm.analysis import BLOCK_MATRICES, KINDS, Array, Part, Spectrum

MEASURES = {"spectral_norm": "spectral norm", "stable_rank": "stable rank"}
Spectra = Mapping[Part, Spectrum]


def histograms(final: Mapping[Part, Array], initial: Mapping[Part, Array], layer: int | None) -> Figure:
    """How each group of weights of a layer (None: outside the blocks) is distributed, filled, and was at first, outlined."""
    chosen = [part for part in final if part.layer == layer]
    columns = min(4, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(3 * columns, 2.4 * rows + 0.7), layout="constrained")
    for i, part in enumerate(chosen):
        axes = figure.add_subplot(rows, columns, i + 1)
        _histogram(axes, final[part].ravel(), initial[part].ravel())
        axes.set_title(f"{part.kind} ({final[part].size:,})", fontsize=9)
        if i % columns == 0:
            axes.set_ylabel("share of weights")
    figure.suptitle("outside the blocks" if layer is None else f"layer {layer}", fontsize=11, fontweight="bold")
    return legend_below(figure)


def _histogram(axes: Axes, final: Array, initial: Array) -> None:
    low, high = np.quantile(np.concatenate([final, initial]), (0.0005, 0.9995))
    margin = max((high - low) * 0.1, 1e-3)
    edges = np.linspace(low - margin, high + margin, 81)
    filled: Any = {"histtype": "stepfilled", "color": BLUE, "alpha": 0.45, "label": "trained"}
    outlined: Any = {"histtype": "step", "color": "black", "lw": 1.1, "label": "at initialisation"}
    for values, look in ((final, filled), (initial, outlined)):
        inside = values.clip(edges[0], edges[-1])  # outliers are counted at the ends
        axes.hist(inside, bins=edges.tolist(), weights=np.full(len(values), 1 / len(values)), **look)
    axes.set_yscale("log")  # tails are seen
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    axes.yaxis.set_minor_formatter("")
    axes.locator_params(axis="x", nbins=4)
    axes.tick_params(labelsize=7.5)


def norms_by_layer(final: Spectra, initial: Spectra) -> Figure:
    """Spectral norm and stable rank of each matrix against its layer, and at initialisation."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    panels = figure.subplots(len(MEASURES), len(BLOCK_MATRICES), sharex=True, sharey="row", squeeze=False)
    layers = range(_layers(final))
    trained: Any = {"color": BLUE, "marker": "o", "ms": 4, "label": "trained"}
    untrained: Any = {"color": GREY, "marker": "s", "ms": 4, "mfc": "white", "ls": "--", "label": "at initialisation"}
    for column, kind in zip(panels.T, BLOCK_MATRICES, strict=True):
        for axes, measure in zip(column, MEASURES, strict=True):
            for spectra, look in ((final, trained), (initial, untrained)):
                axes.plot(layers, [getattr(spectra[Part(layer, kind)], measure) for layer in layers], **look)
            axes.set(xticks=layers[:: -(-len(layers) // 6)], xlim=(-0.5, len(layers) - 0.5))
        column[0].set_title(kind)
        column[-1].set_xlabel("layer")
    for axes, title in zip(panels[:, 0], MEASURES.values(), strict=True):
        axes.set(ylabel=title, ylim=(0, None))  # of the whole row; last, because it ends the search for the limits
    return legend_below(figure)


def _layers(spectra: Spectra) -> int:
    return 1 + max(part.layer for part in spectra if part.layer is not None)


def singular_values(final: Spectra, initial: Spectra) -> Figure:
    """The whole spectrum of each matrix, a line for each layer, and at initialisation."""
    kinds = sorted({part.kind for part in final}, key=KINDS.index)
    rows = -(-len(kinds) // 3)
    figure = Figure(figsize=(11, 2.6 * rows + 0.5), layout="constrained")
    outer, *looks = {"color": "black", "label": "outside the blocks"}, *layer_lines(_layers(final))
    for i, kind in enumerate(kinds):
        axes = figure.add_subplot(rows, 3, i + 1)
        for part in (part for part in final if part.kind == kind):
            axes.plot(initial[part].values, color=GREY, lw=0.9, ls=(0, (1, 3)), label="at initialisation")
            axes.plot(final[part].values, **(outer if part.layer is None else looks[part.layer]))
        axes.set(title=kind, ylim=(0, None), ylabel="singular value", xlabel="index, largest first")
    return legend_below(figure)
