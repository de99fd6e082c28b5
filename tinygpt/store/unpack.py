"""Put the artifacts of a pack into a store: all that the file says is checked, then all is written.

The file is read twice through one descriptor. The first time, nothing is written: names, sizes,
manifests, keys and hashes are compared. The second time, the hashes are compared again.
"""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from tinygpt.errors import CorruptArtifactError, MissingArtifactError, StorageError, UsageError
from tinygpt.store import files, tar
from tinygpt.store.artifact import MAX_MANIFEST_BYTES, Artifact
from tinygpt.store.locks import OnWait
from tinygpt.store.manifest import MANIFEST, Manifest, digest_without, recipe_key
from tinygpt.store.new_folder import NewFolder
from tinygpt.store.store import Store, wait_silently

COPY_AGAIN = "copy it again, or ask for one that `tinygpt artifacts pack` wrote"
MAX_ARTIFACTS = 200  # each is locked while it is unpacked, which takes an open file
_PLACE = re.compile(r"([a-z-]+/[0-9a-f]{12})/(.+)")

State = Literal["new", "there", "mended"]


class Unpacked(NamedTuple):
    """An artifact of a pack, now in the store.

    Args:
        state: "new"; "there", if the store had it; "mended", if what it had was damaged.
    """

    artifact: Artifact
    state: State


class Packed(NamedTuple):
    """An artifact in a pack.

    Args:
        names: its files that are there, its manifest apart; a model can lack some.
    """

    manifest: Manifest
    names: Mapping[str, tar.Entry]


def unpack(
    store: Store,
    path: Path,
    check: Callable[[Manifest], None],
    *,
    timeout: float | None = None,
    on_wait: OnWait = wait_silently,
) -> list[Unpacked]:
    """Put the artifacts of a pack into a store, all or none of them.

    An equal artifact that is there stays as it is; what is damaged there goes to the trash.

    Args:
        check: raises a ValueError for a manifest that no stage could have written.
        timeout, on_wait: for the locks of the store and of each artifact.
    Returns:
        Each artifact, what was made last first.
    Raises:
        MissingArtifactError: there is no such file.
        CorruptArtifactError: it is not a pack, or damaged.
        UsageError: it is a folder, or the store has another artifact of the same key.
        StorageError: the store cannot be written, or is too small.
        BusyError: another process holds a lock.
    """
    place = Path(os.path.realpath(path))
    if place.is_dir():
        hint = "name the file that `tinygpt artifacts pack` wrote"
        raise UsageError(f"`{path}` is a folder and not a pack", hint=hint)
    if not place.is_file():
        raise MissingArtifactError(f"there is no file `{path}`", hint="check its name")
    with files.refusals(path), files.open_beneath(place.parent, place) as stream:
        inspected = inspect(stream, path, check)
        _check_space(store, path, inspected)
        for packed in inspected:
            check_hashes(stream, path, packed)
        with ExitStack() as stack:
            stack.enter_context(store.hold("store", timeout, on_wait, shared=True))
            for name in sorted("-".join(packed.manifest.place) for packed in inspected):
                stack.enter_context(store.hold(name, timeout, on_wait))
            return _put(store, stream, path, inspected)


def _check_space(store: Store, path: Path, inspected: Sequence[Packed]) -> None:
    """Refuse at once what would fill the disk: a file of holes can be far larger than the disk."""
    needed = 0
    for manifest, names in inspected:
        if not os.path.lexists(store.folder(manifest.stage, manifest.key)):
            needed += sum(entry.size for entry in names.values())
    existing = next(folder for folder in (store.root, *store.root.parents) if folder.is_dir())
    disk = os.statvfs(existing)
    free = disk.f_bavail * disk.f_frsize
    if needed > free:
        raise StorageError(
            f"`{path}` takes {needed:,} bytes, but `{store.root}` has {free:,} bytes left",
            hint="free some space, or choose another store with `--store DIR`",
        )


def _put(store: Store, stream: BinaryIO, path: Path, inspected: Sequence[Packed]) -> list[Unpacked]:
    """Write what the store lacks, and only then give all of it its place."""
    states = [_state(store, packed) for packed in inspected]
    missing = [packed for packed, state in zip(inspected, states, strict=True) if state != "there"]
    written: dict[str, NewFolder] = {}
    try:
        for packed in missing:
            manifest = packed.manifest
            folder = NewFolder(store.fresh_folder(manifest.stage, manifest.key))
            written[manifest.key] = folder
            _copy(stream, path, packed, folder)
            files.make_folder(store.folder(manifest.stage, manifest.key).parent)
        # What others were made from comes first, so that nothing is there without it
        for packed in reversed(missing):
            store.put(written[packed.manifest.key], packed.manifest)
    finally:
        for folder in written.values():
            folder.discard()
    return [
        Unpacked(Artifact(store.folder(made.stage, made.key), made, store.root), state)
        for made, state in zip((packed.manifest for packed in inspected), states, strict=True)
    ]


def _state(store: Store, packed: Packed) -> State:
    """What the store has of an artifact.

    Raises:
        UsageError: another one of its key.
    """
    manifest = packed.manifest
    folder = store.folder(manifest.stage, manifest.key)
    if not os.path.lexists(folder):
        return "new"
    try:
        existing = Artifact.load(folder, store.root)
        if (existing.key, existing.digest) != (manifest.key, manifest.digest):
            raise UsageError(
                f"the store has another `{manifest.stage}/{folder.name}`, of digest "
                f"{existing.digest[:12]}; that of the pack is {manifest.digest[:12]}",
                hint="unpack it into another store with `--store DIR`",
            )
        existing.check()
    except CorruptArtifactError:
        return "mended"
    return "mended" if set(existing.missing()) & set(packed.names) else "there"


