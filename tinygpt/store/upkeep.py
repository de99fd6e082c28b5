"""Upkeep of a store: find damage, mend it file by file, and remove what nothing needs.

The search for damage hashes every file of every artifact and checkpoint, and goes on after a fault.
"""

import os
import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tinygpt.errors import ArtifactError, StorageError
from tinygpt.hashing import Digest, hash_stream
from tinygpt.store import files, locks
from tinygpt.store.artifact import ARTIFACT_ID, Artifact, DamageError
from tinygpt.store.files import FileRecord, entries
from tinygpt.store.locks import OnWait
from tinygpt.store.manifest import ID_LENGTH, MANIFEST, Manifest
from tinygpt.store.stage_names import CHECKPOINT, KEPT_STAGES, MODEL_STAGE
from tinygpt.store.store import Store, wait_silently
from tinygpt.store.unfinished import RUN_FOLDER

UNREADABLE = ("unreadable", "read error")
LABEL_LENGTH = 60  # characters of a name in the trash, so that any name of a stray file fits


class Fault(NamedTuple):
    """One thing in a store that is not as it should be.

    Args:
        kind: missing, changed, truncated, grown, misnamed, symlink, not a file, unreadable, read
            error, leftover (of a process that did not finish), stray (a file that its artifact's
            manifest does not list) or dangling (a pin without its artifact).
        path: the file or folder at fault.
        culprit: what a repair moves to the trash if it cannot restore the file; None for nothing.
        text: one line for people.
        expected: what the manifest records about a file at fault; None for everything else.
        source: a file of the store that holds the expected bytes, if there is one.
    """

    kind: str
    path: Path
    culprit: Path | None
    text: str
    expected: FileRecord | None = None
    source: Path | None = None

    @property
    def is_mendable(self) -> bool:
        """Whether a repair can change anything about it."""
        return self.source is not None or self.culprit is not None


def verify(store: Store) -> list[Fault]:
    """Find everything that is wrong in a store; changes nothing.

    The unfinished work of a process that still runs is no fault.
    """
    faults: list[Fault] = []
    for above in store.stages():
        if above.is_symlink() and not _has_artifacts(above):
            continue  # the user's own
        for folder in _list_folder(above, faults):
            # Any other folder was not made by tinygpt
            if ARTIFACT_ID.fullmatch(folder.name) or (folder / MANIFEST).exists():
                faults += _artifact_faults(store.root, folder)
    for folder in _list_folder(store.partial, faults):
        _add_unfinished_faults(store, folder, faults)
    for pin in _list_folder(store.pins, faults):
        stage, _, artifact_id = pin.name.rpartition("-")
        if not (store.root / stage / artifact_id).exists():
            text = f"`{pin.name}` is pinned but not in the store"
            faults.append(Fault("dangling", pin, pin, text))
    return _with_sources(store.root, faults)


def _with_sources(root: Path, faults: Sequence[Fault]) -> list[Fault]:
    """The faults, each with a file anywhere in the store that holds the bytes it lacks, if any.

    Such files are in other artifacts, in checkpoints, in `latest/` and in the trash.
    """
    sizes = {fault.expected["bytes"] for fault in faults if fault.expected}
    sources: dict[str, Path] = {}
    for folder, _, names in os.walk(root) if sizes else ():
        for name in names:
            path = Path(folder, name)
            with suppress(OSError):
                if path.lstat().st_size in sizes:
                    with files.open_beneath(root, path) as stream:
                        sources.setdefault(hash_stream(stream), path)
    return [
        fault._replace(source=sources.get(fault.expected["sha256"])) if fault.expected else fault
        for fault in faults
    ]


def repair(
    store: Store, *, timeout: float | None = None, on_wait: OnWait = wait_silently
) -> list[tuple[Fault, str]]:
    """Restore files from equal ones in the store; move what else is wrong to the trash.

    A model stays where it is while it can be used: of its optional files only the damaged one is
    moved. Afterwards `verify` finds what could not be mended.

    Returns:
        What was wrong, and what was done about it.
    """
    with store.hold("store", timeout, on_wait):
        # What can be restored comes first, while every source is in its place; then a culprit
        # before those inside it, which are moved with it
        faults = sorted(
            verify(store), key=lambda fault: (fault.source is None, fault.culprit or fault.path)
        )
        return [(fault, _mend(store, fault)) for fault in faults]


def _mend(store: Store, fault: Fault) -> str:
    """Do what can be done about a fault, and say what was done."""
    if fault.source is not None and _restore(store, fault, fault.source):
        return f"restored from `{fault.source.relative_to(store.root)}`"
    if fault.culprit is None:
        return "no equal file is in the store" if fault.expected else "left as it is"
    if fault.kind == "misnamed" and (home := _free_home(store, fault.culprit)):
        files.make_folder(home.parent)
        files.rename(fault.culprit, home)
        return f"renamed to `{home.relative_to(store.root)}`"
    if os.path.lexists(fault.culprit):
        _set_aside(store, fault.culprit)
    return "moved to `.trash/`"


