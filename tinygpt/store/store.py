"""The store: each finished artifact is in a folder named by its key; none is half written.

artifacts/<stage>/<key12>/   an artifact; complete if and only if it holds manifest.json
          .partial/          unfinished work
          .locks/            lock files, never removed
          .trash/            what was replaced
          .pins/             what `gc` must keep
          .tinygpt-store     marks the folder as a store
          latest/            copies for people; no stage reads them
"""

import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from tinygpt.errors import (
    ArtifactError,
    BusyError,
    MissingArtifactError,
    StorageError,
    UsageError,
)
from tinygpt.hashing import Key
from tinygpt.store import files, locks
from tinygpt.store.artifact import ARTIFACT_ID, Artifact, Inputs
from tinygpt.store.files import entries
from tinygpt.store.locks import OnWait
from tinygpt.store.manifest import ID_LENGTH, STAGE_NAME, InputRecord, Manifest, Tables, now
from tinygpt.store.new_folder import NewFolder
from tinygpt.store.unfinished import RUN_FOLDER, UnfinishedRun, drop, read_run
from tinygpt.store.writer import ArtifactWriter

LATEST = "latest"
MARKER = ".tinygpt-store"
_EMPTY: Mapping[str, Any] = {}
_PREFIX = re.compile(r"(?:([a-z][a-z-]*)/)?([0-9a-f]{4,64})")


def wait_silently(text: str) -> None:
    """Do not say what the command waits for."""


