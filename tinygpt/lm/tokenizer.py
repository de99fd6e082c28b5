"""Byte-level BPE (Sennrich et al. 2016; bytes as in Radford et al. 2019, §2.2) on the `tokenizers` library.

Ids: 0 is the end of a story, 1 to 256 are the bytes in GPT-2's printable alphabet, the merges follow in the order in which they
were learned. The native library sees only a vocabulary and merges that were checked here, never the bytes of a file.
"""

import itertools
import json
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from tinygpt.config.tables import MAX_VOCAB_SIZE, TokenizerConfig
from tinygpt.errors import InputError

END_OF_STORY = "<|endoftext|>"
BYTES = 256
MAX_TOKEN_BYTES = 32  # keeps a tokenizer small whatever the corpus
MAX_FILE_BYTES = 16 << 20  # 65,536 entries of 32 bytes take 11 MB
PIECE = 1 << 20  # characters given to the native library at once: its encodings take about 100 bytes a token
WORD_BREAK = re.compile(r"(?<=\S)[ \n]")
LONG_RUN = re.compile(r"\S{1024}|\s{1024}")  # training takes time quadratic in the length of a word

ALPHABET = tuple(sorted(pre_tokenizers.ByteLevel.alphabet()))


def _byte_of_character() -> dict[str, int]:
    """GPT-2's byte alphabet: printable bytes stand for themselves, the other 68 for the characters from U+0100 on, in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(BYTES) if byte not in printable)
    return {character: ord(character) if ord(character) < BYTES else next(others) for character in ALPHABET}


BYTE_OF = _byte_of_character()


class Tokenizer:
    """Text to token ids and back, without loss.

    Args:
        tokens: the entries after the end-of-story token and the 256 bytes, each a product of one of the merges.
        merges: pairs of entries in the order in which they are applied.
    """

    end_of_story = 0

    def __init__(self, tokens: Sequence[str], merges: Sequence[tuple[str, str]]) -> None:
        self._entries = (END_OF_STORY, *ALPHABET, *tokens)
        self._merges = tuple(merges)
        self._bytes = (b"", *(bytes(map(BYTE_OF.__getitem__, token)) for token in self._entries[1:]))
        vocabulary = {token: token_id for token_id, token in enumerate(self._entries)}
        self._native = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
        # The end-of-story token is not added to the native tokenizer, so that its spelling in a text is text like any other.
        self._native.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)

    @classmethod
    def train(cls, texts: Iterable[str], config: TokenizerConfig) -> "Tokenizer":
        """Learn the merges of `texts`, which are read once and never held.

        The result depends on the texts and the configuration only, not on threads. A corpus too small for
        `config.vocab_size` gives fewer entries; see `vocab_size`.

        Raises:
            InputError: a text holds a lone surrogate.
        """
        native = tokenizers.Tokenizer(models.BPE())
        native.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=config.vocab_size,
            min_frequency=config.min_frequency,
            special_tokens=[END_OF_STORY],
            initial_alphabet=list(ALPHABET),
            max_token_length=MAX_TOKEN_BYTES,
            show_progress=False,
        )
        native.train_from_iterator((piece for text in texts for piece in _without_long_runs(text)), trainer)
        model = json.loads(native.to_str())["model"]
        return cls(list(model["vocab"])[1 + BYTES :], [(left, right) for left, right in model["merges"]])

    @classmethod
    def from_bytes(cls, data: bytes) -> "Tokenizer":
        """Read what `to_bytes` wrote, and nothing else.

        Raises:
            InputError: the bytes are too many, or differ in any place from what `to_bytes` writes.
        """
        return cls(*_checked(data))

    def to_bytes(self) -> bytes:
        """The tokenizer as `tokenizer.json` of the `tokenizers` library, which any of its readers can load."""
        return _written(self._entries, self._merges)

    @property
    def vocab_size(self) -> int:
        """Entries there are, which a small corpus keeps below the number asked for."""
        return len(self._entries)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; `<|endoftext|>` in it is ordinary text.

        Raises:
            InputError: the text holds a lone surrogate, which no UTF-8 can express.
        """
        return self.encode_batch([text])[0].tolist()

    def encode_batch(self, texts: Sequence[str]) -> list["array[int]"]:
        """Token ids of each text, as uint16, on all cores.

        Raises:
            InputError: a text holds a lone surrogate.
        """
        for text in texts:
            _require_unicode(text)
        if all(len(text) <= PIECE for text in texts):
            return [array("H", encoding.ids) for encoding in self._native.encode_batch_fast(list(texts))]
        pieces = (map(self._native.encode, _pieces(text)) for text in texts)
        return [array("H", itertools.chain.from_iterable(piece.ids for piece in of_text)) for of_text in pieces]

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of token ids; the end-of-story token is no text, and bytes that are no UTF-8 become U+FFFD."""
        return self.decode_bytes(token_ids).decode("utf-8", errors="replace")

    def decode_bytes(self, token_ids: Iterable[int]) -> bytes:
        """The bytes of token ids.

        Raises:
            ValueError: an id is not in 0 to vocab_size - 1.
        """
        return b"".join(map(self.token_bytes, token_ids))

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token; none for the end-of-story token.

        Raises:
            ValueError: the id is not in 0 to vocab_size - 1.
        """
        if not 0 <= token_id < self.vocab_size:
            raise ValueError(f"token id {token_id} is not in 0 to {self.vocab_size - 1}")
        return self._bytes[token_id]

    @property
    def byte_lengths(self) -> "array[int]":
        """The number of bytes of every token, by id."""
        return array("H", map(len, self._bytes))


