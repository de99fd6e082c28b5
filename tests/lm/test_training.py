"""A step is a function of (seed, step) and the weights: resuming, batch layout and divergence."""

import math

import numpy as np
import pytest
import torch

from tinygpt.config import TrainConfig
from tinygpt.errors import DivergedError
from tinygpt.lm import checks, training
from tinygpt.lm.dataset import Batches
from tinygpt.lm.model import GPT, initialise
from tinygpt.lm.training import TrainState, train

TOKENS = np.random.default_rng(0).integers(0, 300, 2000).astype(np.uint16)


def weights_after(steps: int, **changes: object) -> tuple[dict[str, torch.Tensor], list[float]]:
    config = TrainConfig(max_steps=steps, warmup_steps=2, **changes)  # type: ignore[arg-type]
    state = TrainState.start(initialise(GPT(checks.SMALL, 300), 0), config, "fp32")
    losses = [record.loss for record in train(state, Batches(TOKENS, checks.SMALL.context_length, config.seed), config)]
    return {name: p.detach() for name, p in state.parameters.items()}, losses


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_resuming_changes_nothing_bit_for_bit(optimizer):
    check = checks.resume_changes_nothing(optimizer=optimizer)
    assert check.passed, check.detail


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_resuming_without_the_optimizer_state_is_noticed(monkeypatch, optimizer):
    monkeypatch.setattr(checks, "load_optimizer_tensors", lambda *_: None)
    assert not checks.resume_changes_nothing(optimizer=optimizer).passed


def test_batch_layout_changes_neither_data_nor_masks():
    reference, losses = weights_after(6, batch_size=12, grad_accum_steps=1)
    for size, accumulation in ((6, 2), (4, 3), (1, 12)):
        other, other_losses = weights_after(6, batch_size=size, grad_accum_steps=accumulation)
        assert other_losses == pytest.approx(losses, rel=1e-4)
        for name, tensor in reference.items():
            torch.testing.assert_close(other[name], tensor, rtol=1e-2, atol=2e-3)


def test_plain_and_fused_loss_train_alike():
    assert weights_after(6, loss="fused")[1] == pytest.approx(weights_after(6, loss="plain")[1], rel=1e-5)


def test_the_seed_changes_the_run():
    assert weights_after(3, seed=1)[1] != weights_after(3, seed=2)[1]


@pytest.mark.parametrize("where", ["loss", "gradient", "weight"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_stops_before_the_weights_change(monkeypatch, where, value):
    config = TrainConfig(max_steps=5, batch_size=2, grad_accum_steps=2)
    state = TrainState.start(initialise(GPT(checks.SMALL, 300), 0), config, "fp32")
    steps = train(state, Batches(TOKENS, 16, 0), config)
    next(steps)
    if where == "weight":
        with torch.no_grad():
            state.model.token_embedding.weight[5, 3] = value
    elif where == "gradient":
        state.parameters["norm.bias"].register_hook(lambda g: g * value)
    else:
        plain = training.LOSSES["fused"]
        monkeypatch.setitem(training.LOSSES, "fused", lambda *a: plain(*a) * value)
    before = {name: p.detach().clone() for name, p in state.parameters.items()}
    with pytest.raises(DivergedError, match="step 2") as caught:
        next(steps)
    assert caught.value.exit_code == 5
    assert state.step == 1
    assert all(torch.equal(p.nan_to_num(7), before[name].nan_to_num(7)) for name, p in state.parameters.items())
