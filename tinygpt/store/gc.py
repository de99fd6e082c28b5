"""Making room: what may be removed, and removing it while no process makes artifacts."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tinygpt.store import files
from tinygpt.store.artifact import Artifact
from tinygpt.store.checkpoints import RUN_FOLDER
from tinygpt.store.files import entries

if TYPE_CHECKING:
    from tinygpt.store.store import Store

PRECIOUS = "train"  # hours of work: models go only where somebody removes them


@dataclass(frozen=True)
class Collected:
    """What was removed.

    Args:
        artifacts: the artifacts that nothing needed.
        others: things in the trash and leftovers.
        bytes: of all of them.
    """

    artifacts: tuple[Artifact, ...]
    others: int
    bytes: int


def garbage(store: "Store") -> list[Artifact]:
    """The artifacts that nothing needs, newest first.

    Needed are: what is pinned, every model, the newest artifact of each stage, what unfinished runs read, and all that these were
    made from.

    Raises:
        ArtifactError, StorageError: one artifact cannot be read, so nobody knows what it needs.
    """
    for folder in store.folders():
        Artifact.load(folder, store.root)
    everything = store.list()
    newest = {artifact.stage: artifact for artifact in reversed(everything)}
    needed = [a for a in everything if a.stage == PRECIOUS or newest[a.stage] is a or store.is_pinned(a)]
    read = {(record["stage"], record["digest"]) for run in store.unfinished() for record in run.recipe.inputs.values()}
    needed += [a for a in everything if (a.stage, a.digest) in read]
    kept: set[Path] = set()
    while needed:
        artifact = needed.pop()
        if artifact.folder not in kept:
            kept.add(artifact.folder)
            sources = {(record["stage"], record["digest"]) for record in artifact.manifest.inputs.values()}
            needed += [a for a in everything if (a.stage, a.digest) in sources]
    return [artifact for artifact in everything if artifact.folder not in kept]


def collect(store: "Store") -> Collected:
    """Remove the garbage, the trash and what dead processes left; call it with the store to yourself."""
    artifacts = garbage(store)
    for artifact in artifacts:  # One rename takes it away; a half-removed artifact is never seen.
        files.set_aside(artifact.folder, store.trash, f"{artifact.stage}-{artifact.id}")
    others = entries(store.trash)
    for folder in entries(store.partial):
        match = RUN_FOLDER.fullmatch(folder.name)
        if not match or (store.root / match[1] / match[2]).exists():  # a run whose result is published is over
            others.append(folder)
        else:
            others += [entry for entry in entries(folder) if entry.name.startswith(".")]
    size = sum(_size(path) for path in others)
    for path in others:
        files.remove(path)
    return Collected(tuple(artifacts), len(others) - len(artifacts), size)


def _size(path: Path) -> int:
    inner = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(entry.lstat().st_size for entry in inner if not entry.is_dir())