def _restore(store: Store, fault: Fault, source: Path) -> bool:
    """Put a copy of `source` in the place of a damaged or missing file; whether it had its bytes.

    A process that is killed meanwhile leaves the file missing at worst, and its source in place.
    """
    files.make_folder(store.partial)
    fresh = store.partial / f"restored.{secrets.token_hex(6)}"
    if files.copy_file(store.root, source, fresh) != fault.expected:
        files.remove(fresh)
        return False
    if obstacle := _obstacle(store.root, fault.path):
        _set_aside(store, obstacle)
    for folder in reversed(fault.path.parents):
        if folder.is_relative_to(store.root):
            files.make_folder(folder)
    files.rename(fresh, fault.path)
    return True


def _free_home(store: Store, folder: Path) -> Path | None:
    """Where an artifact belongs that stands elsewhere; None if it is damaged or its place taken."""
    with suppress(ArtifactError, StorageError):
        manifest = Artifact.load(folder).manifest
        home = store.folder(manifest.stage, manifest.key)
        if manifest.stage != CHECKPOINT and not os.path.lexists(home):
            return home
    return None


def _set_aside(store: Store, path: Path) -> None:
    label = "-".join(path.relative_to(store.root).parts).lstrip(".")
    files.set_aside(path, store.trash, label[:LABEL_LENGTH])


def _obstacle(root: Path, path: Path) -> Path | None:
    """What has to go before a file can be written: what is there, or no folder on the way to it."""
    place = root
    for part in path.relative_to(root).parts:
        place = place / part
        is_folder = place.is_dir() and not place.is_symlink()
        if os.path.lexists(place) and (place == path or not is_folder):
            return place
    return None


@contextmanager
def _collect_fault(
    faults: list[Fault], path: Path, culprit: Path | None, expected: FileRecord | None = None
) -> Iterator[None]:
    """Add damage that the block finds to `faults`, as a fault of `path`."""
    try:
        yield
    except DamageError as error:
        faults.append(Fault(error.kind, path, culprit, error.message, expected))
    except StorageError as error:
        denied = isinstance(error.__cause__, PermissionError)
        kind = "unreadable" if denied else "read error"
        faults.append(Fault(kind, path, culprit, error.message, expected))


def _has_artifacts(link: Path) -> bool:
    """Whether a link leads to a folder that looks like that of a stage."""
    with suppress(OSError):
        return any(ARTIFACT_ID.fullmatch(path.name) for path in link.iterdir())
    return False


def _list_folder(folder: Path, faults: list[Fault]) -> list[Path]:
    """The entries of a folder; a link in its place, or a failed read, is added to `faults`."""
    if folder.is_symlink():
        faults.append(Fault("symlink", folder, folder, f"`{folder}` is a symbolic link"))
    with _collect_fault(faults, folder, None):
        return entries(folder)
    return []


def _add_unfinished_faults(store: Store, folder: Path, faults: list[Fault]) -> None:
    """Add damaged checkpoints of an unfinished run, and what a process that ended left behind."""
    # The folder of an artifact that is being written has a random suffix after its key
    name = folder.name.partition(".")[0]
    in_use = locks.is_held(store.lock_file(name))
    leftovers = [folder]
    if RUN_FOLDER.fullmatch(folder.name):
        inner = _list_folder(folder, faults)
        for checkpoint in _list_folder(folder / CHECKPOINT, faults):
            faults += _artifact_faults(store.root, checkpoint, folder.name[-ID_LENGTH:])
        if (folder / CHECKPOINT).exists() or folder.is_symlink():
            leftovers = _hidden(inner)
    if not in_use:
        for path in leftovers:
            text = f"`{path}` was left by a process that did not finish"
            faults.append(Fault("leftover", path, path, text))


def _hidden(paths: Iterable[Path]) -> list[Path]:
    """Those whose names begin with a dot: in an unfinished run, these are incomplete."""
    return [path for path in paths if path.name.startswith(".")]


def _artifact_faults(root: Path, folder: Path, key: str = "") -> list[Fault]:
    """The faults of one artifact; none if another process moves or replaces it meanwhile.

    Args:
        key: what the artifact's key has to begin with.
    """
    before = _inode(folder)
    faults: list[Fault] = []
    with _collect_fault(faults, folder / MANIFEST, folder):
        artifact = Artifact.load(folder, root, key)
        for name in artifact.names():
            faults += _file_faults(artifact, name)
        faults += _stray_files(artifact)
    if folder.parent.name in (MODEL_STAGE, CHECKPOINT):
        # Hours of work that cannot be read now are not known to be damaged
        faults = [
            fault._replace(culprit=None) if fault.kind in UNREADABLE else fault for fault in faults
        ]
    return faults if _inode(folder) == before else []


