"""Stage `tokenize`: a corpus in, the tokenizer learned from its train split out."""

import re
from collections.abc import Iterable, Iterator

import numpy as np

from tinygpt.config import Config, TokenizerConfig
from tinygpt.corpus import read_documents
from tinygpt.lm.dataset import encode_parts
from tinygpt.lm.holdout import Holdout, plan_holdout
from tinygpt.lm.tokenizer import AUTO_VOCAB_SIZE, Tokenizer, auto_vocab_size
from tinygpt.progress import Reporter
from tinygpt.records import CorpusMeta, TokenizerStatistics, TrainSplitStatistics
from tinygpt.store import Artifact, ArtifactWriter, Inputs

LONG_WORD = 4096  # characters, from which on a note says that it takes time
ONE_WORD = re.compile(rf"[^\W\d_]{{{LONG_WORD},}}|\d{{{LONG_WORD},}}|[^\w\s]{{{LONG_WORD},}}")
LONGEST = 20  # entries named in statistics.json


def run(config: Config, inputs: Inputs, out: ArtifactWriter, reporter: Reporter) -> None:
    """Learn the tokenizer, then encode the train split once to measure how well it compresses.

    Args:
        config: [tokenizer] and [dataset] are used.
        inputs: "corpus", and "from" if `tokenizer.from` is set, whose tokenizer is not learned.
        out: where the artifact goes.
        reporter: receives the progress.
    Raises:
        InputError: there is too little text to hold out a part, or a document is not Unicode.
    """
    corpus = inputs["corpus"]
    meta = corpus.read_json("meta.json", CorpusMeta)
    reporter.task("choose what is held out", meta["documents"], unit="documents")
    with corpus.open("documents.jsonl.gz") as stream:
        documents = note_long_words(read_documents(stream, reporter), reporter)
        holdout = plan_holdout(documents, config.dataset, meta.get("unit"))
    vocab_size = config.tokenizer.vocab_size
    asked = auto_vocab_size(holdout.train_bytes) if vocab_size == "auto" else vocab_size
    if "from" in inputs:
        tokenizer = Tokenizer.from_bytes(inputs["from"].read("tokenizer.json"))
        asked = tokenizer.vocab_size
    else:
        reporter.task("learn the tokenizer", meta["documents"], unit="documents")
        with corpus.open("documents.jsonl.gz") as stream:
            parts = holdout.parts(read_documents(stream, reporter))
            texts = (part.text for part in parts if part.split == "train")
            settings = config.tokenizer.model_copy(update={"vocab_size": asked})
            tokenizer = Tokenizer.train(texts, settings)
    reporter.task("measure the tokenizer", meta["documents"], unit="documents")
    statistics = measure(tokenizer, asked, corpus, holdout, reporter)
    out.bytes("tokenizer.json", tokenizer.to_bytes())
    out.json("statistics.json", statistics)
    out.json("summary.json", {"rows": summary(statistics, config.tokenizer, holdout)})


def note_long_words(documents: Iterable[str], reporter: Reporter) -> Iterator[str]:
    """The same documents; a note on the first in which nothing separates words for long."""
    noted = False
    for number, document in enumerate(documents, 1):
        is_suspect = not noted and any(len(word) > LONG_WORD for word in document.split())
        if is_suspect and (word := ONE_WORD.search(document)):
            noted = True
            size = f"{len(word[0]):,} characters, beginning with {word[0][:20]!r}"
            reporter.note(
                f"document {number:,} has a word of {size}; each MB of such text takes seconds"
            )
        yield document


def measure(
    tokenizer: Tokenizer, asked: int, corpus: Artifact, holdout: Holdout, reporter: Reporter
) -> TokenizerStatistics:
    """How well the tokenizer compresses the train split of a corpus.

    Args:
        tokenizer: to measure.
        asked: how many entries it was to have.
        corpus: the artifact.
        holdout: planned for it.
        reporter: receives the progress.
    """
    uses = np.zeros(tokenizer.vocab_size, np.int64)  # of each entry, (V,)
    train: TrainSplitStatistics = {"documents": 0, "words": 0, "bytes": 0, "tokens": 0}
    with corpus.open("documents.jsonl.gz") as stream:
        parts = holdout.parts(read_documents(stream, reporter))
        for part in encode_parts(
            parts, tokenizer, lambda done: reporter.advance(0, million_tokens=done / 1e6)
        ):
            if part.split == "train":
                np.add.at(uses, part.tokens, 1)
                train["documents"] += 1
                train["words"] += len(part.text.split())
                train["bytes"] += len(part.text.encode())
    train["tokens"] = int(uses.sum() - uses[tokenizer.end_of_text])
    lengths = tokenizer.byte_lengths
    by_length = sorted(range(tokenizer.vocab_size), key=lambda entry: -lengths[entry])
    return {
        "vocab_size": tokenizer.vocab_size,
        "vocab_size_asked": asked,
        "unused_entries": int((uses == 0).sum()),
        "unused_bytes": int((uses[np.asarray(lengths) == 1] == 0).sum()),
        "longest_entries": [tokenizer.decode([entry]) for entry in by_length[:LONGEST]],
        "bytes_per_token": round(train["bytes"] / max(train["tokens"], 1), 4),
        "tokens_per_word": round(train["tokens"] / max(train["words"], 1), 4),
        "train": train,
    }


def summary(
    statistics: TokenizerStatistics, config: TokenizerConfig, holdout: Holdout
) -> list[list[str]]:
    """The result table."""
    size, asked = statistics["vocab_size"], statistics["vocab_size_asked"]
    unused = f"{statistics['unused_entries']:,}, {statistics['unused_bytes']} of them single bytes"
    entries = f"{size:,}"
    if size < asked:
        entries += f" of {asked:,}"
    if config.from_ is not None:
        entries += " (of `tokenizer.from`, not learned here)"
    elif config.vocab_size == "auto":
        entries += f" (auto: {AUTO_VOCAB_SIZE})"
    if size < asked:
        entries += f"; no other pair occurs {config.min_frequency} times or more"
    return [
        ["entries", entries],
        ["bytes per token", f"{statistics['bytes_per_token']:.2f}"],
        ["tokens per word", f"{statistics['tokens_per_word']:.2f}"],
        ["unused entries", unused],
        ["longest entries", " ".join(map(repr, statistics["longest_entries"][:5]))],
        ["held out", str(holdout)],
    ]
