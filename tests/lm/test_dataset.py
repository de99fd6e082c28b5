"""The files of tokens are plain uint16, and documents end where they end in the corpus."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tinygpt.config import TokenizerConfig
from tinygpt.errors import CorruptArtifactError
from tinygpt.lm import dataset
from tinygpt.lm.dataset import EncodedPart, document_spans, encode_parts, read_tokens
from tinygpt.lm.holdout import Part
from tinygpt.lm.tokenizer import END_OF_TEXT, Tokenizer

STORIES = [f"Story {i} about a dog{' and a ball' * (i % 7)}." for i in range(500)]
TOKENIZER = Tokenizer.train(STORIES, TokenizerConfig(vocab_size=300))


def whole(texts: list[str], split: str = "train") -> list[Part]:
    """Documents that are not cut."""
    return [Part(text, split, is_end=True) for text in texts]


def tokens_of(encoded: list[EncodedPart], split: str) -> np.ndarray:
    return np.concatenate([part.tokens for part in encoded if part.split == split])


# ---- encoding


def test_each_document_ends_with_the_end_of_text_token_and_its_spelling_does_not_end_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dataset, "BATCH_CHARACTERS", 100)  # more than one batch
    texts = ["one", "", f"two {END_OF_TEXT} halves", "žluť 🐶"] * 20
    parts = whole(texts[:50], "train") + whole(texts[50:60], "val") + whole(texts[60:], "test")
    encoded = list(encode_parts(parts, TOKENIZER))
    assert [(part.text, part.split) for part in encoded] == [part[:2] for part in parts]
    for split, expected in [("train", texts[:50]), ("val", texts[50:60]), ("test", texts[60:])]:
        tokens = tokens_of(encoded, split)
        spans = document_spans(tokens, TOKENIZER.end_of_text)
        assert [TOKENIZER.decode(tokens[a : b - 1].tolist()) for a, b in spans] == expected


def test_a_document_that_is_cut_has_one_end_of_text_token_after_its_last_part() -> None:
    parts = [
        Part("A dog.", "train", is_end=True),
        Part("A dog and", "train", is_end=False),
        Part(" a ball,", "val", is_end=False),
        Part(" a dog.", "test", is_end=True),
    ]
    encoded = list(encode_parts(parts, TOKENIZER))
    end = TOKENIZER.end_of_text
    expected = [[*TOKENIZER.encode(part.text), *([end] if part.is_end else [])] for part in parts]
    assert [part.tokens.tolist() for part in encoded] == expected
    assert [tokens.count(end) for tokens in expected] == [1, 0, 0, 1]


def test_a_train_split_in_which_no_document_ends_begins_with_the_end_of_text_token() -> None:
    parts = [
        Part("A dog and", "train", is_end=False),
        Part(" a ball.", "val", is_end=True),
        Part("A dog.", "val", is_end=True),
    ]
    train, *validation = encode_parts(parts, TOKENIZER)
    end = TOKENIZER.end_of_text
    assert train.tokens.tolist() == [end, *TOKENIZER.encode("A dog and")]
    assert document_spans(train.tokens, end).tolist() == [[0, len(train.tokens)]]
    assert [part.tokens.tolist() for part in validation] == [
        [*TOKENIZER.encode(text), end] for text in (" a ball.", "A dog.")
    ]


def test_the_size_of_an_encoding_batch_does_not_change_the_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    encode_batch = Tokenizer.encode_batch

    def spy(self: Tokenizer, texts: list[str], *args: object) -> list:
        sizes.append(len(texts))
        return encode_batch(self, texts, *args)

    def stream() -> bytes:
        encoded = encode_parts(whole(STORIES), TOKENIZER)
        return b"".join(part.tokens.tobytes() for part in encoded)

    monkeypatch.setattr(Tokenizer, "encode_batch", spy)
    in_one_batch = stream()
    assert sizes == [len(STORIES)]
    monkeypatch.setattr(dataset, "BATCH_CHARACTERS", 50)
    assert stream() == in_one_batch
    assert max(sizes[1:]) <= 3
    assert sum(sizes[1:]) == len(STORIES)


def test_a_corpus_without_documents_has_no_tokens() -> None:
    assert list(encode_parts([], TOKENIZER)) == []


def test_ids_that_need_more_than_16_bits_are_never_truncated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def encode_batch_fast(texts: list[str]) -> list[SimpleNamespace]:
        return [SimpleNamespace(ids=[70_000]) for _ in texts]

    tokenizer = Tokenizer.train(STORIES, TokenizerConfig(vocab_size=300))
    native = SimpleNamespace(encode_batch_fast=encode_batch_fast)
    monkeypatch.setattr(tokenizer, "_native", native)
    with pytest.raises(OverflowError):
        list(encode_parts(whole(["a story"]), tokenizer))


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
        ([0, 5, 6], [[0, 3]]),
        ([0, 5, 0, 6, 0], [[0, 3], [3, 5]]),
    ],
)
def test_spans_cover_the_stream_document_by_document(
    tokens: list[int], spans: list[list[int]]
) -> None:
    assert document_spans(np.array(tokens, np.uint16), 0).tolist() == spans
