"""Weights as bytes: they come back unchanged, and files that tinygpt did not write are refused."""

import json
import resource

import numpy as np
import pytest
import safetensors.numpy
import torch

from tests.lm.models import V, each_variant
from tinygpt.config import ModelConfig
from tinygpt.errors import CorruptArtifactError
from tinygpt.lm.model import GPT
from tinygpt.lm.weights import (
    MAX_HEADER,
    dump,
    largest_file,
    load_into,
    model_of,
    parameter_shapes,
    read_arrays,
    read_config,
)

ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
NO_BYTES = {"dtype": "F32", "shape": [0, 1 << 62, 1 << 62], "data_offsets": [0, 0]}


def file(header: object, body: bytes = b"\0" * 4) -> bytes:
    """The bytes of a safetensors file."""
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(data).to_bytes(8, "little") + data + body


MALFORMED = {
    "empty": b"",
    "cut in the length": b"\1\0\0",
    "pickle": b"\x80\x04N.",
    "header longer than the file": (1_000).to_bytes(8, "little") + b"{}",
    "header of 2^63 bytes": (1 << 63).to_bytes(8, "little") + b"{}",
    "header past the limit": file({"x" * MAX_HEADER: ENTRY}),
    "list": file([]),
    "deep list": file(b"[" * 200_000),
    "not utf-8": file(b"\xff\xff"),
    "lone surrogate": file(b'{"\\ud800":' + json.dumps(ENTRY).encode() + b"}"),
    "unknown type": file({"a": ENTRY | {"dtype": "F3"}}),
    "type of less than a byte": file({"a": ENTRY | {"dtype": "F4"}}),
    "type that numpy lacks": file({"a": ENTRY | {"dtype": "BF16", "shape": [2]}}),
    "type that tinygpt does not write": file({"a": ENTRY | {"dtype": "BOOL", "shape": [4]}}),
    "negative shape": file({"a": ENTRY | {"shape": [-1]}}),
    "shape past 2^64": file({"a": ENTRY | {"shape": [1 << 33, 1 << 33]}}),
    "nothing times very much": file({"a": NO_BYTES}, b""),
    "hole": file({"a": ENTRY | {"data_offsets": [4, 8]}}, b"\0" * 8),
    "overlap": file({"a": ENTRY, "b": ENTRY}),
    "cut": file({"a": ENTRY}, b"\0" * 3),
    "grown": file({"a": ENTRY}, b"\0" * 5),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_is_refused(name: str) -> None:
    with pytest.raises(CorruptArtifactError, match="not a safetensors file that tinygpt can read"):
        read_arrays(MALFORMED[name])


def test_tensors_survive_being_written_and_read() -> None:
    tensors = {"b": torch.arange(6, dtype=torch.float32).view(2, 3), "a": torch.tensor([1, -1])}
    arrays = read_arrays(dump(tensors))
    values = {name: array.tolist() for name, array in arrays.items()}
    assert values == {"b": [[0, 1, 2], [3, 4, 5]], "a": [1, -1]}


def test_the_bytes_do_not_depend_on_the_order_of_the_tensors() -> None:
    tensors = {"b": torch.arange(6, dtype=torch.float32).view(2, 3), "a": torch.tensor([1, -1])}
    assert dump(tensors) == dump(dict(reversed(tensors.items())))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 2), np.float32), r"is float32 \(3, 2\), the model needs float32 \(2, 3\)"),
        (np.zeros((2, 3), np.int64), "is int64"),
        (np.full((2, 3), np.nan, np.float32), "contains a NaN"),
    ],
)
def test_an_array_that_is_not_of_this_model_is_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(CorruptArtifactError, match=message):
        load_into({"w": torch.zeros(2, 3)}, read_arrays(safetensors.numpy.save({"w": array})))


def test_an_array_that_the_model_does_not_have_is_refused() -> None:
    arrays = {"w": np.zeros((2, 3), np.float32), "v": np.zeros((2, 3), np.float32)}
    with pytest.raises(CorruptArtifactError, match="`v` is in one of them only"):
        load_into({"w": torch.zeros(2, 3)}, arrays)


@each_variant
def test_the_parameter_shapes_are_those_of_the_model(config: ModelConfig) -> None:
    expected = {name: tuple(p.shape) for name, p in GPT(config, V).named_parameters()}
    assert parameter_shapes(config, V) == expected


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ({"initialisation": "gpt2"}, "`model.initialisation`: extra inputs are not permitted"),
        ({"d_model": 10, "n_heads": 3}, "`model`: "),
    ],
)
def test_the_config_of_another_version_is_refused_in_one_line(
    model: dict[str, object], problem: str
) -> None:
    data = json.dumps({"model": model, "vocab_size": 300}).encode()
    with pytest.raises(CorruptArtifactError) as caught:
        read_config(data)
    assert caught.value.message.startswith(f"not a model's config.json: {problem}")
    assert "\n" not in caught.value.message


def test_another_shape_is_refused_before_memory_is_taken_for_it() -> None:
    config = ModelConfig(d_model=16, n_layers=4, n_heads=2, d_ff=32, context_length=32)
    arrays = read_arrays(dump(dict(GPT(config, V).named_parameters())))
    assert model_of(config, V, arrays).config == config
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CorruptArtifactError, match=r"`position_embedding.weight` is .* \(32, 16\)"):
        model_of(config.model_copy(update={"context_length": 65_536}), V, arrays)
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    assert taken < 100 << 10  # the masks of the four layers alone would take 16 GiB


def test_a_file_of_weights_has_room_for_optimizer_state_and_header() -> None:
    config = ModelConfig(d_model=16, n_layers=1, n_heads=2, d_ff=32, context_length=32)
    parameters = sum(parameter.numel() for parameter in GPT(config, V).parameters())
    assert largest_file(config, V) == 16 * parameters + (16 << 20)
