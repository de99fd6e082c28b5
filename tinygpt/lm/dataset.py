"""Documents as tokens: the validation split, the token files on disk, and the batches of a step.

On disk a split is the token ids of its documents as raw little-endian uint16, each document
followed by the end-of-text token: the `train.bin` and `val.bin` of nanoGPT.
"""

import hashlib
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinygpt.errors import CorruptArtifactError, InputError
from tinygpt.lm.tokenizer import Tokenizer

Tokens = NDArray[np.uint16]

BATCH_CHARACTERS = 1 << 19  # encoded at once: about 30 MB of encodings
TOKEN = np.dtype("<u2")


def document_hash(text: str) -> int:
    """The first 64 bits of the SHA-256 of a document."""
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(data).digest()[:8])


def is_validation(text: str, val_fraction: float) -> bool:
    """Whether a document belongs to the validation split; equal documents share a split."""
    return document_hash(text) < val_fraction * 2**64


class EncodedDocument(NamedTuple):
    """A document of the corpus, tokenized.

    Args:
        text: of the document.
        split: "train" or "val".
        tokens: token ids as they are stored on disk, the end-of-text token last.
    """

    text: str
    split: str
    tokens: Tokens


def encode_documents(
    documents: Iterable[str], tokenizer: Tokenizer, val_fraction: float
) -> Iterator[EncodedDocument]:
    """Tokenize and split a corpus of any size, holding a few hundred documents in memory at a time.

    Raises:
        InputError: a document contains a lone surrogate.
    """
    batch: list[str] = []
    characters = 0
    for text in documents:
        batch.append(text)
        characters += len(text)
        if characters >= BATCH_CHARACTERS:
            yield from _encode_batch(batch, tokenizer, val_fraction)
            batch = []
            characters = 0
    if batch:
        yield from _encode_batch(batch, tokenizer, val_fraction)


def _encode_batch(
    texts: Sequence[str], tokenizer: Tokenizer, val_fraction: float
) -> Iterator[EncodedDocument]:
    for text, token_ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        token_ids.append(tokenizer.end_of_text)
        split = "val" if is_validation(text, val_fraction) else "train"
        yield EncodedDocument(text, split, np.asarray(token_ids, TOKEN))


def empty_split(name: str, documents: int, val_fraction: float) -> InputError:
    """The error for a split that received none of the documents."""
    return InputError(
        f"none of the {documents} documents is in the {name} split "
        f"with `dataset.val_fraction` = {val_fraction}",
        hint="give more text, or change `dataset.val_fraction`",
    )


def read_tokens(stream: BinaryIO, vocab_size: int) -> Tokens:
    """Map the tokens of an open file into memory, read-only.

    Args:
        stream: a regular file, mapped through this very descriptor, then closed.
        vocab_size: every id must be below it.
    Returns:
        (n,) with n >= 1.
    Raises:
        CorruptArtifactError: the file is empty, ends in half a token, or contains an id that the
            tokenizer does not have.
    """
    with stream:
        size = os.fstat(stream.fileno()).st_size
        if size == 0 or size % TOKEN.itemsize:
            raise CorruptArtifactError(
                f"a token file has {size} bytes; it needs two for each token and at least one token"
            )
        mapped = mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ)
    tokens: Tokens = np.frombuffer(mapped, TOKEN)
    highest = int(tokens.max())
    if highest >= vocab_size:
        raise CorruptArtifactError(
            f"a token file contains id {highest}; the tokenizer has {vocab_size} entries"
        )
    return tokens


def document_spans(tokens: Tokens, end_of_text: int) -> NDArray[np.int64]:
    """Start and stop of each document, (documents, 2), its end-of-text token included.

    Tokens after the last end-of-text token form one more document.
    """
    stops = np.flatnonzero(tokens == end_of_text) + 1
    if len(tokens):
        stops = np.union1d(stops, len(tokens))
    starts = np.append(0, stops)[:-1]
    return np.stack((starts, stops), axis=1)


