"""What a stage writes to: a private folder, sealed when everything in it is durable, and what an unfinished run keeps.

.partial/train-<key12>.<random>/               the files of an artifact in the making
         train-<key12>/                        an unfinished run, which its key finds again
                        checkpoint/step-00000010/   an artifact of stage "checkpoint", made as the run is
                        kept/<name>            side files; whoever keeps them remembers their hashes
"""

import io
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from tinygpt.errors import ArtifactError, MissingArtifactError, StorageError
from tinygpt.store import files
from tinygpt.store.artifact import CHECKPOINT, ID_LENGTH, MANIFEST, Artifact, Manifest, now
from tinygpt.store.files import FileRecord, entries

RUN_FOLDER = re.compile(r"([a-z][a-z-]*)-([0-9a-f]{12})")
_KEPT = "kept"
_STEP = re.compile(r"step-(\d{8,18})")


class NewFolder:
    """Files being written into a folder that does not exist yet; seen by nobody until it is renamed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, FileRecord] = {}
        self._folders = [folder]
        try:
            files.make_folder(folder)
        except StorageError:
            self.discard()
            raise

    def bytes(self, name: str, data: bytes | memoryview) -> None:
        """Write a file, durable on return."""
        self.files[name] = files.write_file(self._place(name), data)

    def json(self, name: str, value: object) -> None:
        """Write a value as JSON for people and programs: indented, keys sorted, no NaN."""
        text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        self.bytes(name, text.encode("utf-8", "backslashreplace") + b"\n")

    @contextmanager
    def stream(self, name: str) -> Iterator[BinaryIO]:
        """A file to write piece by piece, durable after the block; left out if the block fails."""
        raw = files.NewFile(self._place(name))
        try:
            buffered = io.BufferedWriter(raw, 1 << 20)
            yield buffered
            buffered.flush()
            self.files[name] = raw.finish()
        finally:
            raw.close()

    def seal(self, recipe: Manifest, **facts: object) -> Manifest:
        """Write the manifest after everything else is durable: made as `recipe` says, with `facts` as its provenance."""
        for folder in reversed(self._folders[1:]):
            files.fsync_folder(folder)
        manifest = recipe.model_copy(update={"files": self.files, "provenance": {**facts, "created": now()}})
        files.write_file(self.folder / MANIFEST, manifest.to_bytes())
        files.fsync_folder(self.folder)
        return manifest

    def discard(self) -> None:
        """Remove what was written, as far as the disk lets us; what stays is swept up by the next run or `gc`."""
        files.discard(self.folder)

    def _place(self, name: str) -> Path:
        taken = {other.casefold() for other in (*self.files, MANIFEST)}
        if not files.is_safe_name(name) or name.casefold() in taken:
            raise ValueError(f"{name!r} is not a free, plain, relative file name")
        folder = self.folder
        for part in name.split("/")[:-1]:
            folder = folder / part
            if folder not in self._folders:
                files.make_folder(folder)
                self._folders.append(folder)
        return self.folder / name


class Checkpoints:
    """The unfinished run of one key.

    Args:
        root: the store's folder.
        recipe: how the run is made; written down in each checkpoint.
    """

    def __init__(self, root: Path, recipe: Manifest) -> None:
        self.root, self.recipe = root, recipe
        self.stage, self.key12 = recipe.stage, recipe.key[:ID_LENGTH]
        self.folder = root / ".partial" / f"{self.stage}-{self.key12}"

    def steps(self) -> list[int]:
        """The steps of all checkpoints, whole or not, lowest first."""
        found = (_STEP.fullmatch(entry.name) for entry in entries(self.folder / CHECKPOINT))
        return sorted(int(match[1]) for match in found if match)

    @property
    def step(self) -> int:
        """The highest of them, 0 if there is none."""
        return max(self.steps(), default=0)

    def newest(self) -> Artifact | None:
        """The newest checkpoint of which every byte is right."""
        for step in reversed(self.steps()):
            with suppress(ArtifactError, StorageError):
                return self.load(step)
        return None

    def save(self, step: int, parts: Mapping[str, bytes], *, keep: int) -> Artifact:
        """Make a checkpoint durable, read it again, and only then remove old ones.

        Args:
            step: the optimizer step it was taken after.
            parts: file name -> bytes.
            keep: how many of the newest stay, at least 1 (`runtime.keep_checkpoints` is).
        """
        self._begin()
        final = self._place(step)
        fresh = NewFolder(self.folder / f".new.{secrets.token_hex(6)}")
        try:
            for name, data in parts.items():
                fresh.bytes(name, data)
            fresh.seal(self.recipe.model_copy(update={"stage": CHECKPOINT}), step=step)
            # The run went on from an earlier step than these: they are damaged, or this one takes their place.
            for later in [self._place(other) for other in self.steps() if other >= step]:
                files.set_aside(later, self.root / ".trash", f"{self.folder.name}-{later.name}")
            files.make_folder(final.parent)
            files.rename(fresh.folder, final)
        except StorageError:
            fresh.discard()
            raise
        saved = self.load(step)
        for old in self.steps()[:-keep]:
            self._drop(self._place(old), self.folder / f".gone.{secrets.token_hex(6)}")
        return saved

    def keep(self, name: str, data: bytes) -> None:
        """Keep a side file beside the checkpoints, durable on return; one of the same name is replaced."""
        place = self._side(name)
        self._begin()
        files.make_folder(place.parent)
        files.replace_file(place, data)

    def kept(self, name: str) -> bytes:
        """A side file's bytes; the caller compares them with the hash it remembers.

        Raises:
            MissingArtifactError: there is none of that name.
        """
        place = self._side(name)
        try:
            with files.open_beneath(self.root, place) as stream:
                return stream.read()
        except FileNotFoundError as error:
            raise MissingArtifactError(f"`{place}` is gone", hint="start the run again with `tinygpt train --fresh`") from error

    def set_aside(self, label: str) -> Path:
        """Move the whole unfinished run into the trash, under a name that begins with `label`; returns where it is now."""
        return files.set_aside(self.folder, self.root / ".trash", f"{label}-{self.folder.name}")

    def remove(self) -> None:
        """Forget the run: its result is published. What cannot be removed is left to `gc`."""
        with suppress(StorageError):
            if self.folder.is_dir():
                self._drop(self.folder, self.folder.with_name(f"{self.folder.name}.{secrets.token_hex(6)}"))

    def load(self, step: int) -> Artifact:
        """The checkpoint of a step, every byte of it checked.

        Raises:
            CorruptArtifactError: it is damaged or not there.
        """
        artifact = Artifact.load(self._place(step), self.root, self.recipe.key)
        artifact.check()
        return artifact

    def _place(self, step: int) -> Path:
        return self.folder / CHECKPOINT / f"step-{step:08d}"  # of one width, so that names sort like steps

    def _side(self, name: str) -> Path:
        if not files.is_safe_name(name) or "/" in name:
            raise ValueError(f"{name!r} is not a plain file name")
        return self.folder / _KEPT / name

    def _begin(self) -> None:
        """Make the run's folder and sweep up what a killed process left there."""
        files.make_folder(self.folder)
        for entry in (*entries(self.folder), *entries(self.folder / _KEPT)):
            if entry.name.startswith("."):
                files.remove(entry)

    def _drop(self, folder: Path, gone: Path) -> None:
        """Remove a folder so that no half-removed one can be taken for a whole one; `gone` is a name that is swept up."""
        files.rename(folder, gone)
        files.remove(gone)


def read_run(root: Path, folder: Path) -> Checkpoints | None:
    """The unfinished run that a folder of `.partial` holds, as its newest sound manifest describes it; None if there is none."""
    if match := RUN_FOLDER.fullmatch(folder.name):
        for checkpoint in reversed(entries(folder / CHECKPOINT)):
            with suppress(ArtifactError, StorageError):
                manifest = Artifact.load(checkpoint, root, match[2]).manifest
                return Checkpoints(root, manifest.model_copy(update={"stage": match[1]}))
    return None


class Out(NewFolder):
    """The files of one artifact in the making.

    Args:
        checkpoints: what an interrupted run of the same key left, and where this one leaves its own.
    """

    def __init__(self, folder: Path, checkpoints: Checkpoints) -> None:
        super().__init__(folder)
        self.checkpoints = checkpoints
        self.facts: dict[str, object] = {}

    def provenance(self, **facts: object) -> None:
        """Record where, when and how fast: facts that are in the manifest but in no hash."""
        self.facts.update(facts)
