"""An artifact: a folder of files with a manifest that says how it was made (key) and what it is (digest).

Every byte is hashed each time it is read, through the descriptor that is then used. Times and mode bits are never trusted.
"""

import errno
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

from tinygpt.errors import CorruptArtifactError
from tinygpt.hashing import Digest, Key, hash_bytes, hash_json, hash_stream
from tinygpt.store.files import FileRecord, is_safe_name, open_beneath, storage_error

FORMAT = 1
MANIFEST = "manifest.json"
CHECKPOINT = "checkpoint"
ID_LENGTH = 12
MAX_MANIFEST_BYTES = 16 << 20
STAGE_NAME = re.compile(r"[a-z][a-z-]{0,40}")
_HEX64 = re.compile(r"[0-9a-f]{64}")

Tables = Mapping[str, Mapping[str, object]]
"""The configuration an artifact was made with: {table: {key: value}}."""


class InputRecord(TypedDict):
    """What a manifest says of an artifact it was made from."""

    stage: str
    key: Key
    digest: Digest


class DamageError(CorruptArtifactError):
    """A file of an artifact is not what its manifest says.

    Args:
        artifact: `stage/id`.
        file: its name in the artifact.
        kind: "missing", "changed", "truncated", "grown", "symlink", "not a file" or "misnamed".
        what: the kind as the end of a sentence about the file.
    """

    def __init__(self, artifact: str, file: str, kind: str, what: str) -> None:
        stage = artifact.partition("/")[0]
        if stage == CHECKPOINT:
            hint = "`tinygpt train --resume` continues from the newest checkpoint that is whole"
        else:
            hint = f"rebuild it with `tinygpt run --until {stage} --force`"
        super().__init__(f"artifact `{artifact}` is damaged: `{file}` {what}", hint=hint)
        self.artifact, self.file, self.kind = artifact, file, kind


def digest_of(files: Mapping[str, FileRecord]) -> Digest:
    """What an artifact is: the hash over its files' names and hashes."""
    return Digest(hash_json("tinygpt.digest", {name: record["sha256"] for name, record in files.items()}))


