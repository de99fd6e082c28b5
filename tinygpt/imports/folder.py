"""The files of a GPT-2 folder, and the digest by which it enters keys."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tinygpt.errors import InputError, UsageError
from tinygpt.hashing import Digest, Key, hash_json, hash_stream
from tinygpt.store import Artifact, Manifest
from tinygpt.store.files import FileRecord, entries, is_safe_name
from tinygpt.store.manifest import now
from tinygpt.store.stage_names import IMPORT_STAGE

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"
LEGACY_TOKENIZER = ("vocab.json", "merges.txt")
TOKEN_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
MAX_TEXT_BYTES = 32 << 20  # of a JSON file or a list of merges
LFS_POINTER = b"version https://git-lfs"
AGAIN = "download the folder again, e.g., with `hf download NAME --local-dir FOLDER`"


class ModelFolder:
    """A folder with a model; what is read of it is checked by its readers.

    Args:
        path: the folder.
    Attributes:
        shards: the safetensors files with the weights.
    Raises:
        UsageError: it is no folder, or an artifact of tinygpt.
        InputError: a file is missing, or the weights are there as pickles alone.
    """

    def __init__(self, path: Path) -> None:
        if not os.path.isdir(path):  # noqa: PTH112 - False also where it may not be looked at
            raise UsageError(
                f"`{path}` is not a folder",
                hint=f"`hf download {path} --local-dir {path.name}` makes one of a model of the "
                "Hugging Face hub",
            )
        self.path = path
        if not self.has(CONFIG):
            raise InputError(
                f"`{path}` is not a model of Hugging Face: it has no `{CONFIG}`", hint=AGAIN
            )
        if self.has("manifest.json"):
            raise UsageError(
                f"`{path}` is an artifact of tinygpt, which needs no import",
                hint=f"use it as it is, e.g., `tinygpt sample --model {path}`",
            )
        self.shards = sorted(self._find_shards())
        for name in self.shards:
            self._require(name)
        self._seen = self._stamps()

    def has(self, name: str) -> bool:
        """Whether there is a regular file of this name, perhaps behind a link."""
        return os.path.isfile(self.path / name)  # noqa: PTH113 - False also where it is forbidden

    def read(self, name: str) -> bytes:
        """The bytes of a file that is text.

        Raises:
            InputError: it is missing, too long, cannot be read, or was not downloaded.
        """
        self._require(name)
        try:
            with (self.path / name).open("rb") as stream:
                data = stream.read(MAX_TEXT_BYTES + 1)
        except OSError as error:
            raise self._unreadable(name, error) from error
        if len(data) > MAX_TEXT_BYTES:
            raise InputError(f"`{self.path / name}` has more than {MAX_TEXT_BYTES:,} bytes")
        return data

    def json(self, name: str) -> dict[str, Any]:
        """The object in a JSON file.

        Raises:
            InputError: as `read`, or it is not one.
        """
        try:
            content = json.loads(self.read(name))
        except (ValueError, RecursionError) as error:
            raise InputError(f"`{self.path / name}` is not JSON: {error}", hint=AGAIN) from error
        if not isinstance(content, dict):
            raise InputError(f"`{self.path / name}` is not a JSON object", hint=AGAIN)
        return content

    def as_input(self) -> Artifact:
        """The folder as an artifact reads it: its manifest lists every file that counts."""
        files: dict[str, FileRecord] = {}
        for name in self._names():
            try:
                with (self.path / name).open("rb") as stream:
                    size = os.fstat(stream.fileno()).st_size
                    files[name] = {"sha256": hash_stream(stream), "bytes": size}
            except OSError as error:
                raise self._unreadable(name, error) from error
        hashes = {name: record["sha256"] for name, record in files.items()}
        manifest = Manifest(
            stage=IMPORT_STAGE,
            version=1,
            key=Key(hash_json("tinygpt.digest", hashes)),
            tables={},
            inputs={},
            files=files,
            provenance={"created": now()},
        )
        assert manifest.digest == Digest(manifest.key)
        return Artifact(self.path, manifest, self.path)

    def check_unchanged(self) -> None:
        """Refuse a folder that changed while it was read.

        Raises:
            InputError: it did.
        """
        if self._stamps() != self._seen:
            raise InputError(
                f"`{self.path}` changed while it was read", hint="wait until it is complete"
            )

    def _names(self) -> list[str]:
        """The files that count, sorted."""
        optional = (INDEX, TOKENIZER, *LEGACY_TOKENIZER, *TOKEN_SETTINGS)
        return sorted({CONFIG, *self.shards, *filter(self.has, optional)})

    def _stamps(self) -> dict[str, tuple[int, int]]:
        stats = {name: (self.path / name).stat() for name in self._names() if self.has(name)}
        return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}

    def _find_shards(self) -> Iterator[str]:
        """The names of the files with the weights."""
        if self.has(WEIGHTS) or not self.has(INDEX):
            if not self.has(WEIGHTS):
                self._refuse_pickles()
            yield WEIGHTS
            return
        placed = self.json(INDEX).get("weight_map")
        if not isinstance(placed, dict) or not placed:
            raise InputError(f"`{self.path / INDEX}` has no `weight_map`", hint=AGAIN)
        for name in {str(name) for name in placed.values()}:
            if "/" in name or not is_safe_name(name) or not name.endswith(".safetensors"):
                raise InputError(
                    f"`{INDEX}` names {name!r}, which is no safetensors file of this folder",
                    hint="take the folder from its author",
                )
            yield name

    def _refuse_pickles(self) -> None:
        """Refuse a folder whose weights are in a pickle."""
        for path in entries(self.path.resolve()):
            if path.suffix in PICKLES:
                command = (
                    "from transformers import AutoModelForCausalLM as Model, AutoTokenizer as T; "
                    f"[kind.from_pretrained('{self.path}').save_pretrained('converted') "
                    "for kind in (Model, T)]"
                )
                raise InputError(
                    f"the weights are in `{path.name}`, a pickle, which can run any program while "
                    "it is opened; only safetensors are read",
                    hint=f'if you trust who made it, `python -c "{command}"` writes them as '
                    "safetensors, where transformers and torch are installed",
                )

    def _require(self, name: str) -> None:
        path = self.path / name
        if not self.has(name):
            raise InputError(f"`{self.path}` lacks `{name}`", hint=AGAIN)
        try:
            with path.open("rb") as stream:
                is_pointer = stream.read(len(LFS_POINTER)) == LFS_POINTER
        except OSError as error:
            raise self._unreadable(name, error) from error
        if is_pointer:
            raise InputError(
                f"`{path}` is a pointer of Git LFS and not the file itself",
                hint=f"run `git lfs pull` in `{self.path}`",
            )

    def _unreadable(self, name: str, error: OSError) -> InputError:
        reason = (error.strerror or str(error)).lower()
        return InputError(f"cannot read `{self.path / name}`: {reason}", hint="check its rights")
