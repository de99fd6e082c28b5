"""What a stage writes to: a private folder, sealed with a manifest when everything in it is durable."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from tinygpt.errors import StorageError
from tinygpt.store import files
from tinygpt.store.artifact import MANIFEST, Manifest, now
from tinygpt.store.files import FileRecord

if TYPE_CHECKING:
    from tinygpt.store.checkpoints import Checkpoints

_BUFFER = 1 << 20


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
            buffered = io.BufferedWriter(raw, _BUFFER)
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


class Out(NewFolder):
    """The files of one artifact in the making.

    Args:
        checkpoints: what an interrupted run of the same key left, and where this one leaves its own.
    """

    def __init__(self, folder: Path, checkpoints: "Checkpoints") -> None:
        super().__init__(folder)
        self.checkpoints = checkpoints
        self.facts: dict[str, object] = {}

    def provenance(self, **facts: object) -> None:
        """Record where, when and how fast: facts that are in the manifest but in no hash."""
        self.facts.update(facts)
