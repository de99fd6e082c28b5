"""Stage `build-dataset`: a corpus and a tokenizer in, token shards of the two splits out."""

import time
from array import array
from collections import Counter
from contextlib import ExitStack

import numpy as np

from tinygpt.config import Config
from tinygpt.corpus import read_stories
from tinygpt.lm.dataset import empty_split, encode_stories, story_hash
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.report import Report
from tinygpt.store import Inputs, Out

SPLITS = ("train", "val")


def run(config: Config, inputs: Inputs, out: Out, report: Report) -> None:
    """Split the corpus and write its tokens; of the corpus only 8 bytes a story are held, to count duplicates.

    Args:
        config: [dataset] is used.
        inputs: "corpus" and "tokenize".
        out: where the artifact goes.
        report: told the progress.
    Raises:
        InputError: one of the splits is empty, or a story is not Unicode.
    """
    tokenizer = Tokenizer.from_bytes(inputs["tokenize"].read("tokenizer.json"))
    source = inputs["corpus"].read_json("meta.json")
    sizes = {split: Counter[str]() for split in SPLITS}
    hashes = array("Q")
    began = time.monotonic()
    report.task("encode", source["stories"], unit="stories")
    with ExitStack() as files:
        stream = files.enter_context(inputs["corpus"].open("stories.jsonl.gz"))
        shards = {split: files.enter_context(out.stream(f"{split}.bin")) for split in SPLITS}
        for story in encode_stories(read_stories(stream), tokenizer, config.dataset.val_fraction):
            shards[story.split].write(story.tokens.tobytes())
            sizes[story.split].update(stories=1, tokens=len(story.tokens), bytes=len(story.text.encode()))
            hashes.append(story_hash(story.text))
            report.advance()
    for name in SPLITS:
        if not sizes[name]["stories"]:
            raise empty_split(name, len(hashes), config.dataset.val_fraction)
    tokens = sizes["train"]["tokens"] + sizes["val"]["tokens"]
    out.provenance(tokens_per_second=round(tokens / max(time.monotonic() - began, 1e-3)))
    duplicates = len(hashes) - len(np.unique(hashes))
    label = {name: value for name, value in source["source"].items() if name == "label"}
    facts = {"vocab_size": tokenizer.vocab_size, "end_of_story": tokenizer.end_of_story, "duplicates": duplicates}
    out.json("meta.json", facts | sizes | label)
    rows = [[name, "{stories:,} stories, {tokens:,} tokens, {bytes:,} bytes".format(**sizes[name])] for name in SPLITS]
    rows.append(["duplicates", f"{duplicates:,} stories equal an earlier one; equal stories are in one split"])
    out.json("summary.json", {"rows": rows})
