"""An artifact: a folder of files with a manifest that says how it was made (key) and what it is (digest).

Every byte is hashed each time it is read, through the descriptor that is then used. Times and mode bits are never trusted.
"""

import errno
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, Self

from pydantic import BaseModel, Field, model_validator
from typing_extensions import TypedDict

from tinygpt.errors import CorruptArtifactError, StorageError
from tinygpt.hashing import Digest, Key, hash_bytes, hash_json, hash_stream
from tinygpt.store.files import FileRecord, is_safe_name, open_beneath, refusals

MANIFEST = "manifest.json"
CHECKPOINT = "checkpoint"
ID_LENGTH = 12
MAX_MANIFEST_BYTES = 16 << 20
ARTIFACT_ID = re.compile(r"[0-9a-f]{12}")
STAGE_NAME = re.compile(r"[a-z][a-z-]{0,40}")

Tables = Mapping[str, Mapping[str, object]]
"""The configuration an artifact was made with: {table: {key: value}}."""

Stage = Annotated[str, Field(pattern=f"^{STAGE_NAME.pattern}$")]
_HEX64 = Field(pattern="^[0-9a-f]{64}$")


class InputRecord(TypedDict):
    """What a manifest says of an artifact it was made from."""

    stage: Stage
    key: Annotated[Key, _HEX64]
    digest: Annotated[Digest, _HEX64]


class DamageError(CorruptArtifactError):
    """A file of an artifact is not what its manifest says.

    Args:
        folder: the artifact's.
        file: its name in the artifact.
        kind: "missing", "changed", "truncated", "grown", "symlink", "not a file" or "misnamed".
        what: the kind as the end of a sentence about the file.
    """

    def __init__(self, folder: Path, file: str, kind: str, what: str) -> None:
        stage = folder.parent.name
        hint = f"rebuild it with `tinygpt run --until {stage} --force`"
        if stage == CHECKPOINT:
            hint = "`tinygpt train --resume` continues from the newest checkpoint that is whole"
        super().__init__(f"artifact `{stage}/{folder.name}` is damaged: `{file}` {what}", hint=hint)
        self.kind = kind


