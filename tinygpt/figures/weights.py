"""What training did to the weights: the trained ones beside the initial ones."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tinygpt.analysis.weight_groups import BLOCK_MATRICES, KINDS, Spectrum, WeightGroup
from tinygpt.figures.style import BLUE, GRAY, layer_lines, legend_below
from tinygpt.lm.weights import Array

MEASURES = {"spectral_norm": "spectral norm", "stable_rank": "stable rank"}
Spectra = Mapping[WeightGroup, Spectrum]


def histograms(
    final: Mapping[WeightGroup, Array],
    initial: Mapping[WeightGroup, Array] | None,
    layer: int | None,
) -> Figure:
    """Histograms of each group of weights in a layer: trained (filled) and initial (outlined).

    Args:
        final, initial: the weights; no initial ones of an imported model.
        layer: None for the weights outside the blocks.
    """
    groups = [group for group in final if group.layer == layer]
    columns = min(4, len(groups))
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(3 * columns, 2.4 * rows + 0.7), layout="constrained")
    for i, group in enumerate(groups):
        axes = figure.add_subplot(rows, columns, i + 1)
        _draw_histogram(axes, final[group].ravel(), initial[group].ravel() if initial else None)
        axes.set_title(f"{group.kind} ({final[group].size:,})", fontsize=9)
        if i % columns == 0:
            axes.set_ylabel("share of weights")
    title = "outside the blocks" if layer is None else f"layer {layer}"
    figure.suptitle(title, fontsize=11, fontweight="bold")
    return legend_below(figure)


def _draw_histogram(axes: Axes, final: Array, initial: Array | None) -> None:
    drawn = [final] if initial is None else [final, initial]
    low, high = np.quantile(np.concatenate(drawn), (0.0005, 0.9995))
    margin = max((high - low) * 0.1, 1e-3)
    edges = np.linspace(low - margin, high + margin, 81)
    filled: Any = {"histtype": "stepfilled", "color": BLUE, "alpha": 0.45, "label": "trained"}
    outlined: Any = {"histtype": "step", "color": "black", "lw": 1.1, "label": "at initialization"}
    for values, appearance in zip(drawn, (filled, outlined), strict=False):
        inside = values.clip(edges[0], edges[-1])  # outliers are counted at the ends
        shares = np.full(len(values), 1 / len(values))
        axes.hist(inside, bins=edges.tolist(), weights=shares, **appearance)
    axes.set_yscale("log")  # shows the tails
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    axes.yaxis.set_minor_formatter("")
    axes.locator_params(axis="x", nbins=4)
    axes.tick_params(labelsize=7.5)


def norms_by_layer(final: Spectra, initial: Spectra | None) -> Figure:
    """Spectral norm and stable rank of each matrix by layer, trained and at initialization."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    shape = len(MEASURES), len(BLOCK_MATRICES)
    panels = figure.subplots(*shape, sharex=True, sharey="row", squeeze=False)
    layers = range(_count_layers(final))
    every = -(-len(layers) // 6)
    for column, kind in zip(panels.T, BLOCK_MATRICES, strict=True):
        for axes, measure in zip(column, MEASURES, strict=True):
            _draw_by_layer(axes, final, initial, kind, measure)
            axes.set(xticks=layers[::every], xlim=(-0.5, len(layers) - 0.5))
        column[0].set_title(kind)
        column[-1].set_xlabel("layer")
    for axes, title in zip(panels[:, 0], MEASURES.values(), strict=True):
        # Holds for the whole row; set last, because it stops the automatic upper limit
        axes.set(ylabel=title, ylim=(0, None))
    return legend_below(figure)


def _draw_by_layer(
    axes: Axes, final: Spectra, initial: Spectra | None, kind: str, measure: str
) -> None:
    """Draw one measure of one kind of matrix against the layer."""
    layers = range(_count_layers(final))
    trained: Any = {"color": BLUE, "marker": "o", "label": "trained"}
    untrained: Any = {
        "color": GRAY,
        "marker": "s",
        "mfc": "white",
        "ls": "--",
        "label": "at initialization",
    }
    drawn = [final] if initial is None else [final, initial]
    for spectra, appearance in zip(drawn, (trained, untrained), strict=False):
        values = [getattr(spectra[WeightGroup(layer, kind)], measure) for layer in layers]
        axes.plot(layers, values, ms=4, **appearance)


def _count_layers(spectra: Spectra) -> int:
    return 1 + max(group.layer for group in spectra if group.layer is not None)


def singular_values(final: Spectra, initial: Spectra | None) -> Figure:
    """All singular values of each matrix, a line for each layer, trained and at initialization."""
    kinds = [kind for kind in KINDS if any(group.kind == kind for group in final)]
    rows = -(-len(kinds) // 3)
    figure = Figure(figsize=(11, 2.6 * rows + 0.5), layout="constrained")
    untrained: Any = {"color": GRAY, "lw": 0.9, "ls": (0, (1, 3)), "label": "at initialization"}
    outside: Any = {"color": "black", "label": "outside the blocks"}
    in_layer = layer_lines(_count_layers(final))
    for i, kind in enumerate(kinds):
        axes = figure.add_subplot(rows, 3, i + 1)
        for group in final:
            if group.kind == kind:
                trained = outside if group.layer is None else in_layer[group.layer]
                if initial is not None:
                    axes.plot(initial[group].values, **untrained)
                axes.plot(final[group].values, **trained)
        axes.set(title=kind, ylim=(0, None), ylabel="singular value", xlabel="index, largest first")
    return legend_below(figure)
