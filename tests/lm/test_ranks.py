"""How a step is shared among processes, without starting any."""

import math

import numpy as np
import pytest
import torch

from tinygpt.config import ModelConfig, TrainConfig
from tinygpt.lm.dataset import Batches
from tinygpt.lm.evaluation import mean_loss
from tinygpt.lm.model import GPT, initialise
from tinygpt.lm.ranks import ALONE, Ranks
from tinygpt.lm.training import TrainState, train_step

CONFIG = ModelConfig(d_model=16, n_layers=2, n_heads=2, d_ff=32, context_length=16, dropout=0.2)
TOKENS = np.random.default_rng(0).integers(0, 300, 1000).astype(np.uint16)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize("size", [1, 4, 5, 12])
def test_the_shares_are_the_global_batch_each_sequence_once_and_in_order(count: int, size: int):
    shares = [list(Ranks(rank, count).micro_batches(12, size)) for rank in range(count)]
    assert [place for parts in shares for part in parts for place in part] == list(range(12))
    assert all(len(part) <= size for parts in shares for part in parts)
    assert {sum(map(len, parts)) for parts in shares} == {12 // count}


def gradients(config: TrainConfig, ranks: Ranks) -> dict[str, torch.Tensor]:
    """What a rank's own share gives, before anything is averaged: a step without an update."""
    state = TrainState.start(initialise(GPT(CONFIG, 300), 0), config, "fp32")
    state.ranks, state.optimizers = ranks, []
    train_step(state, Batches(TOKENS, 16, 0), config)
    return {name: p.grad for name, p in state.parameters.items() if p.grad is not None}


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_mean_of_the_shares_gradients_is_the_gradient(count: int, monkeypatch):
    config = TrainConfig(batch_size=4, grad_accum_steps=3, grad_clip=None)
    whole = gradients(config, ALONE)
    monkeypatch.setattr(Ranks, "sum", lambda self, values: values)
    parts = [gradients(config, Ranks(rank, count)) for rank in range(count)]
    for name, gradient in whole.items():
        torch.testing.assert_close(sum(part[name] for part in parts) / count, gradient, rtol=1e-4, atol=1e-7)


def test_masks_by_place_in_the_own_share_would_be_noticed(monkeypatch):
    config = TrainConfig(batch_size=4, grad_accum_steps=3, grad_clip=None)
    whole = gradients(config, ALONE)
    monkeypatch.setattr(Ranks, "sum", lambda self, values: values)
    monkeypatch.setattr("tinygpt.lm.training.torch.arange", lambda start, stop, device: torch.tensor(range(stop - start)))
    parts = [gradients(config, Ranks(rank, 2)) for rank in range(2)]
    assert any((sum(part[name] for part in parts) / 2 - whole[name]).abs().max() > 1e-4 for name in whole)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_shared_evaluation_has_the_same_bits(count: int, monkeypatch):
    model = initialise(GPT(CONFIG, 300), 0)
    alone = mean_loss(model, TOKENS)
    totals: list[torch.Tensor] = []
    monkeypatch.setattr(Ranks, "sum", lambda self, values: totals.append(values.clone()) or values)
    shares = [mean_loss(model, TOKENS, Ranks(rank, count)) for rank in range(count)]
    assert math.fsum(sum(totals).tolist()) / (len(TOKENS) - 1) == alone
    assert alone not in shares
