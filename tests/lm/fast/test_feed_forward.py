"""The feed-forward network in pieces is the one that the model spells out, and its GELU is GELU."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt.config import ModelConfig
from tinygpt.lm.fast import feed_forward
from tinygpt.lm.model import MLP, ForwardOptions

EXTREMES = torch.tensor([0.0, -1e4, 1e4], dtype=torch.float64)
X = torch.cat((torch.linspace(-12, 12, 4_001, dtype=torch.float64), EXTREMES))


def network(dtype=torch.float64):
    torch.manual_seed(0)
    return MLP(ModelConfig(d_model=12, n_heads=3, d_ff=40), layer=1).to(dtype)


def output_and_gradients(mlp, x, *, explicit, bf16=False):
    """Output, and the gradients of the input and all parameters."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y = mlp(x, ForwardOptions(explicit=explicit))
    return [y, *torch.autograd.grad(y.square().sum(), [x, *mlp.parameters()])]


# ---- the network


def test_gradients_pass_gradcheck_in_float64(monkeypatch):
    monkeypatch.setattr(feed_forward, "ROWS", 4)
    mlp = network()
    x = torch.randn(2, 3, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: mlp(x), (x, *mlp.parameters()))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 20), st.integers(1, 70))
def test_pieces_of_any_size_give_what_the_model_spells_out(sequences, length, rows):
    x = torch.randn(sequences, length, 12, dtype=torch.float64, requires_grad=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed_forward, "ROWS", rows)
        fast = output_and_gradients(network(), x, explicit=False)
    explicit = output_and_gradients(network(), x, explicit=True)
    torch.testing.assert_close(fast, explicit, rtol=1e-9, atol=1e-12)


def test_in_bf16_the_error_is_of_the_size_of_a_rounding_and_gradients_are_fp32(monkeypatch):
    monkeypatch.setattr(feed_forward, "ROWS", 16)
    mlp = network(torch.float32)
    x = torch.randn(4, 256, 12, requires_grad=True)
    exact = output_and_gradients(mlp, x, explicit=True)
    rounded = output_and_gradients(mlp, x, explicit=False, bf16=True)
    assert rounded[0].dtype == torch.bfloat16
    assert {gradient.dtype for gradient in rounded[1:]} == {torch.float32}
    for e, r in zip(exact, rounded, strict=True):
        assert (r - e).norm() <= 0.02 * e.norm()


def test_the_slope_of_another_gelu_would_be_noticed(monkeypatch):
    x = torch.randn(1, 5, 12, dtype=torch.float64, requires_grad=True)
    _, expected, *_ = output_and_gradients(network(), x, explicit=True)
    monkeypatch.setattr(feed_forward, "CUBIC", 1.01 * feed_forward.CUBIC)
    _, found, *_ = output_and_gradients(network(), x, explicit=False)
    assert (found - expected).abs().max() > 1e-6 * found.abs().max()


# ---- GELU


def our_gelu(x):
    """Values and slopes."""
    y, slope = torch.empty_like(x), torch.empty_like(x)
    feed_forward.gelu(x, y, slope)
    return y, slope


def torch_gelu(x):
    """Values and slopes."""
    leaf = x.clone().requires_grad_()
    y = F.gelu(leaf, approximate="tanh")
    (slope,) = torch.autograd.grad(y.sum(), leaf)
    return y.detach(), slope


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_values_and_slopes_are_those_of_pytorch(dtype, tolerance):
    y, slope = our_gelu(X.to(dtype))
    expected_y, expected_slope = torch_gelu(X.to(dtype))
    torch.testing.assert_close(y, expected_y, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(slope, expected_slope, rtol=tolerance, atol=10 * tolerance)


def test_in_bf16_the_error_of_gelu_is_of_the_size_of_a_rounding():
    x = X.to(torch.bfloat16)
    y, slope = our_gelu(x)
    expected_y, expected_slope = torch_gelu(x.double())
    assert (y - expected_y).norm() <= 0.003 * expected_y.norm()
    assert (slope - expected_slope).norm() <= 0.006 * expected_slope.norm()
