"""Stage `sample`: a trained model and its tokenizer in, generated text out."""

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinygpt.config import Config, SampleConfig
from tinygpt.errors import InputError, UsageError
from tinygpt.lm.sampling import Decoder, NewToken, StopReason, generate, xray
from tinygpt.lm.tokenizer import END_OF_TEXT, Tokenizer
from tinygpt.progress import Reporter
from tinygpt.records import SampleRecord
from tinygpt.runs.trained_weights import TrainedWeights, open_weights
from tinygpt.store import Artifact, ArtifactWriter

BATCH = 32  # samples generated side by side
ENDINGS: dict[StopReason, str] = {
    "end_of_text": "with the end-of-text token",
    "stop": "with a stop text",
    "length": "after `sample.max_new_tokens`",
    "context": "because the context was full",
}


@dataclass
class Sample:
    """A sample that is being generated; its text begins with the prompt."""

    sample: int
    text: str
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stop_reason: StopReason | None = None

    def add(self, token: NewToken) -> None:
        """Append a token."""
        self.text += token.text
        self.token_ids.append(token.token_id)
        self.logprobs.append(round(token.logprob, 6))
        self.stop_reason = token.stop_reason


def run(
    config: Config, inputs: Mapping[str, Artifact], out: ArtifactWriter, reporter: Reporter
) -> None:
    """Generate `sample.num_samples` samples; samples.jsonl holds a SampleRecord for each.

    torch is imported only where the decoder needs it.

    A single one goes to `reporter.output` while it is generated; of several, each as soon as it and
    those before it are complete, with an empty line between them.

    Args:
        config: [sample] and `runtime.device` are used; the seed must be set.
        inputs: "train" (the finished run or a checkpoint of it) and "tokenize".
        out: where samples.jsonl goes.
        reporter: receives the text, and a note on weights and decoder where they need one.
    Raises:
        ArtifactError, CorruptArtifactError: see decoder_for.
        ValueError: the seed is None.
        UsageError: the prompt or a stop text is empty, or the prompt is longer than the context and
            `sample.overflow` is "stop".
        InputError: tokenizer and model do not belong together.
    """
    settings = config.sample
    if settings.prompt == "":
        raise UsageError("the prompt is empty", hint="leave it out, and the model begins by itself")
    if "" in settings.stop:
        raise UsageError(
            "a stop text is empty, and would end every sample at once", hint="leave it out"
        )
    batch = min(settings.num_samples, BATCH)
    trained = open_weights(inputs["train"], settings.weights)
    if trained.note is not None:
        reporter.note(trained.note)
    tokenizer = matching_tokenizer(inputs, trained.vocab_size)
    decoder = trained.decoder(config.runtime.device, batch, reporter.note)
    prompt = encode_prompt(settings, tokenizer, decoder.context_length, reporter)
    if settings.num_samples > 1:
        reporter.task("sample", settings.num_samples, unit="samples")
    tokens = 0
    endings = Counter[StopReason | None]()
    started = time.perf_counter()
    with out.stream("samples.jsonl") as lines:
        for sample in generate_samples(settings, prompt, tokenizer, decoder, reporter):
            record = to_record(sample, settings, inputs, trained, decoder)
            lines.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
            tokens += len(sample.token_ids)
            endings[sample.stop_reason] += 1
    seconds = time.perf_counter() - started
    out.provenance(decoder=decoder.name, seconds=seconds, tokens_per_second=tokens / seconds)
    counts = [f"{endings[reason]:,} {text}" for reason, text in ENDINGS.items() if endings[reason]]
    rows = [
        ["samples", f"{settings.num_samples:,}"],
        ["new tokens", f"{tokens:,}"],
        ["ended", ", ".join(counts)],
        ["seed", str(settings.seed)],
        ["weights", trained.title],
    ]
    out.json("summary.json", {"rows": rows})


def matching_tokenizer(inputs: Mapping[str, Artifact], vocab_size: int) -> Tokenizer:
    """The tokenizer, which must be the one with which the model was trained."""
    train, tokenize = inputs["train"], inputs["tokenize"]
    data = tokenize.read("tokenizer.json")
    tokenizer = Tokenizer.from_bytes(data)
    if data != train.read("tokenizer.json") or tokenizer.vocab_size != vocab_size:
        ours = f"the tokenizer `{tokenize.stage}/{tokenize.id}` ({tokenizer.vocab_size:,} entries)"
        model = f"the model `{train.stage}/{train.id}` ({vocab_size:,} entries)"
        raise InputError(
            f"{ours} is not the one with which {model} was trained",
            hint="`tinygpt artifacts lineage` shows what a model was made from",
        )
    return tokenizer