def _copy(stream: BinaryIO, path: Path, packed: Packed, folder: NewFolder) -> None:
    """Write an artifact's files, each with the bytes that were inspected."""
    for name in sorted(packed.names):
        with _refusing(path), folder.stream(name) as out:
            for piece in tar.pieces(stream, packed.names[name]):
                out.write(piece)
        if folder.files[name] != packed.manifest.files[name]:
            raise _refusal(path, f"`{name}` has changed since it was inspected")
    folder.sync()
    files.write_file(folder.folder / MANIFEST, packed.manifest.to_bytes())
    files.fsync_folder(folder.folder)


def _refusal(path: Path, problem: str) -> CorruptArtifactError:
    return CorruptArtifactError(f"cannot unpack `{path}`: {problem}", hint=COPY_AGAIN)


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turn the ValueErrors of tar.py into errors about the pack."""
    try:
        yield
    except ValueError as error:
        raise _refusal(path, str(error)) from error


def inspect(stream: BinaryIO, path: Path, check: Callable[[Manifest], None]) -> list[Packed]:
    """The artifacts of a pack, what was made last first; all is checked but the files' hashes.

    Raises:
        CorruptArtifactError: with what is wrong.
    """
    folders: dict[str, dict[str, tar.Entry]] = defaultdict(dict)
    with _refusing(path):
        for entry in tar.read_entries(stream):
            match = _PLACE.fullmatch(entry.name)
            is_manifest = entry.name.casefold().endswith(f"/{MANIFEST}")
            is_safe = match and files.is_safe_name(match[2])
            if not match or not is_safe or (is_manifest and match[2] != MANIFEST):
                raise ValueError(f"`{entry.name}` is no name of a file in a pack")
            folders[match[1]][match[2]] = entry
    if not 0 < len(folders) <= MAX_ARTIFACTS:
        raise _refusal(path, f"it holds {len(folders)} artifacts")
    left = MAX_MANIFEST_BYTES
    found = []
    for place, names in folders.items():
        entry = names.pop(MANIFEST, tar.Entry("", 0))
        left -= entry.size
        if left < 0 or not entry.size:
            raise _refusal(path, f"`{place}` has no manifest, or one that is too large")
        with _refusing(path):
            data = b"".join(tar.pieces(stream, entry))
        try:
            packed = Packed(Manifest.from_bytes(data), names)
        except (ValueError, RecursionError) as error:
            problem = f"the manifest of `{place}` is not what this version of tinygpt writes"
            raise _refusal(path, problem) from error
        try:
            check(packed.manifest)
            _check_files(packed, place)
        except ValueError as error:
            raise _refusal(path, f"`{place}` {str(error).splitlines()[0]}") from error
        found.append(packed)
    _check_keys(path, found)
    return sorted(
        found, key=lambda packed: (str(packed.manifest.provenance["created"]), packed.manifest.key)
    )[::-1]


def _check_files(packed: Packed, place: str) -> None:
    """Refuse other files than the manifest lists, and a manifest that belongs elsewhere.

    Raises:
        ValueError: with what is wrong.
    """
    manifest = packed.manifest
    if "/".join(manifest.place) != place:
        raise ValueError(f"has the manifest of `{'/'.join(manifest.place)}`")
    artifact = Artifact(Path(place), manifest, Path())
    for name, record in manifest.files.items():
        if name not in packed.names and not artifact.is_optional(name):
            raise ValueError(f"lacks `{name}`")
        if name in packed.names and packed.names[name].size != record["bytes"]:
            found = packed.names[name].size
            raise ValueError(f"has `{name}` with {found:,} bytes, not {record['bytes']:,}")
    for name in packed.names:
        if name not in manifest.files:
            raise ValueError(f"holds `{name}`, which its manifest does not list")


def _check_keys(path: Path, found: Sequence[Packed]) -> None:
    """Refuse a key that does not follow from stage, configuration and inputs."""
    # The key of what was made from a model that lacks files says so; see Artifact.present_digest
    lacking = {}
    for manifest, names in found:
        missing = sorted(set(manifest.files).difference(names))
        lacking[manifest.digest] = digest_without(manifest.digest, missing)
    for manifest, _ in found:
        recorded = {name: record["digest"] for name, record in manifest.inputs.items()}
        present = {name: lacking.get(digest, digest) for name, digest in recorded.items()}
        recipe = (manifest.stage, manifest.version, manifest.tables)
        if manifest.key not in (recipe_key(*recipe, recorded), recipe_key(*recipe, present)):
            name = "/".join(manifest.place)
            raise _refusal(path, f"the key of `{name}` does not follow from how it was made")


def check_hashes(stream: BinaryIO, path: Path, packed: Packed) -> None:
    """Compare the bytes of each file with its hash in the manifest."""
    for name, entry in packed.names.items():
        digest = hashlib.sha256()
        with _refusing(path):
            for piece in tar.pieces(stream, entry):
                digest.update(piece)
        if digest.hexdigest() != packed.manifest.files[name]["sha256"]:
            raise _refusal(path, f"`{entry.name}` does not match its hash")
