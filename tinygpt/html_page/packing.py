"""The weights of a model as text in a page.

The numbers of all tensors, little-endian, in base64; tensors come in the order of their names.
Three formats: f32; f16; int8, where each row of a matrix is a scale (f32) times integers from -127
to 127, and vectors, which are small, stay f32. The scales of a matrix come before its rows.
"""

import base64
from collections.abc import Mapping

import numpy as np

from tinygpt.config.tables import PageDtype
from tinygpt.lm.weights import Array

MAX_PARAMETERS: Mapping[PageDtype, int] = {"f32": 20_000_000, "f16": 20_000_000, "int8": 40_000_000}
"""The largest model for which a page is still comfortable, by format."""

LARGEST_HALF = 65_504.0


def fits(weights: Mapping[str, Array], dtype: PageDtype) -> bool:
    """Whether a format can express the weights: f16 ends at 65,504."""
    return dtype != "f16" or all(np.abs(array).max() <= LARGEST_HALF for array in weights.values())


def pack(weights: Mapping[str, Array], dtype: PageDtype) -> str:
    """The weights as base64, in the order of their names."""
    packed = b"".join(_tensor_bytes(weights[name], dtype) for name in sorted(weights))
    return base64.b64encode(packed).decode()


def rounded(weights: Mapping[str, Array], dtype: PageDtype) -> dict[str, Array]:
    """The weights as the page computes with them, float32."""
    return {name: _rounded(array, dtype) for name, array in weights.items()}


def packed_size(weights: Mapping[str, Array], dtype: PageDtype) -> int:
    """The length of `pack(weights, dtype)`."""
    size = sum(_tensor_size(array, dtype) for array in weights.values())
    return 4 * -(-size // 3)


def _tensor_size(array: Array, dtype: PageDtype) -> int:
    if dtype == "f16":
        return 2 * array.size
    if dtype == "int8" and array.ndim == 2:
        return array.size + 4 * len(array)
    return 4 * array.size


def _tensor_bytes(array: Array, dtype: PageDtype) -> bytes:
    if dtype == "f16":
        return array.astype("<f2").tobytes()
    if dtype == "int8" and array.ndim == 2:
        scales, integers = _integers(array)
        return scales.astype("<f4").tobytes() + integers.astype("i1").tobytes()
    return array.astype("<f4").tobytes()


def _rounded(array: Array, dtype: PageDtype) -> Array:
    if dtype == "f16":
        return array.astype(np.float16).astype(np.float32)
    if dtype == "int8" and array.ndim == 2:
        scales, integers = _integers(array)
        return integers.astype(np.float32) * scales
    return array


def _integers(matrix: Array) -> tuple[Array, Array]:
    """The scale of each row, (rows, 1), and the integers, (rows, columns)."""
    scales = np.abs(matrix).max(axis=1, keepdims=True) / np.float32(127)
    scales[scales == 0] = 1
    return scales, np.clip(np.rint(matrix / scales), -127, 127)
