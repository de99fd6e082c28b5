"""Stage `build-dataset`: a corpus and a tokenizer in, token shards of the two splits out."""

import time
from array import array
from contextlib import ExitStack

import numpy as np

from tinygpt.config import Config
from tinygpt.corpus import read_documents
from tinygpt.lm.dataset import document_hash, empty_split, encode_documents
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.progress import Reporter
from tinygpt.records import CorpusMeta, DatasetMeta, SplitSize
from tinygpt.store import ArtifactWriter, Inputs

SPLITS = ("train", "val")


def run(config: Config, inputs: Inputs, out: ArtifactWriter, reporter: Reporter) -> None:
    """Split the corpus and write its tokens.

    Of the corpus only 8 bytes a document are held, to count duplicates.

    Args:
        config: [dataset] is used.
        inputs: "corpus" and "tokenize".
        out: where the artifact goes.
        reporter: receives the progress.
    Raises:
        InputError: one of the splits is empty, or a document is not Unicode.
    """
    val_fraction = config.dataset.val_fraction
    tokenizer = Tokenizer.from_bytes(inputs["tokenize"].read("tokenizer.json"))
    corpus: CorpusMeta = inputs["corpus"].read_json("meta.json")
    sizes: dict[str, SplitSize] = {
        split: {"documents": 0, "tokens": 0, "bytes": 0} for split in SPLITS
    }
    hashes = array("Q")
    began = time.monotonic()
    reporter.task("encode", corpus["documents"], unit="documents")
    with ExitStack() as files:
        stream = files.enter_context(inputs["corpus"].open("documents.jsonl.gz"))
        shards = {split: files.enter_context(out.stream(f"{split}.bin")) for split in SPLITS}
        for document in encode_documents(read_documents(stream), tokenizer, val_fraction):
            shards[document.split].write(document.tokens.tobytes())
            size = sizes[document.split]
            size["documents"] += 1
            size["tokens"] += len(document.tokens)
            size["bytes"] += len(document.text.encode())
            hashes.append(document_hash(document.text))
            reporter.advance()
    for split in SPLITS:
        if not sizes[split]["documents"]:
            raise empty_split(split, len(hashes), val_fraction)
    tokens = sum(size["tokens"] for size in sizes.values())
    out.provenance(tokens_per_second=round(tokens / max(time.monotonic() - began, 1e-3)))
    meta: DatasetMeta = {
        "vocab_size": tokenizer.vocab_size,
        "end_of_text": tokenizer.end_of_text,
        "duplicates": len(hashes) - len(np.unique(hashes)),
        "train": sizes["train"],
        "val": sizes["val"],
    }
    if "label" in corpus["source"]:
        meta["label"] = corpus["source"]["label"]
    out.json("meta.json", meta)
    out.json("summary.json", {"rows": summary(meta)})


def summary(meta: DatasetMeta) -> list[list[str]]:
    """The result table."""
    duplicates = f"{meta['duplicates']:,} documents are copies of earlier ones"
    return [
        ["train", _describe(meta["train"])],
        ["val", _describe(meta["val"])],
        ["duplicates", f"{duplicates}; copies stay in one split"],
    ]


def _describe(size: SplitSize) -> str:
    documents, tokens = f"{size['documents']:,} documents", f"{size['tokens']:,} tokens"
    return f"{documents}, {tokens}, {size['bytes']:,} bytes"
