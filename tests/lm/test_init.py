"""Initial weights: what they are, and that each depends on the seed and its own name alone."""

import itertools
import math

import pytest
import torch

from tinygpt.analysis import checks
from tinygpt.config import ModelConfig
from tinygpt.lm.init import init_weights
from tinygpt.lm.model import GPT

BASE = ModelConfig(d_model=64, n_layers=2, n_heads=2, d_ff=64, context_length=64)


def initial(config: ModelConfig = BASE, seed: int = 7) -> dict[str, torch.Tensor]:
    """The initial weights by name."""
    return dict(init_weights(GPT(config, 300), seed).named_parameters())


def matrices_of(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: weight for name, weight in weights.items() if weight.dim() == 2}


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item()


@pytest.mark.parametrize("weight_init", ["gpt2", "copying"])
@pytest.mark.parametrize(
    "change",
    [
        {"d_ff": 100},
        {"positions": "none"},
        {"positions": "sinusoidal"},
        {"context_length": 32},
        {"tie_embeddings": False},
        {"norm": "post"},
        {"n_heads": 4},
        {"activation": "relu"},
    ],
    ids=str,
)
def test_an_initial_weight_does_not_depend_on_the_rest_of_the_model(change, weight_init):
    base = BASE.model_copy(update={"weight_init": weight_init})
    one = initial(base)
    other = initial(base.model_copy(update=change))
    shared = [name for name in one if name in other and one[name].shape == other[name].shape]
    assert {"token_embedding.weight", "blocks.1.attention.qkv.weight"} <= set(shared)
    for name in shared:
        assert torch.equal(one[name], other[name]), name


def test_a_deeper_model_begins_with_the_weights_of_a_shallow_one_but_for_the_residual_scale():
    shallow = initial(BASE)
    deep = initial(BASE.model_copy(update={"n_layers": 5}))
    assert shallow.keys() < deep.keys()
    for name, weight in shallow.items():
        if name.endswith(("attention.out.weight", "mlp.down.weight")):
            torch.testing.assert_close(weight * math.sqrt(2), deep[name] * math.sqrt(5))
        else:
            assert torch.equal(weight, deep[name]), name


@pytest.mark.parametrize("weight_init", ["gpt2", "copying"])
def test_initial_weights_depend_on_the_seed_and_on_no_global_state(weight_init):
    config = BASE.model_copy(update={"weight_init": weight_init})
    torch.manual_seed(1)
    first = initial(config, seed=7)
    torch.manual_seed(2)
    second = initial(config, seed=7)
    other = initial(config, seed=8)
    assert all(torch.equal(first[name], second[name]) for name in first)
    for name, weight in matrices_of(first).items():
        if weight_init == "gpt2":
            assert abs(correlation(weight, other[name])) < 0.1, name
        assert not torch.equal(weight, other[name]), name


def test_matrices_of_different_names_are_drawn_independently():
    matrices = matrices_of(initial())
    compared = 0
    for (name, weight), (other_name, other) in itertools.combinations(matrices.items(), 2):
        if weight.shape == other.shape:
            compared += 1
            assert abs(correlation(weight, other)) < 0.1, (name, other_name)
    assert compared == 22  # 21 pairs of 7 square matrices, and qkv of two blocks


def test_vectors_begin_as_zero_biases_and_identity_norms():
    for name, weight in initial().items():
        if weight.dim() == 1:
            assert (weight == (0 if name.endswith("bias") else 1)).all(), name


@pytest.mark.parametrize("vocab_size", [300, 8000])
def test_loss_at_initialization_is_about_ln_v(vocab_size):
    check = checks.loss_at_initialization(ModelConfig(), vocab_size)
    assert check.passed, check.detail


@pytest.mark.parametrize(("weight_init", "copies"), [("copying", True), ("gpt2", False)])
def test_heads_that_begin_by_copying_add_the_mean_of_what_they_attend_to(weight_init, copies):
    config = ModelConfig(weight_init=weight_init, context_length=16)
    attention = init_weights(GPT(config, 300), 0).blocks[0].attention
    attention.qkv.weight.data[:256] = 0  # every head attends equally to all of the past
    x = torch.randn(2, 16, 128, generator=torch.Generator().manual_seed(0))
    mean_of_past = x.cumsum(1) / torch.arange(1, 17)[:, None]
    assert torch.allclose(attention(x), mean_of_past, atol=1e-5) == copies


def test_matrices_that_write_into_the_residual_stream_start_smaller_with_depth():
    block = init_weights(GPT(ModelConfig(), 300), 0).blocks[0]
    assert block.mlp.up.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.mlp.down.weight.std().item() == pytest.approx(0.02 / 8**0.5, rel=0.05)
