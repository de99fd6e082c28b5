"""Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019, §2.2) on the `tokenizers` library.

Here id 0 is the end-of-text token, 1 to 256 are the bytes in GPT-2's printable alphabet, and the
merges follow in the order in which they were learned. An imported tokenizer keeps its own ids: in
GPT-2's, the bytes come first and the end-of-text token last. The native library only ever sees a
vocabulary and merges that were checked here, never the bytes of a file.
"""

import itertools
import json
import re
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from tinygpt.config.tables import MAX_VOCAB_SIZE, TokenizerConfig
from tinygpt.errors import InputError

END_OF_TEXT = "<|endoftext|>"
BYTES = 256
MAX_TOKEN_BYTES = 32  # in training: keeps a tokenizer small whatever the corpus
MAX_FILE_BYTES = 16 << 20  # 65,536 entries of 32 bytes take 11 MB
LONGEST_ENTRY = 65_535  # bytes, whose number is stored as uint16
# Characters given to the native library at once, whose encodings take about 100 bytes a token
PIECE = 1 << 20
# The longest word in training, in characters; learning takes time quadratic in it
WORD = 1 << 10

ALPHABET = tuple(sorted(pre_tokenizers.ByteLevel.alphabet()))
# GPT-2's byte alphabet: printable bytes stand for themselves, the other 68 for the characters from
# U+0100 on, in order
_PRINTABLE = [ord(character) for character in ALPHABET if ord(character) < BYTES]
_OTHERS = sorted(set(range(BYTES)) - set(_PRINTABLE))
BYTE_OF = dict(zip(ALPHABET, [*_PRINTABLE, *_OTHERS], strict=True))


class Tokenizer:
    """Text to token ids and back, without loss.

    Args:
        entries: by id: the end-of-text token, the 256 bytes, and what the merges make.
        merges: pairs of entries in the order in which they are applied.

    Attributes:
        end_of_text: the id of the end-of-text token.
    """

    def __init__(self, entries: Sequence[str], merges: Sequence[tuple[str, str]]) -> None:
        self._entries = tuple(entries)
        self._merges = tuple(merges)
        self.end_of_text = self._entries.index(END_OF_TEXT)
        self._bytes = []
        for entry in self._entries:
            spelled = "" if entry == END_OF_TEXT else entry
            self._bytes.append(bytes(BYTE_OF[character] for character in spelled))
        vocabulary = {token: token_id for token_id, token in enumerate(self._entries)}
        self._native = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
        # The native tokenizer does not know the end-of-text token, so its spelling is ordinary text
        self._native.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)

    @classmethod
    def train(cls, texts: Iterable[str], config: TokenizerConfig) -> "Tokenizer":
        """Learn merges from `texts`, which are read once, one at a time.

        The result depends on the texts and the configuration only, not on threads. A corpus too
        small for `config.vocab_size` gives fewer entries; see `vocab_size`.

        Raises:
            InputError: a text contains a lone surrogate.
            ValueError: `config.vocab_size` is "auto", see auto_vocab_size.
        """
        if config.vocab_size == "auto":
            raise ValueError("vocab_size = auto is no number of entries")
        native = tokenizers.Tokenizer(models.BPE())
        native.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=config.vocab_size,
            min_frequency=config.min_frequency,
            max_token_length=MAX_TOKEN_BYTES,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=list(ALPHABET),
            show_progress=False,
        )
        pieces = itertools.chain.from_iterable(_pieces(text, WORD) for text in texts)
        native.train_from_iterator(pieces, trainer)
        return cls(*_learned(json.loads(native.to_str())))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Tokenizer":
        """Read what `to_bytes` wrote, and nothing else, so that it is safe for the native library.

        A file is accepted if writing it again gives the same bytes, every merge joins two entries
        into another one, and every entry but the bytes and the end-of-text token is made by a
        merge, so that it stands for bytes.

        Raises:
            InputError: the file is too long, or differs from what `to_bytes` writes.
        """
        try:
            entries, merges = _checked(data)
        except (LookupError, RecursionError, TypeError, ValueError) as error:
            raise InputError(
                "not a tokenizer.json that tinygpt wrote", hint="make one with `tinygpt tokenize`"
            ) from error
        return cls(entries, merges)

    def to_bytes(self) -> bytes:
        """The tokenizer as a `tokenizer.json`, which every user of `tokenizers` can load."""
        return tokenizer_json(self._entries, self._merges)

    @property
    def vocab_size(self) -> int:
        """The number of entries; a small corpus gives fewer than `tokenizer.vocab_size`."""
        return len(self._entries)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; `<|endoftext|>` in it is ordinary text.

        Raises:
            InputError: the text contains a lone surrogate, which UTF-8 cannot express.
        """
        return self.encode_batch([text])[0].tolist()

    def encode_batch(
        self, texts: Sequence[str], on_piece: Callable[[int], None] = lambda done: None
    ) -> list["array[int]"]:
        """Token ids of each text, as uint16, on all cores.

        Args:
            texts: to encode.
            on_piece: called now and then with how many tokens of a long text there are.
        Raises:
            InputError: a text contains a lone surrogate.
        """
        for text in texts:
            _require_unicode(text)
        if all(len(text) <= PIECE for text in texts):
            encodings = self._native.encode_batch_fast(list(texts))
            return [array("H", encoding.ids) for encoding in encodings]
        encoded = []
        for text in texts:
            token_ids = array("H")
            for piece in _pieces(text, PIECE):
                token_ids.extend(self._native.encode(piece).ids)
                if len(text) > PIECE:
                    on_piece(len(token_ids))
            encoded.append(token_ids)
        return encoded

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of token ids.

        The end-of-text token has no text; bytes that are not UTF-8 become U+FFFD.

        Raises:
            ValueError: an id is not in 0 to vocab_size - 1.
        """
        return b"".join(map(self.token_bytes, token_ids)).decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token; none for the end-of-text token.

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


