"""Parameter groups, the learning rate as a function of the step, optimizer state by name."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tinygpt.config import ModelConfig, TrainConfig
from tinygpt.lm.model import GPT, initialise
from tinygpt.lm.optim import Muon, build_optimizers, load_optimizer_tensors, lr_scale, optimizer_tensors, orthogonal

SMALL = ModelConfig(d_model=16, n_layers=2, n_heads=2, d_ff=24, context_length=8)


def model() -> GPT:
    return initialise(GPT(SMALL, 50), 0)


def with_gradients(gpt: GPT, seed: int) -> GPT:
    """The model, its gradients drawn anew."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in gpt.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return gpt


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_parameter_is_updated_by_exactly_one_optimizer_and_only_matrices_decay(optimizer):
    gpt = with_gradients(model(), 0)
    optimizers = build_optimizers(gpt, TrainConfig(optimizer=optimizer), "fp32")
    names = [name for o in optimizers for name in {state.rpartition("/")[0] for state in o.state}]
    assert sorted(names) == sorted(dict(gpt.named_parameters()))
    for parameter in gpt.parameters():  # with a gradient of zero, decay is all that is left
        parameter.grad = torch.zeros_like(parameter)
        parameter.data.fill_(1)
    for o in optimizers:
        o.step(1.0)
    for name, parameter in gpt.named_parameters():
        assert bool((parameter < 1).all()) == (parameter.dim() >= 2), name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_both_take_the_steps_of_torch_optim(precision):
    config = TrainConfig(optimizer="muon", learning_rate=1e-2, weight_decay=0.1, muon_weight_decay=0.4)
    ours, theirs = model(), model()
    blocks = {n: p for n, p in theirs.named_parameters() if n.startswith("blocks.") and p.dim() == 2}
    matrices = {n: [nn.Parameter(m.clone()) for m in p.data.chunk(3 if "qkv" in n else 1)] for n, p in blocks.items()}
    others = {n: p for n, p in theirs.named_parameters() if n not in blocks}
    decay = [
        {"params": [p for p in others.values() if (p.dim() >= 2) == matrices], "weight_decay": 0.1 * matrices}
        for matrices in (0, 1)
    ]
    adamw = torch.optim.AdamW(decay, lr=1e-2, betas=(0.9, 0.95))
    muon = torch.optim.Muon(itertools.chain.from_iterable(matrices.values()), lr=0.02, weight_decay=0.4)
    optimizers = build_optimizers(ours, config, precision)
    for step in range(5):
        with_gradients(ours, step)
        with_gradients(theirs, step)
        for name, parts in matrices.items():
            for part, gradient in zip(parts, blocks[name].grad.chunk(len(parts)), strict=True):
                part.grad = gradient
        for group in (*adamw.param_groups, *muon.param_groups):
            group["lr"] = (0.01 if group in adamw.param_groups else 0.02) * (step + 1) / 5
        adamw.step()
        muon.step()
        for o in optimizers:
            o.step((step + 1) / 5)
    for name, parameter in ours.named_parameters():
        peer = torch.cat(matrices[name]) if name in blocks else others[name]
        tolerance = 5e-3 if name in blocks else 1e-6  # torch's Muon multiplies in bf16; five steps move a weight by up to 0.06
        torch.testing.assert_close(parameter, peer, rtol=0, atol=tolerance)


def test_orthogonal_keeps_singular_vectors_and_evens_singular_values():
    x = torch.randn(3, 5, 12, generator=torch.Generator().manual_seed(0)).mul_(100)
    for wide, tall in ((orthogonal(x), orthogonal(x.mT)),):
        values = torch.linalg.svdvals(wide)
        assert values.min() > 0.6
        assert values.max() < 1.3
        torch.testing.assert_close(wide, tall.mT)
        u, _, v = torch.linalg.svd(x, full_matrices=False)
        rotated = u.mT @ wide @ v.mT  # diagonal, if the singular vectors are those of x
        torch.testing.assert_close(rotated, torch.diag_embed(torch.diagonal(rotated, dim1=1, dim2=2)), rtol=0, atol=1e-4)


def test_muon_takes_the_matrices_of_the_blocks_in_the_precision_of_the_run():
    gpt = model()
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        *_, muon = build_optimizers(gpt, TrainConfig(optimizer="muon"), precision)
        assert isinstance(muon, Muon)
        assert muon.dtype == dtype
        taken = {name.removesuffix("/momentum_buffer") for name in muon.state}
        assert taken == {n for n, p in gpt.named_parameters() if n.startswith("blocks.") and p.dim() == 2}


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
    ours, theirs = (build_optimizers(gpt, config, "fp32") for gpt in (first, second))
    with_gradients(first, 0)
    for o in ours:
        o.step(1.0)
    saved = {name: tensor.clone() for name, tensor in optimizer_tensors(ours).items()}
    load_optimizer_tensors(theirs, saved)
    second.load_state_dict(first.state_dict())
    again = optimizer_tensors(theirs)
    assert saved.keys() == again.keys()
    assert all(torch.equal(saved[name], again[name]) for name in saved)
    for gpt, optimizers in ((first, ours), (second, theirs)):  # and is what the next step uses
        with_gradients(gpt, 1)
        for o in optimizers:
            o.step(1.0)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("damage", ["missing", "shape"])
def test_state_that_does_not_fit_is_refused_by_name(damage):
    config, gpt = TrainConfig(), model()
    saved = optimizer_tensors(build_optimizers(gpt, config, "fp32"))
    if damage == "missing":
        saved = {name: t for name, t in saved.items() if not name.startswith("norm.bias/")}
    else:
        saved["norm.bias/exp_avg"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"norm\.bias"):
        load_optimizer_tensors(build_optimizers(gpt, config, "fp32"), saved)
