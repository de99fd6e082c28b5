"""Stage `eval`: a model in; its loss, and the quality of the texts that it generates, out."""

import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from torch import device as Device

from tinygpt.analysis.generation_metrics import (
    Match,
    generation_metrics,
    longest_matches,
    unseen_words,
    words,
)
from tinygpt.analysis.ngrams import ngram_losses
from tinygpt.config import Config, SampleConfig
from tinygpt.errors import InputError
from tinygpt.lm import weights
from tinygpt.lm.dataset import Tokens, document_spans, read_tokens
from tinygpt.lm.evaluation import Score, evaluate, mean_loss
from tinygpt.lm.fast.decoder import decoder_for
from tinygpt.lm.fast.precision import choose_device, prepare_cpu
from tinygpt.lm.init import init_weights
from tinygpt.lm.model import GPT
from tinygpt.lm.sampling import Decoder, generate
from tinygpt.lm.tokenizer import END_OF_TEXT, Tokenizer
from tinygpt.progress import Reporter
from tinygpt.records import (
    DatasetMeta,
    EstimateRecord,
    EvalRecord,
    GenerationQuality,
    LongestCopy,
    ModelFile,
    ScoreRecord,
)
from tinygpt.store import Artifact, ArtifactWriter

SEPARATOR = re.compile(rf"^\s*{re.escape(END_OF_TEXT)}\s*$", re.MULTILINE)  # as in text files
GENERATION = SampleConfig(temperature=0.8, max_new_tokens=256, seed=1337)  # as `sample` does
BATCH = 32  # samples generated side by side

MEASURES = {
    "variety": ("distinct_1", "distinct_2", "distinct_3"),
    "coherence": ("unseen_words", "loops", "ended"),
    "copies": ("longest_match", "memorized"),
}
"""The measures of generation quality, by the row of the result table that shows them."""


def run(
    config: Config, inputs: Mapping[str, Artifact], out: ArtifactWriter, reporter: Reporter
) -> None:
    """Evaluate the final weights of a run, or the newest of one that is unfinished.

    eval.json is an EvalRecord.

    Args:
        config: [eval] and `runtime.device`, `runtime.threads` are used.
        inputs: "train" (or a checkpoint in its place), "build-dataset", "tokenize".
        out: where the artifact goes.
        reporter: receives the progress.
    Raises:
        InputError: `eval.text` cannot be read, is not UTF-8 or has no text.
    """
    tokenizer = Tokenizer.from_bytes(inputs["tokenize"].read("tokenizer.json"))
    dataset: DatasetMeta = inputs["build-dataset"].read_json("meta.json")
    train = read_tokens(inputs["build-dataset"].open("train.bin"), tokenizer.vocab_size)
    validation = read_tokens(inputs["build-dataset"].open("val.bin"), tokenizer.vocab_size)
    tokens = validation
    if config.eval.text is not None:
        tokens = encode_text(read_text(Path(config.eval.text)), tokenizer)
    prepare_cpu(config.runtime.threads)
    device = choose_device(config.runtime.device)

    config_json = inputs["train"].read("config.json")
    model_file: ModelFile = inputs["train"].read_json("config.json")
    weights_file = inputs["train"].read("model.safetensors")
    model = weights.read_model(config_json, weights_file).to(device)
    reporter.task("evaluate", 3 if config.eval.baselines else 1, unit="models")
    byte_lengths = np.asarray(tokenizer.byte_lengths)
    result = evaluate(model, tokens, end_of_text=tokenizer.end_of_text, byte_lengths=byte_lengths)
    reporter.advance(1, loss=result.loss, perplexity=result.perplexity)
    baselines: dict[str, ScoreRecord] = {}
    if config.eval.baselines:
        losses = baseline_losses(model, model_file, train, tokens, device, reporter)
        for name, loss in losses.items():
            score = Score.of(loss, result.tokens, result.bytes)
            baselines[name] = ScoreRecord(**asdict(score))  # type: ignore[typeddict-item]
    quality = None
    if config.eval.num_samples is not None:
        spans = document_spans(validation, tokenizer.end_of_text)[: config.eval.num_samples]
        longest = GENERATION.max_new_tokens
        held_out = [validation[a : min(a + longest, b)].tolist() for a, b in spans]
        decoder = _decoder(config, model, weights_file, min(BATCH, len(spans)))
        generated = generate_samples(decoder, tokenizer, len(spans), reporter)
        quality = generation_quality(generated, held_out, train, tokenizer)
    evaluation: EvalRecord = {
        "judged": "validation split" if config.eval.text is None else "text",
        "step": model_file["step"],
        "label": dataset.get("label"),
        "baselines": baselines,
        "generation_metrics": quality,
        **asdict(result),  # type: ignore[typeddict-item]
    }
    out.json("eval.json", evaluation)
    out.json("summary.json", {"rows": summary(evaluation)})