def encode_prompt(
    settings: SampleConfig, tokenizer: Tokenizer, context_length: int, reporter: Reporter
) -> list[int]:
    """Token ids of the prompt, after an end-of-text token, as documents stand in training data."""
    prompt = tokenizer.encode(settings.prompt or "")
    if len(prompt) > context_length:
        size = f"the prompt has {len(prompt):,} tokens"
        if settings.overflow == "stop":
            raise UsageError(
                f"{size}, the context of the model {context_length:,}",
                hint='shorten it, or set `sample.overflow` to "slide" to have its end read',
            )
        reporter.note(f"{size}; the model reads the last {context_length:,}")
    return [tokenizer.end_of_text, *prompt]


def generate_samples(
    settings: SampleConfig,
    prompt: Sequence[int],
    tokenizer: Tokenizer,
    decoder: Decoder,
    reporter: Reporter,
) -> Iterator[Sample]:
    """The samples by number, each as soon as it and those before it are complete."""
    prompt_text = settings.prompt or ""
    alone = settings.num_samples == 1
    if alone:
        reporter.output(prompt_text)
    for first in range(0, settings.num_samples, BATCH):
        numbers = range(first, min(first + BATCH, settings.num_samples))
        pending = {number: Sample(number, prompt_text) for number in numbers}
        new_tokens = generate(
            decoder,
            prompt,
            settings,
            token_bytes=tokenizer.token_bytes,
            end_of_text=tokenizer.end_of_text,
            samples=numbers,
        )
        for token in new_tokens:
            pending[token.sample].add(token)
            if alone:
                reporter.output(token.text)
            while pending:
                sample = next(iter(pending.values()))
                if sample.stop_reason is None:
                    break
                if not alone:
                    reporter.output(("\n\n" if sample.sample else "") + sample.text)
                    reporter.advance()
                yield pending.pop(sample.sample)
    reporter.output("\n")


def to_record(
    sample: Sample,
    settings: SampleConfig,
    inputs: Mapping[str, Artifact],
    trained: TrainedWeights,
    decoder: Decoder,
) -> SampleRecord:
    """A finished sample as a line of samples.jsonl."""
    assert sample.stop_reason is not None
    assert settings.seed is not None
    return {
        "sample": sample.sample,
        "prompt": settings.prompt,
        "text": sample.text,
        "token_ids": sample.token_ids,
        "logprobs": sample.logprobs,
        "stop_reason": sample.stop_reason,
        "seed": settings.seed,
        "model": inputs["train"].digest,
        "tokenizer": inputs["tokenize"].digest,
        "weights": trained.which,
        "step": trained.step,
        "decoder": decoder.name,
    }


def add_xray(
    samples: Artifact, config: Config, inputs: Mapping[str, Artifact]
) -> Iterator[dict[str, Any]]:
    """The lines of samples.jsonl with one key more, "xray": how sure the model was of each token.

    That is a list of objects: token (its text), probability and entropy [bits] (at temperature 1
    and with every token allowed), and alternatives, the likeliest other tokens with their
    probabilities.

    Args:
        samples: the artifact that `run` wrote for this configuration and these inputs.
        config, inputs: see run.
    Raises:
        CorruptArtifactError: a file of the artifacts is not what a stage writes.
    """
    trained = open_weights(inputs["train"], config.sample.weights)
    tokenizer = matching_tokenizer(inputs, trained.vocab_size)
    decoder = trained.decoder(config.runtime.device)
    prompt = [tokenizer.end_of_text, *tokenizer.encode(config.sample.prompt or "")]

    def describe(token_id: int, probability: float) -> dict[str, Any]:
        # A token may be half a character
        text = tokenizer.token_bytes(token_id).decode("utf-8", "backslashreplace")
        return {"token": text or END_OF_TEXT, "probability": round(probability, 6)}

    for record in samples.read_rows("samples.jsonl", list[SampleRecord]):
        if max(record["token_ids"], default=0) >= trained.vocab_size:
            raise samples.malformed("samples.jsonl", "a token is not in the vocabulary")
        described = []
        for token in xray(decoder, prompt, record["token_ids"]):
            entry = describe(token.token_id, token.probability)
            entry["entropy"] = round(token.entropy, 6)
            entry["alternatives"] = [describe(*other) for other in token.alternatives]
            described.append(entry)
        yield {**record, "xray": described}
