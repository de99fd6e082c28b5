"""An artifact: a folder of files with a manifest.

The manifest says how the artifact was made (its key) and what it contains (its digest).

Each time a file is read, its bytes are hashed through the file descriptor that the caller gets.
Modification times and permissions are never trusted.
"""

import errno
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tinygpt.errors import CorruptArtifactError, StorageError
from tinygpt.hashing import Digest, Key, hash_bytes, hash_stream
from tinygpt.store.files import open_beneath, refusals
from tinygpt.store.manifest import ID_LENGTH, MANIFEST, InputRecord, Manifest, digest_without
from tinygpt.store.stage_names import (
    CHECKPOINT,
    EXPERIMENT_STAGES,
    IMPORT_STAGE,
    KEPT_STAGES,
    MODEL_STAGE,
)
from tinygpt.store.typed_json import Record, as_record, parse

MODEL_FILES = ("config.json", "model.safetensors", "probe.safetensors", "tokenizer.json")
"""What a model needs beside its manifest to be loaded, sampled and evaluated on a text.

It can still be used if others are missing: optimizer state, best weights, snapshots, metrics.
"""
MAX_MANIFEST_BYTES = 16 << 20
MAX_BYTES = {".json": 16 << 20, ".jsonl": 512 << 20}
"""How large a file of a kind may be that is read into memory as a whole."""
ARTIFACT_ID = re.compile(r"[0-9a-f]{12}")


class DamageError(CorruptArtifactError):
    """A file of an artifact does not match the manifest.

    Args:
        root: the store's folder, or `folder` itself for a copy outside of any store.
        folder: the artifact's folder.
        file: the file's name in the artifact.
        kind: "missing", "changed", "truncated", "grown", "misnamed", "symlink" or "not a file"; or
            "malformed", where the bytes are those recorded, so that `verify` finds nothing.
        problem: the rest of a sentence that begins with the file's name, e.g., "is missing".
    """

    def __init__(self, root: Path, folder: Path, file: str, kind: str, problem: str) -> None:
        stage = folder.parent.name
        name = f"{stage}/{folder.name}"
        rebuild = f"`tinygpt run --until {stage} --force`"
        if root == folder:
            name = str(folder)
            hint = f"copy `{file}` again from the store where the model was trained"
        elif stage == CHECKPOINT:
            hint = "`tinygpt train --resume` continues from the newest intact checkpoint"
        elif kind == "malformed" and stage in EXPERIMENT_STAGES:
            hint = "the `tinygpt run --vary` that made it makes it again with `--force`"
        elif kind == "malformed":
            hint = f"{rebuild} makes it again"
        elif stage == MODEL_STAGE:
            hint = f"`tinygpt artifacts verify --repair` mends what it can; {rebuild} trains again"
        elif stage in KEPT_STAGES:
            remove = "`tinygpt artifacts verify --repair` removes it"
            hint = f"{remove}; the `tinygpt run --vary` that made it makes it again"
        else:
            hint = f"`tinygpt artifacts verify --repair` removes it, and {rebuild} makes it again"
        super().__init__(f"artifact `{name}` is damaged: `{file}` {problem}", hint=hint)
        self.kind = kind


