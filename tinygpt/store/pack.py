"""One file with artifacts and all that they were made from, so that another store has them, too.

<stage>/<key12>/<file>   each file of each artifact, in a plain tar file (tar.py)

Equal artifacts give equal bytes. unpack.py puts them into a store.
"""

import io
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from tinygpt.errors import (
    ArtifactError,
    CorruptArtifactError,
    MissingArtifactError,
    StorageError,
    UsageError,
)
from tinygpt.hashing import Digest
from tinygpt.store import files, tar
from tinygpt.store.artifact import Artifact
from tinygpt.store.files import FileRecord
from tinygpt.store.locks import OnWait
from tinygpt.store.manifest import MANIFEST, Manifest
from tinygpt.store.stage_names import IMPORT_STAGE, MODEL_STAGE
from tinygpt.store.store import MARKER, Store, wait_silently
from tinygpt.store.unpack import MAX_ARTIFACTS, check_hashes, inspect

TEXT_STAGES = ("corpus", "build-dataset", "eval", "sample", "plot")
"""The stages whose artifacts hold text: that of the corpus, parts of it, or generated text."""

FILE_MODE = 0o644  # a pack belongs to its user
_FOLDERS = re.compile(r"(^|=)(?=[/~]|\.\.).*/", re.DOTALL)


def _with_sources(store: Store, wanted: Sequence[Artifact], text: bool) -> list[Artifact]:
    """Artifacts and all that they were made from, what was made last first; see `pack`."""
    for artifact in wanted:
        if not text and artifact.stage in TEXT_STAGES:
            raise UsageError(
                f"`{artifact.stage}/{artifact.id}` holds text, which `--without-text` leaves out",
                hint="name a model, or leave out `--without-text`",
            )
    by_content = {(made.stage, made.digest): made for made in store.list()}
    found: dict[Path, Artifact] = {}
    queue = list(wanted)
    while queue:
        artifact = queue.pop()
        if artifact.folder not in found:
            found[artifact.folder] = artifact
            queue += _sources(store, artifact, by_content, text)
    if len(found) > MAX_ARTIFACTS:
        raise UsageError(
            f"these are {len(found)} artifacts; a pack holds up to {MAX_ARTIFACTS}",
            hint="make several packs",
        )
    return sorted(found.values(), key=lambda made: (made.created, made.id), reverse=True)


def _sources(
    store: Store,
    artifact: Artifact,
    by_content: Mapping[tuple[str, Digest], Artifact],
    text: bool,
) -> Iterator[Artifact]:
    """What an artifact was made from directly, and the model that it continues."""
    for record in artifact.manifest.inputs.values():
        stays_out = record["stage"] in TEXT_STAGES and not text
        if stays_out or record["stage"] == IMPORT_STAGE:  # a folder outside of the store
            continue
        source = None
        with suppress(ArtifactError):
            source = store.find(record["stage"], record["key"])
        if source is None or source.digest != record["digest"]:
            source = by_content.get((record["stage"], record["digest"]))
        if source is not None:
            yield source
        elif text:
            name = f"`{record['stage']}/{record['key'][:12]}`"
            raise MissingArtifactError(
                f"`{artifact.stage}/{artifact.id}` was made from {name}, which is not in "
                f"`{store.root}`",
                hint="`--without-text` packs a model without the text it was made from",
            )
    # Its key holds the digest of the model that it continues
    continued = str(artifact.manifest.tables.get("train", {}).get("init_from"))
    if base := by_content.get((MODEL_STAGE, Digest(continued))):
        yield base