class Batches:
    """Which tokens each step trains on: a function of (seed, step), with no state to save.

    The sequences of all steps form one endless stream, and each step takes the next few. The stream
    is a series of epochs. Each epoch draws a start, cuts the tokens from there into windows that do
    not overlap, and takes every window once, in an order drawn for that epoch. How a step's
    sequences are divided among micro-batches, accumulation or processes does not matter.

    A share of the windows, chosen at random, then moves back to the end-of-text token before the
    document in which it begins. Such a window contains the beginning of the document, to which the
    rest refers back, and it begins in the same way as a text that is generated without a prompt.

    Args:
        tokens: the train split.
        context_length: T, the length of a sequence.
        seed: of the starts, the orders and the choice of windows that move.
        document_starts: the share of windows that begin with a document.
    Raises:
        InputError: there are fewer than T + 1 tokens.
    """

    def __init__(
        self, tokens: Tokens, context_length: int, seed: int, document_starts: float = 0.0
    ) -> None:
        targets = len(tokens) - 1
        if targets < context_length:
            raise InputError(
                f"the train split has {len(tokens)} tokens; one window of "
                f"`model.context_length` = {context_length} needs {context_length + 1}",
                hint="give more text, or a smaller `model.context_length`",
            )
        self.tokens = tokens
        self.context_length = context_length
        self.seed = seed
        # As many windows as fit after any start below T
        self.n_windows = max(1, (targets - context_length + 1) // context_length)
        self._possible_starts = min(context_length, targets - self.n_windows * context_length + 1)
        self._epoch = -1  # the epoch that _offsets belongs to
        self._offsets = np.empty(0, np.int64)
        self._move_below = document_starts * 2.0**64  # a window whose random word is lower moves
        self._document_starts = np.zeros(1, np.int64)
        if document_starts > 0:
            ends = np.flatnonzero(tokens == Tokenizer.end_of_text)
            self._document_starts = np.append(0, ends)

    def offsets(self, step: int, sequences: int) -> NDArray[np.int64]:
        """Where the sequences of a step begin.

        Args:
            step: optimizer steps taken before; 0 for the first.
            sequences: in the global batch.
        Returns:
            (sequences,) positions in the tokens.
        """
        in_stream = np.arange(step * sequences, (step + 1) * sequences)
        epochs, places = np.divmod(in_stream, self.n_windows)
        parts = []
        for epoch in np.unique(epochs):
            parts.append(self._epoch_offsets(int(epoch))[places[epochs == epoch]])
        return np.concatenate(parts)

    def windows(self, offsets: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The sequences that begin at `offsets`.

        Returns:
            Token ids, (B, T), and the token that follows each, (B, T).
        """
        positions = offsets[:, None] + np.arange(self.context_length + 1)  # (B, T + 1)
        token_ids = self.tokens[positions].astype(np.int64)
        return token_ids[:, :-1], token_ids[:, 1:]

    def _epoch_offsets(self, epoch: int) -> NDArray[np.int64]:
        """Where the windows of an epoch begin, in the order in which it takes them."""
        if epoch != self._epoch:
            self._offsets = self._draw_offsets(epoch)
            self._epoch = epoch
        return self._offsets

    def _draw_offsets(self, epoch: int) -> NDArray[np.int64]:
        # Raw words of Philox (Salmon et al. 2011) are the same in every version of numpy; shuffle
        # and integers need not be
        generator = np.random.Philox(key=np.array([self.seed, epoch], np.uint64))
        words = generator.random_raw(2 * self.n_windows + 1)
        start = int(words[0] % np.uint64(self._possible_starts))
        order = np.argsort(words[1 : self.n_windows + 1], kind="stable").astype(np.int64)
        offsets = order * self.context_length + start
        moves = words[self.n_windows + 1 :] < self._move_below
        before = np.searchsorted(self._document_starts, offsets, side="right") - 1
        return np.where(moves, self._document_starts[before], offsets)
