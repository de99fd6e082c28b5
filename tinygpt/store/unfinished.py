"""An unfinished run in the store: its checkpoints and side files, from which it can continue.

.partial/train-<key12>/                  an unfinished run; the same key finds it again
         checkpoint/step-00000010/       an artifact of stage "checkpoint", with the key of the run
         kept/<name>                     side files; who writes one remembers its hash
"""

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from tinygpt.errors import ArtifactError, MissingArtifactError, StorageError
from tinygpt.store import files
from tinygpt.store.artifact import Artifact
from tinygpt.store.files import entries
from tinygpt.store.manifest import ID_LENGTH, Manifest
from tinygpt.store.new_folder import NewFolder
from tinygpt.store.stage_names import CHECKPOINT

RUN_FOLDER = re.compile(r"([a-z][a-z-]*)-([0-9a-f]{12})")
_SIDE_FILES = "kept"
_STEP = re.compile(r"step-(\d{8,18})")


class UnfinishedRun:
    """The checkpoints and side files that a run of one key has saved so far, if any.

    Args:
        root: the store's folder.
        recipe: how the run is made; each checkpoint records it.
    """

    def __init__(self, root: Path, recipe: Manifest) -> None:
        self.root = root
        self.recipe = recipe
        self.stage = recipe.stage
        self.key12 = recipe.key[:ID_LENGTH]
        self.folder = root / ".partial" / f"{self.stage}-{self.key12}"

    def steps(self) -> list[int]:
        """The steps of all checkpoints, intact or damaged, lowest first."""
        found = []
        for entry in entries(self.folder / CHECKPOINT):
            match = _STEP.fullmatch(entry.name)
            if match:
                found.append(int(match[1]))
        return sorted(found)

    @property
    def step(self) -> int:
        """The step of the last checkpoint, 0 if there is none."""
        return max(self.steps(), default=0)

    def newest(self) -> Artifact | None:
        """The newest intact checkpoint; None if there is none."""
        return next(self.intact(), None)

    def intact(self) -> Iterator[Artifact]:
        """The checkpoints whose bytes are those recorded, newest first."""
        for step in reversed(self.steps()):
            with suppress(ArtifactError, StorageError):
                yield self.load(step)

    def save(self, step: int, parts: Mapping[str, bytes], *, keep: int) -> Artifact:
        """Make a checkpoint durable, read it back, and only then remove old ones.

        Args:
            step: the optimizer step after which it was taken.
            parts: file name -> bytes.
            keep: how many of the newest checkpoints to keep, at least 1.
        """
        self._begin()
        final = self._place(step)
        fresh = NewFolder(self.folder / f".new.{secrets.token_hex(6)}")
        try:
            for name, data in parts.items():
                fresh.bytes(name, data)
            fresh.seal(self.recipe.model_copy(update={"stage": CHECKPOINT}), step=step)
            # The run continued from an earlier step, so these are damaged or to be replaced
            for later_step in self.steps():
                if later_step >= step:
                    self._move_to_trash(later_step)
            files.make_folder(final.parent)
            files.rename(fresh.folder, final)
        except StorageError:
            fresh.discard()
            raise
        saved = self.load(step)
        for old_step in self.steps()[:-keep]:
            drop(self._place(old_step), self.folder / f".gone.{secrets.token_hex(6)}")
        return saved

    def write_side_file(self, name: str, data: bytes) -> None:
        """Write or replace a file beside the checkpoints; it is durable on return."""
        place = self._side(name)
        self._begin()
        files.make_folder(place.parent)
        files.replace_file(place, data)

    def read_side_file(self, name: str) -> bytes:
        """The bytes of a side file; the caller compares them with the hash that it remembers.

        Raises:
            MissingArtifactError: there is no side file of that name.
            StorageError: the system refuses to read it.
        """
        place = self._side(name)
        try:
            with files.open_beneath(self.root, place) as stream:
                return stream.read()
        except FileNotFoundError as error:
            raise MissingArtifactError(
                f"`{place}` is missing", hint="start the run again with `tinygpt train --fresh`"
            ) from error
        except OSError as error:
            raise StorageError.refused(error, place) from error

    def set_aside(self, label: str) -> Path:
        """Move the whole unfinished run into the trash, under a name that begins with `label`.

        Returns:
            Its new path.
        """
        return files.set_aside(self.folder, self.root / ".trash", f"{label}-{self.folder.name}")

    def remove(self) -> None:
        """Remove the run, whose result is published; if that fails, `gc` removes it."""
        with suppress(StorageError):
            if self.folder.is_dir():
                gone = self.folder.with_name(f"{self.folder.name}.{secrets.token_hex(6)}")
                drop(self.folder, gone)

    def load(self, step: int) -> Artifact:
        """The checkpoint of a step, every byte of it checked.

        Raises:
            CorruptArtifactError: the checkpoint is damaged or missing.
        """
        artifact = Artifact.load(self._place(step), self.root, self.recipe.key)
        artifact.check()
        return artifact

    def _place(self, step: int) -> Path:
        # All names have the same width, so that they sort like the steps
        return self.folder / CHECKPOINT / f"step-{step:08d}"

    def _side(self, name: str) -> Path:
        if not files.is_safe_name(name) or "/" in name:
            raise ValueError(f"{name!r} is not a plain file name")
        return self.folder / _SIDE_FILES / name

    def _begin(self) -> None:
        """Make the run's folder, and remove what a killed process left in it."""
        files.make_folder(self.folder)
        for entry in (*entries(self.folder), *entries(self.folder / _SIDE_FILES)):
            if entry.name.startswith("."):
                files.remove(entry)

    def _move_to_trash(self, step: int) -> None:
        place = self._place(step)
        files.set_aside(place, self.root / ".trash", f"{self.folder.name}-{place.name}")


def drop(folder: Path, gone: Path) -> None:
    """Rename a folder, then remove it, so that it is never seen half removed.

    Args:
        gone: its new name, which marks it as a leftover.
    """
    files.rename(folder, gone)
    files.remove(gone)


def read_run(root: Path, folder: Path) -> UnfinishedRun | None:
    """The unfinished run in a folder of `.partial`, described by its newest sound manifest.

    Returns:
        None if the folder does not belong to a run, or contains no sound manifest.
    """
    match = RUN_FOLDER.fullmatch(folder.name)
    if match:
        for checkpoint in reversed(entries(folder / CHECKPOINT)):
            with suppress(ArtifactError, StorageError):
                manifest = Artifact.load(checkpoint, root, match[2]).manifest
                return UnfinishedRun(root, manifest.model_copy(update={"stage": match[1]}))
    return None
