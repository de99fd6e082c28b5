"""Weights and the model's configuration as bytes, and back. Safetensors only: no pickle, nothing that could run code.

Reading gives numpy arrays and needs no torch; only `model_of` does.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from tinygpt.config import ModelConfig
from tinygpt.errors import CorruptArtifactError

if TYPE_CHECKING:
    from torch import Tensor

    from tinygpt.lm.model import GPT

MAX_HEADER = 1 << 20  # bytes
Array = np.ndarray[Any, np.dtype[Any]]


def dump(tensors: "Mapping[str, Tensor]") -> bytes:
    """Named tensors that share no memory as safetensors, in a byte order that depends on nothing but the tensors."""
    import safetensors.torch

    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def model_tensors(model: "GPT") -> "dict[str, Tensor]":
    """The parameters by name, tied ones once."""
    return dict(model.named_parameters())


def read_arrays(data: bytes) -> dict[str, Array]:
    """The tensors of a safetensors file as numpy arrays.

    Raises:
        CorruptArtifactError: the header is malformed, too large, or does not describe exactly these bytes.
    """
    try:
        if (header := int.from_bytes(data[:8], "little")) > MAX_HEADER:
            raise ValueError(f"its header has {header} bytes; the limit is {MAX_HEADER}")
        arrays = safetensors.numpy.load(data)
        if others := {array.dtype.name for array in arrays.values()} - {"float32", "int64"}:
            raise ValueError(f"it holds {others}")
    except (SafetensorError, ValueError, KeyError) as error:  # a KeyError is a type of numbers that numpy lacks
        raise CorruptArtifactError(f"not a safetensors file that tinygpt can read: {error}") from error
    return arrays


def read_config(config_json: bytes) -> tuple[ModelConfig, int]:
    """The shape of the model and V from a config.json.

    Raises:
        CorruptArtifactError: it is not one.
    """
    try:
        content = json.loads(config_json)
        vocab_size = content["vocab_size"]
        if type(vocab_size) is not int or vocab_size < 1:
            raise ValueError(f"vocab_size = {vocab_size}")
        return ModelConfig.model_validate(content["model"]), vocab_size
    except (ValueError, KeyError, TypeError, RecursionError) as error:  # pydantic's is a ValueError
        raise CorruptArtifactError(f"not a model's config.json: {error}") from error


def read_model(config_json: bytes, weights: bytes) -> "GPT":
    """The model of a config.json with its weights, on the CPU in fp32.

    Raises:
        CorruptArtifactError: as read_config, read_arrays and require.
    """
    return model_of(*read_config(config_json), read_arrays(weights))


def model_of(config: ModelConfig, vocab_size: int, arrays: Mapping[str, Array]) -> "GPT":
    """The model with these weights, on the CPU in fp32.

    Raises:
        CorruptArtifactError: as require.
    """
    from tinygpt.lm.model import GPT

    model = GPT(config, vocab_size)
    load_into(model_tensors(model), arrays)
    return model


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
    """Refuse arrays that are not the weights of a model whose parameters have these names and shapes.

    Raises:
        CorruptArtifactError: names, shapes or types differ, or a value is not finite.
    """
    if odd := sorted(shapes.keys() ^ arrays.keys()):
        raise CorruptArtifactError(f"the weights do not belong to this model: `{odd[0]}` is in one of them only")
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != np.float32:
            raise CorruptArtifactError(f"`{name}` is {array.dtype} {array.shape}, the model needs float32 {shape}")
        if not np.isfinite(array).all():
            raise CorruptArtifactError(f"`{name}` holds a NaN or an infinity")
