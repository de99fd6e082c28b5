"""The fused loss is the plain loss: same value, same gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt.config import ModelConfig
from tinygpt.lm import loss as loss_module
from tinygpt.lm.loss import fused_loss, linear_cross_entropy, plain_loss
from tinygpt.lm.model import GPT, initialise
from tinygpt.lm.noise import Noise


def test_gradients_pass_gradcheck_in_float64(monkeypatch):
    monkeypatch.setattr(loss_module, "CHUNK_LOGITS", 3 * 11)  # three rows at a time, so that the last piece is smaller
    torch.manual_seed(0)
    hidden, weight = (
        torch.randn(7, 5, dtype=torch.double, requires_grad=True),
        torch.randn(11, 5, dtype=torch.double, requires_grad=True),
    )
    targets = torch.randint(0, 11, (7,))
    assert torch.autograd.gradcheck(lambda h, w: linear_cross_entropy(h, w, targets), (hidden, weight))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(2, 300), st.integers(1, 40), st.integers(0, 2**31), st.sampled_from([1, 50, 10**9]))
def test_fused_equals_plain_for_any_shape(rows, vocab, width, seed, chunk):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, width, generator=generator, requires_grad=True)
    weight = torch.randn(vocab, width, generator=generator, requires_grad=True)
    targets = torch.randint(0, vocab, (rows,), generator=generator)
    plain = torch.nn.functional.cross_entropy(hidden @ weight.T, targets)
    expected = torch.autograd.grad(3 * plain, (hidden, weight))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss_module, "CHUNK_LOGITS", chunk)
        fused = linear_cross_entropy(hidden, weight, targets)
        actual = torch.autograd.grad(3 * fused, (hidden, weight))
    torch.testing.assert_close(fused, plain)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tie", [True, False])
def test_whole_model_has_the_same_gradients_with_either_loss(tie):
    model = initialise(GPT(ModelConfig(context_length=32, tie_embeddings=tie), 500), 0)
    tokens = torch.randint(0, 500, (4, 33), generator=torch.Generator().manual_seed(0))
    noise = Noise(1, 1, torch.arange(4))
    gradients = []
    for function in (plain_loss, fused_loss):
        model.zero_grad()
        function(model, tokens[:, :-1], tokens[:, 1:], noise).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for plain, fused in zip(*gradients, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-6)


def test_bf16_loss_is_within_its_stated_tolerance():
    model = initialise(GPT(ModelConfig(context_length=64), 2000), 0)
    tokens = torch.randint(0, 2000, (8, 65), generator=torch.Generator().manual_seed(0))
    exact = plain_loss(model, tokens[:, :-1], tokens[:, 1:])
    expected = torch.autograd.grad(exact, list(model.parameters()))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = fused_loss(model, tokens[:, :-1], tokens[:, 1:])
    actual = torch.autograd.grad(rounded, list(model.parameters()))
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), abs=2e-3)
    for e, a in zip(expected, actual, strict=True):
        assert (a - e).norm() <= 0.03 * e.norm() + 1e-6


def test_large_logits_neither_overflow_nor_lose_their_gradient():
    hidden, weight = torch.full((4, 3), 40.0, requires_grad=True), torch.randn(9, 3).mul_(5).requires_grad_()
    targets = torch.tensor([0, 1, 2, 3])
    plain = torch.nn.functional.cross_entropy(hidden @ weight.T, targets)
    expected = torch.autograd.grad(plain, (hidden, weight))
    fused = linear_cross_entropy(hidden, weight, targets)
    torch.testing.assert_close(fused, plain)
    torch.testing.assert_close(torch.autograd.grad(fused, (hidden, weight)), expected, rtol=1e-4, atol=1e-5)
