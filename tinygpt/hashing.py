"""Keys and digests: how a thing was made, and what it is."""

import hashlib
import json
from pathlib import Path
from typing import BinaryIO, NewType

Key = NewType("Key", str)
"""64 hex digits: how an artifact was made (stage, version, configuration, digests of its inputs)."""

Digest = NewType("Digest", str)
"""64 hex digits: what an artifact is (over the hashes of its files)."""


def canonical_json(value: object) -> bytes:
    """The one JSON spelling of a value: sorted keys, no spaces, UTF-8, no NaN.

    Integral floats are written as integers, so that `1` and `1.0` are one value.

    Raises:
        ValueError: NaN, infinity, or an object JSON has no form for.
    """
    text = json.dumps(_integral(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "surrogatepass")


def _integral(value: object) -> object:
    if isinstance(value, dict):
        return {key: _integral(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_integral(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def hash_bytes(data: bytes) -> str:
    """SHA-256 of `data`, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def hash_json(tag: str, *parts: object) -> str:
    """SHA-256 of the canonical JSON of [tag, *parts]; the tag keeps kinds of hashes apart."""
    return hash_bytes(canonical_json([tag, *parts]))


def hash_stream(stream: BinaryIO) -> str:
    """SHA-256 of everything from the stream's current position to its end."""
    return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]  # readinto is all it needs


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hash_stream(stream)
