"""What an unfinished run keeps: checkpoints, each a small artifact, and side files, in one folder that its key finds again.

.partial/train-<key12>/  run.json                     how the run is made: a manifest without files
                         checkpoint/step-00000010/    an artifact of stage "checkpoint"
                         kept/<name>                  side files; whoever keeps them remembers their hashes
"""

import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tinygpt.errors import ArtifactError, MissingArtifactError, StorageError
from tinygpt.store import files
from tinygpt.store.artifact import CHECKPOINT, ID_LENGTH, MAX_MANIFEST_BYTES, Artifact, Manifest
from tinygpt.store.files import entries
from tinygpt.store.out import NewFolder

RUN = "run.json"
_KEPT = "kept"
_STEP = re.compile(r"step-(\d{8,18})")
RUN_FOLDER = re.compile(r"([a-z][a-z-]*)-([0-9a-f]{12})")


class Checkpoints:
    """The unfinished run of one key.

    Args:
        root: the store's folder.
        recipe: how the run is made; written down with the first thing that is kept.
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
            keep: how many of the newest stay, at least 1.
        """
        if keep < 1:
            raise ValueError(f"keep = {keep} would remove the checkpoint just saved")
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
        """Make the run's folder, say in it what the run is, and sweep up what a killed process left there."""
        files.make_folder(self.folder)
        if not (self.folder / RUN).exists():
            files.replace_file(self.folder / RUN, self.recipe.to_bytes())
        for entry in (*entries(self.folder), *entries(self.folder / _KEPT)):
            if entry.name.startswith("."):
                files.remove(entry)

    def _drop(self, folder: Path, gone: Path) -> None:
        """Remove a folder so that no half-removed one can be taken for a whole one; `gone` is a name that is swept up."""
        files.rename(folder, gone)
        files.remove(gone)


def read_run(root: Path, folder: Path) -> Checkpoints | None:
    """The unfinished run that a folder of `.partial` holds, None if its description is missing or damaged."""
    try:
        with files.open_beneath(root, folder / RUN) as stream:
            run = Checkpoints(root, Manifest.from_bytes(stream.read(MAX_MANIFEST_BYTES)))
    except (OSError, ValueError):
        return None
    return run if run.folder == folder else None
