"""Stage `sample`: a trained model and its tokenizer in, stories out.

Each line of samples.jsonl is an object: sample (its number), prompt (null where the model began by itself), text (the whole
story, prompt included), token_ids and logprobs of the continuation (the end-of-story token or stop text included; nats, of the
model itself at temperature 1), stop_reason ("end_of_story", "stop", "length" or "context"), seed, model and tokenizer (digests of
their artifacts), decoder (what computed it).
"""

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinygpt.config import Config, SampleConfig
from tinygpt.errors import InputError, UsageError
from tinygpt.lm.decoder import Decoder, decoder_for
from tinygpt.lm.sampling import NewToken, StopReason, generate, xray
from tinygpt.lm.tokenizer import END_OF_STORY, Tokenizer
from tinygpt.lm.weights import read_arrays, read_config
from tinygpt.report import Report
from tinygpt.store import Artifact, Out

BATCH = 32  # stories told side by side
ENDINGS = {
    "end_of_story": "at the end of the story",
    "stop": "with a stop text",
    "length": "after `sample.max_new_tokens`",
    "context": "where the context was full",
}


@dataclass
class Story:
    """A story in the making; its text begins with the prompt."""

    sample: int
    text: str
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stop_reason: StopReason | None = None

    def add(self, token: NewToken) -> None:
        self.text += token.text
        self.token_ids.append(token.token_id)
        self.logprobs.append(round(token.logprob, 6))
        self.stop_reason = token.stop_reason


def run(config: Config, inputs: Mapping[str, Artifact], out: Out, report: Report) -> None:
    """Tell `sample.num_samples` stories.

    A single one goes to `report.product` while it is told; of several, each as soon as it and those before it are complete, with
    an empty line between them.

    Args:
        config: [sample] and `runtime.device` are used; the seed must be set.
        inputs: "train" (the finished run or a checkpoint of it) and "tokenize".
        out: where samples.jsonl goes.
        report: told the text.
    Raises:
        ValueError: the seed is None.
        UsageError: the prompt or a stop text is empty, or the prompt is longer than the context and `sample.overflow` is "stop".
        InputError: tokenizer and model do not belong together.
    """
    how = config.sample
    if how.prompt == "":
        raise UsageError("the prompt is empty", hint="leave it out, and the model begins by itself")
    if "" in how.stop:
        raise UsageError("a stop text is empty, and would end every story at once", hint="leave it out")
    tokenizer, decoder = load(inputs, config.runtime.device, min(how.num_samples, BATCH))
    prompt = read_prompt(how, tokenizer, decoder.context_length, report)
    if how.num_samples > 1:
        report.task("sample", how.num_samples, unit="stories")
    made_with = {"model": inputs["train"].digest, "tokenizer": inputs["tokenize"].digest, "decoder": decoder.name}
    tokens, endings, started = 0, Counter[str](), time.perf_counter()
    with out.stream("samples.jsonl") as lines:
        for story in tell(how, prompt, tokenizer, decoder, report):
            line = {**vars(story), "prompt": how.prompt, "seed": how.seed, **made_with}
            lines.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            tokens += len(story.token_ids)
            endings[str(story.stop_reason)] += 1
    seconds = time.perf_counter() - started
    out.provenance(decoder=decoder.name, seconds=seconds, tokens_per_second=tokens / seconds)
    ended = ", ".join(f"{endings[reason]:,} {ending}" for reason, ending in ENDINGS.items() if endings[reason])
    rows = [["stories", f"{how.num_samples:,}"], ["new tokens", f"{tokens:,}"], ["ended", ended], ["seed", str(how.seed)]]
    out.json("summary.json", {"rows": rows})


def load(inputs: Mapping[str, Artifact], device: str, max_sequences: int) -> tuple[Tokenizer, Decoder]:
    """The tokenizer and the model, which must belong together; torch is imported only where decoder_for needs it."""
    train, tokenize = inputs["train"], inputs["tokenize"]
    data = tokenize.read("tokenizer.json")
    model_config, vocab_size = read_config(train.read("config.json"))
    tokenizer = Tokenizer.from_bytes(data)
    if data != train.read("tokenizer.json") or tokenizer.vocab_size != vocab_size:
        given = f"the tokenizer `{tokenize.stage}/{tokenize.id}` ({tokenizer.vocab_size:,} entries)"
        wrong = f"{given} is not the one with which the model `{train.stage}/{train.id}` ({vocab_size:,} entries) was trained"
        raise InputError(wrong, hint="`tinygpt artifacts lineage` shows what a model was made from")
    weights = read_arrays(train.read("model.safetensors"))
    return tokenizer, decoder_for(model_config, vocab_size, weights, device=device, max_sequences=max_sequences)


def read_prompt(how: SampleConfig, tokenizer: Tokenizer, context_length: int, report: Report) -> list[int]:
    """Token ids of the prompt, behind the end of another story, as stories stand in the training data."""
    prompt = tokenizer.encode(how.prompt or "")
    if len(prompt) > context_length:
        if how.overflow == "stop":
            wrong = f"the prompt has {len(prompt):,} tokens, the context of the model {context_length:,}"
            raise UsageError(wrong, hint='shorten it, or set `sample.overflow` to "slide" to have its end read')
        report.note(f"the prompt has {len(prompt):,} tokens; the model reads the last {context_length:,}")
    return [tokenizer.end_of_story, *prompt]


def tell(how: SampleConfig, prompt: Sequence[int], tokenizer: Tokenizer, decoder: Decoder, report: Report) -> Iterator[Story]:
    """The stories in the order of their numbers, each as soon as it and those before it are complete."""
    alone, end = how.num_samples == 1, tokenizer.end_of_story
    if alone:
        report.product(how.prompt or "")
    for first in range(0, how.num_samples, BATCH):
        samples = range(first, min(first + BATCH, how.num_samples))
        stories = {sample: Story(sample, how.prompt or "") for sample in samples}
        for token in generate(decoder, prompt, how, token_bytes=tokenizer.token_bytes, end_of_story=end, samples=samples):
            stories[token.sample].add(token)
            if alone:
                report.product(token.text)
            while stories and (story := next(iter(stories.values()))).stop_reason is not None:
                if not alone:
                    report.product(("\n\n" if story.sample else "") + story.text)
                    report.advance()
                yield stories.pop(story.sample)
    report.product("\n")


def look_into(told: Artifact, config: Config, inputs: Mapping[str, Artifact]) -> Iterator[dict[str, Any]]:
    """The lines of samples.jsonl with one key more, "xray": how sure the model was of each new token.

    That is a list of objects: token (its text), probability and entropy [bits] (at temperature 1 and with every token allowed),
    and alternatives, the likeliest other tokens with their probabilities.

    Args:
        told: what `run` made of this configuration and these inputs.
    """
    tokenizer, decoder = load(inputs, config.runtime.device, 1)
    prompt = [tokenizer.end_of_story, *tokenizer.encode(config.sample.prompt or "")]

    def shown(token_id: int, probability: float) -> dict[str, Any]:
        text = tokenizer.token_bytes(token_id).decode("utf-8", "backslashreplace")  # a token may be half a character
        return {"token": text or END_OF_STORY, "probability": round(probability, 6)}

    for story in told.read_rows("samples.jsonl"):
        story["xray"] = [
            shown(token_id, probability) | {"entropy": round(entropy, 6), "alternatives": [shown(*other) for other in others]}
            for token_id, probability, entropy, others in xray(decoder, prompt, story["token_ids"])
        ]
        yield story
