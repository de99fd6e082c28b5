"""Looking after a store: finding damage, putting it aside, and making room.

Every file of every artifact and checkpoint is hashed, and the search goes on after each fault.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tinygpt.errors import StorageError
from tinygpt.store import files, locks
from tinygpt.store.artifact import ARTIFACT_ID, CHECKPOINT, ID_LENGTH, MANIFEST, Artifact, DamageError
from tinygpt.store.files import entries
from tinygpt.store.locks import Tell
from tinygpt.store.out import RUN_FOLDER
from tinygpt.store.store import Store, say_nothing

PRECIOUS = "train"  # hours of work: models go only where somebody removes them


class Fault(NamedTuple):
    """One thing that is not as it was written.

    Args:
        kind: missing, changed, truncated, grown, misnamed, symlink, not a file, unreadable, read error, leftover, stray (or
            another spelling of a name) or dangling.
        path: the file or folder at fault.
        culprit: what a repair moves to the trash, so that the next run makes it anew; None if nothing can be.
        text: one line for people.
    """

    kind: str
    path: Path
    culprit: Path | None
    text: str


def verify(store: Store) -> list[Fault]:
    """Everything that is wrong in a store; nothing is changed. Work in progress of living processes is no fault."""
    faults: list[Fault] = []
    for above in store.stages():
        for folder in _listed(above, faults):
            if ARTIFACT_ID.fullmatch(folder.name) or (folder / MANIFEST).exists():  # else it is not ours
                faults += _examined(store.root, folder)
    for folder in _listed(store.partial, faults):
        _unfinished(store, folder, faults)
    for pin in _listed(store.pins, faults):
        if not (store.root / pin.name[:-13] / pin.name[-12:]).exists():
            faults.append(Fault("dangling", pin, pin, f"`{pin.name}` is pinned but not in the store"))
    return faults


def repair(store: Store, *, timeout: float | None = None, waiting: Tell = say_nothing) -> list[Fault]:
    """Move what is wrong to the trash, so that the next run makes it anew; returns what was wrong."""
    with store.hold("store", timeout, waiting):
        faults = verify(store)
        for culprit in sorted({fault.culprit for fault in faults if fault.culprit}):
            if os.path.lexists(culprit):  # else it went with the folder around it
                files.set_aside(culprit, store.trash, "-".join(culprit.relative_to(store.root).parts).lstrip("."))
    return faults


@contextmanager
def _noted(faults: list[Fault], path: Path, culprit: Path | None) -> Iterator[None]:
    """Damage met in the block is a fault, and the search goes on."""
    try:
        yield
    except DamageError as error:
        faults.append(Fault(error.kind, path, culprit, error.message))
    except StorageError as error:
        denied = isinstance(error.__cause__, PermissionError)
        faults.append(Fault("unreadable" if denied else "read error", path, culprit, error.message))


def _listed(folder: Path, faults: list[Fault]) -> list[Path]:
    if folder.is_symlink():
        faults.append(Fault("symlink", folder, folder, f"`{folder}` is a symbolic link"))
    with _noted(faults, folder, None):
        return entries(folder)
    return []


def _unfinished(store: Store, folder: Path, faults: list[Fault]) -> None:
    """The faults of an unfinished run, or the leftovers of a killed process."""
    living = locks.is_held(store.lock_file(folder.name.partition(".")[0]))  # a killed process's folder has a random suffix
    leftovers = [folder]
    if RUN_FOLDER.fullmatch(folder.name):
        inner = _listed(folder, faults)
        for entry in _listed(folder / CHECKPOINT, faults):
            faults += _examined(store.root, entry, folder.name[-ID_LENGTH:])
        if (folder / CHECKPOINT).exists() or folder.is_symlink():
            leftovers = [entry for entry in inner if entry.name.startswith(".")]
    if not living:
        text = "was left by a process that ended before its time"
        faults += [Fault("leftover", path, path, f"`{path}` {text}") for path in leftovers]


def _examined(root: Path, folder: Path, key: str = "") -> list[Fault]:
    """The faults of one artifact, none if another process moved or replaced it meanwhile."""
    before, faults = _identity(folder), list[Fault]()
    with _noted(faults, folder / MANIFEST, folder):
        artifact = Artifact.load(folder, root, key)
        for name in artifact.names():
            with _noted(faults, artifact.path(name), folder):
                artifact.open(name).close()
        faults += _uninvited(artifact)
    return faults if _identity(folder) == before else []


def _uninvited(artifact: Artifact) -> Iterator[Fault]:
    """Files that the manifest does not name; hidden ones are the desktop's and do no harm."""
    known, label = {MANIFEST, *artifact.names()}, f"{artifact.stage}/{artifact.id}"
    for path in sorted(artifact.folder.rglob("*")):
        name = path.relative_to(artifact.folder).as_posix()
        if name not in known and not path.name.startswith(".") and (path.is_symlink() or not path.is_dir()):
            yield Fault("stray", path, artifact.folder, f"artifact `{label}` has a file too many: `{name}`")


def _identity(path: Path) -> int | None:
    with suppress(OSError):
        return path.lstat().st_ino
    return None


def garbage(store: Store) -> list[Artifact]:
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
    kept, recipes = {a.folder for a in needed}, [*(run.recipe for run in store.unfinished()), *(a.manifest for a in needed)]
    while recipes:
        sources = {(record["stage"], record["digest"]) for record in recipes.pop().inputs.values()}
        needed = [a for a in everything if (a.stage, a.digest) in sources and a.folder not in kept]
        kept.update(a.folder for a in needed)
        recipes += [a.manifest for a in needed]
    return [artifact for artifact in everything if artifact.folder not in kept]


def gc(store: Store, *, timeout: float | None = None, waiting: Tell = say_nothing) -> tuple[list[Artifact], dict[Path, int]]:
    """Remove the garbage, the trash and what dead processes left.

    Returns:
        The artifacts that nothing needed, and the bytes of each other thing that was removed.
    """
    with store.hold("store", timeout, waiting):
        artifacts, others = garbage(store), entries(store.trash)
        for folder in entries(store.partial):
            match = RUN_FOLDER.fullmatch(folder.name)
            over = match and (store.root / match[1] / match[2]).exists()  # its result is published
            if not match:
                others.append(folder)
            elif over or not entries(folder / CHECKPOINT):  # half removed, a run would look damaged
                others.append(files.set_aside(folder, store.trash, folder.name))
            else:
                others += [entry for entry in entries(folder) if entry.name.startswith(".")]
        sizes = {path: _size(path) for path in others}
        # One rename takes an artifact away; a half-removed one is never seen.
        others += [files.set_aside(artifact.folder, store.trash, f"{artifact.stage}-{artifact.id}") for artifact in artifacts]
        for path in others:
            files.remove(path)
    return artifacts, sizes


def _size(path: Path) -> int:
    inner = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(entry.lstat().st_size for entry in inner if not entry.is_dir())
