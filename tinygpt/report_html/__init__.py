"""The report of a run: one HTML file that needs nothing but a browser and trusts nothing that it shows.

What is shown goes in as JSON and comes out as text nodes, so that no story, prompt or setting can become an element. The browser
is told to load nothing and to run the one script that is inside, by its hash.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files

import numpy as np

from tinygpt.figures.findings import Curves, Findings, smooth
from tinygpt.lm.analysis import Array, Look

CURVE_POINTS = 800
SPECTRUM_POINTS = 64


def render(findings: Findings, facts: Mapping[str, object]) -> bytes:
    """The report as a file.

    Args:
        findings: what is drawn.
        facts: what it says beside them: "card" (config.json of the model), "dataset" (meta.json of the token shards),
            "evaluation" (eval.json), "plot" (the table of the configuration), "lineage" (the inputs and their digests).
    """
    parts = files(__package__)
    page, style = (parts.joinpath(name).read_text("utf-8") for name in ("page.html", "page.css"))
    script = "".join(parts.joinpath(name).read_text("utf-8") for name in ("chart.js", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # ASCII only, and no character that could end the element or begin another: `<`, `>` and `&` are spelled as escapes.
    data = json.dumps(contents(findings, facts), allow_nan=False, separators=(",", ":"), default=numbers)
    for character in "<>&":
        data = data.replace(character, f"\\u{ord(character):04x}")
    filled = {"{{script hash}}": f"sha256-{digest}", "{{style}}": style, "{{script}}": script, "{{data}}": data}
    for place, content in filled.items():  # data last, so that nothing in it is taken for a place
        page = page.replace(place, content)
    return page.encode("utf-8")


def contents(findings: Findings, facts: Mapping[str, object]) -> dict[str, object]:
    """All that the script shows."""
    return {
        **facts,
        "parameters": sum(array.size for array in findings.weights[0].values()),
        "comparable": bool(findings.baselines),
        "curves": curves(findings.curves),
        "labels": findings.labels,
        "parts": [{**part._asdict(), "size": len(spectrum.values)} for part, spectrum in findings.final.spectra.items()],
        "looks": [look(each) for each in {each.step: each for each in findings.looks}.values()],  # each step once
        "worth": None if findings.worth is None else findings.worth._asdict(),
    }


def curves(course: Curves) -> dict[str, object]:
    """The course of training with at most CURVE_POINTS steps."""
    keep = thinned(len(course.steps), CURVE_POINTS)
    by_step = {name: vars(course)[name] for name in ("steps", "loss", "learning_rate", "grad_norm")}
    by_step["smooth"] = smooth(course.loss, max(1, len(course.steps) // 40))
    return vars(course) | {name: values[keep] for name, values in by_step.items()} | {"best": course.best}


def look(at: Look) -> dict[str, object]:
    """One set of weights; an attention weight takes a byte, its square root in 255ths, and the future is left out."""
    past = at.maps[..., np.tri(at.maps.shape[-1], dtype=bool)]  # (L, H, T (T + 1) / 2), row by row
    return {
        "step": at.step,
        "maps": base64.b64encode(np.rint(255 * np.sqrt(past)).astype(np.uint8).tobytes()).decode(),
        "scores": vars(at.scores),
        "losses": at.losses,
        "norms": np.array([spectrum.spectral_norm for spectrum in at.spectra.values()]),
        "ranks": np.array([spectrum.stable_rank for spectrum in at.spectra.values()]),
        "spectra": [spectrum.values[thinned(len(spectrum.values), SPECTRUM_POINTS)] for spectrum in at.spectra.values()],
    }


def thinned(count: int, most: int) -> Array:
    """Indices of at most `most` of `count` values, evenly spread, both ends among them."""
    return np.rint(np.linspace(0, count - 1, min(count, most))).astype(int)


def numbers(values: Array) -> object:
    """Nested lists of numbers, those with a fraction to five digits; None for what is not a number."""
    if values.dtype.kind == "i":
        return values.tolist()
    if values.ndim:
        return [numbers(value) for value in values]
    number = float(values)
    return float(f"{number:.5g}") if np.isfinite(number) else None
