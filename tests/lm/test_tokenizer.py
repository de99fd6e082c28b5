"""Text survives the tokenizer whole, and training is reproducible."""

import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lm.corpus import CORPUS, TOKENIZER
from tinygpt.config import TokenizerConfig
from tinygpt.errors import InputError
from tinygpt.lm import tokenizer as module
from tinygpt.lm.tokenizer import (
    ALPHABET,
    BYTE_OF,
    END_OF_TEXT,
    MAX_TOKEN_BYTES,
    Tokenizer,
    auto_vocab_size,
)

# Every character, with a weight on what GPT-2's pattern and our end-of-text token treat specially
SPECIAL = " \n\t'sdlt<|>\u00a0\u0300\u200d"
any_character = st.characters(exclude_categories=["Cs"])
runs = st.text(any_character | st.sampled_from(SPECIAL))
words = st.sampled_from([END_OF_TEXT, "Ġ", "Lily", "\r\n"])
texts = runs | st.lists(runs | words).map("".join)


# ---- encoding and decoding


@given(texts)
def test_decoding_what_was_encoded_gives_the_text(text: str) -> None:
    token_ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(token_ids) == text
    assert b"".join(map(TOKENIZER.token_bytes, token_ids)) == text.encode()


@given(texts)
def test_the_end_of_text_token_spelled_in_a_text_is_text(text: str) -> None:
    assert TOKENIZER.end_of_text not in TOKENIZER.encode(text + END_OF_TEXT + text)


def test_the_end_of_text_token_has_no_text() -> None:
    assert TOKENIZER.token_bytes(TOKENIZER.end_of_text) == b""
    assert TOKENIZER.decode([*TOKENIZER.encode("a dog"), TOKENIZER.end_of_text]) == "a dog"


def test_byte_lengths_are_those_of_the_tokens() -> None:
    lengths = [len(TOKENIZER.token_bytes(i)) for i in range(TOKENIZER.vocab_size)]
    assert list(TOKENIZER.byte_lengths) == lengths


def test_ids_are_the_end_of_text_then_the_bytes_then_the_merges() -> None:
    assert TOKENIZER.end_of_text == 0
    single_bytes = [TOKENIZER.token_bytes(i) for i in range(1, 257)]
    assert single_bytes == [bytes([BYTE_OF[character]]) for character in ALPHABET]
    assert sorted(BYTE_OF.values()) == list(range(256))
    merged = [TOKENIZER.token_bytes(i) for i in range(257, TOKENIZER.vocab_size)]
    assert all(2 <= len(token) <= MAX_TOKEN_BYTES for token in merged)


@pytest.mark.parametrize("token_id", [-1, TOKENIZER.vocab_size])
def test_an_id_outside_the_vocabulary_is_a_value_error(token_id: int) -> None:
    message = f"token id {token_id} is not in 0 to {TOKENIZER.vocab_size - 1}"
    with pytest.raises(ValueError, match=message):
        TOKENIZER.decode([token_id])


def test_half_a_character_decodes_as_the_replacement_character() -> None:
    assert TOKENIZER.decode([1 + ALPHABET.index("ð")]) == "\ufffd"


def train_on(text: str) -> Tokenizer:
    return Tokenizer.train([text], TokenizerConfig(vocab_size=300))


@pytest.mark.parametrize("use", [TOKENIZER.encode, train_on])
def test_a_lone_surrogate_is_an_input_error(use: Callable[[str], object]) -> None:
    with pytest.raises(InputError, match=r"U\+D800 at character 2"):
        use("a \ud800 b")


def test_pieces_of_a_long_text_encode_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(CORPUS * 5)
    whole = TOKENIZER.encode(text)
    for length in (30, 97, 500):
        monkeypatch.setattr(module, "PIECE", length)
        assert TOKENIZER.encode(text) == whole
    no_breaks = "犬" * 1_000
    assert TOKENIZER.decode(TOKENIZER.encode(no_breaks)) == no_breaks


def test_a_batch_encodes_as_its_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [TOKENIZER.encode(text) for text in CORPUS]
    assert [list(token_ids) for token_ids in TOKENIZER.encode_batch(CORPUS)] == expected
    assert TOKENIZER.encode_batch([]) == []
    monkeypatch.setattr(module, "PIECE", 60)  # shorter than some of the texts, but not all
    assert [list(token_ids) for token_ids in TOKENIZER.encode_batch(CORPUS)] == expected