def _file_faults(artifact: Artifact, name: str) -> list[Fault]:
    """The fault of a file that its manifest lists, if it has one."""
    path, expected = artifact.path(name), artifact.manifest.files[name]
    if name in artifact.missing():
        text = f"model `{artifact.id}` lacks `{name}`, and can be used without it"
        return [Fault("missing", path, None, text, expected)]
    faults: list[Fault] = []
    culprit = _obstacle(artifact.root, path) if artifact.is_optional(name) else artifact.folder
    with _collect_fault(faults, path, culprit, expected):
        artifact.open(name).close()
    return faults


def _stray_files(artifact: Artifact) -> Iterator[Fault]:
    """Files that the manifest does not list; hidden ones come from the desktop and do no harm."""
    known = {MANIFEST, *artifact.names()}
    for path in sorted(artifact.folder.rglob("*")):
        name = path.relative_to(artifact.folder).as_posix()
        is_folder = path.is_dir() and not path.is_symlink()
        if name in known or is_folder or path.name.startswith("."):
            continue
        label = f"{artifact.stage}/{artifact.id}"
        text = f"artifact `{label}` contains `{name}`, which its manifest does not list"
        yield Fault("stray", path, path, text)


def _inode(path: Path) -> int | None:
    with suppress(OSError):
        return path.lstat().st_ino
    return None


def garbage(store: Store) -> list[Artifact]:
    """The artifacts that nothing needs, newest first.

    Needed are every model, every experiment, every pinned artifact, the newest artifact of each
    stage, what the unfinished runs read, and everything from which these were made.

    Raises:
        ArtifactError, StorageError: an artifact cannot be read, so what it needs is unknown.
    """
    for folder in store.folders():
        Artifact.load(folder, store.root)
    artifacts = store.list()
    roots = _roots(store, artifacts)
    unfinished = [run.recipe for run in store.unfinished_runs()]
    needed = {artifact.folder for artifact in roots}
    needed |= _sources(artifacts, [*unfinished, *(artifact.manifest for artifact in roots)])
    return [artifact for artifact in artifacts if artifact.folder not in needed]


def _roots(store: Store, artifacts: Sequence[Artifact]) -> list[Artifact]:
    """The artifacts that are needed for their own sake.

    Args:
        artifacts: all, newest first.
    """
    roots = []
    stages_seen = set()
    for artifact in artifacts:
        is_newest = artifact.stage not in stages_seen
        stages_seen.add(artifact.stage)
        if artifact.stage in KEPT_STAGES or is_newest or store.is_pinned(artifact):
            roots.append(artifact)
    return roots


def _sources(artifacts: Sequence[Artifact], manifests: Sequence[Manifest]) -> set[Path]:
    """The folders of all artifacts from which those of `manifests` were made, at any distance."""
    by_content: dict[tuple[str, Digest], list[Artifact]] = defaultdict(list)
    for artifact in artifacts:
        by_content[artifact.stage, artifact.digest].append(artifact)
    found: set[Path] = set()
    queue = list(manifests)
    while queue:
        manifest = queue.pop()
        for record in manifest.inputs.values():
            for source in by_content[record["stage"], record["digest"]]:
                if source.folder not in found:
                    found.add(source.folder)
                    queue.append(source.manifest)
    return found


def gc(
    store: Store, *, timeout: float | None = None, on_wait: OnWait = wait_silently
) -> tuple[list[Artifact], dict[Path, int]]:
    """Remove the artifacts that nothing needs, the trash, and what ended processes left.

    Returns:
        The artifacts, and the bytes of each other thing that was removed.
    """
    with store.hold("store", timeout, on_wait):
        artifacts = garbage(store)
        others = [*entries(store.trash), *_unfinished_garbage(store)]
        sizes = {path: _size(path) for path in others}
        # One rename takes each artifact out of the store, so that none is ever seen half removed
        moved = [
            files.set_aside(artifact.folder, store.trash, f"{artifact.stage}-{artifact.id}")
            for artifact in artifacts
        ]
        for path in [*others, *moved]:
            files.remove(path)
    return artifacts, sizes


def _unfinished_garbage(store: Store) -> list[Path]:
    """What no run can continue from; whole runs are moved to the trash first."""
    found = []
    for folder in entries(store.partial):
        match = RUN_FOLDER.fullmatch(folder.name)
        if not match:
            found.append(folder)
            continue
        is_published = (store.root / match[1] / match[2]).exists()
        if is_published or not entries(folder / CHECKPOINT):
            # A rename first: a run that is half removed would look damaged
            found.append(files.set_aside(folder, store.trash, folder.name))
        else:
            found += _hidden(entries(folder))
    return found


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    inner = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(entry.lstat().st_size for entry in inner if not entry.is_dir())
