"""Weights as text: what is packed is what the page computes with."""

import base64

import numpy as np
import pytest

from tinygpt.html_page import packing

WEIGHTS = {
    "matrix": np.random.default_rng(0).normal(0, 1, (5, 7)).astype(np.float32),
    "a vector": np.linspace(-1, 1, 6, dtype=np.float32),
    "zeros": np.zeros((2, 3), np.float32),
}
BYTES = {"f32": 4 * (35 + 6 + 6), "f16": 2 * (35 + 6 + 6), "int8": 35 + 4 * 5 + 4 * 6 + 6 + 4 * 2}


@pytest.mark.parametrize("dtype", ["f32", "f16", "int8"])
def test_size_is_known_before_packing(dtype):
    packed = packing.pack(WEIGHTS, dtype)
    assert len(base64.b64decode(packed)) == BYTES[dtype]
    assert packing.packed_size(WEIGHTS, dtype) == len(packed)


@pytest.mark.parametrize("dtype", ["f32", "f16", "int8"])
def test_packing_depends_on_names_and_not_on_their_order(dtype):
    backwards = dict(reversed(WEIGHTS.items()))
    assert packing.pack(backwards, dtype) == packing.pack(WEIGHTS, dtype)


@pytest.mark.parametrize(("dtype", "error"), [("f32", 0), ("f16", 2**-10), ("int8", 1 / 127)])
def test_rounding_moves_a_weight_by_a_share_of_the_largest_in_its_row(dtype, error):
    for name, array in packing.rounded(WEIGHTS, dtype).items():
        largest = np.abs(WEIGHTS[name]).max(axis=-1, keepdims=True)
        assert (np.abs(array - WEIGHTS[name]) <= error * largest).all(), name
        assert array.dtype == np.float32


@pytest.mark.parametrize("dtype", ["f32", "f16", "int8"])
def test_rounded_weights_are_packed_into_the_same_bytes(dtype):
    rounded = packing.rounded(WEIGHTS, dtype)
    assert packing.pack(rounded, dtype) == packing.pack(WEIGHTS, dtype)


def test_only_f16_has_a_largest_weight():
    large = {"vector": np.array([0, -70_000], np.float32)}
    assert [packing.fits(large, dtype) for dtype in ("f32", "f16", "int8")] == [True, False, True]
    assert packing.fits(WEIGHTS, "f16")
