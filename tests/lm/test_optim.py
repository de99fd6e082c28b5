"""Parameter groups, the learning rate as a function of the step, optimizer state by name."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt.config import ModelConfig, TrainConfig
from tinygpt.lm.model import GPT, initialise
from tinygpt.lm.optim import build_optimizers, load_optimizer_tensors, lr_scale, optimizer_tensors

SMALL = ModelConfig(d_model=16, n_layers=2, n_heads=2, d_ff=24, context_length=8)


def model() -> GPT:
    return initialise(GPT(SMALL, 50), 0)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_parameter_is_updated_by_exactly_one_group_and_only_matrices_decay(optimizer):
    gpt = model()
    names = {parameter: name for name, parameter in gpt.named_parameters()}
    seen = []
    for group in (g for o in build_optimizers(gpt, TrainConfig(optimizer=optimizer)) for g in o.param_groups):
        for parameter in group["params"]:
            seen.append(names[parameter])
            assert (group["weight_decay"] > 0) == (parameter.dim() >= 2), names[parameter]
    assert sorted(seen) == sorted(names.values())


def test_muon_takes_the_matrices_of_the_blocks():
    gpt = model()
    _, muon = build_optimizers(gpt, TrainConfig(optimizer="muon"))
    assert isinstance(muon, torch.optim.Muon)
    taken = {id(p) for g in muon.param_groups for p in g["params"]}
    assert taken == {id(p) for n, p in gpt.named_parameters() if n.startswith("blocks.") and p.dim() == 2}


def test_reference_schedule_is_linear_for_500_steps_then_a_cosine_to_zero():
    config = TrainConfig()
    assert lr_scale(1, config) == 1 / 500
    assert lr_scale(250, config) == 0.5
    assert lr_scale(500, config) == 1
    assert lr_scale(5250, config) == pytest.approx(0.5, abs=1e-3)
    assert 0 < lr_scale(10_000, config) < 1e-6


def test_linear_decay_over_the_last_part_is_a_warmup_stable_decay_schedule():
    config = TrainConfig(max_steps=100, warmup_steps=10, schedule="linear", decay_fraction=0.5, final_lr_fraction=0.1)
    assert [lr_scale(s, config) for s in (10, 11, 50, 55)] == [1, 1, 1, pytest.approx(1, abs=0.03)]
    assert lr_scale(100, config) == pytest.approx(0.1, abs=0.03)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 300),
    st.sampled_from(["cosine", "linear", "constant"]),
    st.one_of(st.none(), st.integers(1, 500)),
    st.floats(0.01, 1),
    st.floats(0, 1),
)
def test_rate_rises_then_falls_and_is_never_zero_or_above_the_peak(steps, schedule, warmup, decay, final):
    config = TrainConfig(max_steps=steps, schedule=schedule, warmup_steps=warmup, decay_fraction=decay, final_lr_fraction=final)
    scales = [lr_scale(step, config) for step in range(1, steps + 1)]
    assert all(0 < s <= 1 for s in scales)
    top = scales.index(max(scales))
    assert scales[: top + 1] == sorted(scales[: top + 1])
    assert scales[top:] == sorted(scales[top:], reverse=True)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_optimizer_state_survives_by_name(optimizer):
    config = TrainConfig(optimizer=optimizer)
    first, second = model(), model()
    ours, theirs = build_optimizers(first, config), build_optimizers(second, config)
    for parameter in first.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    for o in ours:
        o.step()
    saved = {name: tensor.clone() for name, tensor in optimizer_tensors(first, ours).items()}
    load_optimizer_tensors(second, theirs, saved)
    again = optimizer_tensors(second, theirs)
    assert saved.keys() == again.keys()
    assert all(torch.equal(saved[name], again[name]) for name in saved)


@pytest.mark.parametrize("damage", ["missing", "shape"])
def test_state_that_does_not_fit_is_refused_by_name(damage):
    config, gpt = TrainConfig(), model()
    optimizers = build_optimizers(gpt, config)
    for parameter in gpt.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizers[0].step()
    saved = optimizer_tensors(gpt, optimizers)
    if damage == "missing":
        saved = {name: t for name, t in saved.items() if not name.startswith("norm.bias/")}
    else:
        saved["norm.bias/exp_avg"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"norm\.bias"):
        load_optimizer_tensors(gpt, build_optimizers(gpt, config), saved)
