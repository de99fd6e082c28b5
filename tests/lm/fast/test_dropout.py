"""Dropout masks are a function of (seed, step, sequence, layer, site) and nothing else."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt.lm.fast.dropout import DropoutKey, DropoutSite, dropout

ONES = torch.ones(6, 50, 33)


def dropped_ones(*, seed=1, step=1, sequences=range(6), layer=0, site=DropoutSite.MLP_OUT, p=0.3):
    """Ones after dropout, (sequences, 50, 33)."""
    key = DropoutKey(seed, step, torch.tensor(list(sequences)))
    return dropout(ONES[: len(key.sequences)], p, key, layer, site)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"step": 2},
        {"sequences": range(1, 7)},
        {"layer": 1},
        {"site": DropoutSite.ATTENTION_OUT},
    ],
    ids=str,
)
def test_every_part_of_the_key_changes_the_mask(change):
    mask = dropped_ones() == 0
    other = dropped_ones(**change) == 0
    agreement = (mask == other).float().mean().item()
    assert agreement == pytest.approx(0.7**2 + 0.3**2, abs=0.03)  # as of independent draws


def test_equal_keys_give_equal_masks():
    assert torch.equal(dropped_ones(), dropped_ones())


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(6)), st.integers(1, 5))
def test_the_mask_of_a_sequence_does_not_depend_on_the_others_in_the_batch(order, size):
    part = dropped_ones(sequences=order[:size])
    assert torch.equal(part, dropped_ones()[list(order[:size])])


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_share_of_zeros_is_p_and_the_mean_stays(p):
    key = DropoutKey(3, 9, torch.arange(64))
    x = dropout(torch.ones(64, 4096), p, key, 2, DropoutSite.EMBEDDING)
    assert (x == 0).float().mean().item() == pytest.approx(p, abs=0.004)
    assert x.mean().item() == pytest.approx(1, abs=0.02)


def test_masks_of_different_sequences_steps_and_sites_are_uncorrelated():
    masks = []
    for site in DropoutSite:
        for step in (1, 2):
            mask = dropped_ones(site=site, step=step) == 0
            masks.append(mask.float().flatten(1))
    correlation = torch.corrcoef(torch.cat(masks)).fill_diagonal_(0)
    assert correlation.abs().max() < 0.1


@pytest.mark.parametrize("lag", [1, 2, 16, 33])
def test_neighboring_bits_are_uncorrelated(lag):
    key = DropoutKey(0, 1, torch.arange(64))
    x = dropout(torch.ones(64, 4096), 0.5, key, 0, DropoutSite.EMBEDDING)
    zeros = (x == 0).float()
    pairs = torch.stack([zeros[:, lag:].flatten(), zeros[:, :-lag].flatten()])
    assert abs(torch.corrcoef(pairs)[0, 1].item()) < 0.01


def test_without_a_key_or_with_probability_zero_nothing_changes():
    assert dropout(ONES, 0.5, None, 0, DropoutSite.MLP_OUT) is ONES
    key = DropoutKey(0, 0, torch.arange(6))
    assert dropout(ONES, 0.0, key, 0, DropoutSite.MLP_OUT) is ONES


def test_the_global_generator_is_neither_read_nor_advanced():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = dropped_ones()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(dropped_ones(), first)