# ---- training


@pytest.mark.parametrize(
    ("train_bytes", "expected"),
    [
        (0, 320),
        (3_000, 320),
        (6 * 2_048 - 1, 320),
        (6 * 2_048, 384),
        (24_700, 768),  # a poem of 26 kB
        (95_000, 2_944),
        (125 * 2_048 - 1, 7_936),
        (125 * 2_048, 8_000),
        (1_059_624, 8_000),  # Shakespeare
        (5_400_000, 8_000),  # 7,000 stories: the vocabulary of the reference architecture
    ],
)
def test_an_automatic_vocabulary_has_64_entries_for_2_kib_of_text(
    train_bytes: int, expected: int
) -> None:
    assert auto_vocab_size(train_bytes) == expected


def test_an_automatic_vocabulary_must_be_a_number_before_it_is_learned() -> None:
    with pytest.raises(ValueError, match="vocab_size = auto is no number of entries"):
        Tokenizer.train(CORPUS, TokenizerConfig(vocab_size="auto"))


@pytest.mark.parametrize("vocab_size", [257, 258, 300])
def test_the_vocabulary_has_the_requested_size(vocab_size: int) -> None:
    tokenizer = Tokenizer.train(CORPUS, TokenizerConfig(vocab_size=vocab_size))
    assert tokenizer.vocab_size == vocab_size


def test_a_small_corpus_gives_fewer_entries_and_no_error() -> None:
    tokenizer = Tokenizer.train(["abab"], TokenizerConfig(vocab_size=8_000))
    assert tokenizer.vocab_size == 258
    assert tokenizer.decode(tokenizer.encode("baba 🐶")) == "baba 🐶"
    assert Tokenizer.train([], TokenizerConfig()).vocab_size == 257


def test_training_reads_the_texts_one_at_a_time() -> None:
    alive = 0
    most = 0

    class Text(str):
        def __init__(self, _: str) -> None:
            nonlocal alive
            alive += 1

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def stream() -> Iterator[str]:
        nonlocal most
        for number in range(5_000):
            yield Text(f"story {number}")
            most = max(most, alive)

    Tokenizer.train(stream(), TokenizerConfig(vocab_size=300))
    assert most <= 1_000  # the native library takes a few hundred at a time


def test_a_long_word_does_not_stop_training() -> None:
    letters = random.Random(0).choices("ACGT", k=200_000)
    corpus = ["".join(letters), " " * 200_000]
    tokenizer = Tokenizer.train(corpus, TokenizerConfig(vocab_size=320))
    assert tokenizer.vocab_size == 320
    assert max(tokenizer.byte_lengths) <= MAX_TOKEN_BYTES


TRAIN = """
import hashlib, random
from tinygpt.config import TokenizerConfig
from tinygpt.lm.tokenizer import Tokenizer
draw = random.Random(5)
words = ["".join(draw.choices("abcdefgh", k=draw.randint(1, 6))) for _ in range(3_000)]
texts = [" ".join(draw.choices(words, k=60)) for _ in range(400)]
config = TokenizerConfig(vocab_size=4_000, min_frequency=1)
print(hashlib.sha256(Tokenizer.train(texts, config).to_bytes()).hexdigest())
"""


def test_training_gives_the_same_bytes_for_any_thread_count(root: Path) -> None:
    """The words are drawn so that thousands of pairs tie, and each process has a hash seed."""
    digests = {}
    for threads, parallel, seed in [
        ("1", "false", "0"),
        ("1", "true", "1"),
        ("2", "true", "2"),
        ("4", "true", "3"),
    ]:
        environment = {
            **os.environ,
            "RAYON_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": parallel,
            "PYTHONHASHSEED": seed,
        }
        digests[threads, parallel] = subprocess.run(
            [sys.executable, "-c", TRAIN],
            env=environment,
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    assert len(digests) == 4
    assert len(set(digests.values())) == 1, digests


def test_the_bytes_of_a_small_tokenizer_are_pinned() -> None:
    """Other bytes for equal documents need a new version of the stage `tokenize`."""
    data = Tokenizer.train(CORPUS, TokenizerConfig(vocab_size=270)).to_bytes()
    digest = "639e2833e58658a0def8158766a12b21e8e4ee6087b04e35ffe91d73ec19ae00"
    assert hashlib.sha256(data).hexdigest() == digest
