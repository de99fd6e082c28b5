"""The model: shapes, causality, attention weights, its fast and explicit forms, its variants."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lm.models import VARIANTS, V, each_variant, random_model, random_token_ids
from tinygpt.analysis import checks
from tinygpt.analysis.costs import costs
from tinygpt.config import ModelConfig, TrainConfig
from tinygpt.lm.init import init_weights
from tinygpt.lm.model import GPT

CONTEXT = VARIANTS[0].context_length


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, CONTEXT), st.sampled_from(VARIANTS))
def test_logits_have_shape_batch_time_vocab(batch, time, config):
    model = GPT(config, V)
    assert model(random_token_ids(batch, time)).shape == (batch, time, V)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, CONTEXT), st.sampled_from(VARIANTS), st.integers(0, 2**31))
def test_attention_weights_sum_to_one_and_are_exactly_zero_for_the_future(
    batch, time, config, seed
):
    model = init_weights(GPT(config, V), seed)
    attention: list[torch.Tensor] = []
    model(random_token_ids(batch, time, seed), attention=attention)
    assert len(attention) == config.n_layers
    for weights in attention:
        assert weights.shape == (batch, config.n_heads, time, time)
        assert (weights >= 0).all()
        assert (weights.triu(1) == 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights.sum(-1)))


@each_variant
def test_collecting_attention_weights_does_not_change_the_logits(config):
    model = random_model(config)
    token_ids = random_token_ids(2, CONTEXT)
    with torch.no_grad():
        torch.testing.assert_close(
            model(token_ids, attention=[]), model(token_ids), rtol=2e-4, atol=2e-4
        )


@each_variant
def test_future_tokens_do_not_change_past_logits(config):
    check = checks.later_tokens_do_not_change_earlier_logits(config)
    assert check.passed, check.detail


def test_a_model_that_sees_the_future_is_caught(monkeypatch):
    def attend_everywhere(self, q, k):
        return (q @ k.transpose(-2, -1)).softmax(-1)

    monkeypatch.setattr("tinygpt.lm.model.CausalSelfAttention.weights", attend_everywhere)
    assert not checks.later_tokens_do_not_change_earlier_logits().passed


@each_variant
def test_explicit_fast_and_cached_logits_agree(config):
    check = checks.logit_paths_agree(config)
    assert check.passed, check.detail


@each_variant
def test_gradient_equals_finite_difference(config):
    check = checks.gradient_is_the_slope(config)
    assert check.passed, check.detail


def test_one_batch_can_be_overfitted():
    check = checks.one_batch_overfits()
    assert check.passed, check.detail


def test_tokens_beyond_the_context_are_refused():
    model = GPT(VARIANTS[0], V)
    with pytest.raises(ValueError, match="25 tokens exceed the context of 24"):
        model(torch.zeros(1, 25, dtype=torch.long))


def test_reference_model_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in GPT(ModelConfig(), 8000).parameters()) == 1_850_112


@each_variant
def test_cost_table_counts_the_parameters_that_exist(config):
    existing = sum(p.numel() for p in GPT(config, V).parameters())
    assert costs(config, TrainConfig(), V).parameters == existing


def test_tied_embeddings_are_one_tensor_and_untied_are_two():
    tied = GPT(ModelConfig(), 300)
    untied = GPT(ModelConfig(tie_embeddings=False), 300)
    assert tied.lm_head.weight.data_ptr() == tied.token_embedding.weight.data_ptr()
    assert untied.lm_head.weight.data_ptr() != untied.token_embedding.weight.data_ptr()
    assert "lm_head.weight" not in dict(tied.named_parameters())
