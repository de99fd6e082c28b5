"""What many tests need: example stories, a reporter that remembers, and stages run in a moment."""

import gzip
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from tinygpt.config import Config
from tinygpt.hashing import Key, hash_bytes, hash_json
from tinygpt.pipeline import STAGES, Outcome, Runner, execute
from tinygpt.progress import NO_LIMITS, Limits, Reporter, SilentReporter
from tinygpt.stages import build_dataset, tokenize, train
from tinygpt.store import Artifact, Store
from tinygpt.store.manifest import MANIFEST

STORIES = [
    f"{name} saw a {thing}. {name} was {mood}. The {thing} was {color}."
    for name in ("Tom", "Lily", "Ben", "Mia", "Zoë")
    for thing in ("cat", "dog", "ball", "boat", "tree")
    for mood in ("happy", "sad")
    for color in ("red", "blue", "big")
]

WORSENING = {"learning_rate": 0.3, "schedule": "constant", "warmup_steps": None, "max_steps": 12}
"""Keys of [train] with which the last weights of `tiny_config` are worse than the best."""

Inputs = dict[str, Artifact]


class Notes(SilentReporter):
    """A Reporter that remembers what it receives.

    Attributes:
        notes: every line.
        pieces: every piece of output.
        bars: title, total and units done of every progress bar.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.pieces: list[str] = []
        self.bars: list[tuple[str, int | None, int]] = []

    def task(self, title: str, total: int | None = None, *, unit: str = "", done: int = 0) -> None:
        self.bars.append((title, total, done))

    def advance(self, amount: int = 1, **figures: float) -> None:
        title, total, done = self.bars[-1]
        self.bars[-1] = (title, total, done + amount)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def output(self, text: str) -> None:
        self.pieces.append(text)


def with_settings(config: Config, **tables: Mapping[str, object]) -> Config:
    """The same configuration but for some keys, e.g., with_settings(c, train={"max_steps": 3})."""
    changed = {
        name: getattr(config, name).model_copy(update=dict(values))
        for name, values in tables.items()
    }
    return config.model_copy(update=changed)


def publish(store: Store, stage: str, files: Mapping[str, bytes], name: str = "") -> Artifact:
    """An artifact with these files, as if its stage had made them.

    Args:
        name: tells artifacts of one stage apart.
    """
    out = store.begin(stage, Key(hash_json("test", stage, name)))
    for file, data in files.items():
        out.bytes(file, data)
    return store.publish(out)


def seal(folder: Path, **changes: object) -> None:
    """Give an artifact's folder a manifest that fits its files.

    Args:
        changes: of the manifest.
    """
    manifest = Artifact.load(folder).manifest
    files = {}
    for name in manifest.files:
        data = (folder / name).read_bytes()
        files[name] = {"sha256": hash_bytes(data), "bytes": len(data)}
    sealed = manifest.model_copy(update={"files": files, **changes})
    (folder / MANIFEST).chmod(0o644)
    (folder / MANIFEST).write_bytes(sealed.to_bytes())


def publish_corpus(
    store: Store,
    stories: Sequence[str] = STORIES,
    label: str | None = None,
    unit: str | None = None,
) -> Artifact:
    """A corpus artifact with these stories; for `label` and `unit` see records.CorpusMeta."""
    lines = "".join(json.dumps(story) + "\n" for story in stories)
    meta = {
        "documents": len(stories),
        "bytes": sum(len(story.encode("utf-8", "replace")) for story in stories),
        "empty": 0,
        "source": {"kind": "files", "files": 1},
    }
    if label:
        meta["source"]["label"] = label
    if unit:
        meta["unit"] = unit
    files = {
        "documents.jsonl.gz": gzip.compress(lines.encode(), 3, mtime=0),
        "meta.json": json.dumps(meta).encode(),
    }
    return publish(store, "corpus", files)


def run_stage(
    store: Store,
    stage: str,
    config: Config,
    inputs: Mapping[str, Artifact],
    runner: Runner,
    reporter: Reporter | None = None,
) -> Outcome:
    """A stage through the pipeline.

    Args:
        inputs: artifacts by stage name; those that the stage does not read are left out.
    """
    return execute(
        STAGES[stage],
        config,
        {name: inputs[name] for name in STAGES[stage].inputs if name in inputs},
        store=store,
        external_digests={"eval.text": str(config.eval.text)},
        runner=runner,
        reporter=reporter or SilentReporter(),
    )


def prepare(
    root: Path,
    config: Config,
    stories: Sequence[str] = STORIES,
    label: str | None = None,
    unit: str | None = None,
) -> tuple[Store, Inputs]:
    """A store with corpus, tokenizer and dataset, and the three by stage name."""
    store = Store(root)
    made = {"corpus": publish_corpus(store, stories, label, unit)}
    made["tokenize"] = run_stage(store, "tokenize", config, made, tokenize.run).artifact
    made["build-dataset"] = run_stage(
        store, "build-dataset", config, made, build_dataset.run
    ).artifact
    return store, made


def run_training(
    store: Store,
    inputs: Mapping[str, Artifact],
    config: Config,
    limits: Limits = NO_LIMITS,
    reporter: Reporter | None = None,
) -> Outcome:
    """Stage `train` through the pipeline."""
    runner = partial(train.run, limits=limits)
    return run_stage(store, "train", config, inputs, runner, reporter)
