"""The course of training: loss, perplexity, learning rate, gradient norm."""

import itertools
import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator

from tinygpt.figures.findings import Curves, smooth
from tinygpt.figures.style import BLUE, GREEN, GREY, ORANGE, RED, legend_below


def training_curves(curves: Curves, baselines: Mapping[str, float]) -> Figure:
    """Train and validation loss, read on the left in nats and on the right as perplexity; learning rate and gradient norm below.

    Args:
        curves: what happened.
        baselines: loss in nats per token that other models reach on the same validation tokens, by name.
    """
    figure = Figure(figsize=(9, 8), layout="constrained")
    loss, rate, norm = figure.subplots(3, 1, sharex=True, height_ratios=(4, 1, 1))
    marker = "o" if len(curves.steps) < 20 else None  # a line of one point would not be seen
    span = max(1, len(curves.steps) // 40)
    loss.plot(curves.steps, curves.loss, color=BLUE, alpha=0.3, lw=0.8, marker=marker, ms=3, label="train")
    if span > 1:
        loss.plot(curves.steps, smooth(curves.loss, span), color=BLUE, lw=1.8, label=f"train, smoothed over {span} steps")
    best, judged = curves.best, (curves.eval_steps, curves.eval_loss)
    loss.plot(*judged, color=RED, lw=1.4, ls="--", marker="s", ms=4, label="validation")
    label = f"best: perplexity {math.exp(curves.eval_loss[best]):,.2f} at step {curves.eval_steps[best]:,}"
    loss.plot(*(values[best] for values in judged), "*", color=GREEN, ms=15, mec="black", mew=0.7, label=label)
    _baselines(loss, baselines)
    loss.set_ylabel("loss [nats/token]")
    _perplexity_axis(loss)
    _token_axis(loss, curves.tokens_per_step)

    rate.plot(curves.steps, curves.learning_rate, color=ORANGE, marker=marker, ms=3)
    rate.set_ylabel("learning rate")
    norm.plot(curves.steps, curves.grad_norm, color=GREY, lw=0.8, marker=marker, ms=3)
    norm.set(xlabel="step", xlim=(0, max(2, 1.02 * curves.steps.max())), ylabel="gradient norm", yscale="log")
    norm.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    norm.yaxis.set_major_formatter("{x:g}")
    norm.yaxis.set_minor_formatter("")
    norm.xaxis.set_major_locator(MaxNLocator(integer=True))
    norm.xaxis.set_major_formatter("{x:,.0f}")
    figure.align_ylabels()
    return legend_below(figure)


def compared(runs: Mapping[str, Curves]) -> Figure:
    """The losses of several runs, by name, against the training tokens: validation with markers, smoothed train dotted."""
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.add_subplot()
    colours, markers = itertools.cycle((BLUE, RED, GREEN, ORANGE, GREY)), itertools.cycle("osD^")
    for (name, curves), color, marker in zip(runs.items(), colours, markers, strict=False):
        train, by_step = smooth(curves.loss, max(1, len(curves.steps) // 40)), curves.tokens_per_step
        axes.plot(curves.steps * by_step, train, color=color, lw=1, ls=":")
        label = f"{name}: best perplexity {math.exp(curves.eval_loss[curves.best]):,.2f}"
        axes.plot(curves.eval_steps * by_step, curves.eval_loss, color=color, lw=1.5, marker=marker, ms=5, label=label)
    axes.set(xlabel="training tokens", ylabel="loss [nats/token]")
    axes.xaxis.set_major_formatter(EngFormatter())
    _perplexity_axis(axes)
    axes.legend(loc="upper right", title="validation; dotted: train, smoothed")
    return figure


def _baselines(axes: Axes, baselines: Mapping[str, float]) -> None:
    """A dotted line for each baseline; names that would touch share a line of text."""
    low, high = min([*axes.get_ylim(), *baselines.values()]), max([*axes.get_ylim(), *baselines.values()])
    axes.set_ylim(low - 0.02 * (high - low), high + 0.05 * (high - low))
    names: list[str] = []
    across = axes.get_yaxis_transform()  # x in parts of the axes, y in nats
    ordered = sorted((value, name) for name, value in baselines.items())
    for (value, name), (following, _) in itertools.pairwise([*ordered, (math.inf, "")]):
        axes.axhline(value, color=GREY, lw=1, ls=":")
        names.append(f"{name} {math.exp(value):,.0f}")
        if following - value > 0.035 * (high - low):
            axes.text(0.99, value, ", ".join(names), transform=across, ha="right", va="bottom", color="#404040", fontsize=8)
            names = []


def _perplexity_axis(axes: Axes) -> None:
    both_ways = (lambda y: np.exp(np.clip(y, None, 50)), lambda p: np.log(np.clip(p, 1e-9, None)))
    right = axes.secondary_yaxis("right", functions=both_ways)
    right.set_ylabel("perplexity = exp(loss)")
    right.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    right.yaxis.set_major_formatter("{x:,.0f}")


def _token_axis(axes: Axes, tokens_per_step: float) -> None:
    both_ways = (lambda step: np.multiply(step, tokens_per_step), lambda tokens: np.divide(tokens, tokens_per_step))
    top = axes.secondary_xaxis("top", functions=both_ways)
    top.set_xlabel("training tokens")
    top.xaxis.set_major_formatter(EngFormatter())
