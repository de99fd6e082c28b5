"""Stage `plot`: a trained model in, pictures of its training, its attention and its weights out, with the numbers behind them."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from tinygpt.config import Config
from tinygpt.errors import ConfigError
from tinygpt.figures.attention import head_maps, overview
from tinygpt.figures.curves import training_curves
from tinygpt.figures.findings import Curves, Findings, token_labels
from tinygpt.figures.style import style, to_bytes
from tinygpt.figures.weights import histograms, norms_by_layer, singular_values
from tinygpt.lm import weights
from tinygpt.lm.analysis import Look, arrays_of, head_worth, parts
from tinygpt.lm.dataset import Tokens, read_tokens
from tinygpt.lm.model import GPT, initialise
from tinygpt.lm.precision import prepare_cpu
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.report import Report
from tinygpt.report_html import render
from tinygpt.store import Artifact, Out

STORY_TOKENS = 40  # of a validation story
MAX_TOKENS = 56  # of a text that was given: as many labels as a picture has room for


def run(config: Config, inputs: Mapping[str, Artifact], out: Out, report: Report) -> None:
    """Draw a run, finished or not.

    Args:
        config: [plot] and `runtime.threads` are used.
        inputs: "train" (or a checkpoint in its place), "eval", "build-dataset", "tokenize".
        out: where the artifact goes.
        report: told the progress, and where a text had to be cut.
    Raises:
        ConfigError: `plot.text` is empty.
    """
    prepare_cpu(config.runtime.threads)
    tokenizer = Tokenizer.from_bytes(inputs["tokenize"].read("tokenizer.json"))
    validation = read_tokens(inputs["build-dataset"].open("val.bin"), tokenizer.vocab_size)
    findings = find(config, inputs, tokenizer, validation, report)
    L, H = findings.final.maps.shape[:2]
    report.task("draw", L * H + L + 5, unit="pictures")
    pictures = []
    with style():
        for name, figure in draw(findings):
            pictures.append(f"{name}.{config.plot.format}")
            out.bytes(pictures[-1], to_bytes(figure, config.plot.format))
            report.advance()
    for name, rows in tables(findings):
        out.bytes(f"{name}.csv", to_csv(rows))
    read = {"card": ("train", "config.json"), "dataset": ("build-dataset", "meta.json"), "evaluation": ("eval", "eval.json")}
    facts = {name: inputs[stage].read_json(file) for name, (stage, file) in read.items()}
    facts["plot"] = config.plot.model_dump(mode="json")
    facts["lineage"] = [(name, artifact.digest) for name, artifact in sorted(inputs.items())]
    out.bytes("report.html", render(findings, facts))
    out.json("summary.json", {"rows": summary(findings, len(pictures)), "pictures": pictures})


def find(config: Config, inputs: Mapping[str, Artifact], tokenizer: Tokenizer, validation: Tokens, report: Report) -> Findings:
    """Measure everything."""
    train, evaluation = inputs["train"], inputs["eval"].read_json("eval.json")
    card_json, card = train.read("config.json"), train.read_json("config.json")
    model = weights.read_model(card_json, train.read("model.safetensors"))
    initial = initialise(GPT(model.config, model.vocab_size), card["train"]["seed"])
    token_ids = choose_text(config, tokenizer, validation, model.config.context_length, report)

    snapshots = [name for name in train.names() if name.startswith("snapshots/")]
    report.task("look", 2 + len(snapshots), unit="models")
    looks = [Look.at(initial, token_ids, 0)]
    for name in snapshots:
        report.advance()
        looks.append(Look.at(weights.read_model(card_json, train.read(name)), token_ids, int(name[-20:-12])))
    looks.append(Look.at(model, token_ids, card["step"]))
    report.advance()
    comparable = evaluation["judged"] == "validation split"  # losses on another text do not belong beside the curve
    baselines = {name: score["loss"] for name, score in evaluation["baselines"].items() if comparable}
    sample = validation[: (config.plot.ablation_tokens or 0) + 1]
    worth = head_worth(model, sample) if len(sample) > 1 else None
    labels = token_labels([tokenizer.token_bytes(token_id) for token_id in token_ids])
    curves = Curves.from_rows(train.read_rows("metrics.jsonl"))
    return Findings(labels, curves, baselines, (parts(arrays_of(model)), parts(arrays_of(initial))), looks, worth)


def choose_text(config: Config, tokenizer: Tokenizer, validation: Tokens, context_length: int, report: Report) -> list[int]:
    """The tokens that are drawn."""
    if config.plot.text is None:
        story: list[int] = validation[: min(STORY_TOKENS, context_length)].tolist()
        return story[: story.index(tokenizer.end_of_story)] or story if tokenizer.end_of_story in story else story
    token_ids, limit = tokenizer.encode(config.plot.text), min(MAX_TOKENS, context_length)
    if not token_ids:
        raise ConfigError("`plot.text` is empty", hint='give a text, e.g., `tinygpt plot --text "Once upon a time"`')
    if len(token_ids) > limit:
        report.note(f"the text has {len(token_ids)} tokens; the first {limit} are drawn")
    return token_ids[:limit]


def draw(findings: Findings) -> Iterator[tuple[str, Figure]]:
    """Every picture with its name; what has a step axis is in the report, under its slider."""
    yield "training_curves", training_curves(findings.curves, findings.baselines)
    yield "attention_heatmaps/overview", overview(findings)
    for layer, head, figure in head_maps(findings):
        yield f"attention_heatmaps/layer-{layer}-head-{head}", figure
    trained, initial = findings.weights
    for place in dict.fromkeys(part.layer for part in trained):
        name = "embeddings" if place is None else f"layer-{place}"
        yield f"weight_distributions/{name}", histograms(trained, initial, place)
    final, first = findings.final.spectra, findings.looks[0].spectra
    yield "weight_distributions/spectral_norms", norms_by_layer(final, first)
    yield "weight_distributions/singular_values", singular_values(final, first)


def tables(findings: Findings) -> Iterator[tuple[str, list[tuple[object, ...]]]]:
    """The numbers behind the pictures: every table with its name, its first row the names of the columns."""
    looks, worth = findings.looks, findings.worth
    seen = ((look, head) for look in looks for head in np.ndindex(look.maps.shape[:2]))
    heads = [(look.step, *head, *(score[head] for score in vars(look.scores).values())) for look, head in seen]
    names = ("step", "layer", "head", "entropy_bits", "previous_token", "first_token", "induction")
    yield "attention_heatmaps/heads", [names, *heads]
    if worth:
        costs = [(*head, change, worth.standard_error[head]) for head, change in np.ndenumerate(worth.change)]
        yield "attention_heatmaps/heads_ablated", [("layer", "head", "loss_change", "standard_error"), *costs]
    tokens = [(look.step, i, findings.labels[i], loss) for look in looks for i, loss in enumerate(look.losses, 1)]
    yield "attention_heatmaps/token_losses", [("step", "position", "token", "loss_nats"), *tokens]
    norms = [(look.step, *part, s.spectral_norm, s.stable_rank) for look in looks for part, s in look.spectra.items()]
    yield "weight_distributions/matrices", [("step", "layer", "matrix", "spectral_norm", "stable_rank"), *norms]
    both = {part: zip(s.values, looks[0].spectra[part].values, strict=True) for part, s in findings.final.spectra.items()}
    values = [(*part, index, *pair) for part, pairs in both.items() for index, pair in enumerate(pairs)]
    yield "weight_distributions/singular_values", [("layer", "matrix", "index", "trained", "initial"), *values]


def to_csv(rows: Iterable[Sequence[object]]) -> bytes:
    """Rows as CSV; floats with six digits, nothing for None."""
    text = io.StringIO()
    spelled = ([f"{value:.6g}" if isinstance(value, float) else value for value in row] for row in rows)
    csv.writer(text, lineterminator="\n").writerows(spelled)
    return text.getvalue().encode("utf-8")


def summary(findings: Findings, pictures: int) -> list[list[str]]:
    """The result table."""
    scores, worth = findings.final.scores, findings.worth

    def most(values: np.ndarray) -> str:
        layer, head = np.unravel_index(values.argmax(), values.shape)
        return f"layer {layer}, head {head}"

    rows = [["text", f"{len(findings.labels)} token{'s' if len(findings.labels) > 1 else ''}"]]
    strongest = {"induction": scores.induction, "previous token": scores.previous_token}
    rows += [[f"strongest {name}", f"{most(score)}: {score.max():.2f}"] for name, score in strongest.items()]
    if worth is not None:
        change = f"{worth.change.max():+z.4f} nats per token without it, on {worth.tokens:,} validation tokens"
        rows.append(["dearest head", f"{most(worth.change)}: {change}"])
    return [*rows, ["pictures", f"{pictures}"]]
