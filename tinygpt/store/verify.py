"""Finding damage: every file of every artifact and checkpoint is hashed, and the search goes on after each fault."""

import errno
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tinygpt.errors import StorageError
from tinygpt.store import files, locks
from tinygpt.store.artifact import CHECKPOINT, ID_LENGTH, MANIFEST, STAGE_NAME, Artifact, DamageError
from tinygpt.store.checkpoints import RUN, RUN_FOLDER, read_run, step_name
from tinygpt.store.files import entries

if TYPE_CHECKING:
    from tinygpt.store.store import Store

_ID = re.compile(r"[0-9a-f]{12}")
_RUN_OR_LEFTOVER = re.compile(rf"(?P<run>{RUN_FOLDER.pattern})(?P<random>\.[0-9a-f]+)?")


@dataclass(frozen=True)
class Fault:
    """One thing that is not as it was written.

    Args:
        kind: missing, changed, truncated, grown, misnamed, no manifest, symlink, not a file, unreadable, read error, leftover,
            case twin, stray or dangling.
        path: the file or folder at fault.
        culprit: what a repair moves to the trash, so that the next run makes it anew; None if nothing can be.
        text: one line for people.
    """

    kind: str
    path: Path
    culprit: Path | None
    text: str


def verify(store: "Store") -> list[Fault]:
    """Everything that is wrong in a store; nothing is changed. Work in progress of living processes is no fault."""
    faults: list[Fault] = []
    for above in entries(store.root):
        if STAGE_NAME.fullmatch(above.name) and above.name != "latest":
            if above.is_symlink():
                faults.append(Fault("symlink", above, above, f"`{above}` is a symbolic link"))
                continue
            for folder in _listed(above, faults):
                faults += _settled(store, folder)
    for folder in _listed(store.partial, faults):
        faults += _unfinished(store, folder)
    for pin in _listed(store.pins, faults):
        if not (store.root / pin.name[:-13] / pin.name[-12:]).exists():
            faults.append(Fault("dangling", pin, pin, f"`{pin.name}` is pinned but not in the store"))
    return faults


def repair(store: "Store", faults: list[Fault]) -> list[Path]:
    """Move what is at fault to the trash, deleting nothing; returns where it is now. Call it with the store to yourself."""
    culprits = dict.fromkeys(fault.culprit for fault in faults if fault.culprit)
    outermost = [path for path in culprits if not any(parent in culprits for parent in path.parents)]
    labels = {path: "-".join(path.relative_to(store.root).parts).lstrip(".") for path in outermost}
    return [files.set_aside(path, store.trash, labels[path]) for path in outermost]


def _listed(folder: Path, faults: list[Fault]) -> list[Path]:
    try:
        return entries(folder)
    except StorageError as error:
        faults.append(Fault(_kind(error), folder, None, error.message))
        return []


def _settled(store: "Store", folder: Path) -> list[Fault]:
    """The faults of what stands where artifacts stand."""
    if not _ID.fullmatch(folder.name) and not (folder / MANIFEST).exists():
        return []  # not ours
    return _examined(store.root, folder, lambda artifact: store.folder(artifact.stage, artifact.key) == folder)


def _unfinished(store: "Store", folder: Path) -> Iterator[Fault]:
    """The faults of an unfinished run, or the leftovers of a killed process."""
    match = _RUN_OR_LEFTOVER.fullmatch(folder.name)
    living = match is not None and locks.is_held(store.lock_file(match["run"]))
    if (not match or match["random"]) and not living:
        yield _leftover(folder)
    elif folder.is_symlink():
        yield Fault("symlink", folder, folder, f"`{folder}` is a symbolic link")
    elif match and not match["random"]:
        if read_run(store.root, folder) is None and not living:
            yield _undescribed(folder)
        if not living:
            yield from (_leftover(entry) for entry in entries(folder) if entry.name.startswith("."))
        for entry in entries(folder / CHECKPOINT):
            yield from _examined(store.root, entry, lambda artifact: _is_checkpoint(artifact, folder.name[-ID_LENGTH:]))


def _undescribed(folder: Path) -> Fault:
    if (folder / RUN).exists():
        return Fault("changed", folder / RUN, folder / RUN, f"`{folder / RUN}` differs from its own hash")
    if entries(folder / CHECKPOINT):
        return Fault("missing", folder / RUN, folder, f"`{folder / RUN}` is missing")
    return _leftover(folder)


def _leftover(path: Path) -> Fault:
    return Fault("leftover", path, path, f"`{path}` was left by a process that ended before its time")


def _is_checkpoint(artifact: Artifact, key12: str) -> bool:
    step = artifact.manifest.provenance.get("step")
    return (
        (artifact.stage, artifact.id) == (CHECKPOINT, key12) and isinstance(step, int) and artifact.folder.name == step_name(step)
    )


def _examined(root: Path, folder: Path, at_home: Callable[[Artifact], bool]) -> list[Fault]:
    """The faults of one artifact, none if another process moved or replaced it meanwhile."""
    before = _identity(folder)
    faults = list(_examine(root, folder, at_home))
    return faults if _identity(folder) == before else []


def _examine(root: Path, folder: Path, at_home: Callable[[Artifact], bool]) -> Iterator[Fault]:
    if folder.is_symlink():
        yield Fault("symlink", folder, folder, f"`{folder}` is a symbolic link")
        return
    try:
        artifact = Artifact.load(folder, root)
    except (DamageError, StorageError) as error:
        kind = _kind(error)
        yield Fault("no manifest" if kind == "missing" else kind, folder / MANIFEST, folder, error.message)
        return
    if not at_home(artifact):
        yield Fault("misnamed", folder, folder, f"`{folder}` holds `{artifact.stage}/{artifact.key}`")
    for name in artifact.names():
        try:
            artifact.open(name).close()
        except (DamageError, StorageError) as error:
            yield Fault(_kind(error), artifact.path(name), folder, error.message)
    yield from _uninvited(artifact)


def _uninvited(artifact: Artifact) -> Iterator[Fault]:
    """Files that the manifest does not name; hidden ones are the desktop's and do no harm."""
    known = {MANIFEST, *artifact.names()}
    folded = {name.casefold() for name in known}
    for path in sorted(artifact.folder.rglob("*")):
        name = path.relative_to(artifact.folder).as_posix()
        if name not in known and not path.name.startswith(".") and (path.is_symlink() or not path.is_dir()):
            kind = "case twin" if name.casefold() in folded else "stray"
            yield Fault(kind, path, artifact.folder, f"artifact `{artifact.stage}/{artifact.id}` has a file too many: `{name}`")


def _kind(error: DamageError | StorageError) -> str:
    if isinstance(error, DamageError):
        return error.kind
    denied = isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.EACCES, errno.EPERM)
    return "unreadable" if denied else "read error"


def _identity(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except OSError:
        return None
