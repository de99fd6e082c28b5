"""Attention in blocks is the attention that the model spells out: same values, same gradients, less kept."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt.config import ModelConfig
from tinygpt.lm import attention
from tinygpt.lm.attention import causal_attention
from tinygpt.lm.model import CausalSelfAttention
from tinygpt.lm.noise import Noise

NOISE = Noise(3, 5, torch.arange(2))


def heads(length, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, length, 4, dtype=dtype, generator=generator, requires_grad=True) for _ in "qkv"]


def both(length, p, dtype=torch.float64):
    """Output and input gradient of a whole attention layer: spelt out, in blocks."""
    torch.manual_seed(0)
    layer = CausalSelfAttention(ModelConfig(d_model=12, n_heads=3, context_length=40, dropout=p), 1).to(dtype)
    x = torch.randn(2, length, 12, dtype=dtype, requires_grad=True)
    results = []
    for explicit in (True, False):
        y = layer(x, NOISE, explicit=explicit)
        results.append((y, *torch.autograd.grad(y.square().sum(), x)))
    return results


@pytest.mark.parametrize("p", [0.0, 0.4])
def test_gradients_pass_gradcheck_in_float64(monkeypatch, p):
    monkeypatch.setattr(attention, "ROWS", 3)
    assert torch.autograd.gradcheck(lambda q, k, v: causal_attention(q, k, v, p, NOISE, 1), heads(7))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 45), st.sampled_from([0.0, 0.1, 0.6]))
def test_blocks_of_any_size_give_what_the_model_spells_out(length, rows, p):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "ROWS", rows)
        explicit, fast = both(length, p)
    torch.testing.assert_close(fast, explicit, rtol=1e-9, atol=1e-12)


def test_in_bf16_the_error_is_of_the_size_of_a_rounding():
    q, k, v = heads(130, torch.float32)
    exact = causal_attention(q, k, v, 0.0, None, 0)
    rounded = causal_attention(*(x.bfloat16() for x in (q, k, v)), 0.0, None, 0)
    assert (rounded - exact).norm() <= 0.006 * exact.norm()
    expected, actual = (torch.autograd.grad(y.float().square().sum(), (q, k, v)) for y in (exact, rounded))
    for e, a in zip(expected, actual, strict=True):
        assert (a - e).norm() <= 0.015 * e.norm()


def test_blocks_that_see_their_own_future_are_noticed(monkeypatch):
    monkeypatch.setattr(attention, "_causal_bias", lambda length, dtype, device: torch.zeros(length, length, dtype=dtype))
    explicit, fast = both(20, 0.0)
    assert (fast[0] - explicit[0]).abs().max() > 1e-3


@pytest.mark.parametrize("p", [0.0, 0.1])
def test_weights_behind_the_blocks_are_not_kept(p):
    q, k, v = heads(512, torch.float32)
    kept = 0

    def count(tensor):
        nonlocal kept
        kept += tensor.nbytes * (tensor.shape[-1] > 4 and tensor.dtype == torch.float32)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        causal_attention(q, k, v, p, NOISE, 0)
    square = 4 * 2 * 3 * 512**2
    assert 0.5 * square < kept < 0.7 * square
