"""manifest.json: how an artifact was made and which files it has, and the types of what is read."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from annotated_types import Ge
from pydantic import BaseModel, Field, TypeAdapter, model_validator
from typing_extensions import TypedDict

from tinygpt.hashing import Digest, Key, hash_json
from tinygpt.records import CodeRecord, Count
from tinygpt.store.files import FileRecord, is_safe_name
from tinygpt.store.stage_names import CHECKPOINT

MANIFEST = "manifest.json"
ID_LENGTH = 12
STAGE_NAME = re.compile(r"[a-z][a-z-]{0,40}")

Tables = Mapping[str, Mapping[str, object]]
"""The configuration that an artifact was made with: {table: {key: value}}."""

Stage = Annotated[str, Field(pattern=f"^{STAGE_NAME.pattern}$")]
_HEX64 = Field(pattern="^[0-9a-f]{64}$")


class InputRecord(TypedDict):
    """How a manifest names an input of its artifact."""

    stage: Stage
    key: Annotated[Key, _HEX64]
    digest: Annotated[Digest, _HEX64]


class Facts(TypedDict, total=False):
    """What is read of a manifest's provenance, which may hold more."""

    created: str
    """UTC, ISO 8601."""
    step: int
    """Of a checkpoint."""
    source: str
    fingerprint: str
    command: list[str]
    preset: str | None
    seconds: float
    code: CodeRecord
    exact: bool
    imported: str


_FACTS = TypeAdapter(Facts)


class DataTable(TypedDict):
    """What is read of [data] in the manifest of a corpus."""

    source: str
    """Digest of what the source holds."""


class ModelTable(TypedDict):
    """What is read of [model] in the manifest of a run."""

    context_length: Annotated[Count, Ge(1)]


class RunTable(TypedDict):
    """What is read of [train] in the manifest of a run, which may be of an older version."""

    max_steps: Annotated[Count, Ge(1)]
    batch_size: Annotated[Count, Ge(1)]
    grad_accum_steps: Annotated[Count, Ge(1)]
    seed: Count


class SampleTable(TypedDict):
    """What is read of [sample] in the manifest of samples."""

    num_samples: Count
    prompt: str | None


def recipe_key(stage: str, version: int, tables: Tables, inputs: Mapping[str, Digest]) -> Key:
    """The key of what is made in one way.

    Args:
        inputs: the digest of each artifact that is read, by the name of its stage.
    """
    return Key(hash_json("tinygpt.key", stage, version, tables, dict(inputs)))


def digest_without(digest: Digest, missing: Sequence[str]) -> Digest:
    """What an artifact of a digest contains while files of these names, sorted, are missing."""
    return Digest(hash_json("tinygpt.lacking", digest, list(missing))) if missing else digest


def now() -> str:
    """The current time as it is written in manifests: UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class Manifest(BaseModel, frozen=True):
    """How an artifact was made and which files it has.

    Args:
        provenance: where and when it was made; enters neither key nor digest.
    """

    format: Literal[1] = 1
    stage: Stage
    version: int
    key: Annotated[Key, _HEX64]
    tables: Tables
    inputs: dict[str, InputRecord]
    files: dict[str, FileRecord] = {}
    provenance: dict[str, object]

    @model_validator(mode="after")
    def _has_safe_names_and_provenance(self) -> Self:
        distinct_names = {MANIFEST, *(name.casefold() for name in self.files)}
        if len(distinct_names) != len(self.files) + 1:
            raise ValueError("two file names are equal or differ only in case")
        if not all(map(is_safe_name, self.files)):
            raise ValueError("a file name is not safe on every system")
        facts = _FACTS.validate_python(self.provenance, strict=True)
        created = datetime.fromisoformat(facts.get("created", ""))
        if created.utcoffset() is None or not 1970 <= created.year <= 9000:
            raise ValueError("the provenance does not say when the artifact was created")
        if self.stage == CHECKPOINT and "step" not in facts:
            raise ValueError("the provenance of a checkpoint lacks its step")
        return self

    @property
    def digest(self) -> Digest:
        """What the artifact contains: a hash of the names and hashes of its files."""
        hashes = {name: record["sha256"] for name, record in self.files.items()}
        return Digest(hash_json("tinygpt.digest", hashes))

    @property
    def place(self) -> tuple[str, str]:
        """Where the artifact belongs: the name of the folder above its own, and of its own."""
        if self.stage == CHECKPOINT:
            return CHECKPOINT, f"step-{self.provenance['step']!s:0>8}"
        return self.stage, self.key[:ID_LENGTH]

    def to_bytes(self) -> bytes:
        """The manifest as a JSON file, which includes the SHA-256 of its own canonical form."""
        body = {**dict(self), "digest": self.digest}
        body["sha256"] = hash_json("tinygpt.manifest", body)
        return json.dumps(body, indent=1, sort_keys=True, allow_nan=False).encode("ascii") + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Read a manifest without trusting any of it.

        Raises:
            ValueError, RecursionError: `data` is not exactly what `to_bytes` writes.
        """
        manifest = cls.model_validate(json.loads(data))
        if manifest.to_bytes() != data:
            raise ValueError("differs from its own hash")
        return manifest
