"""GELU by a sigmoid is GELU."""

import pytest
import torch
import torch.nn.functional as F

from tinygpt.lm import activation
from tinygpt.lm.activation import gelu

X = torch.cat((torch.linspace(-12, 12, 4_001, dtype=torch.float64), torch.tensor([0.0, -1e4, 1e4], dtype=torch.float64)))


def both(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Values and slopes: ours, PyTorch's."""
    results = []
    for function in (gelu, lambda x: F.gelu(x, approximate="tanh")):
        leaf = x.clone().requires_grad_()
        y = function(leaf)
        results += [y.detach(), *torch.autograd.grad(y.sum(), leaf)]
    return tuple(results)


def test_gradients_pass_gradcheck_in_float64():
    assert torch.autograd.gradcheck(gelu, torch.linspace(-6, 6, 50, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_values_and_slopes_are_those_of_pytorch(dtype, tolerance):
    y, slope, expected_y, expected_slope = both(X.to(dtype))
    torch.testing.assert_close(y, expected_y, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(slope, expected_slope, rtol=tolerance, atol=10 * tolerance)


def test_in_bf16_the_error_is_of_the_size_of_a_rounding():
    y, slope, _, _ = both(X.to(torch.bfloat16))
    _, _, expected_y, expected_slope = both(X.to(torch.bfloat16).double())
    assert (y - expected_y).norm() <= 0.003 * expected_y.norm()
    assert (slope - expected_slope).norm() <= 0.006 * expected_slope.norm()


def test_another_cubic_term_would_be_noticed(monkeypatch):
    monkeypatch.setattr(activation, "CUBIC", 1.01 * activation.CUBIC)
    y, slope, expected_y, expected_slope = both(X.float())
    assert (y - expected_y).abs().max() > 1e-4
    assert (slope - expected_slope).abs().max() > 1e-4
