"""Byte-level BPE (Sennrich et al. 2016; bytes as in Radford et al. 2019, §2.2) on the `tokenizers` library.

Ids: 0 is the end of a story, 1 to 256 are the bytes in GPT-2's printable alphabet, the merges follow in the order in which they
were learned. The native library sees only a vocabulary and merges that were checked here, never the bytes of a file.
"""

import itertools
import json
import re
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from tinygpt.config.tables import MAX_VOCAB_SIZE, TokenizerConfig
from tinygpt.errors import InputError

END_OF_STORY = "<|endoftext|>"
BYTES = 256
MAX_TOKEN_BYTES = 32  # keeps a tokenizer small whatever the corpus
MAX_FILE_BYTES = 16 << 20  # 65,536 entries of 32 bytes take 11 MB
PIECE = 1 << 20  # characters given to the native library at once: its encodings take about 100 bytes a token
WORD = 1 << 10  # characters at most of a word in training, which takes time quadratic in the length of a word

ALPHABET = tuple(sorted(pre_tokenizers.ByteLevel.alphabet()))
# GPT-2's byte alphabet: printable bytes stand for themselves, the other 68 for the characters from U+0100 on, in order.
_THEMSELVES = [ord(character) for character in ALPHABET if ord(character) < BYTES]
BYTE_OF = dict(zip(ALPHABET, [*_THEMSELVES, *sorted({*range(BYTES)} - {*_THEMSELVES})], strict=True))


class Tokenizer:
    """Text to token ids and back, without loss.

    Args:
        tokens: the entries after the end-of-story token and the 256 bytes, each a product of one of the merges.
        merges: pairs of entries in the order in which they are applied.
    """

    end_of_story = 0

    def __init__(self, tokens: Sequence[str], merges: Sequence[tuple[str, str]]) -> None:
        self._entries, self._merges = (END_OF_STORY, *ALPHABET, *tokens), tuple(merges)
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
        how: Any = {"vocab_size": config.vocab_size, "min_frequency": config.min_frequency, "max_token_length": MAX_TOKEN_BYTES}
        how |= {"special_tokens": [END_OF_STORY], "initial_alphabet": list(ALPHABET), "show_progress": False}
        native.train_from_iterator((piece for text in texts for piece in _pieces(text, WORD)), trainers.BpeTrainer(**how))
        model = json.loads(native.to_str())["model"]
        return cls(list(model["vocab"])[1 + BYTES :], [(left, right) for left, right in model["merges"]])

    @classmethod
    def from_bytes(cls, data: bytes) -> "Tokenizer":
        """Read what `to_bytes` wrote, and nothing else, so that all is safe for the native library.

        It is safe if to write it again gives the same bytes, each merge joins two entries to a learned one, and each learned
        entry is made by a merge, so that it is a text of bytes.

        Raises:
            InputError: the bytes are too many, or differ in any place from what `to_bytes` writes.
        """
        try:
            if len(data) > MAX_FILE_BYTES:
                raise ValueError(f"{len(data)} bytes are more than {MAX_FILE_BYTES}")
            model = json.loads(data)["model"]
            tokens, merges = list(model["vocab"])[1 + BYTES :], [(left, right) for left, right in model["merges"]]
            if _written((END_OF_STORY, *ALPHABET, *tokens), merges) != data or len(tokens) > MAX_VOCAB_SIZE - 1 - BYTES:
                raise ValueError("written in another way, or too many entries")
            parts, made = {*ALPHABET, *tokens} - {""}, {left + right for left, right in merges}
            if made != set(tokens) or not parts.issuperset(itertools.chain(*merges)) or len(set(merges)) != len(merges):
                raise ValueError("the merges do not make the entries, each once")
        except (LookupError, RecursionError, TypeError, ValueError) as error:
            raise InputError("not a tokenizer.json that tinygpt wrote", hint="make one with `tinygpt tokenize`") from error
        return cls(tokens, merges)

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
        pieces = (map(self._native.encode, _pieces(text, PIECE)) for text in texts)
        return [array("H", itertools.chain.from_iterable(piece.ids for piece in of_text)) for of_text in pieces]

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of token ids; the end-of-story token is no text, and bytes that are no UTF-8 become U+FFFD.

        Raises:
            ValueError: an id is not in 0 to vocab_size - 1.
        """
        return b"".join(map(self.token_bytes, token_ids)).decode(errors="replace")

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
        message = f"a text holds the lone surrogate U+{ord(text[error.start]):04X} at character {error.start}"
        raise InputError(message, hint="save the text as UTF-8; half of a surrogate pair is not a character") from error


def _pieces(text: str, length: int) -> list[str]:
    """Pieces of at most `length` characters that together encode as the whole does.

    They end after a word, before a space or line break, where GPT-2's pattern always separates; only a run of `length`
    characters without such a place is cut inside.
    """
    _require_unicode(text)
    return re.findall(rf"(?s).{{0,{length - 1}}}\S(?=[ \n]|\Z)|.{{1,{length}}}", text)


def _written(entries: Iterable[str], merges: Sequence[tuple[str, str]]) -> bytes:
    """The bytes of a tokenizer.json."""
    end_of_story = {"id": 0, "content": END_OF_STORY, "single_word": False, "lstrip": False, "rstrip": False}
    added_tokens = [end_of_story | {"normalized": False, "special": True}]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    off: dict[str, object] = dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"))
    off |= dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), False)
    vocabulary = {token: token_id for token_id, token in enumerate(entries)}
    head = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added_tokens, "normalizer": None}
    steps = {"pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level}
    content = head | steps | {"model": {"type": "BPE", **off, "vocab": vocabulary, "merges": merges}}
    return (json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
