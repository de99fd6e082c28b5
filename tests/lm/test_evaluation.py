"""The loss of a stream is that of every token but the first, once each, however it is computed."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tinygpt.config import ModelConfig
from tinygpt.errors import CorruptArtifactError, InputError
from tinygpt.lm import evaluation
from tinygpt.lm.evaluation import Score, evaluate, mean_loss, standard_error, window_losses
from tinygpt.lm.init import init_weights
from tinygpt.lm.model import GPT

T, V, END = 8, 50, 0
CONFIG = ModelConfig(d_model=16, n_layers=1, n_heads=2, d_ff=32, context_length=T, dropout=0.5)
MODEL = init_weights(GPT(CONFIG, V), 1)
with torch.no_grad():
    MODEL.token_embedding.weight.mul_(20)  # so that tokens differ clearly in probability
LENGTHS = np.arange(V) % 5 + 1
LENGTHS[END] = 0

token_lists = st.lists(st.integers(0, V - 1), min_size=2, max_size=80)
streams = token_lists.map(lambda ids: np.array(ids, np.uint16))


def losses_by_hand(tokens: np.ndarray) -> np.ndarray:
    """The loss of each token but the first, one window and one token at a time."""
    losses: list[float] = []
    for start in range(0, len(tokens) - 1, T):
        ids = torch.tensor(tokens[start : start + T + 1].astype(np.int64))
        with torch.no_grad():
            logits = MODEL(ids[None, :-1])[0]
        for row, target in zip(logits, ids[1:], strict=True):
            losses.append(F.cross_entropy(row, target).item())
    return np.array(losses)


def documents_by_hand(tokens: np.ndarray) -> np.ndarray:
    """The number of the document that each predicted token belongs to, its end included."""
    return np.array([int((tokens[1:t] == END).sum()) for t in range(1, len(tokens))])


@given(streams)
def test_every_token_but_the_first_is_predicted_once(tokens: np.ndarray) -> None:
    losses = np.concatenate(list(window_losses(MODEL, tokens)))
    np.testing.assert_allclose(losses, losses_by_hand(tokens), rtol=1e-4, atol=1e-5)


@given(streams)
def test_loss_perplexity_and_bits_per_byte_are_those_computed_by_hand(tokens: np.ndarray) -> None:
    result = evaluate(MODEL, tokens, end_of_text=END, byte_lengths=LENGTHS)
    losses = losses_by_hand(tokens)
    assert result.tokens == len(tokens) - 1
    assert result.bytes == LENGTHS[tokens[1:]].sum()
    assert result.loss == pytest.approx(losses.mean(), rel=1e-4)
    assert result.perplexity == pytest.approx(math.exp(losses.mean()), rel=1e-3)
    if result.bytes:
        bits_per_byte = losses.sum() / math.log(2) / result.bytes
        assert result.bits_per_byte == pytest.approx(bits_per_byte, rel=1e-4)
    else:
        assert result.bits_per_byte is None


@given(streams)
def test_documents_and_standard_error_are_those_computed_by_hand(tokens: np.ndarray) -> None:
    result = evaluate(MODEL, tokens, end_of_text=END, byte_lengths=LENGTHS)
    documents = documents_by_hand(tokens)
    assert result.documents == len(set(documents.tolist()))
    sums = np.bincount(documents, losses_by_hand(tokens))
    expected = standard_error(sums, np.bincount(documents))
    if expected is None:
        assert result.standard_error is None
    else:
        assert result.standard_error == pytest.approx(expected, rel=1e-3, abs=1e-6)


@given(streams)
def test_the_loss_during_training_is_that_of_the_evaluation_to_the_last_bit(
    tokens: np.ndarray,
) -> None:
    loss = mean_loss(MODEL, tokens)
    assert loss == evaluate(MODEL, tokens, end_of_text=END, byte_lengths=LENGTHS).loss
    assert loss == mean_loss(MODEL, tokens)


def test_all_logits_are_never_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = np.arange(2 * T * evaluation.WINDOWS, dtype=np.uint16) % V
    expected = mean_loss(MODEL, tokens)
    rows: list[int] = []
    monkeypatch.setattr(evaluation, "LOGITS", 3 * V)
    handle = MODEL.lm_head.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    assert mean_loss(MODEL, tokens) == pytest.approx(expected, rel=1e-6)
    handle.remove()
    assert max(rows) == 3


@pytest.mark.parametrize(("at_once", "windows"), [(1, 1), (3 * T - 1, 2), (10**6, 16)])
def test_long_windows_are_evaluated_a_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch, at_once: int, windows: int
) -> None:
    tokens = np.arange(50 * T, dtype=np.uint16) % V
    expected = mean_loss(MODEL, tokens)
    monkeypatch.setattr(evaluation, "TOKENS", at_once)
    sizes = [len(losses) for losses in evaluation.window_losses(MODEL, tokens)]
    assert max(sizes) == windows * T
    assert sum(sizes) == len(tokens) - 1
    assert mean_loss(MODEL, tokens) == pytest.approx(expected, rel=1e-6)


def test_evaluation_is_in_fp32_and_changes_no_global_state() -> None:
    tokens = np.arange(40, dtype=np.uint16)
    expected = mean_loss(MODEL, tokens)
    state = torch.get_rng_state()
    with torch.autocast("cpu", torch.bfloat16):
        assert mean_loss(MODEL, tokens) == expected
    assert (torch.get_rng_state() == state).all()
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_a_model_can_be_trained_after_an_evaluation() -> None:
    mean_loss(MODEL, np.arange(40, dtype=np.uint16))
    targets = torch.zeros(3, dtype=torch.int64)
    # backward would fail on tensors that were made for inference
    F.cross_entropy(MODEL(torch.zeros(1, 3, dtype=torch.int64))[0], targets).backward()
    assert all(parameter.grad is not None for parameter in MODEL.parameters())
    MODEL.zero_grad()


@pytest.mark.parametrize("tokens", [[], [3]])
def test_fewer_than_two_tokens_are_an_input_error(tokens: list[int]) -> None:
    with pytest.raises(InputError, match=f"cannot evaluate {len(tokens)} tokens"):
        mean_loss(MODEL, np.array(tokens, np.uint16))


def test_standard_error_is_the_spread_of_the_loss_over_samples_of_documents() -> None:
    generator = np.random.default_rng(0)

    def sample(n: int) -> tuple[np.ndarray, np.ndarray]:
        """Sums and counts of n documents, whose mean losses differ."""
        counts = generator.integers(50, 300, n)
        sums = counts * generator.normal(2, 0.3, n) + generator.normal(0, 5, n)
        return sums, counts.astype(float)

    losses = []
    for _ in range(2_000):
        sums, counts = sample(200)
        losses.append(sums.sum() / counts.sum())
    errors = [standard_error(*sample(200)) for _ in range(50)]
    assert None not in errors
    assert np.mean(errors) == pytest.approx(np.std(losses), rel=0.1)
    assert standard_error(*sample(1)) is None


@pytest.mark.parametrize("loss", [701.0, 10_000.0, math.inf, math.nan])
def test_a_loss_beyond_all_use_is_no_score(loss: float) -> None:
    with pytest.raises(CorruptArtifactError, match="predicts nothing: its loss is"):
        Score.of(loss, 5, 5)
    assert math.isfinite(Score.of(699.0, 5, 5).perplexity)


@pytest.mark.parametrize("documents", [3, 19, 20, 40])
def test_parts_are_documents_or_blocks_of_a_few_and_add_up(documents: int) -> None:
    rng = np.random.default_rng(documents)
    lengths = rng.integers(1, 3 * evaluation.BLOCK, documents)
    document = np.repeat(np.arange(documents), lengths)
    losses = rng.random(len(document))
    sizes = rng.integers(0, 5, len(document))
    parts = evaluation.parts_of(document, losses, sizes)
    assert parts.tokens.sum() == len(document)
    for number in range(documents):
        of_document, of_parts = document == number, parts.document == number
        assert parts.tokens[of_parts].sum() == of_document.sum()
        assert parts.bytes[of_parts].sum() == sizes[of_document].sum()
        assert parts.nats[of_parts].sum() == pytest.approx(losses[of_document].sum())
    if documents >= evaluation.FEW:
        assert parts.document.tolist() == list(range(documents))
    else:
        long = parts.tokens[np.isin(parts.document, np.flatnonzero(lengths >= evaluation.BLOCK))]
        assert (long >= evaluation.BLOCK).all()
        assert (parts.tokens < 2 * evaluation.BLOCK).all()


@given(streams)
def test_parts_of_an_evaluation_have_its_loss(tokens: np.ndarray) -> None:
    result = evaluate(MODEL, tokens, end_of_text=END, byte_lengths=LENGTHS)
    assert result.parts.nats.sum() / result.parts.tokens.sum() == pytest.approx(result.loss)
    assert result.parts.bytes.sum() == result.bytes
    assert len(np.unique(result.parts.document)) == result.documents
