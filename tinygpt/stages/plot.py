"""Stage `plot`: a trained model in; pictures of its training, attention and weights out.

The numbers behind the pictures stand beside them as CSV.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from tinygpt.analysis.ablation import ablate_heads
from tinygpt.analysis.curves import Curves
from tinygpt.analysis.model_analysis import ModelAnalysis
from tinygpt.analysis.run_analysis import RunAnalysis, token_labels
from tinygpt.analysis.weight_groups import arrays_of, weight_groups
from tinygpt.config import Config
from tinygpt.errors import ConfigError
from tinygpt.figures.attention import head_maps, overview
from tinygpt.figures.curves import training_curves
from tinygpt.figures.style import style, to_bytes
from tinygpt.figures.weights import histograms, norms_by_layer, singular_values
from tinygpt.html_report import ReportFacts, render
from tinygpt.lm import weights
from tinygpt.lm.dataset import Tokens, read_tokens
from tinygpt.lm.fast.precision import prepare_cpu
from tinygpt.lm.init import init_weights
from tinygpt.lm.model import GPT
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.progress import Reporter
from tinygpt.records import DatasetMeta, EvalRecord, ModelFile, Summary
from tinygpt.runs.trained_weights import (
    IMPORTED,
    open_weights,
    read_snapshot,
    snapshot_files,
)
from tinygpt.store import Artifact, ArtifactWriter
from tinygpt.store.metrics import read_metrics

DOCUMENT_TOKENS = 40  # of a validation document
MAX_TOKENS = 56  # of a text that was given: as many labels as a picture has room for

Table = list[tuple[object, ...]]
"""Rows of a table; the first row names the columns."""


def run(
    config: Config, inputs: Mapping[str, Artifact], out: ArtifactWriter, reporter: Reporter
) -> None:
    """Draw a run, finished or not.

    Args:
        config: [plot] and `runtime.threads` are used.
        inputs: "train" (or a checkpoint in its place), "eval", "build-dataset", "tokenize". Of an
            imported model, "train" and "tokenize" are enough where `plot.text` is set.
        out: where the artifact goes.
        reporter: receives the progress, and a note where a text had to be cut.
    Raises:
        ConfigError: `plot.text` is empty.
    """
    prepare_cpu(config.runtime.threads)
    analysis = analyze(config, inputs, reporter)
    L, H = analysis.final.maps.shape[:2]
    reporter.task("draw", L * H + L + 4 + (analysis.curves is not None), unit="pictures")
    pictures = []
    with style():
        for name, figure in draw(analysis):
            file = f"{name}.{config.plot.format}"
            out.bytes(file, to_bytes(figure, config.plot.format))
            pictures.append(file)
            reporter.advance()
    for name, table in tables(analysis).items():
        out.bytes(f"{name}.csv", to_csv(table))
    dataset = inputs.get("build-dataset")
    facts: ReportFacts = {
        "model_config": inputs["train"].read_json("config.json", ModelFile),
        "dataset": None if dataset is None else dataset.read_json("meta.json", DatasetMeta),
        "evaluation": evaluation_of(inputs),
        "plot": config.plot.model_dump(mode="json"),
        "lineage": [(name, artifact.digest) for name, artifact in sorted(inputs.items())],
    }
    out.bytes("report.html", render(analysis, facts))
    summary_file: Summary = {"rows": summary(analysis, len(pictures)), "pictures": pictures}
    out.json("summary.json", summary_file)


def evaluation_of(inputs: Mapping[str, Artifact]) -> EvalRecord | None:
    """The evaluation, if there is one."""
    return inputs["eval"].read_json("eval.json", EvalRecord) if "eval" in inputs else None


def analyze(config: Config, inputs: Mapping[str, Artifact], reporter: Reporter) -> RunAnalysis:
    """Measure all that is drawn."""
    train = inputs["train"]
    tokenizer = Tokenizer.from_bytes(inputs["tokenize"].read("tokenizer.json"))
    validation: Tokens = np.empty(0, np.uint16)
    if "build-dataset" in inputs:
        validation = read_tokens(inputs["build-dataset"].open("val.bin"), tokenizer.vocab_size)
    recipe = train.read_json("config.json", ModelFile).get("train")
    trained = open_weights(train, config.plot.weights)
    if trained.note is not None:
        reporter.note(trained.note)
    model = trained.model(reporter.note)
    token_ids = choose_text(config, tokenizer, validation, model.config.context_length, reporter)

    names = snapshot_files(train, trained.step, reporter.note)
    reporter.task("analyze", 2 + len(names), unit="models")
    snapshots: list[ModelAnalysis] = []
    initial = None
    if recipe is not None:
        untrained = init_weights(GPT(model.config, model.vocab_size), recipe["seed"])
        untrained.explicit = model.explicit
        snapshots.append(ModelAnalysis.of(untrained, token_ids, 0))
        initial = weight_groups(arrays_of(untrained))
    reporter.advance()
    for step, name in names.items():
        snapshot = weights.model_of(trained.config, trained.vocab_size, read_snapshot(train, name))
        snapshot.explicit = model.explicit
        snapshots.append(ModelAnalysis.of(snapshot, token_ids, step))
        reporter.advance()
    snapshots.append(ModelAnalysis.of(model, token_ids, trained.step))
    reporter.advance()

    baselines: dict[str, float] = {}
    evaluation = evaluation_of(inputs)
    if evaluation and evaluation["judged"] == "validation split":  # else they are not comparable
        scores = evaluation["baselines"]
        baselines = {name: score["loss"] for name, score in scores.items()}
    ablation_text = validation[: (config.plot.ablation_tokens or 0) + 1]
    labels = token_labels([tokenizer.token_bytes(token_id) for token_id in token_ids])
    return RunAnalysis(
        labels=labels,
        curves=None if recipe is None else Curves.from_rows(read_metrics(train)),
        baselines=baselines,
        weights=(weight_groups(arrays_of(model)), initial),
        snapshots=snapshots,
        ablation=ablate_heads(model, ablation_text) if len(ablation_text) > 1 else None,
    )


def choose_text(
    config: Config,
    tokenizer: Tokenizer,
    validation: Tokens,
    context_length: int,
    reporter: Reporter,
) -> list[int]:
    """The tokens whose attention is drawn."""
    if config.plot.text is None:
        document: list[int] = validation[: min(DOCUMENT_TOKENS, context_length)].tolist()
        if tokenizer.end_of_text in document[1:]:
            document = document[: document.index(tokenizer.end_of_text, 1)]
        return document
    token_ids = tokenizer.encode(config.plot.text)
    if not token_ids:
        raise ConfigError(
            "`plot.text` is empty",
            hint='give a text, e.g., `tinygpt plot --text "Once upon a time"`',
        )
    limit = min(MAX_TOKENS, context_length)
    if len(token_ids) > limit:
        reporter.note(f"the text has {len(token_ids)} tokens; the first {limit} are drawn")
    return token_ids[:limit]


def draw(analysis: RunAnalysis) -> Iterator[tuple[str, Figure]]:
    """Every picture with its name; how they change over the steps is in the report alone."""
    if analysis.curves is not None:
        yield "training_curves", training_curves(analysis.curves, analysis.baselines)
    yield "attention_heatmaps/overview", overview(analysis)
    for layer, head, figure in head_maps(analysis):
        yield f"attention_heatmaps/layer-{layer}-head-{head}", figure
    trained, initial = analysis.weights
    for place in dict.fromkeys(group.layer for group in trained):
        name = "embeddings" if place is None else f"layer-{place}"
        yield f"weight_distributions/{name}", histograms(trained, initial, place)
    final = analysis.final.spectra
    first = None if analysis.initial is None else analysis.initial.spectra
    yield "weight_distributions/spectral_norms", norms_by_layer(final, first)
    yield "weight_distributions/singular_values", singular_values(final, first)


def tables(analysis: RunAnalysis) -> dict[str, Table]:
    """The numbers behind the pictures, by the name of the table."""
    named = {
        "attention_heatmaps/heads": head_table(analysis),
        "attention_heatmaps/token_losses": token_loss_table(analysis),
        "weight_distributions/matrices": matrix_table(analysis),
        "weight_distributions/singular_values": singular_value_table(analysis),
    }
    if analysis.ablation:
        named["attention_heatmaps/heads_ablated"] = ablation_table(analysis)
    return named


def head_table(analysis: RunAnalysis) -> Table:
    """The scores of every head at every snapshot."""
    names = ("entropy_bits", "previous_token", "first_token", "induction")
    table: Table = [("step", "layer", "head", *names)]
    for snapshot in analysis.snapshots:
        for head in np.ndindex(snapshot.maps.shape[:2]):
            scores = (score[head] for score in vars(snapshot.scores).values())
            table.append((snapshot.step, *head, *scores))
    return table


def ablation_table(analysis: RunAnalysis) -> Table:
    """The loss increase without each head, over how many tokens, and the step of the weights."""
    ablation = analysis.ablation
    assert ablation is not None
    table: Table = [("step", "layer", "head", "loss_increase", "standard_error", "tokens")]
    for head, increase in np.ndenumerate(ablation.loss_increase):
        error = ablation.standard_error[head]
        table.append((analysis.final.step, *head, increase, error, ablation.tokens))
    return table


def token_loss_table(analysis: RunAnalysis) -> Table:
    """The loss of every token of the text at every snapshot."""
    table: Table = [("step", "position", "token", "loss_nats")]
    for snapshot in analysis.snapshots:
        for position, loss in enumerate(snapshot.losses, 1):
            table.append((snapshot.step, position, analysis.labels[position], loss))
    return table


def matrix_table(analysis: RunAnalysis) -> Table:
    """Norm and rank of every matrix at every snapshot."""
    table: Table = [("step", "layer", "matrix", "spectral_norm", "stable_rank")]
    for snapshot in analysis.snapshots:
        for group, spectrum in snapshot.spectra.items():
            table.append((snapshot.step, *group, spectrum.spectral_norm, spectrum.stable_rank))
    return table


def singular_value_table(analysis: RunAnalysis) -> Table:
    """The whole spectrum of every matrix, trained and, where it is known, initial."""
    known = {"trained": analysis.final, "initial": analysis.initial}
    columns = {name: one.spectra for name, one in known.items() if one is not None}
    table: Table = [("layer", "matrix", "index", *columns)]
    for group in analysis.final.spectra:
        rows = zip(*(spectra[group].values for spectra in columns.values()), strict=True)
        for index, values in enumerate(rows):
            table.append((*group, index, *values))
    return table


def to_csv(table: Iterable[Sequence[object]]) -> bytes:
    """A table as CSV; floats with six digits, nothing for None."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in table:
        writer.writerow([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row])
    return text.getvalue().encode("utf-8")


def summary(analysis: RunAnalysis, pictures: int) -> list[list[str]]:
    """The result table."""
    scores, ablation = analysis.final.scores, analysis.ablation
    tokens = len(analysis.labels)
    induction, previous = scores.induction, scores.previous_token
    rows = [
        ["weights", f"of step {analysis.final.step:,}" if analysis.initial else IMPORTED],
        ["text", f"{tokens} token{'s' if tokens > 1 else ''}"],
        ["strongest induction", f"{_highest(induction)}: {induction.max():.2f}"],
        ["strongest previous token", f"{_highest(previous)}: {previous.max():.2f}"],
    ]
    if ablation is not None:
        increase = f"loss {ablation.loss_increase.max():+z.4f} nats per token without it"
        where = f"{_highest(ablation.loss_increase)}: {increase}"
        rows.append(["most important head", f"{where}, on {ablation.tokens:,} validation tokens"])
    rows.append(["pictures", f"{pictures}"])
    return rows


def _highest(values: np.ndarray) -> str:
    """The head with the highest of the values, (L, H)."""
    layer, head = np.unravel_index(values.argmax(), values.shape)
    return f"layer {layer}, head {head}"
