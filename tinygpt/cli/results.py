"""Artifacts as commands show them, and the plain copies of the newest results in `latest/`."""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygpt import ui
from tinygpt.errors import ArtifactError, BusyError, StorageError

if TYPE_CHECKING:
    from tinygpt.store import Artifact, Store

COUNTED = {
    "documents": "document",
    "train_tokens": "training token",
    "steps": "step",
    "samples": "sample",
    "pictures": "picture",
}
"""The facts about artifacts that are counts, and what they count."""

WORDED = {
    "vocab_size": "{:,} vocabulary entries",
    "perplexity": "perplexity {:,.2f}",
    "best_perplexity": "best {:,.2f}",
    "judged": "{}",
    "preset": "preset {}",
    "source": "{}",
    "imported": "imported from {}",
    "prompt": "prompt {!r}",
    "question": "{}",
    "model": "model {}",
    "pinned": "pinned",
}
"""The other facts, and how they are said."""

LATEST_TIMEOUT = 60.0  # seconds to wait for another process that replaces `latest/`
LONGEST_TEXT = 40  # characters of a prompt


PAGE = "page.html"
"""The file of a page artifact."""


def artifact_record(artifact: "Artifact") -> dict[str, Any]:
    """An artifact in the machine-readable form of `artifacts ls --json`."""
    return {
        "stage": artifact.stage,
        "key": artifact.key,
        "digest": artifact.digest,
        "created": artifact.created,
        "path": str(artifact.folder),
        "bytes": artifact.size,
    }


def facts(store: "Store", artifact: "Artifact") -> dict[str, Any]:
    """What people know an artifact by; what only a damaged or missing file says is left out."""
    from tinygpt import records
    from tinygpt.experiments.records import FailureTable, Plan
    from tinygpt.store.manifest import RunTable, SampleTable

    made = artifact.manifest
    found: dict[str, Any] = {}
    if artifact.is_imported:
        return {"imported": made.provenance.get("imported")}
    with suppress(ArtifactError, StorageError, KeyError):
        match artifact.stage:
            case "corpus":
                found["source"] = made.provenance["source"]
                corpus = artifact.read_json("meta.json", records.CorpusMeta)
                found["documents"] = corpus["documents"]
            case "tokenize":
                statistics = artifact.read_json("statistics.json", records.TokenizerStatistics)
                found["vocab_size"] = statistics["vocab_size"]
            case "build-dataset":
                dataset = artifact.read_json("meta.json", records.DatasetMeta)
                found["train_tokens"] = dataset["train"]["tokens"]
            case "train":
                found["steps"] = artifact.table("train", RunTable)["max_steps"]
                found["preset"] = made.provenance.get("preset")
                found["source"] = _source(store, artifact)
                numbers = artifact.read_json("summary.json", records.Summary)["numbers"]
                scores = {"perplexity": numbers["val_perplexity"]}
                if numbers["best_step"] != numbers["steps"]:
                    scores["best_perplexity"] = math.exp(numbers["best_val_loss"])
                found = scores | found
            case "eval":
                evaluation = artifact.read_json("eval.json", records.EvalRecord)
                found["perplexity"] = evaluation["perplexity"]
                found["judged"] = evaluation["judged"]
            case "sample":
                found["samples"] = artifact.table("sample", SampleTable)["num_samples"]
                found["prompt"] = artifact.table("sample", SampleTable)["prompt"]
            case "plan" | "experiment":
                found["question"] = artifact.read_json("plan.json", Plan)["question"]
            case "failure":
                found["question"] = artifact.table("failure", FailureTable)["cell"]
            case "plot":
                summary = artifact.read_json("summary.json", records.Summary)
                found["pictures"] = len(summary["pictures"])
    if "train" in made.inputs:
        found["model"] = made.inputs["train"]["key"][:12]
    return found


def _source(store: "Store", artifact: "Artifact") -> str | None:
    """The source of the text from which a model was trained, if that is still in the store."""
    with suppress(ArtifactError, StorageError):
        dataset = store.find("build-dataset", artifact.input("build-dataset")["key"])
        if dataset is not None:
            corpus = store.find("corpus", dataset.input("corpus")["key"])
            return None if corpus is None else str(corpus.manifest.provenance["source"])
    return None


def in_words(found: Mapping[str, Any]) -> str:
    """Facts as a person would say them: "perplexity 9.98, 9,000 steps, preset laptop".

    Other entries of `found` are left out.
    """
    words = []
    for name, value in found.items():
        if name in COUNTED:
            words.append(ui.count(value, COUNTED[name]))
        elif name in WORDED and value is not None and value is not False:
            shown = (
                f"{value[:LONGEST_TEXT]}…" if name == "prompt" and value[LONGEST_TEXT:] else value
            )
            words.append(WORDED[name].format(shown))
    return ", ".join(words)


def sample_texts(sample: "Artifact") -> list[str]:
    """The texts of a sample artifact."""
    from tinygpt.records import SampleRecord

    records = sample.read_rows("samples.jsonl", list[SampleRecord])
    return [record["text"] for record in records]


def pictures(plot: "Artifact") -> list[str]:
    """The names of a plot artifact's pictures, and of the report that holds them all."""
    return [name for name in plot.names() if name.endswith((".png", ".svg", ".html"))]


def put_latest(
    store: "Store", plot: "Artifact", sample: "Artifact | None", note: Callable[[str], None]
) -> Path:
    """Replace the plain copies in `latest/`.

    Args:
        note: receives a line if the store cannot be written.
    Returns:
        The folder of the report and the pictures: `latest/`, else that of the plot artifact.
    """
    copies = {name: plot.read(name) for name in pictures(plot)}
    if sample is not None:
        text = "\n\n".join(sample_texts(sample)) + "\n"
        copies["sample.txt"] = text.encode("utf-8", "backslashreplace")
    try:
        return store.put_latest(copies, timeout=LATEST_TIMEOUT, on_wait=note)
    except (BusyError, StorageError) as error:
        note(f"`{store.latest}` keeps older copies: {error.message}")
        return plot.folder