def pack(
    store: Store,
    path: Path,
    wanted: Sequence[Artifact],
    check: Callable[[Manifest], None],
    *,
    text: bool = True,
    timeout: float | None = None,
    on_wait: OnWait = wait_silently,
) -> tuple[list[Artifact], int]:
    """Write artifacts and all that they were made from into one file; it is durable on return.

    Args:
        path: the file, which must not exist.
        check: see `unpack`, which has to accept the file.
        text: include what holds text; else a model has its tokenizer alone.
        timeout, on_wait: for the store's lock, so that `gc` waits.
    Returns:
        What is in it, what was made last first, and its size in bytes.
    Raises:
        UsageError: `path` exists or lies in a store, one of `wanted` holds text that is to be left
            out, there are too many artifacts, or a file does not fit a tar file.
        MissingArtifactError: an artifact they were made from is not in the store.
        CorruptArtifactError: a file of an artifact is damaged.
        StorageError: the file cannot be written.
    """
    _check_target(path)
    fresh = path.parent / f".tinygpt-pack.{secrets.token_hex(6)}"
    try:
        with ExitStack() as stack:
            # Without it, from a store that cannot be written, what gc removes is an error
            with suppress(StorageError):
                stack.enter_context(store.hold("store", timeout, on_wait, shared=True))
            artifacts = _with_sources(store, wanted, text)
            with _refused_for(path, fresh):
                out = stack.enter_context(files.NewFile(fresh, FILE_MODE))
            record = _write(out, path, fresh, artifacts)
        _read_back(path, fresh, check)
        _check_target(path)
        with _refused_for(path, fresh):
            files.rename(fresh, path)
    finally:
        files.discard(fresh)
    return artifacts, record["bytes"]


def _check_target(path: Path) -> None:
    """Refuse a file that exists, or lies in a store."""
    if os.path.lexists(path):
        raise UsageError(f"`{path}` exists", hint="choose another name, or remove it first")
    for above in path.absolute().parents:
        if (above / MARKER).exists():
            raise UsageError(
                f"`{path}` is inside the store `{above}`", hint="name a file outside of it"
            )


def _read_back(path: Path, fresh: Path, check: Callable[[Manifest], None]) -> None:
    """Check what was written as `unpack` will check it."""
    try:
        with files.open_beneath(path.parent, fresh) as stream:
            for packed in inspect(stream, path, check):
                check_hashes(stream, path, packed)
    except CorruptArtifactError as error:
        hint = "make that artifact again; `tinygpt artifacts show ID` says how"
        raise CorruptArtifactError(error.message, hint=hint) from error


@contextmanager
def _refused_for(path: Path, fresh: Path) -> Iterator[None]:
    """Say of what the system refuses that it concerns the pack, and what can be done."""
    try:
        yield
    except StorageError as error:
        message = error.message.replace(str(fresh), str(path))
        hint = "free some space, check folder and permissions, or choose another place"
        raise StorageError(message, hint=hint) from error


def _write(
    out: files.NewFile, path: Path, fresh: Path, artifacts: Sequence[Artifact]
) -> FileRecord:
    """Write the tar file; `fresh` is where it is written."""
    manifests = {made.folder: _without_folders(made.manifest).to_bytes() for made in artifacts}
    members = [
        ("/".join((*made.manifest.place, name)), made, name)
        for made in artifacts
        for name in {MANIFEST, *made.names()}.difference(made.missing())
    ]
    for full_name, made, name in sorted(members, key=lambda member: member[0]):
        manifest = manifests[made.folder]
        is_manifest = name == MANIFEST
        size = len(manifest) if is_manifest else made.manifest.files[name]["bytes"]
        entry = tar.Entry(full_name, size)
        try:
            header = tar.header(entry)
        except ValueError as error:
            raise UsageError(f"`{full_name}` {error}", hint="copy the store itself") from error
        source = io.BytesIO(manifest) if is_manifest else made.open(name)
        with source as stream, _refused_for(path, fresh):
            out.write(header)
            for piece in iter(partial(stream.read, 1 << 20), b""):
                out.write(piece)
            out.write(bytes(entry.padding))
    with _refused_for(path, fresh):
        out.write(tar.END)
        return out.finish()


def _without_folders(manifest: Manifest) -> Manifest:
    """The manifest without the names of folders outside the store, which are nobody's business.

    Neither key nor digest depends on them.
    """
    facts = dict(manifest.provenance)
    for name, value in facts.items():
        if isinstance(value, str):
            facts[name] = _FOLDERS.sub(r"\1…/", value)
        elif isinstance(value, list):
            facts[name] = [_FOLDERS.sub(r"\1…/", str(word)) for word in value]
    return manifest.model_copy(update={"provenance": facts})
