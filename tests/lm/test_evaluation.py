"""The loss of a stream is that of every token but the first, once each, whatever is done to make it cheap."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tinygpt.config import ModelConfig
from tinygpt.errors import InputError
from tinygpt.lm import evaluation
from tinygpt.lm.evaluation import Score, evaluate, mean_loss, standard_error, window_losses
from tinygpt.lm.model import GPT, initialise

T, V, END = 8, 50, 0
MODEL = initialise(GPT(ModelConfig(d_model=16, n_layers=1, n_heads=2, d_ff=32, context_length=T, dropout=0.5), V), 1)
with torch.no_grad():
    MODEL.token_embedding.weight.mul_(20)  # so that tokens differ clearly in probability
LENGTHS = np.arange(V) % 5 + 1
LENGTHS[END] = 0

streams = st.lists(st.integers(0, V - 1), min_size=2, max_size=80).map(lambda ids: np.array(ids, np.uint16))


def by_hand(tokens: np.ndarray) -> list[float]:
    """The loss of each token but the first, one window and one token at a time."""
    losses: list[float] = []
    for start in range(0, len(tokens) - 1, T):
        ids = torch.tensor(tokens[start : start + T + 1].astype(np.int64))
        with torch.no_grad():
            logits = MODEL(ids[None, :-1])[0]
        losses += [F.cross_entropy(row, target).item() for row, target in zip(logits, ids[1:], strict=True)]
    return losses


@given(streams)
def test_every_token_but_the_first_is_predicted_once(tokens: np.ndarray) -> None:
    losses = np.concatenate(list(window_losses(MODEL, tokens)))
    np.testing.assert_allclose(losses, by_hand(tokens), rtol=1e-4, atol=1e-5)


@given(streams)
def test_evaluation_counts_bytes_and_stories(tokens: np.ndarray) -> None:
    result = evaluate(MODEL, tokens, end_of_story=END, byte_lengths=LENGTHS)
    losses, stories = np.array(by_hand(tokens)), []
    for position in range(1, len(tokens)):  # which story each predicted token belongs to, its end included
        stories.append(int((tokens[1:position] == END).sum()))
    assert result.tokens == len(tokens) - 1
    assert result.bytes == LENGTHS[tokens[1:]].sum()
    assert result.stories == len(set(stories))
    assert result.loss == pytest.approx(losses.mean(), rel=1e-4)
    assert result.perplexity == pytest.approx(math.exp(losses.mean()), rel=1e-3)
    if result.bytes:
        assert result.bits_per_byte == pytest.approx(losses.sum() / math.log(2) / result.bytes, rel=1e-4)
    else:
        assert result.bits_per_byte is None
    sums = np.bincount(stories, losses)
    expected = standard_error(sums, np.bincount(stories))
    assert result.standard_error == (None if expected is None else pytest.approx(expected, rel=1e-3, abs=1e-6))


@given(streams)
def test_the_loss_during_training_is_that_of_the_evaluation_to_the_last_bit(tokens: np.ndarray) -> None:
    assert mean_loss(MODEL, tokens) == evaluate(MODEL, tokens, end_of_story=END, byte_lengths=LENGTHS).loss
    assert mean_loss(MODEL, tokens) == mean_loss(MODEL, tokens)


def test_logits_are_never_held_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = np.arange(2 * T * evaluation.WINDOWS, dtype=np.uint16) % V
    whole, rows = mean_loss(MODEL, tokens), []
    monkeypatch.setattr(evaluation, "LOGITS", 3 * V)
    handle = MODEL.unembed.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    assert mean_loss(MODEL, tokens) == pytest.approx(whole, rel=1e-6)
    handle.remove()
    assert max(rows) == 3


def test_evaluation_is_in_fp32_without_dropout_and_leaves_no_trace() -> None:
    tokens = np.arange(40, dtype=np.uint16)
    alone, state = mean_loss(MODEL, tokens), torch.get_rng_state()
    with torch.autocast("cpu", torch.bfloat16):
        assert mean_loss(MODEL, tokens) == alone
    assert (torch.get_rng_state() == state).all()
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    loss = F.cross_entropy(MODEL(torch.zeros(1, 3, dtype=torch.int64))[0], torch.zeros(3, dtype=torch.int64))
    loss.backward()  # would fail on tensors that were made for inference
    MODEL.zero_grad()


@pytest.mark.parametrize("tokens", [[], [3]])
def test_fewer_than_two_tokens_are_an_input_error(tokens: list[int]) -> None:
    with pytest.raises(InputError, match=f"{len(tokens)} tokens cannot be judged"):
        mean_loss(MODEL, np.array(tokens, np.uint16))


def test_standard_error_is_the_spread_of_the_loss_over_samples_of_stories() -> None:
    draw = np.random.default_rng(0)

    def sample(n: int) -> tuple[np.ndarray, np.ndarray]:
        counts = draw.integers(50, 300, n)
        return counts * draw.normal(2, 0.3, n) + draw.normal(0, 5, n), counts.astype(float)

    losses = [sums.sum() / counts.sum() for sums, counts in (sample(200) for _ in range(2_000))]
    errors = [standard_error(*sample(200)) for _ in range(50)]
    assert np.mean([error for error in errors if error]) == pytest.approx(np.std(losses), rel=0.1)
    assert standard_error(*sample(1)) is None


def test_a_loss_beyond_floats_has_a_perplexity_that_json_can_hold() -> None:
    assert math.isfinite(Score.of(10_000.0, 5, 5).perplexity)
