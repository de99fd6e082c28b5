"""Weight groups hold every weight once; spectra agree with the singular value decomposition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tests.analysis.examples import small_model
from tinygpt.analysis.weight_groups import Spectrum, WeightGroup, arrays_of, spectra, weight_groups

matrices = arrays(
    np.float64,
    array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.floats(-10, 10, width=32),
)


@given(matrices)
def test_spectrum_agrees_with_the_singular_value_decomposition(matrix: np.ndarray):
    spectrum = Spectrum.of(matrix)
    values = np.linalg.svd(matrix, compute_uv=False)
    norm = np.linalg.norm(matrix, 2)
    np.testing.assert_allclose(spectrum.values, values, atol=1e-6 * max(1, values[0]))
    np.testing.assert_allclose(spectrum.spectral_norm, norm, rtol=1e-7, atol=1e-12)
    if values[0] > 1e-6:
        stable_rank = np.linalg.norm(matrix) ** 2 / values[0] ** 2
        assert spectrum.stable_rank == pytest.approx(stable_rank)
        assert 1 - 1e-9 <= spectrum.stable_rank <= min(matrix.shape) + 1e-9


def test_stable_rank_of_a_matrix_of_zeros_is_zero():
    assert Spectrum.of(np.zeros((2, 3))).stable_rank == 0


@pytest.mark.parametrize("tied", [True, False])
def test_groups_hold_every_weight_once(tied: bool):
    model = small_model(tied=tied)
    groups = weight_groups(arrays_of(model))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert sum(array.size for array in groups.values()) == parameters
    assert (WeightGroup(None, "lm_head") in groups) == (not tied)
    vectors = {group.kind for group, array in groups.items() if array.ndim == 1}
    assert vectors == {"norm gains", "biases"}


def test_query_key_and_value_are_the_thirds_of_qkv():
    model = small_model()
    groups = weight_groups(arrays_of(model))
    thirds = [groups[WeightGroup(1, kind)] for kind in ("query", "key", "value")]
    qkv = model.blocks[1].attention.qkv.weight.detach().numpy()
    np.testing.assert_array_equal(np.concatenate(thirds), qkv)


def test_every_matrix_and_no_vector_has_a_spectrum():
    model = small_model()
    groups = weight_groups(arrays_of(model))
    expected = {group for group, array in groups.items() if array.ndim == 2}
    assert set(spectra(arrays_of(model))) == expected
