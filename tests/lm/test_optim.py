"""The optimizers: which parameters they take, their steps, and their state by name."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tinygpt.config import ModelConfig, TrainConfig
from tinygpt.errors import CorruptArtifactError
from tinygpt.lm.init import init_weights
from tinygpt.lm.model import GPT
from tinygpt.lm.optim import (
    Muon,
    Optimizer,
    build_optimizers,
    group_by_matrix_shape,
    load_optimizer_tensors,
    optimizer_tensors,
    orthogonal,
)

SMALL = ModelConfig(d_model=16, n_layers=2, n_heads=2, d_ff=24, context_length=8)


def small_model() -> GPT:
    return init_weights(GPT(SMALL, 50), 0)


def draw_gradients(model: GPT, seed: int) -> None:
    """Give every parameter a random gradient."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def take_step(optimizers: list[Optimizer], scale: float = 1.0) -> None:
    for optimizer in optimizers:
        optimizer.step(scale)


def block_matrices(model: GPT) -> dict[str, nn.Parameter]:
    """What Muon takes."""
    named = model.named_parameters()
    return {name: p for name, p in named if name.startswith("blocks.") and p.dim() == 2}


# ---- which parameters


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_parameter_belongs_to_exactly_one_optimizer(optimizer):
    model = small_model()
    names: list[str] = []
    for one in build_optimizers(model, TrainConfig(optimizer=optimizer), "fp32"):
        names += {state_name.rpartition("/")[0] for state_name in one.state}
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_only_matrices_decay(optimizer):
    model = small_model()
    optimizers = build_optimizers(model, TrainConfig(optimizer=optimizer), "fp32")
    for parameter in model.parameters():  # with a gradient of zero, only decay is left
        parameter.grad = torch.zeros_like(parameter)
        parameter.data.fill_(1)
    take_step(optimizers)
    for name, parameter in model.named_parameters():
        assert bool((parameter < 1).all()) == (parameter.dim() >= 2), name
        assert parameter.dim() >= 2 or bool((parameter == 1).all()), name


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_drops_the_gradients(optimizer):
    model = small_model()
    draw_gradients(model, 0)
    take_step(build_optimizers(model, TrainConfig(optimizer=optimizer), "fp32"))
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_muon_takes_the_matrices_of_the_blocks_in_the_precision_of_the_run(precision, dtype):
    model = small_model()
    *_, muon = build_optimizers(model, TrainConfig(optimizer="muon"), precision)
    assert isinstance(muon, Muon)
    assert muon.dtype == dtype
    taken = {name.removesuffix("/momentum_buffer") for name in muon.state}
    assert taken == block_matrices(model).keys()


def test_matrices_of_one_shape_are_grouped_and_qkv_counts_as_three():
    groups = group_by_matrix_shape(block_matrices(small_model()))
    assert groups.keys() == {(16, 16), (24, 16), (16, 24)}
    assert [name.split(".")[1:] for name in groups[16, 16]] == [
        ["0", "attention", "qkv", "weight"],
        ["0", "attention", "out", "weight"],
        ["1", "attention", "qkv", "weight"],
        ["1", "attention", "out", "weight"],
    ]


# ---- steps


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_adamw_and_muon_take_the_steps_of_torch_optim(precision):
    config = TrainConfig(
        optimizer="muon", learning_rate=1e-2, weight_decay=0.1, muon_weight_decay=0.4
    )
    ours = small_model()
    optimizers = build_optimizers(ours, config, precision)
    theirs = small_model()
    in_blocks = block_matrices(theirs)
    others = {name: p for name, p in theirs.named_parameters() if name not in in_blocks}
    muon_parts = {name: _parts_of_muon(name, p) for name, p in in_blocks.items()}
    adamw = torch.optim.AdamW(
        [
            {"params": [p for p in others.values() if p.dim() < 2], "weight_decay": 0.0},
            {"params": [p for p in others.values() if p.dim() >= 2], "weight_decay": 0.1},
        ],
        lr=1e-2,
        betas=(0.9, 0.95),
    )
    all_parts = itertools.chain.from_iterable(muon_parts.values())
    muon = torch.optim.Muon(all_parts, lr=0.02, weight_decay=0.4)

    for step in range(5):
        scale = (step + 1) / 5
        draw_gradients(ours, step)
        take_step(optimizers, scale)
        draw_gradients(theirs, step)
        for name, parts in muon_parts.items():
            gradients = in_blocks[name].grad.chunk(len(parts))
            for part, gradient in zip(parts, gradients, strict=True):
                part.grad = gradient
        _set_learning_rate(adamw, 0.01 * scale)
        _set_learning_rate(muon, 0.02 * scale)
        adamw.step()
        muon.step()

    for name, parameter in ours.named_parameters():
        if name in in_blocks:
            # torch's Muon multiplies in bf16; five steps move a weight by up to 0.06
            peer = torch.cat(muon_parts[name])
            torch.testing.assert_close(parameter, peer, rtol=0, atol=5e-3)
        else:
            torch.testing.assert_close(parameter, others[name], rtol=0, atol=1e-6)


