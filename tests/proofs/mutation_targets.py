"""The stores whose files are changed, the files, how each is changed, and who reads it."""

from typing import NamedTuple

from tests.proofs import mutators
from tests.proofs.mutators import Mutator

CONFIG = """
[data]
source = "builtin"
max_documents = 80
[tokenizer]
vocab_size = 300
[model]
d_model = 16
n_layers = 1
n_heads = 2
d_ff = 32
context_length = 32
dropout = 0.1
[train]
max_steps = 12
batch_size = 2
grad_accum_steps = 1
warmup_steps = "none"
eval_every = 5
snapshots = 3
sample_tokens = 8
precision = "fp32"
[eval]
num_samples = 1
[sample]
max_new_tokens = 12
[plot]
ablation_tokens = 64
[page]
snapshots = 2
[runtime]
threads = 1
checkpoint_every = 5
progress = "none"
"""
STAGES = ("corpus", "tokenize", "build-dataset", "train", "eval", "sample", "plot")
CHECKPOINT = "checkpoint"
UNFINISHED = "--set train.max_steps=14"
EXPERIMENT = "run --vary model.norm=pre,post --seeds 1..2 --until eval"
BASES = {
    "run": (("run", 0), (f"train {UNFINISHED} --stop-at-step 13", 75)),
    "experiment": ((EXPERIMENT, 0),),
}
"""The commands that make the stores of which cases are copies, and their exit codes."""


class Target(NamedTuple):
    """A file, how it is changed, and commands that read it.

    Args:
        stage: of the artifact; "*" for a random one.
        base: the store it is in; see BASES.
    """

    stage: str
    file: str
    mutate: Mutator
    commands: tuple[str, ...]
    base: str = "run"


