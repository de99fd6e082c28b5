"""Dropout masks are a function of (seed, step, sequence, layer, place) and nothing else."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt.lm.noise import Noise, Place, dropout

ONES = torch.ones(6, 50, 33)


def mask(*, seed=1, step=1, sequences=range(6), layer=0, place=Place.MLP_OUT, p=0.3):
    sequences = torch.tensor(list(sequences))
    return dropout(ONES[: len(sequences)], p, Noise(seed, step, sequences), layer, place)


@pytest.mark.parametrize(
    "change", [{"seed": 2}, {"step": 2}, {"sequences": range(1, 7)}, {"layer": 1}, {"place": Place.ATTENTION_OUT}]
)
def test_every_coordinate_changes_the_mask(change):
    assert torch.equal(mask(), mask())
    agreement = ((mask() == 0) == (mask(**change) == 0)).float().mean().item()
    assert agreement == pytest.approx(0.7**2 + 0.3**2, abs=0.03)  # as of independent draws


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(6)), st.integers(1, 5))
def test_a_sequence_has_the_same_mask_whatever_stands_beside_it(order, size):
    whole = mask()
    part = mask(sequences=order[:size])
    assert torch.equal(part, whole[list(order[:size])])


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_share_of_zeros_is_p_and_the_mean_stays(p):
    x = dropout(torch.ones(64, 4096), p, Noise(3, 9, torch.arange(64)), 2, Place.EMBEDDING)
    assert (x == 0).float().mean().item() == pytest.approx(p, abs=0.004)
    assert x.mean().item() == pytest.approx(1, abs=0.02)


def test_masks_of_different_sequences_and_places_are_uncorrelated():
    rows = torch.cat([(mask(place=place, step=step) == 0).float().flatten(1) for place in Place for step in (1, 2)])
    correlation = torch.corrcoef(rows).fill_diagonal_(0)
    assert correlation.abs().max() < 0.1


def test_neighbouring_bits_are_uncorrelated():
    zeros = (dropout(torch.ones(64, 4096), 0.5, Noise(0, 1, torch.arange(64)), 0, Place.EMBEDDING) == 0).float()
    for lag in (1, 2, 16, 33):
        both = torch.stack([zeros[:, lag:].flatten(), zeros[:, :-lag].flatten()])
        assert abs(torch.corrcoef(both)[0, 1].item()) < 0.01


def test_no_noise_and_zero_probability_change_nothing():
    assert dropout(ONES, 0.5, None, 0, Place.MLP_OUT) is ONES
    assert dropout(ONES, 0.0, Noise(0, 0, torch.arange(6)), 0, Place.MLP_OUT) is ONES


def test_the_global_generator_is_neither_read_nor_moved():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = mask()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(mask(), first)