class Store:
    """The artifacts in one folder, which is created when something is first written."""

    def __init__(self, root: Path) -> None:
        absolute = Path(os.path.abspath(root))  # noqa: PTH100 - resolve() would hide a dangling link
        is_link_to_folder = absolute.is_symlink() and absolute.is_dir()
        self.root = absolute.resolve() if is_link_to_folder else absolute
        self.partial = self.root / ".partial"
        self.trash = self.root / ".trash"
        self.pins = self.root / ".pins"

    def folder(self, stage: str, key: Key) -> Path:
        """The folder of the artifact of a key, whether or not it exists."""
        return self.root / stage / key[:ID_LENGTH]

    def find(self, stage: str, key: Key) -> Artifact | None:
        """The artifact of a key, its manifest checked; None if there is none.

        Raises:
            CorruptArtifactError: its folder holds something else.
        """
        self._check_root()
        folder = self.folder(stage, key)
        if not os.path.lexists(folder):
            return None
        return Artifact.load(folder, self.root, key)

    def resolve(self, prefix: str, stage: str | None = None) -> Artifact:
        """The artifact whose key begins with `prefix`.

        Args:
            prefix: at least 4 hex digits, also as `stage/digits`.
            stage: where to search if the prefix names no stage; None for all stages.
        Raises:
            MissingArtifactError: there is none.
            UsageError: there are several, or `prefix` is not the beginning of an id.
        """
        match = _PREFIX.fullmatch(prefix)
        if not match:
            raise UsageError(
                f"`{prefix}` is not the id of an artifact",
                hint="an id is 12 hex digits; see `tinygpt artifacts ls`",
            )
        digits = match[2]
        folders = [
            folder
            for folder in self.folders(match[1] or stage)
            if folder.name.startswith(digits[:ID_LENGTH])
        ]
        if len(folders) > 1:
            names = ", ".join(f"`{folder.parent.name}/{folder.name}`" for folder in folders)
            raise UsageError(
                f"`{prefix}` fits several artifacts: {names}",
                hint="type more digits, or put the stage before them",
            )
        artifact = Artifact.load(folders[0], self.root) if folders else None
        if artifact is None or not artifact.key.startswith(digits):
            raise MissingArtifactError(
                f"there is no artifact `{prefix}` in `{self.root}`",
                hint="see `tinygpt artifacts ls`",
            )
        return artifact

    def folders(self, stage: str | None = None) -> Iterator[Path]:
        """The folders of all artifacts, intact or damaged, sorted by name within each stage."""
        for above in self.stages():
            if stage in (None, above.name):
                for folder in entries(above):
                    if ARTIFACT_ID.fullmatch(folder.name):
                        yield folder

    def stages(self) -> Sequence[Path]:
        """The folder of each stage, in which its artifacts are."""
        self._check_root()
        return [
            folder
            for folder in entries(self.root)
            if STAGE_NAME.fullmatch(folder.name) and folder.name != LATEST
        ]

    def begin(
        self,
        stage: str,
        key: Key,
        *,
        version: int = 1,
        tables: Tables = _EMPTY,
        inputs: Inputs = _EMPTY,
    ) -> ArtifactWriter:
        """A writer for the artifact of a key, made as the arguments say.

        The caller holds the lock of the key.
        """
        folder = self.fresh_folder(stage, key)
        unfinished = UnfinishedRun(self.root, _recipe(stage, version, key, tables, inputs))
        return ArtifactWriter(folder, unfinished)

    def fresh_folder(self, stage: str, key: Key) -> Path:
        """A path for the files of the artifact of a key until it is published.

        The caller holds the lock of the key.
        """
        self._make_root()
        files.make_folder(self.partial)
        name = f"{stage}-{key[:ID_LENGTH]}"
        # We hold the lock, so only a killed process can have left these
        for leftover in self.partial.glob(f"{name}.*"):
            files.remove(leftover)
        self._sweep()
        if not (self.root / MARKER).exists():
            data = b"This folder is a store of tinygpt.\n"
            files.replace_file(self.root / MARKER, data, prepared_in=self.partial)
        return self._fresh(name)

    def _sweep(self) -> None:
        """Remove what ended processes left: unpublished files, and the runs of published models.

        A lock that is held, by this process or another, says that the work goes on.
        """
        for folder in entries(self.partial):
            name = folder.name.partition(".")[0]
            run = RUN_FOLDER.fullmatch(name)
            is_continued = (
                run and name == folder.name and not (self.root / run[1] / run[2]).exists()
            )
            if is_continued or not (run or name == LATEST):
                continue
            with suppress(BusyError, StorageError), self.hold(name, 0, wait_silently):
                drop(folder, self._fresh(name))

    def _fresh(self, name: str) -> Path:
        """A path of unfinished work that nobody else has."""
        return self.partial / f"{name}.{secrets.token_hex(6)}"

    def publish(self, out: ArtifactWriter) -> Artifact:
        """Turn the files of `out` into the artifact of its key, in one step; durable on return.

        An intact artifact of the same key and digest stays as it is; any other goes to the trash.
        """
        artifact = self.put(out, out.seal(out.unfinished_run.recipe, **out.facts))
        out.unfinished_run.remove()
        return artifact

    def put(self, out: NewFolder, manifest: Manifest) -> Artifact:
        """Give a folder whose files are durable, its manifest included, its place; see `publish`.

        The caller holds the lock of the key, and discards `out` afterwards in any case: a signal
        may interrupt what is discarded here.
        """
        final = self.folder(manifest.stage, manifest.key)
        files.make_folder(final.parent)
        replaced = None
        if os.path.lexists(final):
            existing = self._load_if_equal(final, manifest)
            if existing:
                out.discard()
                return existing
            replaced = files.set_aside(final, self.trash, f"{manifest.stage}-{final.name}")
        try:
            files.rename(out.folder, final)
        except StorageError:
            self._take_back(out, final, replaced)
            raise
        return Artifact(final, manifest, self.root)

    def _load_if_equal(self, folder: Path, manifest: Manifest) -> Artifact | None:
        """The artifact in `folder` if it is whole and has the key and digest of `manifest`."""
        with suppress(ArtifactError, StorageError):
            artifact = Artifact.load(folder, self.root, manifest.key)
            if artifact.present_digest == manifest.digest:
                artifact.check()
                return artifact
        return None

    def _take_back(self, out: NewFolder, final: Path, replaced: Path | None) -> None:
        """Undo a publication whose rename failed or may not be durable, as far as the disk allows.

        Args:
            final: the artifact's folder.
            replaced: where the artifact is now that was there before, if any.
        """
        with suppress(StorageError):
            if final.exists():
                files.rename(final, out.folder)
            if replaced:
                files.rename(replaced, final)

    def lock_file(self, name: str) -> Path:
        """The lock file of a key (`stage-key12`) or of the whole store (`store`)."""
        return self.root / ".locks" / f"{name}.lock"

    def hold(
        self, name: str, timeout: float | None, on_wait: OnWait, *, shared: bool = False
    ) -> AbstractContextManager[None]:
        """Hold a lock, named as in `lock_file`; see `locks.hold`."""
        self._make_root()
        files.make_folder(self.lock_file(name).parent)
        return locks.hold(self.lock_file(name), timeout=timeout, on_wait=on_wait, shared=shared)

    @contextmanager
    def lock(
        self, stage: str, key: Key, *, timeout: float | None = None, on_wait: OnWait = wait_silently
    ) -> Iterator[None]:
        """Let no other process make the artifact of this key, nor `gc` run, while the block runs.

        Args:
            timeout: seconds to wait for each lock; None for no limit.
            on_wait: called once a lock, after a second, with a sentence that names the holder.
        Raises:
            BusyError: another process did not release a lock in time.
        """
        with (
            self.hold("store", timeout, on_wait, shared=True),
            self.hold(f"{stage}-{key[:ID_LENGTH]}", timeout, on_wait),
        ):
            yield

    def unfinished_run(self, stage: str, key: Key) -> UnfinishedRun:
        """The unfinished run of a key, whether or not it has saved anything."""
        return UnfinishedRun(self.root, _recipe(stage, 1, key, {}, {}))

    def unfinished_runs(self) -> Sequence[UnfinishedRun]:
        """The runs that can be continued, newest first."""
        runs = []
        for folder in entries(self.partial):
            run = read_run(self.root, folder)
            if run and not os.path.lexists(self.folder(run.stage, run.recipe.key)):
                runs.append(run)
        return sorted(runs, key=lambda run: str(run.recipe.provenance["created"]), reverse=True)

    def is_pinned(self, artifact: Artifact) -> bool:
        """Whether the user has pinned an artifact, so that `gc` keeps it."""
        return (self.pins / f"{artifact.stage}-{artifact.id}").exists()

    def pin(self, artifact: Artifact, pinned: bool = True) -> None:
        """Make `gc` keep an artifact and all it was made from; undo that with `pinned=False`."""
        pin = self.pins / f"{artifact.stage}-{artifact.id}"
        files.make_folder(self.pins)
        if pinned:
            files.replace_file(pin, artifact.key.encode())
        elif pin.exists():
            files.remove(pin)

    @property
    def latest(self) -> Path:
        """The folder of copies for people."""
        return self.root / LATEST

    def put_latest(
        self,
        copies: Mapping[str, bytes],
        *,
        timeout: float | None = None,
        on_wait: OnWait = wait_silently,
    ) -> Path:
        """Replace the copies for people, all or none of them.

        Args:
            copies: file name -> bytes.
            timeout, on_wait: see `lock`.
        Returns:
            Their folder.
        Raises:
            StorageError: it cannot be written.
            BusyError: another process writes there, and did not end in time.
        """
        with (
            self.hold("store", timeout, on_wait, shared=True),
            self.hold(LATEST, timeout, on_wait),
        ):
            files.make_folder(self.partial)
            new = NewFolder(self._fresh(LATEST))
            old = self._fresh(LATEST)
            try:
                for name, data in copies.items():
                    new.bytes(name, data)
                if os.path.lexists(self.latest):
                    files.rename(self.latest, old)
                files.rename(new.folder, self.latest)
            except StorageError:
                new.discard()
                with suppress(StorageError):
                    files.rename(old, self.latest)
                raise
            files.discard(old)
        return self.latest

    def list(self, stage: str | None = None) -> list[Artifact]:
        """All artifacts with a sound manifest, newest first; `verify` finds the others."""
        found = []
        for folder in self.folders(stage):
            with suppress(ArtifactError, StorageError):
                found.append(Artifact.load(folder, self.root))
        return sorted(found, key=lambda artifact: (artifact.created, artifact.id), reverse=True)

    def check_exists(self) -> None:
        """Refuse a folder that is no store, so that no command searches or clears another folder.

        A store has a marker, or artifacts from before there were markers; a folder in which nothing
        but a README.md can be seen is an empty one.

        Raises:
            MissingArtifactError: it is no store.
        """
        shown = [path for path in entries(self.root) if not path.name.startswith(".")]
        is_empty = all(path.name == "README.md" for path in shown) and self.root.is_dir()
        if not ((self.root / MARKER).exists() or is_empty or any(self.folders())):
            raise MissingArtifactError(
                f"`{self.root}` is not a store" if shown else f"there is no store `{self.root}`",
                hint="name one with `--store DIR`; `tinygpt run` makes one",
            )

    def _check_root(self) -> None:
        if os.path.lexists(self.root) and not self.root.is_dir():
            kind = "a broken link" if self.root.is_symlink() else "not a folder"
            raise StorageError(
                f"the store `{self.root}` is {kind}",
                hint="move it elsewhere, or choose another store with `--store DIR`",
            )

    def _make_root(self) -> None:
        self._check_root()
        for folder in (*reversed(self.root.parents), self.root):
            if not folder.is_dir():
                files.make_folder(folder)


def _recipe(stage: str, version: int, key: Key, tables: Tables, inputs: Inputs) -> Manifest:
    made_from = {
        name: InputRecord(stage=made.stage, key=made.key, digest=made.digest)
        for name, made in inputs.items()
    }
    return Manifest(
        stage=stage,
        version=version,
        key=key,
        tables=tables,
        inputs=made_from,
        provenance={"created": now()},
    )
