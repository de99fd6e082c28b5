"""The store: finished artifacts under the names of their keys, and nothing half-made among them.

artifacts/<stage>/<key12>/    an artifact, complete if and only if manifest.json stands in it
          .partial/           unfinished work        .locks/  lock files, never removed
          .trash/             what was replaced      .pins/   what `gc` must keep
          latest/             copies for people, never read
"""

import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from tinygpt.errors import ArtifactError, MissingArtifactError, StorageError, UsageError
from tinygpt.hashing import Key
from tinygpt.store import files, locks
from tinygpt.store.artifact import ARTIFACT_ID, ID_LENGTH, STAGE_NAME, Artifact, InputRecord, Inputs, Manifest, Tables, now
from tinygpt.store.files import entries
from tinygpt.store.locks import Tell
from tinygpt.store.out import Checkpoints, NewFolder, Out, read_run

LATEST = "latest"
_NOTHING: Mapping[str, Any] = {}
_PREFIX = re.compile(r"(?:([a-z][a-z-]*)/)?([0-9a-f]{4,64})")


def say_nothing(text: str) -> None:
    """Tell nobody what is waited for."""


class Store:
    """The artifacts under one folder, which is made when the first thing is written."""

    def __init__(self, root: Path) -> None:
        root = Path(os.path.abspath(root))  # noqa: PTH100 - resolve() would hide a link to nothing
        self.root = root.resolve() if root.is_symlink() and root.is_dir() else root
        self.partial, self.trash, self.pins = self.root / ".partial", self.root / ".trash", self.root / ".pins"

    def folder(self, stage: str, key: Key) -> Path:
        """Where the artifact of a key stands, or would stand."""
        return self.root / stage / key[:ID_LENGTH]

    def find(self, stage: str, key: Key) -> Artifact | None:
        """The artifact of a key, its manifest checked, or None.

        Raises:
            CorruptArtifactError: something stands in its place that is not it.
        """
        self._check_root()
        folder = self.folder(stage, key)
        return Artifact.load(folder, self.root, key) if os.path.lexists(folder) else None

    def resolve(self, prefix: str, stage: str | None = None) -> Artifact:
        """The one artifact whose key begins with `prefix` (at least 4 digits, also written `stage/digits`).

        Raises:
            MissingArtifactError: there is none.
            UsageError: there are several.
        """
        if not (match := _PREFIX.fullmatch(prefix)):
            raise UsageError(f"`{prefix}` is not the id of an artifact", hint="ids are 12 hex digits, see `tinygpt artifacts ls`")
        stage, digits = match[1] or stage, match[2]
        fitting = [folder for folder in self.folders(stage) if folder.name.startswith(digits[:ID_LENGTH])]
        if len(fitting) > 1:
            names = ", ".join(f"`{folder.parent.name}/{folder.name}`" for folder in fitting)
            raise UsageError(f"`{prefix}` could be {names}", hint="write more digits, or the stage before them")
        artifact = Artifact.load(fitting[0], self.root) if fitting else None
        if artifact is None or not artifact.key.startswith(digits):
            raise MissingArtifactError(f"no artifact `{prefix}` in `{self.root}`", hint="see `tinygpt artifacts ls`")
        return artifact

    def folders(self, stage: str | None = None) -> Iterator[Path]:
        """Where artifacts stand, sound or not, in the order of their names."""
        for above in self.stages():
            if stage in (None, above.name):
                yield from (folder for folder in entries(above) if ARTIFACT_ID.fullmatch(folder.name))

    def stages(self) -> Sequence[Path]:
        """The folders above the artifacts, one for each stage."""
        self._check_root()
        return [folder for folder in entries(self.root) if STAGE_NAME.fullmatch(folder.name) and folder.name != LATEST]

    def begin(self, stage: str, key: Key, *, version: int = 1, tables: Tables = _NOTHING, inputs: Inputs = _NOTHING) -> Out:
        """A place to write the artifact of a key, made as it says; call it with the key's lock held."""
        self._make_root()
        files.make_folder(self.partial)
        for leftover in self.partial.glob(f"{stage}-{key[:ID_LENGTH]}.*"):
            files.remove(leftover)  # of a killed process: its lock is ours
        recipe = _recipe(stage, version, key, tables, inputs)
        return Out(self.partial / f"{stage}-{key[:ID_LENGTH]}.{secrets.token_hex(6)}", Checkpoints(self.root, recipe))

    def publish(self, out: Out) -> Artifact:
        """Make what `out` holds the artifact of its key, all or nothing, durable on return.

        A sound artifact of the same key and digest stays as it is; any other goes to the trash.
        """
        manifest = out.seal(out.checkpoints.recipe, **out.facts)
        final = self.folder(manifest.stage, manifest.key)
        files.make_folder(final.parent)
        old = None
        if os.path.lexists(final):
            with suppress(ArtifactError, StorageError):
                same = Artifact.load(final, self.root, manifest.key)
                if same.digest == manifest.digest:
                    same.check()
                    out.discard()
                    out.checkpoints.remove()
                    return same
            old = files.set_aside(final, self.trash, f"{manifest.stage}-{final.name}")
        try:
            files.rename(out.folder, final)
        except StorageError:
            with suppress(StorageError):  # the name may not be durable: as far as the disk lets us, nothing was published
                if final.exists():
                    files.rename(final, out.folder)
                if old:
                    files.rename(old, final)
            raise
        out.checkpoints.remove()
        return Artifact(final, manifest, self.root)

    def lock_file(self, name: str) -> Path:
        """The lock of a run (`stage-key12`), or of all (`store`)."""
        return self.root / ".locks" / f"{name}.lock"

    def hold(self, name: str, timeout: float | None, waiting: Tell, *, shared: bool = False) -> AbstractContextManager[None]:
        """Hold a lock by its name (see `lock_file`), alone or with other shared holders."""
        self._make_root()
        files.make_folder(self.lock_file(name).parent)
        return locks.hold(self.lock_file(name), timeout=timeout, waiting=waiting, shared=shared)

    @contextmanager
    def lock(self, stage: str, key: Key, *, timeout: float | None = None, waiting: Tell = say_nothing) -> Iterator[None]:
        """Be the only process that makes this key; `gc` stays out meanwhile.

        Args:
            timeout: seconds to wait; None for ever.
            waiting: told once, after a second, who holds it.
        """
        with self.hold("store", timeout, waiting, shared=True), self.hold(f"{stage}-{key[:ID_LENGTH]}", timeout, waiting):
            yield

    def checkpoints(self, stage: str, key: Key) -> Checkpoints:
        """What an unfinished run of a key left."""
        return Checkpoints(self.root, _recipe(stage, 1, key, {}, {}))

    def unfinished(self) -> Sequence[Checkpoints]:
        """Interrupted runs that can be continued, newest first."""
        runs = [read_run(self.root, folder) for folder in entries(self.partial)]
        waiting = [run for run in runs if run and not os.path.lexists(self.folder(run.stage, run.recipe.key))]
        return sorted(waiting, key=lambda run: str(run.recipe.provenance["created"]), reverse=True)

    def is_pinned(self, artifact: Artifact) -> bool:
        """Whether `gc` must keep an artifact whatever becomes of the rest."""
        return (self.pins / f"{artifact.stage}-{artifact.id}").exists()

    def pin(self, artifact: Artifact, pinned: bool = True) -> None:
        """Make `gc` keep an artifact and all it was made from, or no longer."""
        pin = self.pins / f"{artifact.stage}-{artifact.id}"
        files.make_folder(self.pins)
        if pinned:
            files.replace_file(pin, artifact.key.encode())
        elif pin.exists():
            files.remove(pin)

    def put_latest(self, copies: Mapping[str, bytes]) -> Path:
        """Replace the plain copies for people under `latest/`; returns that folder."""
        self._make_root()
        latest = self.root / LATEST
        if os.path.lexists(latest):
            files.remove(latest)
        new = NewFolder(latest)
        for name, data in copies.items():
            new.bytes(name, data)
        return latest

    def list(self, stage: str | None = None) -> list[Artifact]:
        """All artifacts with a sound manifest, newest first; `verify` names the others."""
        found = []
        for folder in self.folders(stage):
            with suppress(ArtifactError, StorageError):
                found.append(Artifact.load(folder, self.root))
        return sorted(found, key=lambda artifact: (artifact.created, artifact.id), reverse=True)

    def _check_root(self) -> None:
        if os.path.lexists(self.root) and not self.root.is_dir():
            kind = "a link to nothing" if self.root.is_symlink() else "not a folder"
            hint = "move it elsewhere, or choose another store with `--store DIR`"
            raise StorageError(f"the store `{self.root}` is {kind}", hint=hint)

    def _make_root(self) -> None:
        self._check_root()
        for folder in (*reversed(self.root.parents), self.root):
            if not folder.is_dir():
                files.make_folder(folder)


def _recipe(stage: str, version: int, key: Key, tables: Tables, inputs: Inputs) -> Manifest:
    made_from = {name: InputRecord(stage=made.stage, key=made.key, digest=made.digest) for name, made in inputs.items()}
    return Manifest(stage=stage, version=version, key=key, tables=tables, inputs=made_from, provenance={"created": now()})
