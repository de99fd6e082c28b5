"""Documents as tokens: the token files on disk, and the batches of a step.

On disk a split is the token ids of its documents as raw little-endian uint16, each document
followed by the end-of-text token: the `train.bin` and `val.bin` of nanoGPT. Where a document is cut
between two splits (see tinygpt.lm.holdout), its first part has no end-of-text token.

If that is the first document, so that the train split would have none at all, one stands before it,
because generation starts from it. A model of one text that never saw it began with a stray comma
(100 kB of Shakespeare, 300 steps: 7.96 nats for the first token of a line after it, 4.18 after a
line end); having seen it in 6 of 2,400 sequences, with a word (4.99 nats).
"""

import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinygpt.errors import CorruptArtifactError, InputError
from tinygpt.lm.holdout import Part
from tinygpt.lm.tokenizer import Tokenizer

Tokens = NDArray[np.uint16]

BATCH_CHARACTERS = 1 << 19  # encoded at once: about 30 MB of encodings
TOKEN = np.dtype("<u2")


class EncodedPart(NamedTuple):
    """A document, or a part of one, tokenized.

    Args:
        text: of the part.
        split: "train", "val" or "test".
        tokens: token ids as they are stored on disk, with the end-of-text token where the document
            ends.
    """

    text: str
    split: str
    tokens: Tokens


def encode_parts(
    parts: Iterable[Part],
    tokenizer: Tokenizer,
    on_piece: Callable[[int], None] = lambda done: None,
) -> Iterator[EncodedPart]:
    """Tokenize a corpus of any size, holding a few hundred documents in memory at a time.

    Args:
        parts: of documents.
        tokenizer: with which they are encoded.
        on_piece: see Tokenizer.encode_batch.
    Raises:
        InputError: a document contains a lone surrogate.
    """
    is_first = True
    for batch in _batches(parts):
        encoded = tokenizer.encode_batch([part.text for part in batch], on_piece)
        for part, token_ids in zip(batch, encoded, strict=True):
            if part.is_end:
                token_ids.append(tokenizer.end_of_text)
            elif is_first:
                token_ids.insert(0, tokenizer.end_of_text)
            is_first = False
            yield EncodedPart(part.text, part.split, np.asarray(token_ids, TOKEN))


def _batches(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """A few hundred parts at a time."""
    batch: list[Part] = []
    characters = 0
    for part in parts:
        batch.append(part)
        characters += len(part.text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch = []
            characters = 0
    if batch:
        yield batch


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

    Tokens after the last end-of-text token form one more document. One at the very start ends none.
    """
    stops = np.flatnonzero(tokens == end_of_text) + 1
    stops = stops[stops > 1]
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
    document in which it begins, if that is less than a window away. Such a window contains the
    beginning of the document, to which the rest refers back, and it begins in the same way as a
    text that is generated without a prompt. If an end-of-text token stands at the very start, the
    first window of each epoch begins with it.

    Args:
        tokens: the train split.
        context_length: T, the length of a sequence.
        seed: of the starts, the orders and the choice of windows that move.
        document_starts: the share of windows that begin with a document.
        end_of_text: the id of the end-of-text token, 0 for all tokenizers but imported ones.
    Raises:
        InputError: there are fewer than T + 1 tokens.
    """

    def __init__(
        self,
        tokens: Tokens,
        context_length: int,
        seed: int,
        document_starts: float = 0.0,
        end_of_text: int = 0,
    ) -> None:
        targets = len(tokens) - 1
        if targets < context_length:
            raise _too_few(len(tokens), context_length)
        self.tokens = tokens
        self.context_length = context_length
        self.seed = seed
        self.end_of_text = end_of_text
        # As many windows as fit after any start below T
        self.n_windows = max(1, (targets - context_length + 1) // context_length)
        self._possible_starts = min(context_length, targets - self.n_windows * context_length + 1)
        self._epoch = -1  # the epoch that _offsets belongs to
        self._offsets = np.empty(0, np.int64)
        self._move_below = document_starts * 2.0**64  # a window whose random word is lower moves
        self._document_starts = np.zeros(1, np.int64)
        if document_starts > 0:
            ends = np.flatnonzero(tokens == end_of_text)
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
        starts = self._document_starts[before]
        # In a long document, it would be the same window again and again
        moves &= offsets - starts < self.context_length
        if self.tokens[0] == self.end_of_text:
            moves |= offsets < self.context_length
        return np.where(moves, starts, offsets)


def _too_few(tokens: int, context_length: int) -> InputError:
    """The error for a train split that does not fill one window."""
    advice = "give more text"
    half = (tokens - 1) // 2  # two windows fit
    if half >= 2:
        fitting = 1 << half.bit_length() - 1  # the largest power of 2 up to it
        advice += f", or use a smaller context, e.g., `--set model.context_length={fitting}`"
    return InputError(
        f"the train split has {tokens} tokens; one window of `model.context_length` = "
        f"{context_length} needs {context_length + 1}",
        hint=advice,
    )
