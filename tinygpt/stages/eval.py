"""Stage `eval`: a model in, how well it predicts out, beside what simpler models achieve, and what its stories are worth.

eval.json is an object: judged ("validation split" or "text"), step, label, the fields of lm.evaluation.Evaluation, baselines (a
lm.evaluation.Score by name) and report_card, of stories that the model begins by itself, or null. That holds count,
temperature, max_tokens and seed (how they were told); told and validation (each measure of lm.report_card.report_card, by name,
as value, low and high of its 95 % interval; of the stories told, and of as many of the validation split, cut to max_tokens);
unseen (the words told that no training story has); longest, the longest piece that was copied: tokens and text of it, story and
told (number and text of the story that has it), origin and training (number of the first training story that has it, 0 for that
with which train.bin begins, and its text, as far as max_tokens before and behind).
"""

import re
from array import array
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tinygpt.config import Config, SampleConfig
from tinygpt.errors import InputError
from tinygpt.lm import weights
from tinygpt.lm.dataset import Tokens, read_tokens, story_spans
from tinygpt.lm.decoder import Decoder, decoder_for
from tinygpt.lm.evaluation import Evaluation, Score, evaluate, mean_loss
from tinygpt.lm.model import GPT, initialise
from tinygpt.lm.ngrams import ngram_losses
from tinygpt.lm.precision import choose_device, prepare_cpu
from tinygpt.lm.report_card import longest_matches, report_card, unseen_words, words
from tinygpt.lm.sampling import generate
from tinygpt.lm.tokenizer import END_OF_STORY, Tokenizer
from tinygpt.report import Report
from tinygpt.store import Artifact, Out

SEPARATOR = re.compile(rf"^\s*{re.escape(END_OF_STORY)}\s*$", re.MULTILINE)  # as in text files of stories
TELLING = SampleConfig(temperature=0.8, max_new_tokens=256, seed=1337)  # as `sample` tells where nothing else is asked
BATCH = 32  # stories told side by side


def run(config: Config, inputs: Mapping[str, Artifact], out: Out, report: Report) -> None:
    """Judge the final weights of a run, or the newest of one that is unfinished.

    Args:
        config: [eval] and `runtime.device`, `runtime.threads` are used.
        inputs: "train" (or a checkpoint in its place), "build-dataset", "tokenize".
        out: where the artifact goes.
        report: told the progress.
    Raises:
        InputError: `eval.text` cannot be read, is not UTF-8 or has no text.
    """
    tokenizer = Tokenizer.from_bytes(inputs["tokenize"].read("tokenizer.json"))
    train, held_out = (read_tokens(inputs["build-dataset"].open(name), tokenizer.vocab_size) for name in ("train.bin", "val.bin"))
    tokens = held_out if config.eval.text is None else encode_text(read_text(Path(config.eval.text)), tokenizer)
    prepare_cpu(config.runtime.threads)
    device = choose_device(config.runtime.device)

    card = inputs["train"].read_json("config.json")
    arrays = inputs["train"].read("model.safetensors")
    model = weights.read_model(inputs["train"].read("config.json"), arrays).to(device)
    report.task("evaluate", 3 if config.eval.baselines else 1, unit="models")
    result = evaluate(model, tokens, end_of_story=tokenizer.end_of_story, byte_lengths=np.asarray(tokenizer.byte_lengths))
    report.advance(1, loss=result.loss, perplexity=result.perplexity)
    losses: dict[str, float] = {}
    if config.eval.baselines:
        losses = ngram_losses(train, tokens, tokenizer.vocab_size)
        report.advance()
        losses["untrained"] = mean_loss(initialise(GPT(model.config, model.vocab_size), card["train"]["seed"]).to(device), tokens)
        report.advance()
    baselines = {name: Score.of(loss, result.tokens, result.bytes) for name, loss in losses.items()}

    judged = "validation split" if config.eval.text is None else "text"
    label = inputs["build-dataset"].read_json("meta.json").get("label")
    quality = None
    if config.eval.stories is not None:
        spans = story_spans(held_out, tokenizer.end_of_story)[: config.eval.stories]
        shape, side_by_side = (model.config, model.vocab_size), min(BATCH, len(spans))
        decoder = decoder_for(*shape, weights.read_arrays(arrays), device=config.runtime.device, max_sequences=side_by_side)
        told = tell(decoder, tokenizer, len(spans), report)
        quality = judge(told, [held_out[a : min(a + TELLING.max_new_tokens, b)].tolist() for a, b in spans], train, tokenizer)
    facts = {"judged": judged, "step": card["step"], "label": label, **asdict(result), "report_card": quality}
    out.json("eval.json", facts | {"baselines": {name: asdict(score) for name, score in baselines.items()}})
    out.json("summary.json", {"rows": summary(judged, result, baselines, label) + (story_rows(quality) if quality else [])})