OF_MODEL = ("sample --seed 3", "eval --force", "sample --model {folder} --seed 3")
EXPORT = "export x --to hf"
NEW_RUN = "train --from {train} --set train.max_steps=2"
ANOTHER = f"{EXPERIMENT} --min-effect 0.02"  # of the same cells
COMPARISONS = ("compare {train} {other}", "compare --by model.norm {train} {other}", ANOTHER)
TARGETS = {
    "documents": Target(
        "corpus",
        "documents.jsonl.gz",
        mutators.mutated_gzip,
        ("tokenize --force", "build-dataset --force"),
    ),
    "corpus": Target(
        "corpus",
        "meta.json",
        mutators.mutated_json,
        ("tokenize --force", "build-dataset --force", "artifacts show {id}"),
    ),
    "tokenizer": Target(
        "tokenize",
        "tokenizer.json",
        mutators.mutated_json,
        ("sample --seed 3", "eval --force", "train --force", "build-dataset --force"),
    ),
    "statistics": Target(
        "tokenize", "statistics.json", mutators.mutated_json, ("artifacts show {id}",)
    ),
    "dataset": Target(
        "build-dataset",
        "meta.json",
        mutators.mutated_json,
        ("eval --force", "train --force", "artifacts show {id}", "replay {train}"),
    ),
    "train tokens": Target(
        "build-dataset",
        "train.bin",
        mutators.mutated_tokens,
        ("train --force", "eval --force", "replay {train}"),
    ),
    "validation tokens": Target(
        "build-dataset", "val.bin", mutators.mutated_tokens, ("train --force", "eval --force")
    ),
    "config": Target(
        "train",
        "config.json",
        mutators.mutated_json,
        (*OF_MODEL, "replay {train}", "artifacts show {train}", "page --force", NEW_RUN, EXPORT),
    ),
    "metrics": Target(
        "train",
        "metrics.jsonl",
        mutators.mutated_lines,
        ("sample --seed 3", "artifacts ls", "replay {train}", "export x --to csv"),
    ),
    "weights": Target(
        "train",
        "model.safetensors",
        mutators.mutated_tensors,
        (*OF_MODEL, NEW_RUN, "replay {train}", "page --force", EXPORT),
    ),
    "best weights": Target(
        "train",
        "best/model.safetensors",
        mutators.mutated_tensors,
        ("sample --weights best --seed 3", "eval --force --weights best"),
    ),
    "probe": Target("train", "probe.safetensors", mutators.mutated_tensors, OF_MODEL),
    "optimizer": Target("train", "optimizer.safetensors", mutators.mutated_tensors, (NEW_RUN,)),
    "snapshot": Target(
        "train",
        "snapshots/step-00000003.safetensors",
        mutators.mutated_tensors,
        ("replay {train}", "page --force"),
    ),
    "evaluation": Target(
        "eval",
        "eval.json",
        mutators.mutated_json,
        ("eval --json", "run --until eval", "artifacts show {id}", "artifacts ls"),
    ),
    "samples": Target(
        "sample",
        "samples.jsonl",
        mutators.mutated_lines,
        ("run --until sample", "sample --seed 1337 --top-p 0.9 {flag}", "artifacts show {id}"),
    ),
    "summary": Target(
        "*", "summary.json", mutators.mutated_json, ("run --until sample", "artifacts show {id}")
    ),
    "manifest": Target(
        "*",
        "manifest.json",
        mutators.mutated_json,
        (
            *("artifacts ls", "artifacts ls --json", "artifacts verify", "artifacts gc"),
            *("artifacts show {id}", "artifacts lineage {id}", "run --until sample"),
            *("sample --model {folder} --seed 3", "eval --force", "sample --seed 3"),
        ),
    ),
    "state": Target(
        CHECKPOINT,
        "state.json",
        mutators.mutated_json,
        (f"train --resume {UNFINISHED}", f"sample --seed 3 {UNFINISHED}"),
    ),
    "checkpoint's config": Target(
        CHECKPOINT,
        "config.json",
        mutators.mutated_json,
        (f"train --resume {UNFINISHED}", f"sample --seed 3 {UNFINISHED}"),
    ),
    "checkpoint's metrics": Target(
        CHECKPOINT, "metrics.jsonl", mutators.mutated_lines, (f"train --resume {UNFINISHED}",)
    ),
    "checkpoint's weights": Target(
        CHECKPOINT,
        "model.safetensors",
        mutators.mutated_tensors,
        (f"train --resume {UNFINISHED}", f"eval --force {UNFINISHED}"),
    ),
    "checkpoint's optimizer": Target(
        CHECKPOINT,
        "optimizer.safetensors",
        mutators.mutated_tensors,
        (f"train --resume {UNFINISHED}",),
    ),
    "checkpoint's best weights": Target(
        CHECKPOINT,
        "best/model.safetensors",
        mutators.mutated_tensors,
        (f"train --resume {UNFINISHED}",),
    ),
    "plan": Target(
        "plan",
        "plan.json",
        mutators.mutated_json,
        (EXPERIMENT, f"{EXPERIMENT} --dry-run", "artifacts show {id}", "artifacts ls"),
        "experiment",
    ),
    "result": Target(
        "experiment",
        "result.json",
        mutators.mutated_json,
        (EXPERIMENT, f"{EXPERIMENT} --json", "artifacts show {id}", "artifacts ls"),
        "experiment",
    ),
    "documents of a cell": Target(
        "eval", "documents.jsonl", mutators.mutated_lines, COMPARISONS[1:], "experiment"
    ),
    "evaluation of a cell": Target(
        "eval", "eval.json", mutators.mutated_json, COMPARISONS, "experiment"
    ),
    "metrics of a cell": Target(
        "train", "metrics.jsonl", mutators.mutated_lines, COMPARISONS, "experiment"
    ),
    "config of a cell": Target(
        "train", "config.json", mutators.mutated_json, COMPARISONS, "experiment"
    ),
    "dataset of the cells": Target(
        "build-dataset", "meta.json", mutators.mutated_json, COMPARISONS, "experiment"
    ),
    "manifest in an experiment": Target(
        "*",
        "manifest.json",
        mutators.mutated_json,
        (
            *("artifacts ls", "artifacts show {id}", "artifacts lineage {id}", "artifacts gc"),
            *(EXPERIMENT, *COMPARISONS),
        ),
        "experiment",
    ),
}
PLOTTED = {"config", "metrics", "evaluation", "dataset", "snapshot", "weights", "summary"}
PLOT_SHARE = 0.06  # of the cases of what `plot` reads; a plot takes seconds

KEY_READERS = {
    "run": (
        *("artifacts ls", "artifacts show {id}", "run --until sample", "sample --seed 3"),
        *("eval --force", "replay {train}", "page --force", NEW_RUN, EXPORT),
    ),
    "experiment": (
        *("artifacts ls", EXPERIMENT, f"{EXPERIMENT} --dry-run", "artifacts gc"),
        *("artifacts show {id}", *COMPARISONS),
    ),
}
"""The commands that read keys of manifests."""
