"""How processes share a step, without starting any."""

import math

import numpy as np
import pytest
import torch

from tinygpt.config import ModelConfig, TrainConfig
from tinygpt.lm import training
from tinygpt.lm.dataset import Batches
from tinygpt.lm.evaluation import mean_loss
from tinygpt.lm.fast.distributed import SINGLE_PROCESS, DataParallelGroup
from tinygpt.lm.fast.dropout import DropoutKey
from tinygpt.lm.init import init_weights
from tinygpt.lm.model import GPT
from tinygpt.lm.training import TrainState, train_step

MODEL = ModelConfig(d_model=16, n_layers=2, n_heads=2, d_ff=32, context_length=16, dropout=0.2)
TRAIN = TrainConfig(batch_size=4, grad_accum_steps=3, grad_clip=None)
TOKENS = np.random.default_rng(0).integers(0, 300, 1000).astype(np.uint16)

Gradients = dict[str, torch.Tensor]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize("size", [1, 4, 5, 12])
def test_the_shares_are_the_global_batch_each_sequence_once_and_in_order(world_size, size):
    places: list[int] = []
    for rank in range(world_size):
        parts = list(DataParallelGroup(rank, world_size).micro_batches(12, size))
        assert all(len(part) <= size for part in parts)
        share = [place for part in parts for place in part]
        assert len(share) == 12 // world_size
        places += share
    assert places == list(range(12))


def gradients_of(processes: DataParallelGroup) -> Gradients:
    """The gradients of a process's own share before they are averaged: a step without update."""
    state = TrainState.start(init_weights(GPT(MODEL, 300), 0), TRAIN, "fp32")
    state.processes = processes
    state.optimizers = []
    train_step(state, Batches(TOKENS, 16, 0), TRAIN)
    return {name: p.grad for name, p in state.parameters.items() if p.grad is not None}


@pytest.fixture
def no_communication(monkeypatch) -> None:
    """Every process sees its own values where all would be added up."""
    monkeypatch.setattr(DataParallelGroup, "sum", lambda self, values: values)


def mean_gradients(world_size: int) -> Gradients:
    """The mean of the gradients of all processes' shares."""
    shares = [gradients_of(DataParallelGroup(rank, world_size)) for rank in range(world_size)]
    return {name: sum(share[name] for share in shares) / world_size for name in shares[0]}


@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.usefixtures("no_communication")
def test_the_mean_of_the_gradients_of_all_shares_is_the_gradient(world_size):
    expected = gradients_of(SINGLE_PROCESS)
    torch.testing.assert_close(mean_gradients(world_size), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.usefixtures("no_communication")
def test_dropout_keyed_by_the_place_in_the_own_share_would_be_noticed(monkeypatch):
    def local_key(seed: int, step: int, sequences: torch.Tensor) -> DropoutKey:
        return DropoutKey(seed, step, sequences - sequences[0])

    expected = gradients_of(SINGLE_PROCESS)
    monkeypatch.setattr(training, "DropoutKey", local_key)
    found = mean_gradients(world_size=2)
    differences = [(found[name] - expected[name]).abs().max().item() for name in expected]
    assert max(differences) > 1e-4


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_a_shared_evaluation_gives_the_same_bits(world_size, monkeypatch):
    model = init_weights(GPT(MODEL, 300), 0)
    alone = mean_loss(model, TOKENS)
    totals: list[torch.Tensor] = []

    def collect(self: DataParallelGroup, values: torch.Tensor) -> torch.Tensor:
        totals.append(values.clone())
        return values

    monkeypatch.setattr(DataParallelGroup, "sum", collect)
    shares = [
        mean_loss(model, TOKENS, DataParallelGroup(rank, world_size)) for rank in range(world_size)
    ]
    summed = torch.stack(totals).sum(dim=0)
    assert math.fsum(summed.tolist()) / (len(TOKENS) - 1) == alone
    assert alone not in shares
