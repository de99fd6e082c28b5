"""A KV cache changes how much is computed, not what: split anywhere, the logits are the same."""

import pytest
import torch

from tests.lm.models import VARIANTS, V, each_variant, random_model, random_token_ids
from tinygpt.lm.fast.kv_cache import KVCache
from tinygpt.lm.model import GPT

T = VARIANTS[0].context_length


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@each_variant
@pytest.mark.parametrize("explicit", [False, True], ids=["fast", "explicit"])
def test_logits_with_a_cache_equal_those_without_at_every_split(config, explicit):
    model = random_model(config)
    token_ids = random_token_ids(2, T)
    expected = model(token_ids, explicit=explicit)
    for split in range(1, T):
        cache = KVCache(config, max_sequences=2)
        first = model(token_ids[:, :split], cache=cache, explicit=explicit)
        assert cache.length == split
        second = model(token_ids[:, split:], cache=cache, explicit=explicit)
        assert cache.length == T
        found = torch.cat((first, second), dim=1)
        torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-4)


@each_variant
def test_attention_weights_with_a_cache_are_the_rows_of_those_without_at_every_split(config):
    model = random_model(config)
    token_ids = random_token_ids(2, T)
    expected: list[torch.Tensor] = []
    expected_logits = model(token_ids, attention=expected)
    for split in range(1, T):
        cache = KVCache(config, max_sequences=2)
        first: list[torch.Tensor] = []
        second: list[torch.Tensor] = []
        model(token_ids[:, :split], cache=cache, attention=first)
        logits = model(token_ids[:, split:], cache=cache, attention=second)
        torch.testing.assert_close(logits, expected_logits[:, split:], rtol=2e-4, atol=2e-4)
        assert len(first) == len(second) == config.n_layers
        for layer, whole in enumerate(expected):
            assert second[layer].shape == (2, config.n_heads, T - split, T)
            torch.testing.assert_close(first[layer], whole[:, :, :split, :split])
            torch.testing.assert_close(second[layer], whole[:, :, split:])


@each_variant
def test_a_token_at_a_time_gives_the_logits_of_one_pass(config):
    model = random_model(config)
    token_ids = random_token_ids(2, T)
    cache = KVCache(config, max_sequences=2)
    columns = [model(token_ids[:, t : t + 1], cache=cache) for t in range(T)]
    found = torch.cat(columns, dim=1)
    torch.testing.assert_close(found, model(token_ids), rtol=2e-4, atol=2e-4)


def test_a_cache_may_hold_fewer_sequences_than_it_has_room_for():
    model = random_model(VARIANTS[0])
    token_ids = random_token_ids(2, T)
    cache = KVCache(VARIANTS[0], max_sequences=5)
    model(token_ids[:, :9], cache=cache)
    found = model(token_ids[:, 9:], cache=cache)
    torch.testing.assert_close(found, model(token_ids)[:, 9:], rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("explicit", [False, True], ids=["fast", "explicit"])
def test_tokens_beyond_the_context_are_refused_and_leave_the_cache_as_it_was(explicit):
    model = GPT(VARIANTS[0], V)
    cache = KVCache(VARIANTS[0])
    model(random_token_ids(1, 20), cache=cache, explicit=explicit)
    with pytest.raises(ValueError, match="25 tokens exceed the context of 24"):
        model(random_token_ids(1, 5), cache=cache, explicit=explicit)
    assert cache.length == 20
    assert model(random_token_ids(1, 4), cache=cache, explicit=explicit).shape == (1, 4, V)
