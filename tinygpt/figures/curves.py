"""Training curves: loss, perplexity, learning rate, gradient norm."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator

from tinygpt.analysis.curves import Curves
from tinygpt.figures.style import BLUE, GRAY, GREEN, ORANGE, RED, legend_below


def training_curves(curves: Curves, baselines: Mapping[str, float]) -> Figure:
    """Loss in nats (left axis) and as perplexity (right axis), learning rate and gradient norm.

    Args:
        curves: of the run.
        baselines: loss of other models on the same validation tokens [nats per token], by name.
    """
    figure = Figure(figsize=(9, 8), layout="constrained")
    loss, rate, norm = figure.subplots(3, 1, sharex=True, height_ratios=(4, 1, 1))
    marker = "o" if len(curves.steps) < 20 else None  # one point makes no visible line
    _draw_losses(loss, curves, marker)
    _draw_baselines(loss, baselines)
    loss.set_ylabel("loss [nats/token]")
    _perplexity_axis(loss)
    _token_axis(loss, curves.tokens_per_step)

    rate.plot(curves.steps, curves.learning_rate, color=ORANGE, marker=marker, ms=3)
    rate.set_ylabel("learning rate")

    norm.plot(curves.steps, curves.grad_norm, color=GRAY, lw=0.8, marker=marker, ms=3)
    norm.set(ylabel="gradient norm", yscale="log")
    norm.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    norm.yaxis.set_major_formatter("{x:g}")
    norm.yaxis.set_minor_formatter("")
    norm.set(xlabel="step", xlim=(0, max(2, 1.02 * curves.steps.max())))
    norm.xaxis.set_major_locator(MaxNLocator(integer=True))
    norm.xaxis.set_major_formatter("{x:,.0f}")
    figure.align_ylabels()
    return legend_below(figure)


def _draw_losses(axes: Axes, curves: Curves, marker: str | None) -> None:
    """Training loss, raw and smoothed, validation loss, and a star at the best evaluation."""
    raw: Any = {"color": BLUE, "alpha": 0.3, "lw": 0.8, "marker": marker, "ms": 3}
    axes.plot(curves.steps, curves.loss, **raw, label="train")
    if curves.smoothing_span > 1:
        label = f"train, smoothed over {curves.smoothing_span} steps"
        axes.plot(curves.steps, curves.smoothed_loss, color=BLUE, lw=1.8, label=label)
    validation: Any = {"color": RED, "lw": 1.4, "ls": "--", "marker": "s", "ms": 4}
    axes.plot(curves.eval_steps, curves.eval_loss, **validation, label="validation")
    step, loss = curves.eval_steps[curves.best], curves.eval_loss[curves.best]
    label = f"best: perplexity {math.exp(loss):,.2f} at step {step:,}"
    axes.plot(step, loss, "*", color=GREEN, ms=15, mec="black", mew=0.7, label=label)


def compared(runs: Mapping[str, Curves]) -> Figure:
    """The losses of several runs, by name, against the training tokens.

    Validation losses have markers; smoothed training losses are dotted.
    """
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.add_subplot()
    colors = itertools.cycle((BLUE, RED, GREEN, ORANGE, GRAY))
    markers = itertools.cycle("osD^")
    for (name, curves), color, marker in zip(runs.items(), colors, markers, strict=False):
        tokens = curves.steps * curves.tokens_per_step
        axes.plot(tokens, curves.smoothed_loss, color=color, lw=1, ls=":")
        eval_tokens = curves.eval_steps * curves.tokens_per_step
        best = math.exp(curves.eval_loss[curves.best])
        line: Any = {"color": color, "lw": 1.5, "marker": marker, "ms": 5}
        label = f"{name}: best perplexity {best:,.2f}"
        axes.plot(eval_tokens, curves.eval_loss, **line, label=label)
    axes.set(xlabel="training tokens", ylabel="loss [nats/token]")
    axes.xaxis.set_major_formatter(EngFormatter())
    _perplexity_axis(axes)
    axes.legend(loc="upper right", title="validation; dotted: train, smoothed")
    return figure


def _draw_baselines(axes: Axes, baselines: Mapping[str, float]) -> None:
    """A dotted line for each baseline; names that would overlap share a line of text."""
    limits = [*axes.get_ylim(), *baselines.values()]
    low, high = min(limits), max(limits)
    axes.set_ylim(low - 0.02 * (high - low), high + 0.05 * (high - low))
    text_height = 0.035 * (high - low)  # nats
    place: Any = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "bottom"}
    names: list[str] = []  # of the lines since the last text
    ordered = sorted((loss, name) for name, loss in baselines.items())
    for i, (loss, name) in enumerate(ordered):
        next_loss = ordered[i + 1][0] if i + 1 < len(ordered) else math.inf
        axes.axhline(loss, color=GRAY, lw=1, ls=":")
        names.append(f"{name} {math.exp(loss):,.0f}")
        if next_loss - loss > text_height:
            axes.text(0.99, loss, ", ".join(names), color="#404040", fontsize=8, **place)
            names = []


def _perplexity_axis(axes: Axes) -> None:
    """An axis on the right that reads the loss as perplexity."""
    functions = (
        lambda loss: np.exp(np.clip(loss, None, 50)),
        lambda perplexity: np.log(np.clip(perplexity, 1e-9, None)),
    )
    right = axes.secondary_yaxis("right", functions=functions)
    right.set_ylabel("perplexity = exp(loss)")
    right.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    right.yaxis.set_major_formatter("{x:,.0f}")


def _token_axis(axes: Axes, tokens_per_step: float) -> None:
    """An axis at the top that reads the steps as training tokens."""
    functions = (
        lambda step: np.multiply(step, tokens_per_step),
        lambda tokens: np.divide(tokens, tokens_per_step),
    )
    top = axes.secondary_xaxis("top", functions=functions)
    top.set_xlabel("training tokens")
    top.xaxis.set_major_formatter(EngFormatter())
