"""The sequences of a step depend on nothing but (seed, step)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tinygpt.errors import InputError
from tinygpt.lm.dataset import Batches

TOKENS = np.arange(1, 1_001, dtype=np.uint16)  # without the end-of-text token
END_OF_TEXT = np.uint16(0)


def documents(lengths: list[int]) -> NDArray[np.uint16]:
    """Documents of so many equal tokens, each with its end-of-text token."""
    return np.concatenate(
        [np.append(np.ones(length, np.uint16), END_OF_TEXT) for length in lengths]
    )


@given(st.integers(2, 40), st.integers(2, 400), st.integers(0, 2**63 - 1), st.integers(0, 5))
def test_an_epoch_takes_every_window_once_and_none_overlap(
    context_length: int, extra: int, seed: int, epoch: int
) -> None:
    batches = Batches(TOKENS[: context_length + extra], context_length, seed)
    offsets = np.sort(batches.offsets(epoch, batches.n_windows))
    assert (np.diff(offsets) == context_length).all()
    assert offsets[0] >= 0
    assert offsets[-1] + context_length + 1 <= context_length + extra
    # Wherever the epoch starts, fewer tokens than two windows are left out
    assert batches.n_windows * context_length > extra - context_length


@given(st.integers(0, 200), st.sampled_from([(1, 12), (2, 6), (3, 4), (4, 3), (12, 1)]))
def test_every_layout_of_the_global_batch_has_the_same_sequences(
    step: int, layout: tuple[int, int]
) -> None:
    """Sequences form one stream, of which a step takes the next part, resumed or not."""
    batches = Batches(TOKENS, 16, 7)
    batch = batches.offsets(step, 12)
    stream = [
        Batches(TOKENS, 16, 7).offsets(index, 1) for index in range(step * 12, step * 12 + 12)
    ]
    assert (batch == np.concatenate(stream)).all()
    batch_size, grad_accum_steps = layout
    micro_batches = np.split(batch, grad_accum_steps)
    assert {len(micro_batch) for micro_batch in micro_batches} == {batch_size}
    inputs = [batches.windows(micro_batch)[0] for micro_batch in micro_batches]
    assert (np.concatenate(inputs) == batches.windows(batch)[0]).all()


def test_steps_may_be_asked_for_in_any_order() -> None:
    in_order = Batches(TOKENS, 16, 7)
    steps = [in_order.offsets(step, 8).tolist() for step in range(30)]
    batches = Batches(TOKENS, 16, 7)
    assert [batches.offsets(step, 8).tolist() for step in reversed(range(30))] == steps[::-1]
    assert sum(map(len, steps)) > 3 * batches.n_windows  # several epochs


def test_a_batch_may_be_larger_than_an_epoch() -> None:
    batches = Batches(TOKENS, 16, 7)
    size = 3 * batches.n_windows
    assert batches.offsets(0, size).shape == (size,)


def test_seed_and_epoch_change_order_and_start() -> None:
    orders = []
    for seed in (1, 2):
        batches = Batches(TOKENS, 16, seed)
        orders += [batches.offsets(epoch, batches.n_windows).tolist() for epoch in range(4)]
    assert len({tuple(offsets) for offsets in orders}) == 8
    assert len({min(offsets) for offsets in orders}) > 3


def test_the_order_is_pinned() -> None:
    """Other offsets for equal tokens need a new version of the stage `train`."""
    assert Batches(TOKENS, 16, 1337).offsets(0, 6).tolist() == [745, 697, 953, 873, 25, 585]


@given(st.integers(0, 50), st.lists(st.integers(1, 30), min_size=3, max_size=20), st.floats(0, 1))
def test_a_share_of_windows_moves_back_to_where_its_document_begins(
    seed: int, lengths: list[int], share: float
) -> None:
    tokens = documents([20, *lengths])
    plain = Batches(tokens, 8, seed)
    moved = Batches(tokens, 8, seed, document_starts=share)
    before = plain.offsets(0, 4 * plain.n_windows)
    after = moved.offsets(0, 4 * plain.n_windows)
    starts = np.append(0, np.flatnonzero(tokens == END_OF_TEXT))
    for was, now in zip(before, after, strict=True):
        start = starts[starts <= was].max()
        assert now in (was, start)
        if share == 1:
            assert (now == start) == (was - start < 8)
    if share == 0:
        assert (after == before).all()


def test_a_document_of_many_windows_is_not_reduced_to_its_first() -> None:
    """Its beginning is taken once an epoch, and all other windows as if there were no documents."""
    tokens = documents([799])
    batches = Batches(tokens, 8, 0, document_starts=1)
    offsets = batches.offsets(0, 10 * batches.n_windows)
    assert (offsets == 0).sum() == 10
    assert len(np.unique(offsets)) > 400


@given(st.integers(2, 40), st.integers(2, 400), st.integers(0, 2**63 - 1))
def test_an_end_of_text_token_at_the_very_start_begins_the_first_window_of_every_epoch(
    context_length: int, extra: int, seed: int
) -> None:
    text = TOKENS[: context_length + extra - 1]
    plain = Batches(np.append(np.uint16(1), text), context_length, seed)
    marked = Batches(np.append(END_OF_TEXT, text), context_length, seed)
    for epoch in range(3):
        before = np.sort(plain.offsets(epoch, plain.n_windows))
        after = np.sort(marked.offsets(epoch, plain.n_windows))
        assert after[0] == 0
        assert (after[1:] == before[1:]).all()


def test_about_the_requested_share_of_windows_moves() -> None:
    tokens = documents([8] * 1_200)
    batches = Batches(tokens, 8, 0, document_starts=0.3)
    begins = tokens[batches.offsets(0, batches.n_windows)] == END_OF_TEXT
    assert 0.3 < begins.mean() < 0.4  # one window in nine begins there anyway


def test_targets_are_the_next_tokens() -> None:
    batches = Batches(TOKENS, 8, 0)
    inputs, targets = batches.windows(batches.offsets(3, 5))
    assert inputs.shape == targets.shape == (5, 8)
    assert inputs.dtype == targets.dtype == np.int64
    assert (targets == inputs + 1).all()


def test_tokens_for_exactly_one_window_are_enough() -> None:
    batches = Batches(TOKENS[:17], 16, 0)
    assert batches.n_windows == 1
    assert batches.offsets(0, 2).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("tokens", "hint"),
    [
        (256, ", or use a smaller context, e.g., `--set model.context_length=64`"),
        (129, ", or use a smaller context, e.g., `--set model.context_length=64`"),
        (128, ", or use a smaller context, e.g., `--set model.context_length=32`"),
        (5, ", or use a smaller context, e.g., `--set model.context_length=2`"),
        (4, ""),
        (1, ""),
    ],
)
def test_too_few_tokens_for_a_window_are_an_input_error_that_names_a_context_that_fits(
    tokens: int, hint: str
) -> None:
    message = rf"has {tokens} tokens; one window of `model\.context_length` = 256 needs 257"
    with pytest.raises(InputError, match=message) as caught:
        Batches(TOKENS[:tokens], 256, 0)
    assert caught.value.hint == f"give more text{hint}"
    if hint:
        fitting = int(hint.rstrip("`").rpartition("=")[2])
        assert len(Batches(TOKENS[:tokens], fitting, 0).offsets(0, 4)) == 4
        assert tokens > 2 * fitting


def test_the_end_of_text_token_of_an_imported_model_may_have_any_id() -> None:
    tokens = np.append(END_OF_TEXT, documents([5, 9, 3, 14] * 20))
    other = np.where(tokens == END_OF_TEXT, np.uint16(50_256), tokens)
    for share in (0.0, 0.5, 1.0):
        expected = Batches(tokens, 8, 3, share).offsets(0, 90)
        found = Batches(other, 8, 3, share, end_of_text=50_256).offsets(0, 90)
        assert (found == expected).all()
        # The control: without its id no document is found
        assert (Batches(other, 8, 3, share).offsets(0, 90) != expected).any()
