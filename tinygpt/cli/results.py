"""Artifacts as commands show them, and the plain copies of the newest results in `latest/`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinygpt.records import SampleRecord
    from tinygpt.store import Artifact, Store


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


def sample_texts(sample: "Artifact") -> list[str]:
    """The texts of a sample artifact."""
    records: list[SampleRecord] = sample.read_rows("samples.jsonl")
    return [record["text"] for record in records]


def pictures(plot: "Artifact") -> list[str]:
    """The names of a plot artifact's pictures, and of the report that holds them all."""
    return [name for name in plot.names() if name.endswith((".png", ".svg", ".html"))]


def put_latest(store: "Store", plot: "Artifact", sample: "Artifact | None") -> None:
    """Replace the plain copies in `latest/`."""
    copies = {name: plot.read(name) for name in pictures(plot)}
    if sample is not None:
        text = "\n\n".join(sample_texts(sample)) + "\n"
        copies["sample.txt"] = text.encode("utf-8", "backslashreplace")
    store.put_latest(copies)
