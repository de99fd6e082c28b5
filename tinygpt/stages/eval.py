"""Stage `eval`: a model in; its loss, and the quality of the texts that it generates, out."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from tinygpt.analysis.generation_metrics import (
    Match,
    generation_metrics,
    longest_matches,
    unseen_words,
    words,
)
from tinygpt.analysis.ngrams import ngram_losses
from tinygpt.config import Config, SampleConfig
from tinygpt.corpus.given import GivenTexts, read_given
from tinygpt.errors import ConfigError
from tinygpt.lm.dataset import Tokens, document_spans, encode_parts, read_tokens
from tinygpt.lm.evaluation import Evaluation, Score, evaluate, mean_loss
from tinygpt.lm.fast.precision import choose_device, prepare_cpu
from tinygpt.lm.holdout import Part
from tinygpt.lm.init import init_weights
from tinygpt.lm.model import GPT
from tinygpt.lm.sampling import Decoder, generate
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.progress import Reporter
from tinygpt.records import (
    DatasetMeta,
    EstimateRecord,
    EvalRecord,
    GenerationQuality,
    LongestCopy,
    ModelFile,
    ScoreRecord,
    WeightsScore,
)
from tinygpt.runs.trained_weights import FILES, IMPORTED, TrainedWeights, open_weights
from tinygpt.store import Artifact, ArtifactWriter
from tinygpt.store.metrics import METRICS

GENERATION = SampleConfig(temperature=0.8, max_new_tokens=256, seed=1337)  # as `sample` does
BATCH = 32  # samples generated side by side

JUDGED: dict[str, Literal["validation split", "test split"]] = {
    "val": "validation split",
    "test": "test split",
}
MEASURES = {
    "variety": ("distinct_1", "distinct_2", "distinct_3"),
    "coherence": ("unseen_words", "loops", "ended"),
    "copies": ("longest_match", "memorized"),
}
"""The measures of generation quality, by the row of the result table that shows them."""


def run(
    config: Config, inputs: Mapping[str, Artifact], out: ArtifactWriter, reporter: Reporter
) -> None:
    """Evaluate the weights of a run that `eval.weights` names; eval.json is an EvalRecord.

    documents.jsonl is about the last weights, by which experiments compare.

    Args:
        config: [eval] and `runtime.device`, `runtime.threads` are used.
        inputs: "train" (or a checkpoint in its place), "tokenize", and "build-dataset"; without it,
            which takes `eval.text`, there are no baselines and no generation quality. An imported
            model has no untrained form to compare with.
        out: where the artifact goes.
        reporter: receives the progress, and which weights "auto" takes where that is not the last.
    Raises:
        ArtifactError, CorruptArtifactError: see TrainedWeights.model.
        ConfigError: `eval.split` is "test", and the dataset has none.
        InputError: `eval.text` cannot be read or has no text.
    """
    tokenizer = Tokenizer.from_bytes(inputs["tokenize"].read("tokenizer.json"))
    data = read_dataset(inputs.get("build-dataset"), config.eval.split, tokenizer)
    given = given_texts(config, data, reporter)
    tokens = data.held_out if given is None else encode(given.documents, tokenizer)
    prepare_cpu(config.runtime.threads)
    device = choose_device(config.runtime.device)
    trained = open_weights(inputs["train"], config.eval.weights)
    if trained.note is not None:
        reporter.note(trained.note)
    model = trained.model(reporter.note).to(device)
    others = other_weights(inputs["train"], trained)
    has_baselines = config.eval.baselines and len(data.train) > 0
    reporter.task("evaluate", 1 + bool(others) + 2 * has_baselines, unit="models")
    result = evaluate_on(tokens, model, tokenizer)
    reporter.advance(1, loss=result.loss, perplexity=result.perplexity)
    baselines: dict[str, ScoreRecord] = {}
    if has_baselines:
        seed = seed_of(inputs["train"])
        for name, loss in baseline_losses(model, seed, data.train, tokens, reporter).items():
            baselines[name] = score_record(Score.of(loss, result.tokens, result.bytes))
    compared: WeightsScore | None = None
    of_last = result.parts
    if others is not None:
        other = evaluate_on(tokens, others.model().to(device), tokenizer)
        compared = {"weights": others.which, "step": others.step, **score_record(other)}
        of_last = result.parts if trained.which == "last" else other.parts
        reporter.advance()
    quality = None
    if config.eval.num_samples is not None and len(data.train):
        held_out = beginnings(data.held_out, tokenizer, config.eval.num_samples)
        decoder = trained.decoder(config.runtime.device, min(BATCH, len(held_out)), reporter.note)
        generated = generate_samples(decoder, tokenizer, len(held_out), reporter)
        quality = generation_quality(generated, held_out, data.train, tokenizer)
    evaluation: EvalRecord = {
        "judged": JUDGED[config.eval.split] if config.eval.text is None else "text",
        "weights": trained.which,
        "step": trained.step,
        "other_weights": compared,
        "label": data.label,
        "baselines": baselines,
        "generation_metrics": quality,
        **{name: value for name, value in vars(result).items() if name != "parts"},  # type: ignore[typeddict-item]
        **({} if given is None else {"text": given.title, "left_out": given.left_out}),
    }
    out.json("eval.json", evaluation)
    out.bytes("documents.jsonl", of_last.json_lines().encode())
    out.json("summary.json", {"rows": summary(evaluation)})


def seed_of(train: Artifact) -> int | None:
    """The seed of the weights before training; None of an imported model."""
    recipe = train.read_json("config.json", ModelFile).get("train")
    return None if recipe is None else recipe["seed"]


class Data(NamedTuple):
    """The text from which a model was made; its splits are empty where it is not at hand."""

    train: Tokens
    held_out: Tokens
    meta: DatasetMeta | None

    @property
    def label(self) -> str | None:
        return None if self.meta is None else self.meta.get("label")


def read_dataset(dataset: Artifact | None, split: str, tokenizer: Tokenizer) -> Data:
    """The train split of a build-dataset artifact, and its split "val" or "test"."""
    if dataset is None:
        return Data(np.empty(0, np.uint16), np.empty(0, np.uint16), None)
    meta = dataset.read_json("meta.json", DatasetMeta)
    train = read_tokens(dataset.open("train.bin"), tokenizer.vocab_size)
    if split not in meta:
        both = "--set dataset.test_fraction=0.05 --set eval.split=test"
        raise ConfigError(
            f"`eval.split` = {split}, but no {split} split was held out of this model's text",
            hint=f"`tinygpt run --until eval {both}` trains one that has not seen it",
        )
    held_out = read_tokens(dataset.open(f"{split}.bin"), tokenizer.vocab_size)
    return Data(train, held_out, meta)


def other_weights(train: Artifact, chosen: TrainedWeights) -> TrainedWeights | None:
    """The weights of a run that were not chosen; None where best and last are the same."""
    if train.is_imported or {METRICS, FILES["best"]} & set(train.missing()):
        return None  # or the folder of a model that was copied
    other = open_weights(train, "last" if chosen.which == "best" else "best")
    return None if other.step == chosen.step else other


def evaluate_on(tokens: Tokens, model: GPT, tokenizer: Tokenizer) -> Evaluation:
    """How well a model predicts the tokens of its tokenizer."""
    byte_lengths = np.asarray(tokenizer.byte_lengths)
    return evaluate(model, tokens, end_of_text=tokenizer.end_of_text, byte_lengths=byte_lengths)


def score_record(score: Score) -> ScoreRecord:
    """A score alone, without what it was measured on."""
    return {name: getattr(score, name) for name in ScoreRecord.__annotations__}  # type: ignore


def baseline_losses(
    model: GPT, seed: int | None, train: Tokens, tokens: Tokens, reporter: Reporter
) -> dict[str, float]:
    """Loss of n-gram models and of the untrained model on the same tokens [nats per token].

    Args:
        model: the trained one.
        seed: of the weights that it had before training; None if that is not known.
        train, tokens: what the n-gram models count, and what is evaluated.
        reporter: receives the progress.
    """
    losses = ngram_losses(train, tokens, model.vocab_size)
    reporter.advance()
    if seed is None:
        reporter.advance()
        return losses
    untrained = init_weights(GPT(model.config, model.vocab_size), seed)
    untrained.explicit = model.explicit
    losses["untrained"] = mean_loss(untrained.to(model.token_embedding.weight.device), tokens)
    reporter.advance()
    return losses


def beginnings(tokens: Tokens, tokenizer: Tokenizer, count: int) -> list[list[int]]:
    """The first documents, or pieces of fewer, each as far as a generated text may go."""
    longest = GENERATION.max_new_tokens
    spans = document_spans(tokens, tokenizer.end_of_text)
    texts = []
    for start, stop in spans:
        last = start if len(spans) >= count else max(start, stop - longest)
        for first in range(start, last + 1, longest):
            texts.append(tokens[first : min(first + longest, stop)].tolist())
    return texts[:count]


def generate_samples(
    decoder: Decoder, tokenizer: Tokenizer, count: int, reporter: Reporter
) -> list[list[int]]:
    """Texts that the model begins by itself, as token ids; the end-of-text token is included."""
    samples: list[list[int]] = [[] for _ in range(count)]
    reporter.task("generate samples", count, unit="samples")
    for first in range(0, count, BATCH):
        new_tokens = generate(
            decoder,
            [tokenizer.end_of_text],
            GENERATION,
            token_bytes=tokenizer.token_bytes,
            end_of_text=tokenizer.end_of_text,
            samples=range(first, min(first + BATCH, count)),
        )
        for token in new_tokens:
            samples[token.sample].append(token.token_id)
            if token.stop_reason is not None:
                reporter.advance()
    return samples


def generation_quality(
    generated: Sequence[list[int]],
    held_out: Sequence[list[int]],
    train: Tokens,
    tokenizer: Tokenizer,
) -> GenerationQuality:
    """Measure generated texts and, for comparison, as many held-out documents.

    Args:
        generated, held_out: token ids of each text.
        train: the training text.
        tokenizer: of all of them.
    """
    assert GENERATION.seed is not None
    texts = [tokenizer.decode(token_ids) for token_ids in generated]
    held_out_texts = [tokenizer.decode(token_ids) for token_ids in held_out]
    unseen = unseen_words(_words_of([*texts, *held_out_texts]), train, tokenizer)
    matches = _matches([*generated, *held_out], train, tokenizer)  # one search of the training text
    count, end = len(generated), tokenizer.end_of_text
    return {
        "count": count,
        "temperature": GENERATION.temperature,
        "max_tokens": GENERATION.max_new_tokens,
        "seed": GENERATION.seed,
        "generated": _measure(texts, _ended(generated, end), matches[:count], unseen),
        "validation": _measure(held_out_texts, _ended(held_out, end), matches[count:], unseen),
        "unseen": sorted(unseen & _words_of(texts)),
        "longest": longest_copy(generated, matches[:count], train, tokenizer),
    }


def _words_of(texts: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for text in texts:
        found.update(words(text))
    return found


def _ended(texts: Sequence[list[int]], end_of_text: int) -> list[bool]:
    """Which texts reached the end-of-text token."""
    return [token_ids[-1] == end_of_text for token_ids in texts]


def _matches(texts: Sequence[list[int]], train: Tokens, tokenizer: Tokenizer) -> list[Match]:
    """The longest run of tokens that each text shares with the training text."""
    end = tokenizer.end_of_text
    return longest_matches([[token for token in text if token != end] for text in texts], train)


def _measure(
    texts: Sequence[str], ended: Sequence[bool], matches: Sequence[Match], unseen: set[str]
) -> dict[str, EstimateRecord]:
    copied = [match.tokens for match in matches]
    metrics = generation_metrics(texts, ended=ended, copied=copied, unseen=unseen)
    return {
        name: EstimateRecord(**estimate._asdict())  # type: ignore[typeddict-item]
        for name, estimate in metrics.items()
    }


def longest_copy(
    generated: Sequence[list[int]],
    matches: Sequence[Match],
    train: Tokens,
    tokenizer: Tokenizer,
) -> LongestCopy:
    """The longest run of tokens that a generated text shares with the training text."""
    sample = max(range(len(matches)), key=lambda number: matches[number].tokens)
    match = matches[sample]
    spans = document_spans(train, tokenizer.end_of_text)
    origin = int(spans[:, 1].searchsorted(match.source, side="right"))
    near = GENERATION.max_new_tokens
    start = max(int(spans[origin, 0]), match.source - near)
    stop = min(int(spans[origin, 1]), match.source + near)
    copied = generated[sample][match.start : match.start + match.tokens]
    return {
        "tokens": match.tokens,
        "text": tokenizer.decode(copied),
        "sample": sample,
        "generated": tokenizer.decode(generated[sample]),
        "origin": origin,
        "training": tokenizer.decode(train[start:stop].tolist()),
    }


def given_texts(config: Config, data: Data, reporter: Reporter) -> GivenTexts | None:
    """The texts to evaluate on; None for a split."""
    if config.eval.text is None:
        return None
    return read_given(config.eval.text, config.data, reporter, data.meta)


def encode(documents: Sequence[str], tokenizer: Tokenizer) -> Tokens:
    """Token ids in the form of a split: each document ends with the end-of-text token."""
    parts = (Part(document, "val", is_end=True) for document in documents)
    return np.concatenate([part.tokens for part in encode_parts(parts, tokenizer)])


def summary(result: EvalRecord) -> list[list[str]]:
    """The result table."""
    documents = f"{result['documents']:,} document{'s' * (result['documents'] != 1)}"
    size = f"{documents}, {result['tokens']:,} tokens"
    loss = f"{result['loss']:.4f} nats per token"
    if result["standard_error"] is not None:
        loss += f" (standard error {result['standard_error']:.4f}, by document)"
    bits = result["bits_per_byte"]
    rows = [
        ["evaluated on", f"{result['judged']}: {size}, {result['bytes']:,} bytes"],
        *given_rows(result),
        ["loss", loss],
        ["perplexity", f"{result['perplexity']:,.2f}"],
        ["bits per byte", "none" if bits is None else f"{bits:.4f}"],
        *weights_rows(result),
    ]
    for name, baseline in result["baselines"].items():
        rows.append([f"perplexity of {name}", f"{baseline['perplexity']:,.2f}"])
    if result["label"]:
        rows.append(["note", result["label"]])
    if result["generation_metrics"]:
        rows += quality_rows(result["generation_metrics"])
    return rows


def given_rows(result: EvalRecord) -> list[list[str]]:
    """What was read with `eval.text`, and how much of it is not evaluated."""
    if "text" not in result:
        return []
    rows = [["text", result["text"]]]
    if result["left_out"]:
        rows.append(["left out", f"{result['left_out']:,} bytes between documents"])
    return rows


def weights_rows(result: EvalRecord) -> list[list[str]]:
    """Which weights were evaluated, and how well the others do."""
    split = "this" if result["judged"] == "validation split" else "the validation"
    remarks = {"best": f", chosen on {split} split", "last": ""}
    chosen, other = result["weights"], result["other_weights"]
    if result["step"] == 0:
        return [["weights", IMPORTED]]
    rows = [["weights", f"{chosen}, of step {result['step']:,}{remarks[chosen]}"]]
    if other is not None:
        scores = f"loss {other['loss']:.4f}, perplexity {other['perplexity']:,.2f}"
        remark = f"step {other['step']:,}{remarks[other['weights']]}"
        rows.append([f"{other['weights']} weights", f"{scores} ({remark})"])
    return rows


def quality_rows(quality: GenerationQuality) -> list[list[str]]:
    """Generation quality in short; in brackets the same of held-out documents."""
    count = f"{quality['count']:,} generated (in brackets: as many held-out documents)"
    rows = [["samples", count]]
    for row, measures in MEASURES.items():
        shown = []
        for measure in measures:
            generated = _show(measure, quality["generated"][measure]["value"])
            validation = _show(measure, quality["validation"][measure]["value"])
            shown.append(f"{measure.replace('_', ' ')} {generated} ({validation})")
        rows.append([row, ", ".join(shown)])
    return rows


def _show(measure: str, value: float) -> str:
    return f"{value:.1f} tokens" if measure == "longest_match" else f"{100 * value:.1f} %"
