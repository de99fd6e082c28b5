"""Stage `build-dataset`: a corpus and a tokenizer in, token shards of the splits out."""

import time
from contextlib import ExitStack

from tinygpt.config import Config
from tinygpt.corpus import read_documents
from tinygpt.lm.dataset import encode_parts
from tinygpt.lm.holdout import plan_holdout
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.progress import Reporter
from tinygpt.records import CorpusMeta, DatasetMeta, SplitSize
from tinygpt.store import ArtifactWriter, Inputs


def run(config: Config, inputs: Inputs, out: ArtifactWriter, reporter: Reporter) -> None:
    """Divide the corpus into splits, as `tokenize` did, and write their tokens.

    Args:
        config: [dataset] is used.
        inputs: "corpus" and "tokenize".
        out: where the artifact goes.
        reporter: receives the progress.
    Raises:
        InputError: there is too little text to hold out a part, or a document is not Unicode.
    """
    tokenizer = Tokenizer.from_bytes(inputs["tokenize"].read("tokenizer.json"))
    corpus = inputs["corpus"].read_json("meta.json", CorpusMeta)
    reporter.task("choose what is held out", corpus["documents"], unit="documents")
    with inputs["corpus"].open("documents.jsonl.gz") as stream:
        documents = read_documents(stream, reporter)
        holdout = plan_holdout(documents, config.dataset, corpus.get("unit"))
    sizes: dict[str, SplitSize] = {
        split: {"documents": 0, "tokens": 0, "bytes": 0} for split in holdout.splits
    }
    began = time.monotonic()
    reporter.task("encode", corpus["documents"], unit="documents")
    with ExitStack() as files:
        stream = files.enter_context(inputs["corpus"].open("documents.jsonl.gz"))
        shards = {split: files.enter_context(out.stream(f"{split}.bin")) for split in sizes}
        parts = holdout.parts(read_documents(stream, reporter))
        for part in encode_parts(
            parts, tokenizer, lambda done: reporter.advance(0, million_tokens=done / 1e6)
        ):
            shards[part.split].write(part.tokens.tobytes())
            size = sizes[part.split]
            size["documents"] += 1
            size["tokens"] += len(part.tokens)
            size["bytes"] += len(part.text.encode())
    tokens = sum(size["tokens"] for size in sizes.values())
    out.provenance(tokens_per_second=round(tokens / max(time.monotonic() - began, 1e-3)))
    meta: DatasetMeta = {
        "vocab_size": tokenizer.vocab_size,
        "end_of_text": tokenizer.end_of_text,
        "holdout": holdout.rule,
        "holdout_reason": holdout.reason,
        "duplicates": holdout.duplicates,
        **sizes,  # type: ignore[typeddict-item]
    }
    if "unit" in corpus:
        meta["unit"] = corpus["unit"]
    if "label" in corpus["source"]:
        meta["label"] = corpus["source"]["label"]
    out.json("meta.json", meta)
    rows = [[split, _describe(size)] for split, size in sizes.items()]
    out.json("summary.json", {"rows": [*rows, ["held out", str(holdout)], _duplicates(meta)]})


def _describe(size: SplitSize) -> str:
    documents = f"{size['documents']:,} document{'s' * (size['documents'] != 1)}"
    return f"{documents}, {size['tokens']:,} tokens, {size['bytes']:,} bytes"


def _duplicates(meta: DatasetMeta) -> list[str]:
    """The row on documents that are there more than once."""
    count = meta["duplicates"]
    if not count:
        return ["duplicates", "none"]
    text = "1 document is a copy of an earlier one"
    if count != 1:
        text = f"{count:,} documents are copies of earlier ones"
    if meta["holdout"] == "hash":
        text += "; copies stay in one split"
    else:
        text += ", perhaps in another split"
    return ["duplicates", text]
