"""Inputs of stage `train` made in a moment, for the tests of training and of its guarantees."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from tinygpt.config import Config
from tinygpt.hashing import hash_json
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.pipeline import STAGES, Outcome, execute
from tinygpt.report import SilentReport
from tinygpt.stages import train
from tinygpt.stages.train import Limits
from tinygpt.store import Artifact, Out, Store

STORIES = [
    f"{name} saw a {thing}. {name} was {mood}. The {thing} was {colour}."
    for name in ("Tom", "Lily", "Ben", "Mia")
    for thing in ("cat", "dog", "ball", "boat", "tree")
    for mood in ("happy", "sad")
    for colour in ("red", "blue", "big")
]


def publish(store: Store, stage: str, files: Mapping[str, bytes]) -> Artifact:
    """An artifact with these files, as if its stage had made them."""

    def write(config: Config, inputs: Mapping[str, Artifact], out: Out, report: object) -> None:
        for name, data in files.items():
            out.bytes(name, data)

    recipe = STAGES[stage]
    inputs = {name: publish(store, name, {"seen": name.encode()}) for name in recipe.inputs if not store.list(name)}
    inputs |= {name: store.list(name)[0] for name in recipe.inputs}
    outside = {name: hash_json("test", name) for name in recipe.outside}
    return execute(recipe, Config(), inputs, store=store, outside=outside, runner=write, report=SilentReport()).artifact


def prepare(root: Path, config: Config) -> tuple[Store, dict[str, Artifact]]:
    """A store with a tokenizer and token shards."""
    store = Store(root)
    tokenizer = Tokenizer.train(STORIES, config.tokenizer)
    ids = [i for story in STORIES for i in (*tokenizer.encode(story), tokenizer.end_of_story)]
    split = len(ids) * 3 // 4
    shards = {"train.bin": np.array(ids[:split], "<u2").tobytes(), "val.bin": np.array(ids[split:], "<u2").tobytes()}
    tokenize = publish(store, "tokenize", {"tokenizer.json": tokenizer.to_bytes()})
    dataset = publish(store, "build-dataset", shards | {"meta.json": json.dumps({"vocab_size": tokenizer.vocab_size}).encode()})
    return store, {"build-dataset": dataset, "tokenize": tokenize}


def run_training(
    store: Store, inputs: Mapping[str, Artifact], config: Config, limits: Limits | None = None, report: SilentReport | None = None
) -> Outcome:
    """Stage `train` through the pipeline, as the command does it."""
    runner = partial(train.run, limits=limits or Limits())
    return execute(STAGES["train"], config, inputs, store=store, outside={}, runner=runner, report=report or SilentReport())
