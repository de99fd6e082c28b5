"""A corpus and what stands before `eval`, made in a moment."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

from tests.stages.training import publish
from tinygpt.config import Config
from tinygpt.pipeline import STAGES, Runner, execute
from tinygpt.report import Report, SilentReport
from tinygpt.stages import build_dataset, tokenize
from tinygpt.store import Artifact, Store

STORIES = [
    f"{name} saw a {thing}. {name} was {mood}. The {thing} was {colour}."
    for name in ("Tom", "Lily", "Ben", "Mia", "Zoë")
    for thing in ("cat", "dog", "ball", "boat", "tree")
    for mood in ("happy", "sad")
    for colour in ("red", "blue", "big")
]


class Bars(SilentReport):
    """Remembers how far each bar came."""

    def __init__(self) -> None:
        self.bars: list[list[object]] = []

    def task(self, title: str, total: int | None = None, *, unit: str = "", done: int = 0) -> None:
        self.bars.append([title, total, done])

    def advance(self, amount: int = 1, **figures: float) -> None:
        self.bars[-1][2] += amount  # type: ignore[operator]


def corpus(store: Store, stories: Sequence[str] = STORIES, label: str | None = None) -> Artifact:
    """A corpus artifact with these stories."""
    lines = "".join(json.dumps(story) + "\n" for story in stories)
    source = {"kind": "files"} | ({"label": label} if label else {})
    meta = {"stories": len(stories), "bytes": sum(len(story.encode("utf-8", "replace")) for story in stories), "source": source}
    return publish(
        store, "corpus", {"stories.jsonl.gz": gzip.compress(lines.encode(), 3, mtime=0), "meta.json": json.dumps(meta).encode()}
    )


def run_stage(
    store: Store, stage: str, config: Config, inputs: dict[str, Artifact], runner: Runner, report: Report | None = None
) -> Artifact:
    """A stage through the pipeline."""
    outside = {"eval.text": str(config.eval.text)}
    return execute(
        STAGES[stage], config, inputs, store=store, outside=outside, runner=runner, report=report or SilentReport()
    ).artifact


def tokenized(
    root: Path, config: Config, stories: Sequence[str] = STORIES, label: str | None = None
) -> tuple[Store, dict[str, Artifact]]:
    """A store with corpus, tokenizer and dataset, and the three by stage name."""
    store = Store(root)
    inputs = {"corpus": corpus(store, stories, label)}
    inputs["tokenize"] = run_stage(store, "tokenize", config, dict(inputs), tokenize.run)
    inputs["build-dataset"] = run_stage(store, "build-dataset", config, dict(inputs), build_dataset.run)
    return store, inputs
