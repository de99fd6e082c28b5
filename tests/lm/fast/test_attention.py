"""Attention in blocks is the attention that the model spells out, in less memory."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt.config import ModelConfig
from tinygpt.lm.fast import attention
from tinygpt.lm.fast.attention import causal_attention
from tinygpt.lm.fast.dropout import DropoutKey
from tinygpt.lm.model import CausalSelfAttention, ForwardOptions

KEY = DropoutKey(3, 5, torch.arange(2))


def random_heads(length, dtype=torch.float64, seed=0):
    """q, k and v, each (2, 3, length, 4)."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 3, length, 4)
    return [torch.randn(shape, dtype=dtype, generator=generator, requires_grad=True) for _ in "qkv"]


def explicit_and_fast(length, p, dtype=torch.float64):
    """Output and input gradient of a whole attention layer: spelled out, and in blocks."""
    torch.manual_seed(0)
    config = ModelConfig(d_model=12, n_heads=3, context_length=40, dropout=p)
    layer = CausalSelfAttention(config, layer=1).to(dtype)
    x = torch.randn(2, length, 12, dtype=dtype, requires_grad=True)
    results = []
    for explicit in (True, False):
        y = layer(x, ForwardOptions(dropout_key=KEY, explicit=explicit))
        results.append((y, *torch.autograd.grad(y.square().sum(), x)))
    return results


@pytest.mark.parametrize("p", [0.0, 0.4])
def test_gradients_pass_gradcheck_in_float64(monkeypatch, p):
    monkeypatch.setattr(attention, "ROWS", 3)

    def attend(q, k, v):
        return causal_attention(q, k, v, p, KEY, 1)

    assert torch.autograd.gradcheck(attend, random_heads(7))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 45), st.sampled_from([0.0, 0.1, 0.6]))
def test_blocks_of_any_size_give_what_the_model_spells_out(length, rows, p):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "ROWS", rows)
        explicit, fast = explicit_and_fast(length, p)
    torch.testing.assert_close(fast, explicit, rtol=1e-9, atol=1e-12)


def test_in_bf16_the_error_is_of_the_size_of_a_rounding():
    q, k, v = random_heads(130, torch.float32)
    exact = causal_attention(q, k, v, 0.0, None, 0)
    rounded = causal_attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), 0.0, None, 0)
    assert (rounded - exact).norm() <= 0.006 * exact.norm()
    expected = torch.autograd.grad(exact.square().sum(), (q, k, v))
    found = torch.autograd.grad(rounded.float().square().sum(), (q, k, v))
    for e, f in zip(expected, found, strict=True):
        assert (f - e).norm() <= 0.015 * e.norm()


def test_blocks_that_see_their_own_future_are_noticed(monkeypatch):
    def no_bias(length, dtype, device):
        return torch.zeros(length, length, dtype=dtype)

    monkeypatch.setattr(attention, "_causal_bias", no_bias)
    explicit, fast = explicit_and_fast(20, 0.0)
    assert (fast[0] - explicit[0]).abs().max() > 1e-3


@pytest.mark.parametrize("p", [0.0, 0.1])
def test_weights_above_the_blocks_of_the_diagonal_are_not_kept(p):
    q, k, v = random_heads(512, torch.float32)
    kept = 0

    def count(tensor):
        nonlocal kept
        if tensor.dtype == torch.float32 and tensor.shape[-1] > 4:
            kept += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        causal_attention(q, k, v, p, KEY, 0)
    square = 4 * 2 * 3 * 512**2  # bytes of all weights
    assert 0.5 * square < kept < 0.7 * square