@dataclass(frozen=True)
class Artifact:
    """The result of a finished stage, or a checkpoint.

    Args:
        folder: holds its files.
        manifest: read from the folder, and checked.
        root: symbolic links below this folder are refused.
    """

    folder: Path
    manifest: Manifest
    root: Path

    @classmethod
    def load(cls, folder: Path, root: Path | None = None, key: str = "") -> "Artifact":
        """Read and check the manifest of a folder.

        Args:
            root: the store's folder; None for a copy outside of any store.
            key: what the artifact's key has to begin with.
        Raises:
            CorruptArtifactError: the manifest is missing, damaged, or that of another folder.
            StorageError: the manifest cannot be read.
        """
        with _open(root or folder, folder, MANIFEST) as stream, refusals(folder / MANIFEST):
            data = stream.read(MAX_MANIFEST_BYTES)
        try:
            manifest = Manifest.from_bytes(data)
        except (ValueError, RecursionError) as error:
            problem = "is not what this version of tinygpt writes"
            raise DamageError(root or folder, folder, MANIFEST, "changed", problem) from error
        in_its_place = root is None or manifest.place == (folder.parent.name, folder.name)
        if not in_its_place or not manifest.key.startswith(key):
            problem = f"describes `{'/'.join(manifest.place)}` with key `{manifest.key}`"
            raise DamageError(root or folder, folder, MANIFEST, "misnamed", problem)
        return cls(folder, manifest, root or folder)

    @property
    def stage(self) -> str:
        return self.manifest.stage

    @property
    def key(self) -> Key:
        return self.manifest.key

    @property
    def digest(self) -> Digest:
        return self.manifest.digest

    @property
    def is_imported(self) -> bool:
        """Whether another program made it: nothing is known of its training."""
        return any(record["stage"] == IMPORT_STAGE for record in self.manifest.inputs.values())

    @property
    def id(self) -> str:
        """The first 12 digits of the key, as people type it."""
        return self.key[:ID_LENGTH]

    @property
    def created(self) -> str:
        """When it was finished: UTC, ISO 8601."""
        return str(self.manifest.provenance["created"])

    @property
    def size(self) -> int:
        """Bytes of all its files together."""
        return sum(record["bytes"] for record in self.manifest.files.values())

    @property
    def present_digest(self) -> Digest:
        """The digest of what is there; unlike `digest` while optional files are missing.

        It enters the keys of what is made from the artifact, because a stage may read those files.
        """
        return digest_without(self.digest, self.missing())

    def input(self, stage: str) -> InputRecord:
        """What the manifest says of an input.

        Raises:
            CorruptArtifactError: it has none of this stage.
        """
        if stage not in self.manifest.inputs:
            raise self.malformed(MANIFEST, f"has no input of `{stage}`")
        return self.manifest.inputs[stage]

    def table(self, name: str, record: type[Record] = dict) -> Record:  # type: ignore[assignment]
        """A table of the configuration that it was made with.

        Args:
            name: of the table.
            record: see read_json.
        Raises:
            CorruptArtifactError: there is none, or it is of another type.
        """
        try:
            return as_record(self.manifest.tables.get(name), record)
        except ValueError as error:
            raise self.malformed(MANIFEST, f"`tables.{name}`: {error}") from error

    def names(self) -> list[str]:
        """The names of its files, sorted."""
        return sorted(self.manifest.files)

    def is_optional(self, name: str) -> bool:
        """Whether the artifact can be used without a file; so it is for most files of a model."""
        return self.stage == MODEL_STAGE and name not in MODEL_FILES

    def missing(self) -> list[str]:
        """The names of optional files that are not there, sorted."""
        return [
            name
            for name in self.names()
            if self.is_optional(name) and not os.path.lexists(self.path(name))
        ]

    def path(self, name: str) -> Path:
        """Where a file is, to be shown to people; code reads it with `read` or `open`."""
        return self.folder / name

    def open(self, name: str) -> BinaryIO:
        """Open a file, hash it through the returned stream, and rewind it.

        Raises:
            CorruptArtifactError: the file is missing, or differs from what was written.
        """
        with self._open_sized(name) as stream, refusals(self.path(name)):
            self._check_hash(name, hash_stream(stream))
            # stream.seek would only move within its buffer
            os.lseek(stream.fileno(), 0, os.SEEK_SET)
            return os.fdopen(os.dup(stream.fileno()), "rb")

    def read(self, name: str, most: int | None = None) -> bytes:
        """The bytes of a file, checked like those of `open`.

        Args:
            most: the largest size to read into memory; None for that of MAX_BYTES, if any.
        """
        with self._open_sized(name) as stream, refusals(self.path(name)):
            size = self.manifest.files[name]["bytes"]
            if size > (most or MAX_BYTES.get(Path(name).suffix, size)):
                raise self._damage(name, "malformed", f"has {size:,} bytes, more than it can need")
            data = stream.read()
        self._check_hash(name, hash_bytes(data))
        return data

    def read_json(self, name: str, record: type[Record] = dict) -> Record:  # type: ignore[assignment]
        """The value of a JSON file.

        Args:
            name: of the file.
            record: its type; any object if it is left out, for who is not going to compute with it.
        Raises:
            CorruptArtifactError: it is damaged, or of another type.
        """
        return self._parsed(name, self.read(name), record)

    def read_rows(self, name: str, rows: type[Record] = list) -> Record:  # type: ignore[assignment]
        """The values of a JSON Lines file, like `read_json`; `rows` is a list type."""
        return self._parsed(name, b"[%s]" % b",".join(self.read(name).splitlines()), rows)

    def _parsed(self, name: str, data: bytes, record: type[Record]) -> Record:
        try:
            return parse(data, record)
        except ValueError as error:
            raise self.malformed(name, str(error)) from error

    def malformed(self, name: str, problem: str) -> DamageError:
        """What to raise for a file whose bytes are those recorded, but not what it should hold."""
        text = f"is not what this version of tinygpt writes ({problem})"
        return self._damage(name, "malformed", text)

    def check(self) -> None:
        """Hash every file.

        Raises:
            CorruptArtifactError: a file differs from what was written, or one is missing that is
                not optional.
        """
        missing = self.missing()
        for name in self.names():
            if name not in missing:
                self.open(name).close()

    def check_model_files(self) -> None:
        """Hash what is needed to load a model, its manifest apart; errors as in `check`."""
        for name in self.names():
            if name in MODEL_FILES:
                self.open(name).close()

    def _open_sized(self, name: str) -> BinaryIO:
        """Open a file of the recorded size; a wrong size says more than a wrong hash."""
        if name not in self.manifest.files:
            raise self._damage(name, "missing", "is not listed in the manifest")
        stream = _open(self.root, self.folder, name)
        expected = self.manifest.files[name]["bytes"]
        found = os.fstat(stream.fileno()).st_size
        if found != expected:
            stream.close()
            kind = "truncated" if found < expected else "grown"
            raise self._damage(name, kind, f"has {found} bytes instead of {expected}")
        return stream

    def _check_hash(self, name: str, sha256: str) -> None:
        if sha256 != self.manifest.files[name]["sha256"]:
            raise self._damage(name, "changed", "does not match its recorded hash")

    def _damage(self, name: str, kind: str, problem: str) -> DamageError:
        return DamageError(self.root, self.folder, name, kind, problem)


Inputs = Mapping[str, Artifact]
"""The artifacts that a stage reads, each under the name of the stage that made it."""


def _open(root: Path, folder: Path, name: str) -> BinaryIO:
    try:
        return open_beneath(root, folder / name)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise DamageError(root, folder, name, "missing", "is missing") from error
        if error.errno == errno.ELOOP:
            problem = "is a symbolic link or lies behind one"
            raise DamageError(root, folder, name, "symlink", problem) from error
        if error.errno in (errno.EISDIR, errno.ENXIO):
            raise DamageError(root, folder, name, "not a file", "is not a regular file") from error
        raise StorageError.refused(error, folder / name) from error
