"""Stage `tokenize`: a corpus in, the tokenizer learned from its train split out."""

from collections.abc import Iterable, Iterator

import numpy as np

from tinygpt.config import Config, TokenizerConfig
from tinygpt.corpus import read_documents
from tinygpt.lm.dataset import empty_split, encode_documents, is_validation
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.progress import Reporter
from tinygpt.records import CorpusMeta, TokenizerStatistics, TrainSplitStatistics
from tinygpt.store import Artifact, ArtifactWriter, Inputs

LONGEST = 20  # entries named in statistics.json


def run(config: Config, inputs: Inputs, out: ArtifactWriter, reporter: Reporter) -> None:
    """Learn the tokenizer, then encode the train split once to measure how well it compresses.

    Args:
        config: [tokenizer] and `dataset.val_fraction` are used.
        inputs: "corpus".
        out: where the artifact goes.
        reporter: receives the progress.
    Raises:
        InputError: no document is left to train on, or one is not Unicode.
    """
    corpus, val_fraction = inputs["corpus"], config.dataset.val_fraction
    meta: CorpusMeta = corpus.read_json("meta.json")
    reporter.task("learn the tokenizer", meta["documents"], unit="documents")
    with corpus.open("documents.jsonl.gz") as stream:
        texts = train_split(read_documents(stream), val_fraction, reporter)
        tokenizer = Tokenizer.train(texts, config.tokenizer)
    reporter.task("measure the tokenizer", meta["documents"], unit="documents")
    statistics = measure(tokenizer, corpus, config, reporter)
    if not statistics["train"]["documents"]:
        raise empty_split("train", meta["documents"], val_fraction)
    out.bytes("tokenizer.json", tokenizer.to_bytes())
    out.json("statistics.json", statistics)
    out.json("summary.json", {"rows": summary(statistics, config.tokenizer)})


def train_split(texts: Iterable[str], val_fraction: float, reporter: Reporter) -> Iterator[str]:
    """The documents that are not held out."""
    for text in texts:
        reporter.advance()
        if not is_validation(text, val_fraction):
            yield text


def measure(
    tokenizer: Tokenizer, corpus: Artifact, config: Config, reporter: Reporter
) -> TokenizerStatistics:
    """How well the tokenizer compresses the train split of a corpus."""
    uses = np.zeros(tokenizer.vocab_size, np.int64)  # of each entry, (V,)
    train: TrainSplitStatistics = {"documents": 0, "words": 0, "bytes": 0, "tokens": 0}
    with corpus.open("documents.jsonl.gz") as stream:
        texts = read_documents(stream)
        for document in encode_documents(texts, tokenizer, config.dataset.val_fraction):
            reporter.advance()
            if document.split == "train":
                np.add.at(uses, document.tokens, 1)
                train["documents"] += 1
                train["words"] += len(document.text.split())
                train["bytes"] += len(document.text.encode())
    train["tokens"] = int(uses.sum() - uses[tokenizer.end_of_text])
    lengths = tokenizer.byte_lengths
    by_length = sorted(range(tokenizer.vocab_size), key=lambda entry: -lengths[entry])
    return {
        "vocab_size": tokenizer.vocab_size,
        "vocab_size_asked": config.tokenizer.vocab_size,
        "unused_entries": int((uses == 0).sum()),
        "longest_entries": [tokenizer.decode([entry]) for entry in by_length[:LONGEST]],
        "bytes_per_token": round(train["bytes"] / max(train["tokens"], 1), 4),
        "tokens_per_word": round(train["tokens"] / max(train["words"], 1), 4),
        "train": train,
    }


def summary(statistics: TokenizerStatistics, config: TokenizerConfig) -> list[list[str]]:
    """The result table."""
    entries = f"{statistics['vocab_size']:,}"
    if statistics["vocab_size"] < config.vocab_size:
        why = f"no other pair occurs {config.min_frequency} times or more"
        entries += f" of {config.vocab_size:,} requested; {why}"
    return [
        ["entries", entries],
        ["bytes per token", f"{statistics['bytes_per_token']:.2f}"],
        ["tokens per word", f"{statistics['tokens_per_word']:.2f}"],
        ["unused entries", f"{statistics['unused_entries']:,}"],
        ["longest entries", " ".join(map(repr, statistics["longest_entries"][:5]))],
    ]
