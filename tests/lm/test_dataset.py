"""The split keeps duplicates together, shards are plain uint16, and a step's data depend on nothing but (seed, step)."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt.config import TokenizerConfig
from tinygpt.errors import CorruptArtifactError, InputError
from tinygpt.lm import dataset
from tinygpt.lm.dataset import Batches, EncodedStory, encode_stories, is_validation, read_tokens, story_spans
from tinygpt.lm.tokenizer import END_OF_STORY, Tokenizer

STORIES = [f"Story {i} about a dog{' and a ball' * (i % 7)}." for i in range(500)]
TOKENIZER = Tokenizer.train(STORIES, TokenizerConfig(vocab_size=300))


def test_the_split_is_a_hash_of_the_story() -> None:
    first = int.from_bytes(hashlib.sha256(b"Story 1").digest()[:8], "big") / 2**64
    assert is_validation("Story 1", first + 1e-9)
    assert not is_validation("Story 1", first - 1e-9)


def test_about_the_asked_share_is_held_out() -> None:
    held_out = sum(is_validation(f"story {i}", 0.05) for i in range(20_000))
    assert 900 < held_out < 1_100


@given(st.text(st.characters()), st.floats(0.01, 0.49))
def test_a_larger_share_holds_out_all_that_a_smaller_one_does(text: str, fraction: float) -> None:
    """Any text has a side, lone surrogates too; the tokenizer refuses them with words."""
    assert is_validation(text, fraction) <= is_validation(text, 2 * fraction)


def test_equal_stories_fall_on_one_side() -> None:
    encoded = list(encode_stories(STORIES * 3, TOKENIZER, 0.3))
    stories = _stories(encoded, "train"), _stories(encoded, "val")
    assert not set(stories[0]) & set(stories[1])
    assert sorted(stories[0] + stories[1]) == sorted(STORIES * 3)


def test_each_story_is_followed_by_the_end_of_story_and_spelling_it_does_not_end_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "BATCH_CHARACTERS", 100)  # more than one batch
    texts = ["one", "", f"two {END_OF_STORY} halves", "žluť 🐶"] * 20
    encoded = list(encode_stories(texts, TOKENIZER, 0.5))
    assert [story.text for story in encoded] == texts
    for side in ("train", "val"):
        assert _stories(encoded, side) == [text for text in texts if is_validation(text, 0.5) == (side == "val")]


def test_a_corpus_is_encoded_in_batches_whose_size_does_not_change_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    encode = Tokenizer.encode_batch
    monkeypatch.setattr(Tokenizer, "encode_batch", lambda self, texts: sizes.append(len(texts)) or encode(self, texts))

    def data() -> bytes:
        return b"".join(story.tokens.tobytes() for story in encode_stories(STORIES, TOKENIZER, 0.1))

    one = data()
    assert sizes == [len(STORIES)]
    monkeypatch.setattr(dataset, "BATCH_CHARACTERS", 50)
    assert data() == one
    assert max(sizes[1:]) <= 3


def _stories(encoded: list[EncodedStory], side: str) -> list[str]:
    tokens = np.concatenate([story.tokens for story in encoded if story.split == side])
    spans = story_spans(tokens, TOKENIZER.end_of_story)
    return [TOKENIZER.decode(tokens[start : stop - 1].tolist()) for start, stop in spans]


def test_shards_are_read_as_nanogpt_reads_them(tmp_path: Path) -> None:
    tokens = _file(tmp_path, np.array([1, 299, 0, 258], "<u2").tobytes())
    assert np.memmap(tokens, dtype=np.uint16, mode="r").tolist() == [1, 299, 0, 258]
    with tokens.open("rb") as stream:
        mapped = read_tokens(stream, 300)
    assert mapped.tolist() == [1, 299, 0, 258]  # after the file was closed
    assert not mapped.flags.writeable


@pytest.mark.parametrize(
    ("data", "what"),
    [(b"", "has 0 bytes"), (b"\1\0\2", "has 3 bytes"), (b"\1\0\x2c\1", "holds id 300"), (b"\xff\xff", "holds id 65535")],
)
def test_a_damaged_shard_is_refused(data: bytes, what: str, tmp_path: Path) -> None:
    with _file(tmp_path, data).open("rb") as stream, pytest.raises(CorruptArtifactError, match=what):
        read_tokens(stream, 300)


def _file(folder: Path, data: bytes) -> Path:
    path = folder / "train.bin"
    path.write_bytes(data)
    return path


def test_ids_that_need_more_than_16_bits_are_never_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer.train(STORIES, TokenizerConfig(vocab_size=300))
    native = SimpleNamespace(encode_batch_fast=lambda texts: [SimpleNamespace(ids=[70_000]) for _ in texts])
    monkeypatch.setattr(tokenizer, "_native", native)
    with pytest.raises(OverflowError):
        list(encode_stories(["a story"], tokenizer, 0.5))


@pytest.mark.parametrize(
    ("tokens", "spans"),
    [
        ([], []),
        ([5], [[0, 1]]),
        ([0], [[0, 1]]),
        ([5, 0, 0, 6, 7, 0], [[0, 2], [2, 3], [3, 6]]),
        ([5, 0, 6], [[0, 2], [2, 3]]),
    ],
)
def test_spans_cover_the_stream_story_by_story(tokens: list[int], spans: list[list[int]]) -> None:
    assert story_spans(np.array(tokens, np.uint16), 0).tolist() == spans


TOKENS = np.arange(1_000, dtype=np.uint16)


@given(st.integers(2, 40), st.integers(2, 400), st.integers(0, 2**63 - 1), st.integers(0, 5))
def test_an_epoch_takes_every_window_once_and_none_overlaps(context_length: int, extra: int, seed: int, epoch: int) -> None:
    batches = Batches(TOKENS[: context_length + extra], context_length, seed)
    offsets = np.sort(batches.offsets(epoch, batches.n_windows))
    assert (np.diff(offsets) == context_length).all()
    assert offsets[0] >= 0
    assert offsets[-1] + context_length + 1 <= context_length + extra
    # Whatever the start of the epoch, less than two windows stay out.
    assert batches.n_windows * context_length > extra - context_length


@given(st.integers(0, 200), st.sampled_from([(1, 12), (2, 6), (3, 4), (4, 3), (12, 1)]))
def test_layouts_of_the_global_batch_see_the_same_sequences(step: int, layout: tuple[int, int]) -> None:
    """Interrupted or not, on one rank or several: the stream of sequences is one, and a step takes its next part."""
    batches = Batches(TOKENS, 16, 7)
    stream = np.concatenate([Batches(TOKENS, 16, 7).offsets(g, 1) for g in range(step * 12, step * 12 + 12)])
    batch = batches.offsets(step, 12)
    assert (batch == stream).all()
    micro, accumulate = layout
    inputs = [batches.windows(batch[i * micro : (i + 1) * micro])[0] for i in range(accumulate)]
    assert (np.concatenate(inputs) == batches.windows(batch)[0]).all()


def test_steps_may_be_asked_for_in_any_order() -> None:
    batches, forward = Batches(TOKENS, 16, 7), Batches(TOKENS, 16, 7)
    steps = [forward.offsets(step, 8).tolist() for step in range(30)]
    assert [batches.offsets(step, 8).tolist() for step in reversed(range(30))] == steps[::-1]
    assert sum(map(len, steps)) > 3 * batches.n_windows  # several epochs
    assert batches.offsets(0, 3 * batches.n_windows).shape == (3 * batches.n_windows,)  # a batch of several epochs


def test_seed_and_epoch_change_order_and_start() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        batches = Batches(TOKENS, 16, seed)
        return batches.offsets(epoch, batches.n_windows).tolist()

    orders = [order(seed, epoch) for seed in (1, 2) for epoch in range(4)]
    assert len({tuple(offsets) for offsets in orders}) == 8
    assert len({min(offsets) for offsets in orders}) > 3


def test_the_order_is_pinned() -> None:
    """Other offsets for equal tokens need a new version of the stage `train`."""
    assert Batches(TOKENS, 16, 1337).offsets(0, 6).tolist() == [745, 697, 953, 873, 25, 585]


@given(st.integers(0, 50), st.lists(st.integers(1, 30), min_size=3, max_size=20), st.floats(0, 1))
def test_a_share_of_windows_moves_back_to_where_its_story_begins(seed: int, lengths: list[int], share: float) -> None:
    tokens = np.concatenate([np.append(np.ones(length, np.uint16), np.uint16(0)) for length in [20, *lengths]])
    plain, moved = (Batches(tokens, 8, seed, story_starts=part) for part in (0.0, share))
    before, after = (batches.offsets(0, 4 * batches.n_windows) for batches in (plain, moved))
    ends = np.append(0, np.flatnonzero(tokens == 0))
    for was, now in zip(before, after, strict=True):
        assert now in (was, ends[ends <= was].max())
    if share == 1:
        assert np.isin(after, ends).all()


def test_about_the_wanted_share_of_windows_moves() -> None:
    tokens = np.tile(np.append(np.ones(29, np.uint16), np.uint16(0)), 400)
    drawn = Batches(tokens, 8, 0, story_starts=0.3)
    begins = tokens[drawn.offsets(0, drawn.n_windows)] == 0
    assert 0.3 < begins.mean() < 0.4  # one window in thirty begins there anyway


def test_targets_are_the_next_tokens() -> None:
    batches = Batches(TOKENS, 8, 0)
    inputs, targets = batches.windows(batches.offsets(3, 5))
    assert inputs.shape == targets.shape == (5, 8)
    assert inputs.dtype == targets.dtype == np.int64
    assert (targets == inputs + 1).all()


def test_tokens_for_exactly_one_window_are_enough_and_one_fewer_is_an_input_error() -> None:
    batches = Batches(TOKENS[:17], 16, 0)
    assert batches.n_windows == 1
    assert batches.offsets(0, 2).tolist() == [0, 0]
    with pytest.raises(InputError, match=r"has 16 tokens; one window of `model\.context_length` = 16 takes 17"):
        Batches(TOKENS[:16], 16, 0)