def now() -> str:
    """The time as manifests hold it: UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class Manifest(BaseModel, frozen=True):
    """How an artifact was made, what it is made of, and (never hashed into key or digest) where and when."""

    format: Literal[1] = 1
    stage: Stage
    version: int
    key: Annotated[Key, _HEX64]
    tables: Tables
    inputs: dict[str, InputRecord]
    files: dict[str, FileRecord] = {}
    provenance: dict[str, object]

    @model_validator(mode="after")
    def _can_be_trusted(self) -> Self:
        """No file's name leads out of the folder or is another's in different case; what others rely on is there."""
        names = {MANIFEST, *(name.casefold() for name in self.files)}
        if len(names) <= len(self.files) or not all(map(is_safe_name, self.files)):
            raise ValueError("a file has no name of its own")
        if not isinstance(self.provenance.get("created"), str) or (self.stage == CHECKPOINT and "step" not in self.provenance):
            raise ValueError("the provenance is incomplete")
        return self

    @property
    def digest(self) -> Digest:
        """What an artifact is: the hash over its files' names and hashes."""
        return Digest(hash_json("tinygpt.digest", {name: record["sha256"] for name, record in self.files.items()}))

    @property
    def place(self) -> tuple[str, str]:
        """The names of the folder above the artifact's own, and of its own."""
        return self.stage, f"step-{self.provenance['step']!s:0>8}" if self.stage == CHECKPOINT else self.key[:ID_LENGTH]

    def to_bytes(self) -> bytes:
        """The one spelling of this manifest; it holds the SHA-256 of its own canonical form."""
        body = dict(self) | {"digest": self.digest}
        body["sha256"] = hash_json("tinygpt.manifest", body)
        return json.dumps(body, indent=1, sort_keys=True, allow_nan=False).encode("ascii") + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Read a manifest, trusting nothing.

        Raises:
            ValueError, RecursionError: it is not exactly what `to_bytes` writes.
        """
        manifest = cls.model_validate(json.loads(data))
        if manifest.to_bytes() != data:
            raise ValueError("differs from its own hash")
        return manifest


@dataclass(frozen=True)
class Artifact:
    """A finished stage's result, or a checkpoint.

    Args:
        folder: where it stands.
        manifest: read from it, and checked.
        root: links are refused below this folder.
    """

    folder: Path
    manifest: Manifest
    root: Path

    @classmethod
    def load(cls, folder: Path, root: Path | None = None, key: str = "") -> "Artifact":
        """Read and check the manifest of a folder.

        Args:
            root: None for a copy outside of any store.
            key: what its key begins with.
        Raises:
            CorruptArtifactError: there is none, it is not as it was written, or it belongs elsewhere.
            StorageError: it cannot be read.
        """
        with _open(root or folder, folder, MANIFEST) as stream, refusals(folder / MANIFEST):
            data = stream.read(MAX_MANIFEST_BYTES)
        try:
            manifest = Manifest.from_bytes(data)
        except (ValueError, RecursionError) as error:
            raise DamageError(folder, MANIFEST, "changed", "is not as this tinygpt writes it") from error
        at_home = root is None or manifest.place == (folder.parent.name, folder.name)
        if not (at_home and manifest.key.startswith(key)):
            raise DamageError(folder, MANIFEST, "misnamed", f"belongs to `{'/'.join(manifest.place)}` of key `{manifest.key}`")
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
    def id(self) -> str:
        """The first 12 digits of the key, as people write it."""
        return self.key[:ID_LENGTH]

    @property
    def created(self) -> str:
        """When it was finished, UTC, ISO 8601."""
        return str(self.manifest.provenance["created"])

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(record["bytes"] for record in self.manifest.files.values())

    def names(self) -> list[str]:
        """The names of its files."""
        return sorted(self.manifest.files)

    def path(self, name: str) -> Path:
        """Where a file stands, for showing to people; read it with `read` or `open`."""
        return self.folder / name

    def open(self, name: str) -> BinaryIO:
        """A file, hashed through the open file that is returned, rewound.

        Raises:
            CorruptArtifactError: it is missing or not what was written.
        """
        with self._sized(name) as stream, refusals(self.path(name)):
            self._compare(name, hash_stream(stream))
            os.lseek(stream.fileno(), 0, os.SEEK_SET)  # stream.seek would only move within its buffer
            return os.fdopen(os.dup(stream.fileno()), "rb")

    def read(self, name: str) -> bytes:
        """The bytes of a file, checked; see `open`."""
        with self._sized(name) as stream, refusals(self.path(name)):
            data = stream.read()
        self._compare(name, hash_bytes(data))
        return data

    def read_json(self, name: str) -> Any:
        """A JSON file's value, its bytes checked."""
        return json.loads(self.read(name))

    def read_rows(self, name: str) -> list[Any]:
        """The values of a file that holds one JSON value a line, its bytes checked."""
        return [json.loads(line) for line in self.read(name).splitlines()]

    def check(self) -> None:
        """Hash every file.

        Raises:
            CorruptArtifactError: the first that is not what was written.
        """
        for name in self.names():
            self.open(name).close()

    def _sized(self, name: str) -> BinaryIO:
        if name not in self.manifest.files:
            raise DamageError(self.folder, name, "missing", "is not among its files")
        stream = _open(self.root, self.folder, name)
        wanted, found = self.manifest.files[name]["bytes"], os.fstat(stream.fileno()).st_size
        if found != wanted:
            stream.close()
            kind = "truncated" if found < wanted else "grown"
            raise DamageError(self.folder, name, kind, f"has {found} bytes instead of {wanted}")
        return stream

    def _compare(self, name: str, sha256: str) -> None:
        if sha256 != self.manifest.files[name]["sha256"]:
            raise DamageError(self.folder, name, "changed", "differs from its hash")


Inputs = Mapping[str, Artifact]
"""What a stage reads, by the names of the stages that made it."""


def _open(root: Path, folder: Path, name: str) -> BinaryIO:
    try:
        return open_beneath(root, folder / name)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise DamageError(folder, name, "missing", "is missing") from error
        if error.errno == errno.ELOOP:
            raise DamageError(folder, name, "symlink", "is or lies behind a symbolic link") from error
        if error.errno in (errno.EISDIR, errno.ENXIO):
            raise DamageError(folder, name, "not a file", "is not a regular file") from error
        raise StorageError.refused(error, folder / name) from error
