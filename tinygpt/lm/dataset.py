"""Stories as tokens: which story is held out, what lies on disk, and which tokens a training step sees.

On disk a split is the token ids of its stories as raw little-endian uint16, each story followed by the end-of-story token: the
`train.bin` and `val.bin` of nanoGPT.
"""

import hashlib
import itertools
import mmap
import os
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinygpt.errors import CorruptArtifactError, InputError
from tinygpt.lm.tokenizer import Tokenizer

Tokens = NDArray[np.uint16]

BATCH_CHARACTERS = 1 << 19  # encoded at once: about 30 MB of encodings
TOKEN = np.dtype("<u2")


def story_hash(text: str) -> int:
    """The first 64 bits of the SHA-256 of a story."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8])


def is_validation(text: str, val_fraction: float) -> bool:
    """Whether a story is held out; equal stories always fall on the same side."""
    return story_hash(text) < val_fraction * 2**64


class EncodedStory(NamedTuple):
    """A story of the corpus, tokenized.

    Args:
        text: of the story.
        split: "train" or "val".
        tokens: token ids, the end-of-story token last, as they lie on disk.
    """

    text: str
    split: str
    tokens: Tokens


def encode_stories(stories: Iterable[str], tokenizer: Tokenizer, val_fraction: float) -> Iterator[EncodedStory]:
    """Tokenize and split a corpus of any size; a few hundred stories are in memory at a time.

    Raises:
        InputError: a story holds a lone surrogate.
    """
    seen = 0

    def batch_number(text: str) -> int:
        nonlocal seen
        seen += len(text)
        return seen // BATCH_CHARACTERS

    for _, batch in itertools.groupby(stories, batch_number):
        texts = list(batch)
        for text, token_ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
            token_ids.append(tokenizer.end_of_story)
            yield EncodedStory(text, "val" if is_validation(text, val_fraction) else "train", np.asarray(token_ids, TOKEN))


def empty_split(name: str, stories: int, val_fraction: float) -> InputError:
    """What to say of a split that holds none of the stories."""
    message = f"none of the {stories} stories is in the {name} split with `dataset.val_fraction` = {val_fraction}"
    return InputError(message, hint="give more stories, or change `dataset.val_fraction`")


def read_tokens(stream: BinaryIO, vocab_size: int) -> Tokens:
    """Map the tokens of an open file into memory, read-only.

    Args:
        stream: a regular file, mapped through this very descriptor, then closed.
        vocab_size: every id must be below it.
    Returns:
        (n,) with n >= 1.
    Raises:
        CorruptArtifactError: the file is empty, holds half a token, or an id that the tokenizer does not have.
    """
    with stream:
        size = os.fstat(stream.fileno()).st_size
        if size == 0 or size % TOKEN.itemsize:
            raise CorruptArtifactError(f"a file of tokens has {size} bytes; it takes two for each token, and at least one token")
        tokens: Tokens = np.frombuffer(mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ), TOKEN)
    if (highest := int(tokens.max())) >= vocab_size:
        raise CorruptArtifactError(f"a file of tokens holds id {highest}; the tokenizer has {vocab_size} entries")
    return tokens


def story_spans(tokens: Tokens, end_of_story: int) -> NDArray[np.int64]:
    """Where stories begin and end: (stories, 2) of start and stop, the end-of-story token included.

    Tokens after the last end-of-story token are one story more.
    """
    ends = np.flatnonzero(tokens == end_of_story) + 1
    stops = np.union1d(ends, len(tokens)) if len(tokens) else ends
    return np.stack((np.append(0, stops)[:-1], stops), axis=1)


class Batches:
    """Which tokens each step trains on: a function of (seed, step), with no state to save.

    The sequences of all steps form one endless stream, of which a step takes the next few. The stream is a series of epochs. An
    epoch cuts the tokens into windows that do not overlap, from a start drawn anew for each epoch, and takes every window once,
    in an order drawn anew. How a step's sequences are laid out over micro-batches, accumulation or ranks does not matter.

    Of the windows, a share drawn by chance then moves back to the end-of-story token before the story in which it begins: where a
    story stands from its first word on, who is in it can be known, and that is how a model is asked for one.

    Args:
        tokens: the train split.
        context_length: T, the length of a sequence.
        seed: of starts, orders and which windows move.
        story_starts: the share of windows that begin with a story.
    Raises:
        InputError: there are not T + 1 tokens.
    """

    def __init__(self, tokens: Tokens, context_length: int, seed: int, story_starts: float = 0.0) -> None:
        targets = len(tokens) - 1
        if targets < context_length:
            needed = f"one window of `model.context_length` = {context_length} takes {context_length + 1}"
            hint = "give more stories, or a smaller `model.context_length`"
            raise InputError(f"the train split has {len(tokens)} tokens; {needed}", hint=hint)
        self.tokens, self.context_length, self.seed = tokens, context_length, seed
        self.n_windows = max(1, (targets - context_length + 1) // context_length)  # fit behind any start below T
        self._starts = min(context_length, targets - self.n_windows * context_length + 1)
        self._epoch, self._offsets = -1, np.empty(0, np.int64)
        self._moving = story_starts * 2.0**64
        self._stories = np.append(0, np.flatnonzero((tokens == Tokenizer.end_of_story) & (story_starts > 0)))

    def offsets(self, step: int, sequences: int) -> NDArray[np.int64]:
        """Where the sequences of a step begin.

        Args:
            step: optimizer steps taken before; 0 for the first.
            sequences: in the global batch.
        Returns:
            (sequences,) positions in the tokens.
        """
        epochs, places = np.divmod(np.arange(step * sequences, (step + 1) * sequences), self.n_windows)
        return np.concatenate([self._epoch_offsets(int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)])

    def windows(self, offsets: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The sequences that begin at `offsets` and, for each of their tokens, the next one: twice (B, T)."""
        both = self.tokens[offsets[:, None] + np.arange(self.context_length + 1)].astype(np.int64)  # (B, T + 1)
        return both[:, :-1], both[:, 1:]

    def _epoch_offsets(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._epoch:
            # Raw words of Philox (Salmon et al. 2011) are the same in every version of numpy; shuffle and integers need not be.
            words = np.random.Philox(key=np.array([self.seed, epoch], np.uint64)).random_raw(2 * self.n_windows + 1)
            order = np.argsort(words[1 : self.n_windows + 1], kind="stable").astype(np.int64)
            offsets = order * self.context_length + int(words[0] % np.uint64(self._starts))
            begins = self._stories[np.searchsorted(self._stories, offsets, side="right") - 1]
            self._epoch, self._offsets = epoch, np.where(words[self.n_windows + 1 :] < self._moving, begins, offsets)
        return self._offsets
