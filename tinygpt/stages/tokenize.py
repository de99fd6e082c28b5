"""Stage `tokenize`: a corpus in, the tokenizer learned from its train split out."""

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from tinygpt.config import Config, TokenizerConfig
from tinygpt.corpus import read_stories
from tinygpt.lm.dataset import empty_split, encode_stories, is_validation
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.report import Report
from tinygpt.store import Inputs, Out

LONGEST = 20  # entries named in report.json


def run(config: Config, inputs: Inputs, out: Out, report: Report) -> None:
    """Learn the tokenizer, then encode the train split with it once to say what it is worth.

    Args:
        config: [tokenizer] and `dataset.val_fraction` are used.
        inputs: "corpus".
        out: where the artifact goes.
        report: told the progress.
    Raises:
        InputError: no story is left to train on, or one is not Unicode.
    """
    corpus, val_fraction = inputs["corpus"], config.dataset.val_fraction
    stories = corpus.read_json("meta.json")["stories"]
    report.task("learn the tokenizer", stories, unit="stories")
    with corpus.open("stories.jsonl.gz") as stream:
        tokenizer = Tokenizer.train(train_split(read_stories(stream), val_fraction, report), config.tokenizer)
    report.task("measure it", stories, unit="stories")
    counts, seen = np.zeros(tokenizer.vocab_size, np.int64), Counter[str]()
    with corpus.open("stories.jsonl.gz") as stream:
        for story in encode_stories(read_stories(stream), tokenizer, val_fraction):
            if story.split == "train":
                np.add.at(counts, story.tokens, 1)
                seen.update(stories=1, words=len(story.text.split()), bytes=len(story.text.encode()))
            report.advance()
    if not seen:
        raise empty_split("train", stories, val_fraction)
    out.bytes("tokenizer.json", tokenizer.to_bytes())
    describe(tokenizer, counts, seen, config.tokenizer, out)


def train_split(texts: Iterable[str], val_fraction: float, report: Report) -> Iterator[str]:
    """The stories that are not held out."""
    for text in texts:
        report.advance()
        if not is_validation(text, val_fraction):
            yield text


def describe(tokenizer: Tokenizer, counts: NDArray[np.int64], seen: Counter[str], config: TokenizerConfig, out: Out) -> None:
    """Write what the tokenizer is worth on the train split, where token i occurs counts[i] times."""
    V, tokens = tokenizer.vocab_size, int(counts[tokenizer.end_of_story + 1 :].sum())
    rates = {"bytes_per_token": seen["bytes"] / tokens, "tokens_per_word": tokens / seen["words"]}
    unused = int((counts == 0).sum())
    by_length = sorted(range(V), key=tokenizer.byte_lengths.__getitem__, reverse=True)  # stable: of equal ones the lowest first
    longest = [tokenizer.decode([token_id]) for token_id in by_length[:LONGEST]]
    facts = {"vocab_size": V, "vocab_size_asked": config.vocab_size, "unused_entries": unused, "longest_entries": longest}
    facts |= {name: round(rate, 4) for name, rate in rates.items()}
    out.json("report.json", facts | {"train": {**seen, "tokens": tokens}})
    short = f" of {config.vocab_size:,} asked for; no other pair occurs {config.min_frequency} times"
    rows = [["entries", f"{V:,}{short if V < config.vocab_size else ''}"]]
    rows += [[name.replace("_", " "), f"{rate:.2f}"] for name, rate in rates.items()]
    rows += [["unused entries", f"{unused:,}"], ["longest entries", " ".join(map(repr, longest[:5]))]]
    out.json("summary.json", {"rows": rows})
