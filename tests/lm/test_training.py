"""A step is a function of (seed, step) and the weights: resuming, batch layout and divergence."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from tinygpt.analysis import checks
from tinygpt.config import TrainConfig
from tinygpt.errors import DivergedError
from tinygpt.lm import training
from tinygpt.lm.dataset import Batches
from tinygpt.lm.init import init_weights
from tinygpt.lm.model import GPT
from tinygpt.lm.training import TrainState, train

TOKENS = np.random.default_rng(0).integers(0, 300, 2000).astype(np.uint16)


def start(config: TrainConfig) -> TrainState:
    """The state of a small model before its first step."""
    return TrainState.start(init_weights(GPT(checks.SMALL, 300), 0), config, "fp32")


def weights_and_losses(steps: int, **changes: Any) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Weights after so many steps, and the loss of each step."""
    config = TrainConfig(max_steps=steps, warmup_steps=2, **changes)
    state = start(config)
    batches = Batches(TOKENS, checks.SMALL.context_length, config.seed)
    losses = [record.loss for record in train(state, batches, config)]
    return {name: p.detach() for name, p in state.parameters.items()}, losses


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_resuming_changes_nothing_bit_for_bit(optimizer):
    check = checks.resume_changes_nothing(optimizer=optimizer)
    assert check.passed, check.detail


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_resuming_without_the_optimizer_state_is_noticed(monkeypatch, optimizer):
    monkeypatch.setattr(checks, "load_optimizer_tensors", lambda *_: None)
    assert not checks.resume_changes_nothing(optimizer=optimizer).passed


@pytest.mark.parametrize(("batch_size", "grad_accum_steps"), [(6, 2), (4, 3), (1, 12)])
def test_batch_layout_changes_neither_data_nor_masks(batch_size, grad_accum_steps):
    weights, losses = weights_and_losses(6, batch_size=12, grad_accum_steps=1)
    other_weights, other_losses = weights_and_losses(
        6, batch_size=batch_size, grad_accum_steps=grad_accum_steps
    )
    assert other_losses == pytest.approx(losses, rel=1e-4)
    for name, weight in weights.items():
        torch.testing.assert_close(other_weights[name], weight, rtol=1e-2, atol=2e-3)


def test_plain_and_fused_loss_train_alike():
    _, fused = weights_and_losses(6, loss="fused")
    _, plain = weights_and_losses(6, loss="plain")
    assert fused == pytest.approx(plain, rel=1e-5)


def test_the_seed_changes_the_run():
    _, one = weights_and_losses(3, seed=1)
    _, other = weights_and_losses(3, seed=2)
    assert one != other


@pytest.mark.parametrize("where", ["loss", "gradient", "weight"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_stops_before_the_weights_change(monkeypatch, where, value):
    config = TrainConfig(max_steps=5, batch_size=2, grad_accum_steps=2)
    state = start(config)
    steps = train(state, Batches(TOKENS, 16, 0), config)
    next(steps)
    if where == "weight":
        with torch.no_grad():
            state.model.token_embedding.weight[5, 3] = value
    elif where == "gradient":
        state.parameters["norm.bias"].register_hook(lambda gradient: gradient * value)
    else:
        fused = training.LOSSES["fused"]
        monkeypatch.setitem(training.LOSSES, "fused", lambda *batch: fused(*batch) * value)
    before = {name: p.detach().clone() for name, p in state.parameters.items()}
    with pytest.raises(DivergedError, match="step 2") as caught:
        next(steps)
    assert caught.value.exit_code == 5
    assert state.step == 1
    for name, p in state.parameters.items():
        assert torch.equal(p.nan_to_num(7), before[name].nan_to_num(7)), name
