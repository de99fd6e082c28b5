"""Stage `eval`: a model in, how well it predicts the validation split or a text out, beside what simpler models achieve."""

import re
from array import array
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from tinygpt.config import Config
from tinygpt.errors import InputError
from tinygpt.lm import weights
from tinygpt.lm.dataset import Tokens, read_tokens
from tinygpt.lm.evaluation import Evaluation, Score, evaluate, mean_loss
from tinygpt.lm.model import GPT, initialise
from tinygpt.lm.ngrams import ngram_losses
from tinygpt.lm.precision import choose_device
from tinygpt.lm.tokenizer import END_OF_STORY, Tokenizer
from tinygpt.report import Report
from tinygpt.store import Artifact, Out

SEPARATOR = re.compile(rf"^\s*{re.escape(END_OF_STORY)}\s*$", re.MULTILINE)  # as in text files of stories


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
    train, tokens = (read_tokens(inputs["build-dataset"].open(name), tokenizer.vocab_size) for name in ("train.bin", "val.bin"))
    if config.eval.text is not None:
        tokens = encode_text(read_text(Path(config.eval.text)), tokenizer)
    device = choose_device(config.runtime.device)
    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)

    card = inputs["train"].read_json("config.json")
    model = weights.read_model(inputs["train"].read("config.json"), inputs["train"].read("model.safetensors")).to(device)
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
    facts = {"judged": judged, "step": card["step"], "label": label, **asdict(result)}
    out.json("eval.json", facts | {"baselines": {name: asdict(score) for name, score in baselines.items()}})
    out.json("summary.json", {"rows": summary(judged, result, baselines, label)})


def read_text(path: Path) -> str:
    """A text file.

    Raises:
        InputError: it cannot be read or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read `{path}`: {error.strerror}", hint="`eval.text` names a text file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"`{path}` is not UTF-8 at byte {error.start}", hint="save it as UTF-8") from error


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
