"""The model: shapes, causality, its two attention paths, its variants, its initial weights."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt.config import ModelConfig, TrainConfig
from tinygpt.lm import checks
from tinygpt.lm.costs import costs
from tinygpt.lm.model import GPT, initialise

VARIANTS = [
    ModelConfig(
        d_model=24,
        n_layers=2,
        n_heads=3,
        d_ff=40,
        context_length=12,
        norm=norm,
        activation=act,
        positions=pos,
        tie_embeddings=tie,
    )
    for norm, act, pos, tie in itertools.product(
        ("pre", "post"), ("gelu", "relu"), ("learned", "sinusoidal", "none"), (True, False)
    )
]
variants = pytest.mark.parametrize("config", VARIANTS, ids=lambda c: f"{c.norm}-{c.activation}-{c.positions}-{c.tie_embeddings}")


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 12), st.sampled_from(VARIANTS))
def test_property_5_logits_have_shape_batch_time_vocab(batch, time, config):
    model = GPT(config, 50)
    assert model(torch.randint(0, 50, (batch, time))).shape == (batch, time, 50)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 12), st.sampled_from(VARIANTS), st.integers(0, 2**31))
def test_property_7_attention_above_the_diagonal_is_exactly_zero(batch, time, config, seed):
    model = initialise(GPT(config, 50), seed)
    for weights in model.attention_weights(torch.randint(0, 50, (batch, time))):
        assert weights.shape == (batch, config.n_heads, time, time)
        assert (weights.triu(1) == 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights.sum(-1)))


@variants
def test_future_tokens_do_not_change_past_logits(config):
    check = checks.future_moves_no_past(config)
    assert check.passed, check.detail


def test_a_model_that_sees_the_future_is_caught(monkeypatch):
    monkeypatch.setattr("tinygpt.lm.model.CausalSelfAttention.weights", lambda self, q, k: (q @ k.transpose(-2, -1)).softmax(-1))
    assert not checks.future_moves_no_past().passed


@variants
def test_explicit_fused_and_cached_logits_agree(config):
    check = checks.three_paths_agree(config)
    assert check.passed, check.detail


@variants
def test_gradient_equals_finite_difference(config):
    check = checks.gradient_is_the_slope(config)
    assert check.passed, check.detail


@pytest.mark.parametrize("vocab_size", [300, 8000])
def test_loss_at_initialisation_is_about_ln_v(vocab_size):
    check = checks.loss_at_initialisation(ModelConfig(), vocab_size)
    assert check.passed, check.detail


def test_one_batch_can_be_overfitted():
    check = checks.one_batch_overfits()
    assert check.passed, check.detail


def test_heads_that_begin_by_copying_add_what_they_look_at():
    x = torch.randn(2, 16, 128, generator=torch.Generator().manual_seed(0))
    for kind, copies in (("copying", True), ("gpt2", False)):
        attention = initialise(GPT(ModelConfig(initialisation=kind, context_length=16), 300), 0).blocks[0].attention
        attention.qkv.weight.data[:256] = 0  # every head looks at all of the past alike
        mean_of_past = x.cumsum(1) / torch.arange(1, 17)[:, None]
        assert torch.allclose(attention(x), mean_of_past, atol=1e-5) == copies


def test_tokens_beyond_the_context_are_refused():
    model = GPT(VARIANTS[0], 50)
    with pytest.raises(ValueError, match="13 tokens exceed the context of 12"):
        model(torch.zeros(1, 13, dtype=torch.long))


def test_reference_model_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in GPT(ModelConfig(), 8000).parameters()) == 1_850_112


@variants
def test_cost_table_counts_the_parameters_that_exist(config):
    assert costs(config, TrainConfig(), 50).parameters == sum(p.numel() for p in GPT(config, 50).parameters())


def test_tied_embeddings_are_one_tensor_and_untied_are_two():
    tied, untied = GPT(ModelConfig(), 300), GPT(ModelConfig(tie_embeddings=False), 300)
    assert tied.unembed.weight.data_ptr() == tied.token_embedding.weight.data_ptr()
    assert untied.unembed.weight.data_ptr() != untied.token_embedding.weight.data_ptr()
    assert "unembed.weight" not in dict(tied.named_parameters())


def test_initial_weights_depend_on_the_seed_alone():
    config = ModelConfig(n_layers=2)
    torch.manual_seed(1)
    first = initialise(GPT(config, 300), 7)
    torch.manual_seed(2)
    second, other = initialise(GPT(config, 300), 7), initialise(GPT(config, 300), 8)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.token_embedding.weight, other.token_embedding.weight)


def test_residual_projections_start_smaller_by_the_depth():
    model = initialise(GPT(ModelConfig(), 300), 0)
    block = model.blocks[0]
    assert block.mlp.up.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.mlp.down.weight.std().item() == pytest.approx(0.02 / 8**0.5, rel=0.05)