def tell(decoder: Decoder, tokenizer: Tokenizer, count: int, report: Report) -> list[list[int]]:
    """Stories that the model begins by itself, as token ids, the end-of-story token included where it was reached."""
    stories: list[list[int]] = [[] for _ in range(count)]
    end = tokenizer.end_of_story
    report.task("tell", count, unit="stories")
    for first in range(0, count, BATCH):
        samples = range(first, min(first + BATCH, count))
        for token in generate(decoder, [end], TELLING, token_bytes=tokenizer.token_bytes, end_of_story=end, samples=samples):
            stories[token.sample].append(token.token_id)
            report.advance(int(token.stop_reason is not None))
    return stories


def judge(told: list[list[int]], held_out: list[list[int]], train: Tokens, tokenizer: Tokenizer) -> dict[str, Any]:
    """What eval.json says of the stories told."""
    both, end, n = [*told, *held_out], tokenizer.end_of_story, len(told)
    texts, ended = [tokenizer.decode(story) for story in both], [story[-1] == end for story in both]
    copied = longest_matches([[token for token in story if token != end] for story in both], train)
    unseen = unseen_words({word for text in texts for word in words(text)}, train, tokenizer)
    cards = [report_card(texts[half], ended[half], copied[half, 0], unseen) for half in (slice(n), slice(n, None))]
    mine, theirs = ({measure: estimate._asdict() for measure, estimate in card.items()} for card in cards)
    story = int(copied[:n, 0].argmax())
    tokens, start, source = copied[story].tolist()
    spans = story_spans(train, end)
    origin = int(spans[:, 1].searchsorted(source, side="right"))
    near = train[max(spans[origin, 0], source - TELLING.max_new_tokens) : min(spans[origin, 1], source + TELLING.max_new_tokens)]
    longest = {"tokens": tokens, "text": tokenizer.decode(told[story][start : start + tokens]), "story": story, "origin": origin}
    longest |= {"told": texts[story], "training": tokenizer.decode(near.tolist())}
    made_up = sorted(unseen.intersection(word for text in texts[:n] for word in words(text)))
    how = {"temperature": TELLING.temperature, "max_tokens": TELLING.max_new_tokens, "seed": TELLING.seed}
    return {"count": n, **how, "told": mine, "validation": theirs, "unseen": made_up, "longest": longest}


def read_text(path: Path) -> str:
    """A text file.

    Raises:
        InputError: it cannot be read or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else f"not UTF-8 at byte {error.start}"
        raise InputError(f"cannot read `{path}`: {why}", hint="`eval.text` names a text file in UTF-8") from error


def encode_text(text: str, tokenizer: Tokenizer) -> Tokens:
    """A text as the validation split has it: stories, separated by lines of `<|endoftext|>`, each with its end.

    Raises:
        InputError: there is nothing but space in it.
    """
    tokens = array("H")
    for story in filter(None, map(str.strip, SEPARATOR.split(text.replace("\r\n", "\n")))):
        tokens.extend(tokenizer.encode(story))
        tokens.append(tokenizer.end_of_story)
    if not tokens:
        raise InputError("the text to judge is empty", hint="name a file with text in it, e.g., `tinygpt eval --text story.txt`")
    return np.asarray(tokens)


def summary(judged: str, result: Evaluation, baselines: Mapping[str, Score], label: str | None) -> list[list[str]]:
    """The result table."""
    error = "" if result.standard_error is None else f" (standard error {result.standard_error:.4f}, by story)"
    rows = [
        ["judged on", f"{judged}: {result.stories:,} stories, {result.tokens:,} tokens, {result.bytes:,} bytes"],
        ["loss", f"{result.loss:.4f} nats per token{error}"],
        ["perplexity", f"{result.perplexity:,.2f}"],
        ["bits per byte", "none" if result.bits_per_byte is None else f"{result.bits_per_byte:.4f}"],
    ]
    rows += [[f"perplexity of {name}", f"{baseline.perplexity:,.2f}"] for name, baseline in baselines.items()]
    return [*rows, ["note", label]] if label else rows


def story_rows(quality: Mapping[str, Any]) -> list[list[str]]:
    """The report card in short; behind each measure, in brackets, that of the validation stories."""

    def say(measure: str) -> str:
        values = (quality[name][measure]["value"] for name in ("told", "validation"))
        mine, theirs = (f"{value:.1f} tokens" if measure == "longest_match" else f"{100 * value:.1f} %" for value in values)
        return f"{measure.replace('_', ' ')} {mine} ({theirs})"

    said = [*map(say, quality["told"])]
    rows = {"variety": said[:3], "coherence": said[3:6], "copies": said[6:]}
    count = f"{quality['count']:,} told, in brackets as many of the validation split"
    return [["stories", count], *([name, ", ".join(measures)] for name, measures in rows.items())]
