"""The numbers behind the pictures, against patterns made by hand and against other ways to compute them."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tinygpt.config import ModelConfig
from tinygpt.lm import analysis
from tinygpt.lm.analysis import Part, Spectrum
from tinygpt.lm.evaluation import mean_loss
from tinygpt.lm.model import GPT, initialise

V = 40


def model_of(*, layers: int = 2, heads: int = 2, norm: str = "pre", seed: int = 0) -> GPT:
    config = ModelConfig(d_model=8 * heads, n_layers=layers, n_heads=heads, d_ff=16, context_length=12, norm=norm, dropout=0.1)
    model = initialise(GPT(config, V), seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10)  # an untrained model looks everywhere alike
    return model


TEXT = np.random.default_rng(0).integers(0, V, 60).astype(np.uint16)


@settings(max_examples=25)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.lists(st.integers(0, V - 1), min_size=1, max_size=12),
    st.sampled_from(["pre", "post"]),
)
def test_property_7_maps_are_zero_above_the_diagonal_and_rows_sum_to_one(layers: int, heads: int, ids: list[int], norm: str):
    maps = analysis.attention_maps(model_of(layers=layers, heads=heads, norm=norm), ids)
    assert maps.shape == (layers, heads, len(ids), len(ids))
    assert (maps[..., ~np.tri(len(ids), dtype=bool)] == 0).all()
    np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-5)
    entropy = analysis.entropy(maps)
    assert (entropy >= 0).all()
    assert (entropy <= math.log2(len(ids)) + 1e-6).all()


def look_at(length: int, column: object) -> np.ndarray:
    """A map (length, length) in which row t looks at column(t) alone."""
    return np.eye(length)[[max(0, column(t)) for t in range(length)]]  # type: ignore[operator]


def test_scores_of_patterns_made_by_hand():
    T = 6
    previous, first, itself = (look_at(T, column) for column in (lambda t: t - 1, lambda t: 0, lambda t: t))
    uniform = np.tri(T) / np.arange(1, T + 1)[:, None]
    maps = np.stack([previous, first, itself, uniform])
    np.testing.assert_allclose(analysis.previous_token(maps), [1, 1 / 5, 0, np.mean([1 / n for n in range(2, 7)])])
    np.testing.assert_allclose(analysis.first_token(maps), [1 / 5, 1, 0, np.mean([1 / n for n in range(2, 7)])])
    np.testing.assert_allclose(analysis.entropy(maps), [0, 0, 0, np.mean(np.log2(range(1, 7)))])


def test_prefix_matching_of_patterns_made_by_hand():
    twice, thrice = [7, 8, 9] * 2, [7, 8, 9] * 3
    induction = look_at(6, lambda t: t - 2)  # the token after the same token three places ago
    assert analysis.prefix_matching(induction, twice) == 1
    assert analysis.prefix_matching(look_at(6, lambda t: t - 3), twice) == 0  # the same token itself is no induction
    assert analysis.prefix_matching(look_at(9, lambda t: t - 5 if t > 5 else t - 2), thrice) == 1  # any earlier occurrence counts
    assert analysis.prefix_matching(induction, [1, 2, 3, 4, 5, 6]) == 0
    assert analysis.prefix_matching(look_at(3, lambda t: t), [5, 5, 5]) == 1  # what followed the first 5 is the second one itself


def test_scores_of_one_token_are_zero():
    one = np.ones((2, 2, 1, 1))
    for score in (
        analysis.previous_token(one),
        analysis.first_token(one),
        analysis.entropy(one),
        analysis.prefix_matching(one, [3]),
    ):
        np.testing.assert_array_equal(score, np.zeros((2, 2)))


def test_induction_is_found_in_a_model_built_to_do_it(monkeypatch: pytest.MonkeyPatch):
    model = model_of()
    monkeypatch.setattr(analysis, "attention_maps", lambda _, ids: look_at(len(ids), lambda t: t - len(ids) // 2 + 1)[None, None])
    np.testing.assert_allclose(analysis.induction_scores(model), 1)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_loss_without_a_head_is_the_loss_of_a_model_whose_values_of_that_head_are_zero(norm: str):
    model = model_of(norm=norm)
    worth = analysis.head_worth(model, TEXT[:49])
    for layer in range(2):
        for head in range(2):
            without = copy.deepcopy(model)
            with torch.no_grad():
                for parameter in without.blocks[layer].attention.qkv.parameters():
                    parameter[32 + 8 * head : 40 + 8 * head] = 0  # q and k come before the values
            assert worth.loss + worth.change[layer, head] == pytest.approx(mean_loss(without, TEXT[:49]), abs=1e-6)
    assert worth.tokens == 48
    assert worth.loss == pytest.approx(mean_loss(model, TEXT[:49]))
    assert abs(worth.change).min() > 0
    assert sorted(worth.rank(layer, head) for layer in range(2) for head in range(2)) == [1, 2, 3, 4]


def test_ablating_nothing_changes_nothing():
    model = model_of()
    with torch.no_grad():
        model.blocks[1].attention.out.weight[:, 8:] = 0  # head 1 of layer 1 is nothing already
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    worth = analysis.head_worth(model, TEXT)
    assert worth.change[1, 1] == 0
    assert worth.standard_error[1, 1] == 0
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())


@pytest.mark.parametrize(("tokens", "predicted"), [(2, 1), (12, 11), (13, 12), (24, 12), (25, 24)])
def test_ablation_takes_whole_windows_or_what_there_is(tokens: int, predicted: int):
    worth = analysis.head_worth(model_of(), TEXT[:tokens])
    assert worth.tokens == predicted
    assert np.isnan(worth.standard_error).all() == (predicted <= 12)


@given(arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.floats(-10, 10, width=32)))
def test_spectra_agree_with_the_singular_value_decomposition(matrix: np.ndarray):
    spectrum = Spectrum.of(matrix)
    values = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(spectrum.values, values, atol=1e-6 * max(1, values[0]))
    np.testing.assert_allclose(spectrum.spectral_norm, np.linalg.norm(matrix, 2), rtol=1e-7, atol=1e-12)
    if values[0] > 1e-6:
        assert spectrum.stable_rank == pytest.approx(np.linalg.norm(matrix) ** 2 / values[0] ** 2)
        assert 1 - 1e-9 <= spectrum.stable_rank <= min(matrix.shape) + 1e-9


def test_the_stable_rank_of_nothing_is_zero():
    assert Spectrum.of(np.zeros((2, 3))).stable_rank == 0


@pytest.mark.parametrize("tied", [True, False])
def test_parts_hold_every_weight_once(tied: bool):
    config = ModelConfig(d_model=8, n_layers=2, n_heads=2, d_ff=16, context_length=12, tie_embeddings=tied)
    model = initialise(GPT(config, V), 0)
    parts = analysis.parts(analysis.arrays_of(model))
    assert sum(array.size for array in parts.values()) == sum(parameter.numel() for parameter in model.parameters())
    assert (Part(None, "unembedding") in parts) == (not tied)
    qkv = model.blocks[1].attention.qkv.weight.detach().numpy()
    np.testing.assert_array_equal(np.concatenate([parts[Part(1, kind)] for kind in ("query", "key", "value")]), qkv)
    assert {part.kind for part, array in parts.items() if array.ndim == 1} == {"norm gains", "biases"}


def test_text_losses_are_those_of_the_logits():
    model, ids = model_of(), TEXT[:12].tolist()
    with torch.no_grad():
        logits = model(torch.tensor([ids[:-1]]))[0]
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
    np.testing.assert_allclose(analysis.text_losses(model, ids), expected, atol=1e-5)
    assert len(analysis.text_losses(model, ids[:1])) == 0
