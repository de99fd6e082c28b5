"""The report of a run: one HTML file; html_shared says why it can be trusted."""

import base64
from typing import Any, TypedDict

import numpy as np

from tinygpt.analysis.curves import Curves
from tinygpt.analysis.model_analysis import ModelAnalysis
from tinygpt.analysis.run_analysis import RunAnalysis
from tinygpt.html_shared import assemble, embedded_json
from tinygpt.lm.weights import Array
from tinygpt.records import DatasetMeta, EvalRecord, ModelFile

SCRIPTS = ("run.js", "attention.js", "history.js", "page.js")
"""The parts of the script; each uses those before it, and those of html_shared."""

SHARED = ("elements.js", "chart.js", "heads.js")

CURVE_POINTS = 800
SPECTRUM_POINTS = 64


class ReportFacts(TypedDict):
    """What the report says that is not part of the analysis."""

    model_config: ModelFile
    dataset: DatasetMeta | None
    """None, as below, where an imported model was drawn on a text that was given."""
    evaluation: EvalRecord | None
    plot: dict[str, Any]
    """The table [plot]."""
    lineage: list[tuple[str, str]]
    """Name and digest of each input."""


def render(analysis: RunAnalysis, facts: ReportFacts) -> bytes:
    """The report as an HTML file; equal arguments give equal bytes."""
    return assemble(
        __package__, SHARED, SCRIPTS, {"data": embedded_json(contents(analysis, facts))}
    )


def contents(analysis: RunAnalysis, facts: ReportFacts) -> dict[str, object]:
    """Everything that the script shows."""
    # A snapshot of the last step equals the final weights: each step once
    snapshot_by_step = {snapshot.step: snapshot for snapshot in analysis.snapshots}
    trained, _ = analysis.weights
    ablation = analysis.ablation
    return {
        **facts,
        "parameters": sum(array.size for array in trained.values()),
        "comparable": bool(analysis.baselines),
        "curves": None if analysis.curves is None else curve_data(analysis.curves),
        "labels": analysis.labels,
        "weight_groups": [
            {**group._asdict(), "size": len(spectrum.values)}
            for group, spectrum in analysis.final.spectra.items()
        ],
        "snapshots": [snapshot_data(snapshot) for snapshot in snapshot_by_step.values()],
        "ablation": None if ablation is None else ablation._asdict(),
    }


def curve_data(curves: Curves) -> dict[str, object]:
    """The training curves, thinned to at most CURVE_POINTS steps."""
    kept = thinned(len(curves.steps), CURVE_POINTS)
    return {
        "steps": curves.steps[kept],
        "loss": curves.loss[kept],
        "smooth": curves.smoothed_loss[kept],
        "learning_rate": curves.learning_rate[kept],
        "grad_norm": curves.grad_norm[kept],
        "eval_steps": curves.eval_steps,
        # Not rounded: the script shows its exponential
        "eval_loss": [float(loss) if np.isfinite(loss) else None for loss in curves.eval_loss],
        "samples": curves.samples,
        "best": curves.best,
        "tokens_per_step": curves.tokens_per_step,
    }


def snapshot_data(snapshot: ModelAnalysis) -> dict[str, object]:
    """One set of weights.

    The attention maps are the bytes of round(255 sqrt(weight)), in base64, without the future: head
    by head, row by row.
    """
    past = np.tri(snapshot.maps.shape[-1], dtype=bool)
    weights = snapshot.maps[..., past]  # (L, H, T (T + 1) / 2)
    attention = np.rint(255 * np.sqrt(weights)).astype(np.uint8)
    spectra = list(snapshot.spectra.values())
    return {
        "step": snapshot.step,
        "maps": base64.b64encode(attention.tobytes()).decode(),
        "scores": vars(snapshot.scores),
        "losses": snapshot.losses,
        "norms": np.array([spectrum.spectral_norm for spectrum in spectra]),
        "ranks": np.array([spectrum.stable_rank for spectrum in spectra]),
        "spectra": [
            spectrum.values[thinned(len(spectrum.values), SPECTRUM_POINTS)] for spectrum in spectra
        ],
    }


def thinned(count: int, most: int) -> Array:
    """Indices of at most `most` of `count` values, evenly spread, both ends included."""
    return np.rint(np.linspace(0, count - 1, min(count, most))).astype(int)
