"""Weights and the model's configuration as bytes, and back.

Safetensors only: no pickle, nothing that could run code. Reading gives numpy arrays and does not
need torch; writing tensors and making a model do.
"""

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy
from pydantic import ValidationError
from safetensors import SafetensorError

from tinygpt.config import ModelConfig
from tinygpt.errors import CorruptArtifactError

if TYPE_CHECKING:
    from torch import Tensor

    from tinygpt.lm.model import GPT

MAX_HEADER = 1 << 20  # bytes
CODE_CHANGED = (
    "if you changed `tinygpt/lm/model.py`, `tinygpt train --force` trains the model with it"
)
Array = np.ndarray[Any, np.dtype[Any]]


def dump(tensors: "Mapping[str, Tensor]") -> bytes:
    """Named tensors as safetensors, in an order that depends on the tensors alone.

    Args:
        tensors: by name; no two share memory.
    """
    import safetensors.torch

    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(on_cpu)


def model_tensors(model: "GPT") -> "dict[str, Tensor]":
    """The parameters by name, tied ones once."""
    return dict(model.named_parameters())


def read_arrays(data: bytes) -> dict[str, Array]:
    """The tensors of a safetensors file as numpy arrays.

    Raises:
        CorruptArtifactError: the header is malformed, too large, or does not describe exactly these
            bytes.
    """
    try:
        header = int.from_bytes(data[:8], "little")
        if header > MAX_HEADER:
            raise ValueError(f"its header has {header} bytes; the limit is {MAX_HEADER}")
        arrays = safetensors.numpy.load(data)
        unexpected = {array.dtype.name for array in arrays.values()} - {"float32", "int64"}
        if unexpected:
            raise ValueError(f"it contains numbers of type {', '.join(sorted(unexpected))}")
    # A KeyError is a type of numbers that numpy lacks
    except (SafetensorError, ValueError, KeyError) as error:
        raise CorruptArtifactError(
            f"not a safetensors file that tinygpt can read: {error}"
        ) from error
    return arrays


def read_config(config_json: bytes) -> tuple[ModelConfig, int]:
    """The model's configuration and vocabulary size from a config.json.

    Raises:
        CorruptArtifactError: it is not the config.json of a model.
    """
    try:
        content = json.loads(config_json)
        vocab_size = content["vocab_size"]
        if type(vocab_size) is not int or vocab_size < 1:
            raise ValueError(f"vocab_size = {vocab_size}")
        return ModelConfig.model_validate(content["model"]), vocab_size
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        problem = str(error)
        if isinstance(error, ValidationError):  # whose text has several lines
            first = error.errors()[0]
            problem = f"`{'.'.join(map(str, ('model', *first['loc'])))}`: {first['msg'].lower()}"
        raise CorruptArtifactError(
            f"not a model's config.json: {problem}",
            hint="it is damaged, or of another version of tinygpt; train the model again",
        ) from error


def read_model(config_json: bytes, weights: bytes) -> "GPT":
    """The model of a config.json with its weights, on the CPU in fp32.

    Raises:
        CorruptArtifactError: as read_config, read_arrays and require.
    """
    return model_of(*read_config(config_json), read_arrays(weights))


def model_of(config: ModelConfig, vocab_size: int, arrays: Mapping[str, Array]) -> "GPT":
    """The model with these weights, on the CPU in fp32, in evaluation mode.

    Raises:
        CorruptArtifactError: as require.
    """
    from tinygpt.lm.model import GPT

    # Before memory is taken; an lm/model.py that was changed may have others besides these
    shapes = parameter_shapes(config, vocab_size)
    common = {name: shape for name, shape in shapes.items() if name in arrays}
    require(common, {name: arrays[name] for name in common})
    model = GPT(config, vocab_size)
    load_into(model_tensors(model), arrays)
    return model.eval()


def load_into(tensors: "Mapping[str, Tensor]", arrays: Mapping[str, Array]) -> None:
    """Copy arrays into the tensors of the same names.

    Raises:
        CorruptArtifactError: as require.
    """
    import torch

    require({name: tuple(tensor.shape) for name, tensor in tensors.items()}, arrays)
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(arrays[name]))


def require(shapes: Mapping[str, tuple[int, ...]], arrays: Mapping[str, Array]) -> None:
    """Refuse arrays that are not the weights of a model with these parameters.

    Args:
        shapes: of the parameters by name.
        arrays: by name.
    Raises:
        CorruptArtifactError: names, shapes or types differ, or a value is not finite.
    """
    unmatched = sorted(shapes.keys() ^ arrays.keys())
    if unmatched:
        raise CorruptArtifactError(
            f"the weights do not belong to this model: `{unmatched[0]}` is in one of them only",
            hint=CODE_CHANGED,
        )
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != np.float32:
            raise CorruptArtifactError(
                f"`{name}` is {array.dtype} {array.shape}, the model needs float32 {shape}",
                hint=CODE_CHANGED,
            )
        if not np.isfinite(array).all():
            raise CorruptArtifactError(f"`{name}` contains a NaN or an infinity")


def largest_file(config: ModelConfig, vocab_size: int) -> int:
    """Bytes that the weights or the optimizer state of a model can take.

    That is twice what they do take, for an lm/model.py with more parameters, and some for headers.
    """
    parameters = sum(map(math.prod, parameter_shapes(config, vocab_size).values()))
    return 16 * parameters + (16 << 20)


def parameter_shapes(config: ModelConfig, vocab_size: int) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter of GPT by name, tied ones once, without building the model."""
    C, F = config.d_model, config.d_ff
    shapes: dict[str, tuple[int, ...]] = {"token_embedding.weight": (vocab_size, C)}
    if config.positions == "learned":
        shapes["position_embedding.weight"] = (config.context_length, C)
    if not config.tie_embeddings:
        shapes["lm_head.weight"] = (vocab_size, C)
    in_block: dict[str, tuple[int, ...]] = {
        "norm_1": (C,),
        "attention.qkv": (3 * C, C),
        "attention.out": (C, C),
        "norm_2": (C,),
        "mlp.up": (F, C),
        "mlp.down": (C, F),
    }
    modules: dict[str, tuple[int, ...]] = {}
    for layer in range(config.n_layers):
        for name, shape in in_block.items():
            modules[f"blocks.{layer}.{name}"] = shape
    if config.norm == "pre":
        modules["norm"] = (C,)
    for name, shape in modules.items():
        shapes[f"{name}.weight"] = shape
        shapes[f"{name}.bias"] = shape[:1]
    return shapes
