"""Keys and digests: a key says how an artifact was made, a digest what it contains."""

import hashlib
import json
from pathlib import Path
from typing import BinaryIO, NewType

Key = NewType("Key", str)
"""64 hex digits that say how an artifact was made.

A hash of stage, version, configuration and the digests of the inputs.
"""

Digest = NewType("Digest", str)
"""64 hex digits that say what an artifact contains: a hash of the hashes of its files."""


def canonical_json(value: object) -> bytes:
    """The one JSON spelling of a value: sorted keys, no spaces, UTF-8, no NaN.

    Integral floats are written as integers, so that `1` and `1.0` are one value.

    Raises:
        ValueError: NaN or infinity.
        TypeError: an object that JSON cannot express.
    """
    text = json.dumps(
        _integral(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8", "surrogatepass")


def _integral(value: object) -> object:
    if isinstance(value, dict):
        return {key: _integral(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_integral(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def hash_bytes(data: bytes) -> str:
    """SHA-256 of `data`, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def hash_json(tag: str, *parts: object) -> str:
    """SHA-256 of the canonical JSON of [tag, *parts]; the tag keeps kinds of hashes apart."""
    return hash_bytes(canonical_json([tag, *parts]))


def hash_stream(stream: BinaryIO) -> str:
    """SHA-256 of the bytes from the stream's current position to its end, 64 hex digits."""
    # file_digest needs nothing but readinto, which its type does not say
    return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as stream:
        return hash_stream(stream)
