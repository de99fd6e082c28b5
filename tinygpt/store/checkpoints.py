"""What an unfinished run keeps: checkpoints, each a small artifact, and side files, in one folder that its key finds again.

.partial/train-<key12>/  run.json                     how the run is made: a manifest without files
                         checkpoint/step-00000010/    an artifact of stage "checkpoint"
                         kept/<name>                  side files; whoever keeps them remembers their hashes
"""

import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tinygpt.errors import ArtifactError, CorruptArtifactError, MissingArtifactError, StorageError
from tinygpt.store import files
from tinygpt.store.artifact import CHECKPOINT, ID_LENGTH, MANIFEST, MAX_MANIFEST_BYTES, Artifact, Manifest, Tables
from tinygpt.store.files import entries

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
        self.root = root
        self.recipe = recipe
        self.folder = root / ".partial" / f"{recipe.stage}-{recipe.key[:ID_LENGTH]}"
        self.damaged: list[str] = []

    def steps(self) -> list[int]:
        """The steps of all checkpoints, whole or not, lowest first."""
        found = (_STEP.fullmatch(entry.name) for entry in entries(self.folder / CHECKPOINT))
        return sorted(int(match[1]) for match in found if match)

    def newest(self) -> Artifact | None:
        """The newest checkpoint of which every byte is right; the names of newer, damaged ones are left in `damaged`."""
        self.damaged = []
        for step in reversed(self.steps()):
            try:
                return self._load(step)
            except (ArtifactError, StorageError):
                self.damaged.append(step_name(step))
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
        fresh, final = self.folder / f".new.{secrets.token_hex(6)}", self._place(step)
        records = {}
        try:
            files.make_folder(fresh)
            for name, data in parts.items():
                if not files.is_safe_name(name):
                    raise ValueError(f"{name!r} is not a plain, relative file name")
                for parent in reversed(Path(name).parents[:-1]):
                    files.make_folder(fresh / parent)
                records[name] = files.write_file(fresh / name, data)
            for parent in {parent for name in parts for parent in Path(name).parents}:
                files.fsync_folder(fresh / parent)
            manifest = replace(self.recipe, stage=CHECKPOINT, files=records, provenance={**self.recipe.provenance, "step": step})
            files.write_file(fresh / MANIFEST, manifest.to_bytes())
            files.fsync_folder(fresh)
            # The run went on from an earlier step than these: they are damaged, or this one takes their place.
            for later in [other for other in self.steps() if other >= step]:
                files.set_aside(self._place(later), self.root / ".trash", f"{self.folder.name}-{step_name(later)}")
            files.make_folder(final.parent)
            files.rename(fresh, final)
        except StorageError:
            files.discard(fresh)
            raise
        saved = self._load(step)
        for old in self.steps()[:-keep]:
            self._drop(self._place(old), self.folder / f".gone.{secrets.token_hex(6)}")
        return saved

    def keep(self, name: str, data: bytes) -> None:
        """Keep a side file beside the checkpoints, durable on return; one of the same name is replaced."""
        if not files.is_safe_name(name) or "/" in name:
            raise ValueError(f"{name!r} is not a plain file name")
        self._begin()
        files.make_folder(self.folder / _KEPT)
        files.replace_file(self.folder / _KEPT / name, data)

    def kept(self, name: str) -> bytes:
        """A side file's bytes; the caller compares them with the hash it remembers.

        Raises:
            MissingArtifactError: there is none of that name.
        """
        place = (*self.folder.relative_to(self.root).parts, _KEPT, name)
        if not files.is_safe_name(name) or "/" in name:
            raise ValueError(f"{name!r} is not a plain file name")
        try:
            with files.open_beneath(self.root, place) as stream:
                return stream.read()
        except FileNotFoundError as error:
            hint = "start the run again with `tinygpt train --fresh`"
            raise MissingArtifactError(f"`{self.root.joinpath(*place)}` is gone", hint=hint) from error
        except OSError as error:
            raise files.storage_error(error, self.root.joinpath(*place)) from error

    def set_aside(self, label: str) -> Path:
        """Move the whole unfinished run into the trash, under a name that begins with `label`; returns where it is now."""
        if not files.is_safe_name(label) or "/" in label:
            raise ValueError(f"{label!r} is not a plain name")
        return files.set_aside(self.folder, self.root / ".trash", f"{label}-{self.folder.name}")

    def remove(self) -> None:
        """Forget the run: its result is published. What cannot be removed is left to `gc`."""
        with suppress(StorageError):
            if self.folder.is_dir():
                self._drop(self.folder, self.folder.with_name(f"{self.folder.name}.{secrets.token_hex(6)}"))

    def _load(self, step: int) -> Artifact:
        artifact = Artifact.load(self._place(step), self.root)
        if (artifact.stage, artifact.key) != (CHECKPOINT, self.recipe.key) or artifact.manifest.provenance.get("step") != step:
            raise CorruptArtifactError(f"`{artifact.folder}` holds a checkpoint of another run or step")
        artifact.check()
        return artifact

    def _place(self, step: int) -> Path:
        return self.folder / CHECKPOINT / step_name(step)

    def _begin(self) -> None:
        """Make the run's folder, say in it what the run is, and sweep up what a killed process left there."""
        for folder in (self.root, self.folder.parent, self.folder):
            files.make_folder(folder)
        if not (self.folder / RUN).exists():
            files.replace_file(self.folder / RUN, self.recipe.to_bytes())
        for entry in (*entries(self.folder), *entries(self.folder / _KEPT)):
            if entry.name.startswith("."):
                files.remove(entry)

    def _drop(self, folder: Path, gone: Path) -> None:
        """Remove a folder so that no half-removed one can be taken for a whole one; `gone` is a name that is swept up."""
        files.rename(folder, gone)
        files.remove(gone)


@dataclass(frozen=True)
class Unfinished:
    """A run that was interrupted and can be continued."""

    recipe: Manifest
    step: int
    folder: Path

    @property
    def stage(self) -> str:
        return self.recipe.stage

    @property
    def key12(self) -> str:
        return self.recipe.key[:ID_LENGTH]

    @property
    def tables(self) -> Tables:
        return self.recipe.tables


def read_run(root: Path, folder: Path) -> Unfinished | None:
    """The unfinished run that a folder of `.partial` holds, None if its description is missing or damaged."""
    try:
        with files.open_beneath(root, (*folder.relative_to(root).parts, RUN)) as stream:
            recipe = Manifest.from_bytes(stream.read(MAX_MANIFEST_BYTES))
    except (OSError, ValueError):
        return None
    run = Checkpoints(root, recipe)
    return Unfinished(recipe, max(run.steps(), default=0), folder) if run.folder == folder else None


def step_name(step: int) -> str:
    """The folder name of a checkpoint; of one width, so that names sort like steps."""
    return f"step-{step:08d}"