@dataclass(frozen=True)
class Manifest:
    """How an artifact was made, what it is made of, and (never hashed into key or digest) where and when."""

    stage: str
    version: int
    key: Key
    tables: Tables
    inputs: Mapping[str, InputRecord]
    files: Mapping[str, FileRecord]
    provenance: Mapping[str, object]
    format: int = FORMAT

    @property
    def digest(self) -> Digest:
        return digest_of(self.files)

    def to_bytes(self) -> bytes:
        """The one spelling of this manifest; it holds the SHA-256 of its own canonical form."""
        body: dict[str, object] = {
            "format": self.format, "stage": self.stage, "version": self.version, "key": self.key, "digest": self.digest,
            "tables": self.tables, "inputs": self.inputs, "files": self.files, "provenance": self.provenance,
        }  # fmt: skip
        body["sha256"] = hash_json("tinygpt.manifest", json.loads(json.dumps(body, allow_nan=False)))
        return json.dumps(body, indent=1, sort_keys=True, allow_nan=False).encode("ascii") + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Read a manifest, trusting nothing: what is not exactly what `to_bytes` writes is refused.

        Raises:
            ValueError: with the reason.
        """
        try:
            body = json.loads(data)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        if isinstance(body, dict) and body.get("format", FORMAT) != FORMAT:
            raise ValueError(f"has format {body['format']!r}, this tinygpt reads {FORMAT}")
        manifest = _read(body)
        try:
            faithful = manifest.to_bytes() == data
        except (RecursionError, OverflowError) as error:
            raise ValueError("holds values that cannot be written") from error
        if not faithful:
            raise ValueError("differs from its own hash")
        return manifest


def _read(body: object) -> Manifest:
    match body:
        case {
            "stage": str(stage), "version": int(version), "key": str(key), "tables": dict(tables), "inputs": dict(inputs),
            "files": dict(files), "provenance": dict(provenance),
        } if (
            STAGE_NAME.fullmatch(stage)
            and _HEX64.fullmatch(key)
            and all(isinstance(table, dict) for table in tables.values())
            and all(_is_input(record) for record in inputs.values())
            and all(_is_file(name, record) for name, record in files.items())
            and len({name.casefold() for name in files}) == len(files)
            and isinstance(provenance.get("created"), str)
        ):  # fmt: skip
            return Manifest(stage, version, Key(key), tables, inputs, files, provenance)
    raise ValueError("does not have the form of a manifest")


def _is_input(record: object) -> bool:
    match record:
        case {"stage": str(stage), "key": str(key), "digest": str(digest)}:
            return bool(STAGE_NAME.fullmatch(stage) and _HEX64.fullmatch(key) and _HEX64.fullmatch(digest))
    return False


def _is_file(name: str, record: object) -> bool:
    match record:
        case {"sha256": str(sha256), "bytes": int(size)}:
            return bool(is_safe_name(name) and name.casefold() != MANIFEST and _HEX64.fullmatch(sha256) and size >= 0)
    return False


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
    def load(cls, folder: Path, root: Path | None = None) -> "Artifact":
        """Read and check the manifest of a folder.

        Raises:
            CorruptArtifactError: there is none, or it is not as it was written.
            StorageError: it cannot be read.
        """
        root = root or folder
        name = f"{folder.parent.name}/{folder.name}"
        with _open(root, folder, name, MANIFEST) as stream:
            data = _read_all(stream, MAX_MANIFEST_BYTES, folder / MANIFEST)
        try:
            return cls(folder, Manifest.from_bytes(data), root)
        except ValueError as error:
            raise DamageError(name, MANIFEST, "changed", str(error) if len(str(error)) < 60 else "is not valid JSON") from error

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

    @property
    def record(self) -> InputRecord:
        """How the manifest of a later artifact names this one."""
        return {"stage": self.stage, "key": self.key, "digest": self.digest}

    def names(self) -> list[str]:
        """The names of its files."""
        return sorted(self.manifest.files)

    def path(self, name: str) -> Path:
        """Where a file stands, for showing to people; read it with `read` or `open`."""
        return self.folder / name

    def open(self, name: str) -> BinaryIO:
        """A file, hashed through the descriptor that is returned and rewound.

        Raises:
            CorruptArtifactError: it is missing or not what was written.
        """
        stream = self._sized(name)
        try:
            found = hash_stream(stream)
            stream.seek(0)
        except OSError as error:
            stream.close()
            raise storage_error(error, self.path(name)) from error
        if found != self.manifest.files[name]["sha256"]:
            stream.close()
            raise self._changed(name)
        return stream

    def read(self, name: str) -> bytes:
        """The bytes of a file, checked; see `open`."""
        with self._sized(name) as stream:
            data = _read_all(stream, self.manifest.files[name]["bytes"], self.path(name))
        if hash_bytes(data) != self.manifest.files[name]["sha256"]:
            raise self._changed(name)
        return data

    def read_json(self, name: str) -> Any:
        """A JSON file's value, its bytes checked."""
        return json.loads(self.read(name))

    def check(self) -> None:
        """Hash every file.

        Raises:
            CorruptArtifactError: the first that is not what was written.
        """
        for name in self.names():
            self.open(name).close()

    def _sized(self, name: str) -> BinaryIO:
        label = f"{self.stage}/{self.folder.name}"
        if name not in self.manifest.files:
            raise DamageError(label, name, "missing", "is not among its files")
        stream = _open(self.root, self.folder, label, name)
        wanted, found = self.manifest.files[name]["bytes"], os.fstat(stream.fileno()).st_size
        if found != wanted:
            stream.close()
            kind = "truncated" if found < wanted else "grown"
            raise DamageError(label, name, kind, f"has {found} bytes instead of {wanted}")
        return stream

    def _changed(self, name: str) -> DamageError:
        return DamageError(f"{self.stage}/{self.folder.name}", name, "changed", "differs from its hash")


def _open(root: Path, folder: Path, label: str, name: str) -> BinaryIO:
    try:
        return open_beneath(root, (*folder.relative_to(root).parts, *name.split("/")))
    except OSError as error:
        match error.errno:
            case errno.ENOENT | errno.ENOTDIR:
                raise DamageError(label, name, "missing", "is missing") from error
            case errno.ELOOP:
                raise DamageError(label, name, "symlink", "is or lies behind a symbolic link") from error
            case errno.EISDIR | errno.ENXIO:
                raise DamageError(label, name, "not a file", "is not a regular file") from error
        raise storage_error(error, folder / name) from error


def _read_all(stream: BinaryIO, limit: int, path: Path) -> bytes:
    try:
        return stream.read(limit + 1)
    except OSError as error:
        raise storage_error(error, path) from error
