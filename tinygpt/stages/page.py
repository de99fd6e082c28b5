"""Stage `page`: a trained model and its tokenizer in, one HTML file with the model in it out."""

import csv
import io
import math
from collections.abc import Mapping

import numpy as np

from tinygpt.config import Config
from tinygpt.config.tables import PageDtype
from tinygpt.errors import InputError, PageError
from tinygpt.html_page import Ablation, PageModel, packing, render, size
from tinygpt.lm.fast.numpy_decoder import NumpyDecoder
from tinygpt.lm.probe import decoder_logits
from tinygpt.lm.weights import Array
from tinygpt.progress import Reporter
from tinygpt.records import ModelFile
from tinygpt.runs.trained_weights import (
    IMPORTED,
    Note,
    TrainedWeights,
    ignore,
    open_weights,
    read_snapshot,
    snapshot_files,
)
from tinygpt.store import Artifact, ArtifactWriter, Inputs

MAX_BYTES = 25_000_000  # of a page with snapshots
ROUNDING = 1e-3  # by how much logits may differ that were computed from equal weights
ABLATION = "attention_heatmaps/heads_ablated.csv"  # of stage plot


def run(config: Config, inputs: Inputs, out: ArtifactWriter, reporter: Reporter) -> None:
    """Write the page.

    Args:
        config: [page] is used.
        inputs: "train" (the finished run or a checkpoint of it), "tokenize", and "plot", which has
            measured the heads, if there is one.
        out: where page.html goes.
        reporter: receives notes.
    Raises:
        PageError: the model is too large for a page of this format, has weights beyond it, or was
            trained by code that a page does not have.
        ArtifactError, CorruptArtifactError: see TrainedWeights.decoder.
        InputError: tokenizer and model do not belong together.
    """
    train, tokenizer = inputs["train"], inputs["tokenize"].read("tokenizer.json")
    if tokenizer != train.read("tokenizer.json"):
        raise InputError(
            "the tokenizer is not the one with which the model was trained",
            hint="`tinygpt artifacts lineage` shows what a model was made from",
        )
    trained = open_weights(train, config.page.weights)
    if trained.note is not None:
        reporter.note(trained.note)
    dtype = config.page.dtype
    refuse_what_does_not_fit(trained.arrays, dtype)
    model_file = train.read_json("config.json", ModelFile)
    logits, difference = measure(trained, dtype)
    model = PageModel(
        id=train.id,
        config=trained.config,
        weights=trained.arrays,
        step=trained.step,
        max_steps=model_file["train"]["max_steps"] if "train" in model_file else 0,
        which=trained.which,
        dtype=dtype,
        tokenizer=tokenizer,
        probe=(trained.probe.token_ids, logits),
        bound=float(f"{difference + ROUNDING:.3g}"),
        snapshots=read_snapshots(train, trained.step, config.page.snapshots, reporter.note),
        ablation=read_ablation(inputs.get("plot"), trained.step),
    )
    if model.snapshots and size(model) > MAX_BYTES:
        reporter.note(f"the page would pass {MAX_BYTES / 1e6:.0f} MB; it has no snapshots")
        model = model._replace(snapshots={})
    page = render(model)
    out.bytes("page.html", page)
    out.json("summary.json", {"rows": summary(model, len(page), difference)})


def refuse_what_does_not_fit(weights: Mapping[str, Array], dtype: PageDtype) -> None:
    """Refuse a model for which the format of the page is too small.

    Raises:
        PageError: with the format that fits, if there is one.
    """
    parameters = sum(array.size for array in weights.values())
    most = packing.MAX_PARAMETERS[dtype]
    if parameters > most:
        in_int8 = packing.MAX_PARAMETERS["int8"]
        hint = "use `tinygpt page --dtype int8`" if parameters <= in_int8 else "use a smaller model"
        raise PageError(
            f"the model has {parameters:,} parameters; a page in {dtype} holds up to {most:,}",
            hint=hint,
        )
    if not packing.fits(weights, dtype):
        raise PageError(
            f"a weight is larger than {packing.LARGEST_HALF:,.0f}, where f16 ends",
            hint="use `tinygpt page --dtype f32`",
        )


def measure(trained: TrainedWeights, dtype: PageDtype) -> tuple[Array, float]:
    """The logits for the probe, (P, V), and how far a format of the weights moves them.

    The decoder in numpy, which computes the same as the page, stands for it here.

    Raises:
        PageError: it computes other logits than the model in training.
        ArtifactError, CorruptArtifactError: see TrainedWeights.decoder.
    """
    decoder = trained.decoder("cpu")
    if not isinstance(decoder, NumpyDecoder):
        raise PageError(
            "`lm/fast/numpy_decoder.py` computes other logits than `lm/model.py`; so would a page",
            hint="change it and `html_page/model.js` as `lm/model.py` was changed",
        )
    logits = trained.probe.logits
    if logits is None:
        logits = decoder_logits(decoder, trained.probe)
    rounded = packing.rounded(trained.arrays, dtype)
    in_page = NumpyDecoder(trained.config, trained.vocab_size, rounded)
    return logits, float(np.abs(decoder_logits(in_page, trained.probe) - logits).max())


def read_snapshots(
    train: Artifact, step: int, count: int, note: Note = ignore
) -> dict[int, Mapping[str, Array]]:
    """At most `count` of the snapshots before a step, evenly spread, both ends included.

    Args:
        note: see snapshot_files.
    """
    if count == 0:
        return {}
    files = snapshot_files(train, step - 1, note)
    steps = list(files)
    places = np.linspace(0, len(steps) - 1, min(count, len(steps)))
    chosen = [steps[place] for place in np.rint(places).astype(int)]
    return {kept: read_snapshot(train, files[kept]) for kept in chosen}


def read_ablation(plot: Artifact | None, step: int) -> Ablation | None:
    """What `plot` measured of the heads, if it did so with the weights of this step."""
    if plot is None or ABLATION not in plot.names():
        return None
    rows = list(csv.DictReader(io.StringIO(plot.read(ABLATION).decode())))
    if int(rows[0]["step"]) != step:
        return None
    increases: list[list[float]] = []
    errors: list[list[float | None]] = []
    for row in rows:
        if row["head"] == "0":
            increases.append([])
            errors.append([])
        error = float(row["standard_error"])
        increases[-1].append(float(row["loss_increase"]))
        errors[-1].append(None if math.isnan(error) else error)
    tokens = int(rows[0]["tokens"])
    return {"loss_increase": increases, "standard_error": errors, "tokens": tokens}


def summary(model: PageModel, size: int, difference: float) -> list[list[str]]:
    """The result table."""
    snapshots = ", ".join(f"{step:,}" for step in model.snapshots)
    weights = f"step {model.step:,} ({model.which} weights)" if model.step else IMPORTED
    return [
        ["model", f"{model.id}, {weights}"],
        ["format", f"{model.dtype}; it moves logits by up to {difference:.2g}"],
        ["snapshots", f"of step {snapshots}, in int8" if snapshots else "none"],
        ["size", f"{size / 1e6:.1f} MB"],
    ]
