"""The fused loss is the plain loss: same value, same gradients."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt.config import ModelConfig
from tinygpt.lm.fast import cross_entropy
from tinygpt.lm.fast.cross_entropy import linear_cross_entropy
from tinygpt.lm.fast.dropout import DropoutKey
from tinygpt.lm.init import init_weights
from tinygpt.lm.model import GPT
from tinygpt.lm.training import fused_loss, plain_loss


def test_gradients_pass_gradcheck_in_float64(monkeypatch):
    # Three rows at a time, so that the last piece is smaller
    monkeypatch.setattr(cross_entropy, "CHUNK_LOGITS", 3 * 11)
    torch.manual_seed(0)
    hidden = torch.randn(7, 5, dtype=torch.double, requires_grad=True)
    weight = torch.randn(11, 5, dtype=torch.double, requires_grad=True)
    targets = torch.randint(0, 11, (7,))

    def loss(hidden, weight):
        return linear_cross_entropy(hidden, weight, targets)

    assert torch.autograd.gradcheck(loss, (hidden, weight))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 70),
    st.integers(2, 300),
    st.integers(1, 40),
    st.integers(0, 2**31),
    st.sampled_from([1, 50, 10**9]),
)
def test_fused_equals_plain_for_any_shape(rows, vocab, width, seed, chunk):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, width, generator=generator, requires_grad=True)
    weight = torch.randn(vocab, width, generator=generator, requires_grad=True)
    targets = torch.randint(0, vocab, (rows,), generator=generator)
    plain = F.cross_entropy(hidden @ weight.T, targets)
    expected = torch.autograd.grad(3 * plain, (hidden, weight))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_entropy, "CHUNK_LOGITS", chunk)
        fused = linear_cross_entropy(hidden, weight, targets)
        found = torch.autograd.grad(3 * fused, (hidden, weight))
    torch.testing.assert_close(fused, plain)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tie", [True, False])
def test_a_whole_model_has_the_same_gradients_with_either_loss(tie):
    model = init_weights(GPT(ModelConfig(context_length=32, tie_embeddings=tie), 500), 0)
    tokens = torch.randint(0, 500, (4, 33), generator=torch.Generator().manual_seed(0))
    batch = (tokens[:, :-1], tokens[:, 1:], DropoutKey(1, 1, torch.arange(4)))
    parameters = list(model.parameters())
    plain = torch.autograd.grad(plain_loss(model, *batch), parameters)
    fused = torch.autograd.grad(fused_loss(model, *batch), parameters)
    torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-6)


def test_bf16_loss_is_within_its_stated_tolerance():
    model = init_weights(GPT(ModelConfig(context_length=64), 2000), 0)
    tokens = torch.randint(0, 2000, (8, 65), generator=torch.Generator().manual_seed(0))
    parameters = list(model.parameters())
    exact = plain_loss(model, tokens[:, :-1], tokens[:, 1:])
    expected = torch.autograd.grad(exact, parameters)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = fused_loss(model, tokens[:, :-1], tokens[:, 1:])
    found = torch.autograd.grad(rounded, parameters)
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), abs=2e-3)
    for e, f in zip(expected, found, strict=True):
        assert (f - e).norm() <= 0.03 * e.norm() + 1e-6


def test_large_logits_neither_overflow_nor_lose_their_gradient():
    hidden = torch.full((4, 3), 40.0, requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(9, 3, generator=generator).mul_(5).requires_grad_()
    targets = torch.tensor([0, 1, 2, 3])
    plain = F.cross_entropy(hidden @ weight.T, targets)
    expected = torch.autograd.grad(plain, (hidden, weight))
    fused = linear_cross_entropy(hidden, weight, targets)
    found = torch.autograd.grad(fused, (hidden, weight))
    torch.testing.assert_close(fused, plain)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
