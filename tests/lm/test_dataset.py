"""The split keeps duplicates together, and the files of tokens are plain uint16."""

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
from tinygpt.lm.dataset import (
    EncodedDocument,
    document_spans,
    empty_split,
    encode_documents,
    is_validation,
    read_tokens,
)
from tinygpt.lm.tokenizer import END_OF_TEXT, Tokenizer

STORIES = [f"Story {i} about a dog{' and a ball' * (i % 7)}." for i in range(500)]
TOKENIZER = Tokenizer.train(STORIES, TokenizerConfig(vocab_size=300))


def texts_of(encoded: list[EncodedDocument], split: str) -> list[str]:
    """The documents of a split, read back from its stream of tokens."""
    tokens = np.concatenate([document.tokens for document in encoded if document.split == split])
    spans = document_spans(tokens, TOKENIZER.end_of_text)
    return [TOKENIZER.decode(tokens[start : stop - 1].tolist()) for start, stop in spans]


# ---- the split


def test_the_split_is_chosen_by_a_hash_of_the_document() -> None:
    first = int.from_bytes(hashlib.sha256(b"Story 1").digest()[:8], "big") / 2**64
    assert is_validation("Story 1", first + 1e-9)
    assert not is_validation("Story 1", first - 1e-9)


def test_about_the_requested_share_is_held_out() -> None:
    held_out = sum(is_validation(f"story {i}", 0.05) for i in range(20_000))
    assert 900 < held_out < 1_100


@given(st.text(st.characters()), st.floats(0.01, 0.49))
def test_a_larger_share_holds_out_all_that_a_smaller_one_does(text: str, fraction: float) -> None:
    """Any text has a side, lone surrogates too; the tokenizer is what refuses them."""
    assert is_validation(text, fraction) <= is_validation(text, 2 * fraction)


def test_equal_documents_fall_on_one_side() -> None:
    encoded = list(encode_documents(STORIES * 3, TOKENIZER, 0.3))
    train = texts_of(encoded, "train")
    validation = texts_of(encoded, "val")
    assert not set(train) & set(validation)
    assert sorted(train + validation) == sorted(STORIES * 3)


def test_an_empty_split_is_reported_with_the_numbers_and_what_to_do() -> None:
    error = empty_split("val", 12, 0.05)
    assert isinstance(error, InputError)
    assert "none of the 12 documents is in the val split" in error.message
    assert "`dataset.val_fraction` = 0.05" in error.message
    assert error.hint == "give more text, or change `dataset.val_fraction`"


# ---- encoding


def test_each_document_ends_with_the_end_of_text_token_and_its_spelling_does_not_end_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dataset, "BATCH_CHARACTERS", 100)  # more than one batch
    texts = ["one", "", f"two {END_OF_TEXT} halves", "žluť 🐶"] * 20
    encoded = list(encode_documents(texts, TOKENIZER, 0.5))
    assert [document.text for document in encoded] == texts
    for split in ("train", "val"):
        expected = [text for text in texts if is_validation(text, 0.5) == (split == "val")]
        assert texts_of(encoded, split) == expected


def test_the_size_of_an_encoding_batch_does_not_change_the_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    encode_batch = Tokenizer.encode_batch

    def spy(self: Tokenizer, texts: list[str]) -> list:
        sizes.append(len(texts))
        return encode_batch(self, texts)

    def stream() -> bytes:
        encoded = encode_documents(STORIES, TOKENIZER, 0.1)
        return b"".join(document.tokens.tobytes() for document in encoded)

    monkeypatch.setattr(Tokenizer, "encode_batch", spy)
    in_one_batch = stream()
    assert sizes == [len(STORIES)]
    monkeypatch.setattr(dataset, "BATCH_CHARACTERS", 50)
    assert stream() == in_one_batch
    assert max(sizes[1:]) <= 3
    assert sum(sizes[1:]) == len(STORIES)


def test_a_corpus_without_documents_has_no_tokens() -> None:
    assert list(encode_documents([], TOKENIZER, 0.1)) == []


def test_ids_that_need_more_than_16_bits_are_never_truncated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def encode_batch_fast(texts: list[str]) -> list[SimpleNamespace]:
        return [SimpleNamespace(ids=[70_000]) for _ in texts]

    tokenizer = Tokenizer.train(STORIES, TokenizerConfig(vocab_size=300))
    native = SimpleNamespace(encode_batch_fast=encode_batch_fast)
    monkeypatch.setattr(tokenizer, "_native", native)
    with pytest.raises(OverflowError):
        list(encode_documents(["a story"], tokenizer, 0.5))


# ---- files of tokens


def file_with(data: bytes, folder: Path) -> Path:
    path = folder / "train.bin"
    path.write_bytes(data)
    return path


def test_token_files_are_read_as_nanogpt_reads_them(tmp_path: Path) -> None:
    path = file_with(np.array([1, 299, 0, 258], "<u2").tobytes(), tmp_path)
    assert np.memmap(path, dtype=np.uint16, mode="r").tolist() == [1, 299, 0, 258]
    with path.open("rb") as stream:
        mapped = read_tokens(stream, 300)
    assert mapped.tolist() == [1, 299, 0, 258]  # after the file was closed
    assert not mapped.flags.writeable


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "has 0 bytes"),
        (b"\1\0\2", "has 3 bytes"),
        (b"\1\0\x2c\1", "contains id 300"),
        (b"\xff\xff", "contains id 65535"),
    ],
)
def test_a_damaged_token_file_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    path = file_with(data, tmp_path)
    with path.open("rb") as stream, pytest.raises(CorruptArtifactError, match=message):
        read_tokens(stream, 300)


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
def test_spans_cover_the_stream_document_by_document(
    tokens: list[int], spans: list[list[int]]
) -> None:
    assert document_spans(np.array(tokens, np.uint16), 0).tolist() == spans