def _parts_of_muon(name: str, parameter: Tensor) -> list[nn.Parameter]:
    """The matrices of a parameter, each for torch.optim.Muon: three of qkv, one of the others."""
    count = 3 if "qkv" in name else 1
    return [nn.Parameter(matrix.clone()) for matrix in parameter.data.chunk(count)]


def _set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


@pytest.fixture
def wide() -> Tensor:
    """Matrices with singular values far from 1, (3, 5, 12)."""
    return torch.randn(3, 5, 12, generator=torch.Generator().manual_seed(0)).mul_(100)


def test_orthogonal_brings_singular_values_near_one(wide):
    values = torch.linalg.svdvals(orthogonal(wide))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_orthogonal_of_a_transpose_is_the_transpose(wide):
    torch.testing.assert_close(orthogonal(wide.mT).mT, orthogonal(wide))


def test_orthogonal_keeps_the_singular_vectors(wide):
    u, _, v = torch.linalg.svd(wide, full_matrices=False)
    rotated = u.mT @ orthogonal(wide) @ v.mT  # diagonal, if the singular vectors are the same
    diagonal = torch.diag_embed(torch.diagonal(rotated, dim1=1, dim2=2))
    torch.testing.assert_close(rotated, diagonal, rtol=0, atol=1e-4)


# ---- state


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_optimizer_state_can_be_saved_and_loaded_by_name(optimizer):
    config = TrainConfig(optimizer=optimizer)
    first = small_model()
    first_optimizers = build_optimizers(first, config, "fp32")
    draw_gradients(first, 0)
    take_step(first_optimizers)
    saved = {name: t.clone().numpy() for name, t in optimizer_tensors(first_optimizers).items()}

    second = small_model()
    second_optimizers = build_optimizers(second, config, "fp32")
    load_optimizer_tensors(second_optimizers, saved)
    second.load_state_dict(first.state_dict())
    loaded = optimizer_tensors(second_optimizers)
    assert saved.keys() == loaded.keys()
    assert all((saved[name] == loaded[name].numpy()).all() for name in saved)

    # The next step uses it
    draw_gradients(first, 1)
    take_step(first_optimizers)
    draw_gradients(second, 1)
    take_step(second_optimizers)
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"norm.bias/exp_avg": None}, "norm.bias/exp_avg` is in one of them only"),
        ({"more": np.zeros(2, np.float32)}, "more` is in one of them only"),
        ({"norm.bias/exp_avg": np.zeros(3, np.float32)}, r"float32 \(3,\)"),
        ({"norm.bias/step": np.zeros((), np.int64)}, "norm.bias/step` is int64"),
        ({"norm.bias/step": np.array(np.nan, np.float32)}, "norm.bias/step` contains a NaN"),
        (
            {"norm.bias/exp_avg_sq": np.full(16, np.inf, np.float32)},
            "contains a NaN or an infinity",
        ),
        ({"norm.bias/exp_avg_sq": np.full(16, -1, np.float32)}, "contains a negative number"),
    ],
)
def test_state_that_does_not_fit_is_refused_by_name(damage, message):
    model = small_model()
    saved = optimizer_tensors(build_optimizers(model, TrainConfig(), "fp32"))
    arrays = {name: tensor.numpy() for name, tensor in saved.items()} | damage
    arrays = {name: array for name, array in arrays.items() if array is not None}
    with pytest.raises(CorruptArtifactError, match=message):
        load_optimizer_tensors(build_optimizers(model, TrainConfig(), "fp32"), arrays)