def _decoder(config: Config, model: GPT, weights_file: bytes, max_sequences: int) -> Decoder:
    """The decoder that generates the samples whose quality is measured."""
    return decoder_for(
        model.config,
        model.vocab_size,
        weights.read_arrays(weights_file),
        device=config.runtime.device,
        max_sequences=max_sequences,
    )


def baseline_losses(
    model: GPT,
    model_file: ModelFile,
    train: Tokens,
    tokens: Tokens,
    device: Device,
    reporter: Reporter,
) -> dict[str, float]:
    """Loss of n-gram models and of the untrained model on the same tokens [nats per token]."""
    losses = ngram_losses(train, tokens, model.vocab_size)
    reporter.advance()
    untrained = init_weights(GPT(model.config, model.vocab_size), model_file["train"]["seed"])
    losses["untrained"] = mean_loss(untrained.to(device), tokens)
    reporter.advance()
    return losses


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
    """Measure generated texts and, for comparison, as many documents of the validation split.

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


def read_text(path: Path) -> str:
    """A text file.

    Raises:
        InputError: it cannot be read or is not UTF-8.
    """
    hint = "`eval.text` names a text file in UTF-8"
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read `{path}`: {error.strerror}", hint=hint) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"cannot read `{path}`: not UTF-8 at byte {error.start}", hint=hint
        ) from error


def encode_text(text: str, tokenizer: Tokenizer) -> Tokens:
    """Token ids of a text file in the form of the validation split.

    Lines of `<|endoftext|>` separate documents; each document ends with the end-of-text token.

    Raises:
        InputError: it contains only white space.
    """
    tokens = array("H")
    for document in SEPARATOR.split(text.replace("\r\n", "\n")):
        if document.strip():
            tokens.extend(tokenizer.encode(document.strip()))
            tokens.append(tokenizer.end_of_text)
    if not tokens:
        raise InputError(
            "the text to evaluate is empty",
            hint="name a file with text in it, e.g., `tinygpt eval --text my.txt`",
        )
    return np.asarray(tokens)


def summary(result: EvalRecord) -> list[list[str]]:
    """The result table."""
    size = f"{result['documents']:,} documents, {result['tokens']:,} tokens"
    loss = f"{result['loss']:.4f} nats per token"
    if result["standard_error"] is not None:
        loss += f" (standard error {result['standard_error']:.4f}, by document)"
    bits = result["bits_per_byte"]
    rows = [
        ["evaluated on", f"{result['judged']}: {size}, {result['bytes']:,} bytes"],
        ["loss", loss],
        ["perplexity", f"{result['perplexity']:,.2f}"],
        ["bits per byte", "none" if bits is None else f"{bits:.4f}"],
    ]
    for name, baseline in result["baselines"].items():
        rows.append([f"perplexity of {name}", f"{baseline['perplexity']:,.2f}"])
    if result["label"]:
        rows.append(["note", result["label"]])
    if result["generation_metrics"]:
        rows += quality_rows(result["generation_metrics"])
    return rows


def quality_rows(quality: GenerationQuality) -> list[list[str]]:
    """Generation quality in short; in brackets the same of validation documents."""
    count = f"{quality['count']:,} generated (in brackets: as many validation documents)"
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
