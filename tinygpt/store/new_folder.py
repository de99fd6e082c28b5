"""A folder of files that nobody sees until everything in it is durable."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tinygpt.errors import StorageError
from tinygpt.store import files
from tinygpt.store.files import FileRecord
from tinygpt.store.manifest import MANIFEST, Manifest, now


class NewFolder:
    """A new folder into which files are written; its owner renames it once everything is durable.

    Args:
        folder: where the files are written; it does not exist yet.

    Attributes:
        file_mode: of its files.
    """

    file_mode = files.FILE_MODE

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, FileRecord] = {}
        self._folders = [folder]
        try:
            files.make_folder(folder)
        except (StorageError, KeyboardInterrupt):
            self.discard()
            raise

    def bytes(self, name: str, data: bytes | memoryview) -> None:
        """Write a file; it is durable on return."""
        self.files[name] = files.write_file(self._place(name), data, self.file_mode)

    def json(self, name: str, value: object) -> None:
        """Write a value as JSON that people can read: indented, keys sorted, no NaN."""
        text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        self.bytes(name, text.encode("utf-8", "backslashreplace") + b"\n")

    @contextmanager
    def stream(self, name: str) -> Iterator[BinaryIO]:
        """A file to write piece by piece, durable after the block; left out if the block fails."""
        raw = files.NewFile(self._place(name), self.file_mode)
        try:
            buffered = io.BufferedWriter(raw, 1 << 20)
            yield buffered
            buffered.flush()
            self.files[name] = raw.finish()
        finally:
            raw.close()

    def seal(self, recipe: Manifest, **facts: object) -> Manifest:
        """Write the manifest, after everything else is durable.

        Args:
            recipe: how the artifact was made.
            facts: its provenance.
        """
        self.sync()
        provenance = {**facts, "created": now()}
        manifest = recipe.model_copy(update={"files": self.files, "provenance": provenance})
        files.write_file(self.folder / MANIFEST, manifest.to_bytes())
        files.fsync_folder(self.folder)
        return manifest

    def sync(self) -> None:
        """Make durable which files the folders in the folder contain."""
        for folder in reversed(self._folders[1:]):
            files.fsync_folder(folder)

    def discard(self) -> None:
        """Remove what was written; if that fails, the next run or `gc` removes it."""
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