def _require_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"a text holds the lone surrogate U+{ord(text[error.start]):04X} at character {error.start}",
            hint="save the text as UTF-8; half of a surrogate pair is not a character",
        ) from error


def _without_long_runs(text: str) -> Iterator[str]:
    """The text, in pieces of at most 1,024 characters if a run without a word boundary is longer than that."""
    _require_unicode(text)
    if len(text) <= 1024 or not LONG_RUN.search(text):
        yield text
    else:
        yield from (text[start : start + 1024] for start in range(0, len(text), 1024))


def _pieces(text: str) -> Iterator[str]:
    """Pieces of at most PIECE characters that together encode as the whole does.

    They begin at a space or line break after a word, where GPT-2's pattern always separates; only a run of 4,096 characters
    without such a place is cut inside.
    """
    start = 0
    while len(text) - start > PIECE:
        end = start + PIECE
        breaks = [match.start() for match in WORD_BREAK.finditer(text, end - 4096, end)]
        yield text[start : breaks[-1] if breaks else end]
        start = breaks[-1] if breaks else end
    yield text[start:]


def _written(entries: Iterable[str], merges: Sequence[tuple[str, str]]) -> bytes:
    """The bytes of a tokenizer.json."""
    end_of_story = {"id": 0, "content": END_OF_STORY, "single_word": False, "lstrip": False, "rstrip": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [end_of_story | {"normalized": False, "special": True}],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: token_id for token_id, token in enumerate(entries)},
            "merges": merges,
        },
    }
    return (json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def _checked(data: bytes) -> tuple[list[str], list[tuple[str, str]]]:
    """The learned entries and the merges of a tokenizer.json, safe for the native library.

    They are safe if to write them again gives the same bytes, each merge joins two entries to a learned one, and each learned
    entry is made by a merge, so that it is a text of bytes.

    Raises:
        InputError: see Tokenizer.from_bytes.
    """
    if len(data) > MAX_FILE_BYTES:
        raise _refused(f"it has {len(data)} bytes; the limit is {MAX_FILE_BYTES}")
    try:
        model = json.loads(data)["model"]
        tokens, merges = list(model["vocab"])[1 + BYTES :], [(left, right) for left, right in model["merges"]]
        same = _written((END_OF_STORY, *ALPHABET, *tokens), merges) == data
        parts = {*ALPHABET, *tokens} - {""}
        foreign = any(left not in parts or right not in parts for left, right in merges)
    except (LookupError, RecursionError, TypeError, ValueError) as error:
        raise _refused("it is not JSON of that form") from error
    if not same:
        raise _refused("it is not written as tinygpt writes it")
    if len(tokens) > MAX_VOCAB_SIZE - 1 - BYTES:
        raise _refused(f"`model.vocab` has more than {MAX_VOCAB_SIZE} entries")
    if foreign or {left + right for left, right in merges} != set(tokens):
        raise _refused("`model.merges` does not make the entries of `model.vocab`, or makes others")
    if len(set(merges)) != len(merges):
        raise _refused("a merge is there twice")
    return tokens, merges


def _refused(why: str) -> InputError:
    return InputError(f"not a tokenizer.json that tinygpt wrote: {why}", hint="make one with `tinygpt tokenize`")
