"""The weights of a GPT-2 folder: safetensors, one file or several, into the tensors of GPT."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tinygpt.errors import ConfigError, InputError
from tinygpt.exports.gpt2_layout import gpt2_name, is_transposed
from tinygpt.imports.config_file import GPT2Config
from tinygpt.imports.folder import AGAIN, INDEX, WEIGHTS, ModelFolder
from tinygpt.lm.weights import parameter_shapes
from tinygpt.runs.memory import available_memory, in_words

PREFIX = "transformer."
MASKS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")  # buffers that old versions saved
ROWS = ("token_embedding.weight", "lm_head.weight")  # a row for each entry of the tokenizer
NUMBERS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
COPIES = 4  # of all weights, which importing them takes: as read, as bytes, for the probe


class Stored(NamedTuple):
    """A tensor in a file, not read yet."""

    shard: str
    name: str
    shape: tuple[int, ...]
    number: str


@dataclass(frozen=True)
class ImportedWeights:
    """Weights, and what had to be done to them.

    Args:
        tensors: by parameter name, float32.
        numbers: the types of numbers in the files.
        dropped_rows: rows of the embedding beyond the tokenizer's entries.
        zero_biases: biases that the files lack.
        masks: buffers that are no weights.
    """

    tensors: dict[str, Tensor]
    numbers: list[str]
    dropped_rows: int
    zero_biases: int
    masks: int


def read_weights(folder: ModelFolder, config: GPT2Config, entries: int) -> ImportedWeights:
    """Read the weights of a model; shapes are compared before any of them is allocated.

    Args:
        folder: holds them.
        config: their shape.
        entries: of the tokenizer; further rows of the embedding are dropped.
    Raises:
        InputError: a file is damaged or incomplete, tensors or shapes are not those of the
            configuration, or a number is not finite.
        ConfigError: they need more memory than there is.
    """
    stored, masks = _listed(folder)
    shapes = parameter_shapes(config.model, config.rows)
    _compare(shapes, stored, config, entries)
    _check_memory(sum(map(prod, shapes.values())))
    reading = _Reading(folder, entries)
    tied = stored.pop("lm_head.weight", None) if config.model.tie_embeddings else None
    tensors: dict[str, Tensor] = {}
    zero_biases = 0
    for name, shape in shapes.items():
        if _name(name) in stored:
            tensors[name] = reading.tensor(name, stored[_name(name)])
        else:
            tensors[name] = torch.zeros(shape)
            zero_biases += 1
    if tied is not None:
        head = reading.tensor("lm_head.weight", tied)
        if not torch.equal(head, tensors["token_embedding.weight"]):
            _refuse("`lm_head.weight` is not `wte.weight`, although `tie_word_embeddings` is true")
    dropped_rows = config.rows - entries
    numbers = sorted({NUMBERS[one.number] for one in stored.values()})
    return ImportedWeights(tensors, numbers, dropped_rows, zero_biases, masks)


def _refuse(what: str) -> NoReturn:
    raise InputError(
        what, hint="its `config.json` and its weights do not belong together, or it is no GPT-2"
    )


def _listed(folder: ModelFolder) -> tuple[dict[str, Stored], int]:
    """The tensors in all files, without the prefix of their names, and how many are masks."""
    stored: dict[str, Stored] = {}
    masks = 0
    for one in _in_files(folder):
        name = one.name.removeprefix(PREFIX)
        if MASKS.fullmatch(name):
            masks += 1
        elif name in stored:
            _refuse(f"`{name}` is there twice, in `{stored[name].shard}` and `{one.shard}`")
        else:
            stored[name] = one
    if folder.shards != [WEIGHTS]:
        placed = folder.json(INDEX)["weight_map"]
        for name, shard in placed.items():
            here = stored.get(name.removeprefix(PREFIX))
            if not MASKS.fullmatch(name.removeprefix(PREFIX)) and (
                here is None or here.shard != shard
            ):
                raise InputError(f"`{shard}` lacks `{name}`, which `{INDEX}` names", hint=AGAIN)
    return stored, masks


def _in_files(folder: ModelFolder) -> Iterator[Stored]:
    for shard in folder.shards:
        try:
            with safe_open(folder.path / shard, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - it is no mapping
                    found = file.get_slice(name)
                    yield Stored(shard, name, tuple(found.get_shape()), found.get_dtype())
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(
                f"`{folder.path / shard}` is not a whole safetensors file: {error}", hint=AGAIN
            ) from error


def _name(parameter: str) -> str:
    """The name of a parameter in a file, without the prefix."""
    return gpt2_name(parameter).removeprefix(PREFIX)


def _compare(
    shapes: Mapping[str, tuple[int, ...]],
    stored: Mapping[str, Stored],
    config: GPT2Config,
    entries: int,
) -> None:
    """Refuse files that do not hold exactly the weights that config.json describes.

    Args:
        shapes: of the parameters of GPT.
        stored: the tensors of the files.
        config, entries: see read_weights.
    """
    if config.rows < entries:
        _refuse(f"the tokenizer has {entries:,} entries, `vocab_size` is {config.rows:,}")
    needed = {}
    for name, shape in shapes.items():
        needed[_name(name)] = shape[::-1] if is_transposed(name) else shape
    lacking = [name for name in needed if name not in stored and not name.endswith(".bias")]
    if lacking:
        _refuse(f"the weights lack `{lacking[0]}`, the first of {len(lacking)} tensors")
    needed.setdefault("lm_head.weight", needed["wte.weight"])  # tied, and saved all the same
    for name, one in stored.items():
        if name not in needed:
            _refuse(f"`{one.shard}` has the tensor `{one.name}`, which this GPT-2 does not have")
        if one.shape != needed[name]:
            _refuse(f"`{one.name}` is {one.shape}; by `config.json` it is {needed[name]}")
        if one.number not in NUMBERS:
            _refuse(f"`{one.name}` has numbers of type {one.number}; {', '.join(NUMBERS)} are read")


def _check_memory(parameters: int) -> None:
    needed = COPIES * 4 * parameters
    there = available_memory()
    if there is not None and needed > there:
        raise ConfigError(
            f"importing {parameters:,} parameters takes about {in_words(needed)} of memory, and "
            f"there are {in_words(there)}",
            hint="close other programs, or import a smaller model, e.g., `distilgpt2`",
        )


@dataclass
class _Reading:
    """Reads tensors, each file opened once."""

    folder: ModelFolder
    entries: int
    files: dict[str, safe_open] = field(default_factory=dict)

    def tensor(self, name: str, stored: Stored) -> Tensor:
        """A parameter of GPT, float32, in memory of its own.

        Raises:
            InputError: it cannot be read, or a number in it is not finite.
        """
        try:
            if stored.shard not in self.files:
                path = self.folder.path / stored.shard
                self.files[stored.shard] = safe_open(path, framework="pt")
            found: Tensor = self.files[stored.shard].get_tensor(stored.name)  # type: ignore[no-untyped-call]
        except (SafetensorError, OSError) as error:
            raise InputError(f"cannot read `{stored.name}`: {error}", hint=AGAIN) from error
        if name in ROWS:
            found = found[: self.entries]
        if is_transposed(name):
            found = found.T
        tensor = torch.empty(found.shape).copy_(found)
        if not torch.isfinite(tensor).all():
            raise InputError(
                f"`{stored.name}` contains a NaN or an infinity",
                hint="the model is broken, or damaged on its way; take it from its author again",
            )
        return tensor