AUTO_VOCAB_SIZE = "64 for every 2 KiB of text to train on, from 320 to 8,000"
"""The rule of `tokenizer.vocab_size` = auto; docs/notebook.md has the measurements behind it."""


def auto_vocab_size(train_bytes: int) -> int:
    """The number of entries that AUTO_VOCAB_SIZE gives a text."""
    return min(max(train_bytes // 2_048 * 64, 320), 8_000)


def _require_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        surrogate = f"U+{ord(text[error.start]):04X}"
        raise InputError(
            f"a text contains the lone surrogate {surrogate} at character {error.start}",
            hint="save the text as UTF-8; half of a surrogate pair is not a character",
        ) from error


def _pieces(text: str, length: int) -> list[str]:
    """Pieces of at most `length` characters that together encode as the whole text does.

    They end after a word, before a space or line break, where GPT-2's pattern always separates.
    Only a run of `length` characters without such a place is cut inside.
    """
    _require_unicode(text)
    return re.findall(rf"(?s).{{0,{length - 1}}}\S(?=[ \n]|\Z)|.{{1,{length}}}", text)


def _learned(content: Any) -> tuple[list[str], list[tuple[str, str]]]:
    """The entries in the order of a tokenizer.json, and the merges, from its content."""
    model = content["model"]
    merges = [(left, right) for left, right in model["merges"]]
    return list(model["vocab"]), merges


def _checked(data: bytes) -> tuple[list[str], list[tuple[str, str]]]:
    """Entries and merges from the bytes of a tokenizer.json that `to_bytes` wrote.

    Raises:
        LookupError, RecursionError, TypeError, ValueError: see Tokenizer.from_bytes.
    """
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"{len(data)} bytes are more than {MAX_FILE_BYTES}")
    entries, merges = _learned(json.loads(data))
    if tokenizer_json(entries, merges) != data:
        raise ValueError("written differently")
    if len(entries) > MAX_VOCAB_SIZE or max(map(len, entries)) > LONGEST_ENTRY:
        raise ValueError("too many entries, or too long ones")
    made = {left + right for left, right in merges}
    if not made.isdisjoint((END_OF_TEXT, *ALPHABET)):
        raise ValueError("a merge makes a byte or the end-of-text token")
    if {END_OF_TEXT, *ALPHABET, *made} != set(entries):
        raise ValueError("the merges do not make the entries")
    if not set(itertools.chain(*merges)) <= {*ALPHABET, *made} - {""}:
        raise ValueError("a merge joins something that is not an entry")
    if len(set(merges)) != len(merges):
        raise ValueError("a merge is there twice")
    return entries, merges


def tokenizer_json(entries: Sequence[str], merges: Sequence[tuple[str, str]]) -> bytes:
    """The bytes of a tokenizer.json; args as of Tokenizer.

    Raises:
        ValueError: no entry is the end-of-text token.
    """
    end_of_text = {
        "id": list(entries).index(END_OF_TEXT),
        "content": END_OF_TEXT,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    model = {
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
    }
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [end_of_text],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": model,
    }
    return (json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
