"""What is special about the decoder in numpy; test_decoders.py holds what both have in common."""

import ctypes
from importlib import import_module

import numpy as np
import pytest

from tests.lm.models import VARIANTS, V, arrays_of, random_model
from tinygpt.errors import CorruptArtifactError
from tinygpt.lm.fast.numpy_decoder import NumpyDecoder
from tinygpt.lm.weights import Array

CONFIG = VARIANTS[0]
NAME = "blocks.1.mlp.up.weight"
Arrays = dict[str, Array]


@pytest.fixture
def arrays() -> Arrays:
    return arrays_of(random_model(CONFIG))


def test_a_missing_or_an_additional_weight_is_refused(arrays: Arrays) -> None:
    fewer = {name: array for name, array in arrays.items() if name != NAME}
    for damaged in (fewer, arrays | {"extra": arrays[NAME]}):
        with pytest.raises(CorruptArtifactError, match="one of them only"):
            NumpyDecoder(CONFIG, V, damaged)


def test_a_weight_of_another_shape_or_type_is_refused(arrays: Arrays) -> None:
    for array in (arrays[NAME].T, arrays[NAME].astype(np.float64)):
        with pytest.raises(CorruptArtifactError, match="the model needs float32"):
            NumpyDecoder(CONFIG, V, arrays | {NAME: array})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_refused(arrays: Arrays, value: float) -> None:
    damaged = arrays | {NAME: arrays[NAME] * np.float32(value)}
    with pytest.raises(CorruptArtifactError, match="a NaN or an infinity"):
        NumpyDecoder(CONFIG, V, damaged)


def test_weights_of_another_vocabulary_are_refused(arrays: Arrays) -> None:
    with pytest.raises(CorruptArtifactError, match="token_embedding"):
        NumpyDecoder(CONFIG, V + 1, arrays)


def test_the_given_weights_are_not_changed(arrays: Arrays) -> None:
    own = {name: array.copy() for name, array in arrays.items()}
    NumpyDecoder(CONFIG, V, own).prefill([[1, 2, 3]])
    assert all((own[name] == arrays[name]).all() for name in arrays)


def test_numpy_computes_in_one_thread(arrays: Arrays) -> None:
    library = ctypes.CDLL(import_module("numpy._core._multiarray_umath").__file__)
    if not hasattr(library, "scipy_openblas_get_num_threads64_"):
        pytest.skip("this numpy does not come with OpenBLAS")
    library.scipy_openblas_set_num_threads64_(2)
    NumpyDecoder(CONFIG, V, arrays)
    assert library.scipy_openblas_get_num_threads64_() == 1
