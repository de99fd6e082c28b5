"""Generation quality: do texts vary, repeat themselves, end properly, and copy the training text?

A number alone says little: compare it with that of as many held-out documents, cut to the same
length. A word is a run of letters and digits, apostrophes inside it included, in lower case.
"""

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from tinygpt.lm.dataset import Tokens, document_spans
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.lm.weights import Array

HALVES = 1_000  # random halves of the texts, for the intervals
MEMORIZED = 50
"""Tokens in one run that count as a copy (Lee et al. 2022; Carlini et al. 2023)."""
CHUNK = 1 << 18  # training tokens that are searched at once: limits the memory to some 20 MB

SENTENCE_END = re.compile(r"[.!?…][\"'”’)*]*\s*$")
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


class Estimate(NamedTuple):
    """A measure and its 95 % interval, if the texts are a sample of all such texts."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Array) -> "Estimate":
        """From the value over all texts (first) and over random halves of them, to six decimals.

        A bootstrap without replacement (Politis & Romano 1994; Bickel, Götze & van Zwet 1997): a
        mean varies over halves as much as over samples of the whole size, and no text occurs twice,
        which would count as repetition. The percentiles are shifted to the value, because half as
        much text repeats itself less. The width is 0 where all texts are alike, e.g., none of N
        loops, or there is only one; even then up to 3 / N of all texts may loop (Hanley &
        Lippman-Hand 1983).

        Args:
            values: (1 + HALVES,), of the rows of random_halves.
        """
        value, halves = values[0], values[1:]
        low, high = np.quantile(halves, (0.025, 0.975)) + value - halves.mean()
        most = max(1.0, values.max())  # a share is never more than 1
        clipped = np.clip([value, low, high], 0, most)
        return cls(*(round(float(number), 6) for number in clipped))


def generation_metrics(
    texts: Sequence[str],
    ended: Sequence[bool],
    copied: Sequence[int],
    unseen: Collection[str],
) -> dict[str, Estimate]:
    """Measure some texts.

    Args:
        texts: (N,) with N >= 1.
        ended: whether each reached the end-of-text token, (N,).
        copied: length of the longest match of each in tokens, from `longest_matches`, (N,).
        unseen: words that the training text does not have, e.g., from `unseen_words`.
    Returns:
        distinct_1, distinct_2, distinct_3: number of distinct n-grams of words over the number of
            all n-grams, in all texts together (Li et al. 2016).
        unseen_words: share of the words that are unseen.
        loops: share of texts in which a phrase of two words or more occurs at least three times in
            a row (the repetition of Holtzman et al. 2020, not only at the end).
        ended: share of texts that reach the end-of-text token after a punctuation mark that ends a
            sentence.
        memorized: share of texts with a match of at least MEMORIZED tokens.
        longest_match: length of the longest match in tokens, mean over texts.
    """
    chosen = random_halves(len(texts))  # (R, N)
    texts_words = [words(text) for text in texts]
    word_counts = [len(text_words) for text_words in texts_words]
    unseen_counts = [sum(word in unseen for word in text_words) for text_words in texts_words]
    full_stops = [SENTENCE_END.search(text) is not None for text in texts]
    values = {f"distinct_{n}": distinct(texts_words, n, chosen) for n in (1, 2, 3)}
    values["unseen_words"] = chosen @ unseen_counts / np.maximum(chosen @ word_counts, 1)
    values["loops"] = _mean(chosen, [loops(text_words) for text_words in texts_words])
    values["ended"] = _mean(chosen, np.logical_and(ended, full_stops))
    values["memorized"] = _mean(chosen, np.greater_equal(copied, MEMORIZED))
    values["longest_match"] = _mean(chosen, copied)
    return {name: Estimate.of(value) for name, value in values.items()}


def random_halves(count: int) -> Array:
    """Which texts to take: all, then random halves of them, bool, (1 + HALVES, count)."""
    # Raw words of Philox are the same in every version of numpy
    raw = np.random.Philox(key=0).random_raw(HALVES * count).reshape(HALVES, count)
    ranks = raw.argsort(axis=1).argsort(axis=1)
    halves = ranks < max(1, count // 2)
    return np.append(np.ones((1, count), bool), halves, axis=0)


def _mean(chosen: Array, of_each: Sequence[float] | Array) -> Array:
    """The mean over the texts that each row of `chosen` takes, (R, N) and (N,) -> (R,)."""
    means: Array = chosen @ np.array(of_each, float) / chosen.sum(axis=1)
    return means


def words(text: str) -> list[str]:
    """The words of a text."""
    return WORD.findall(text.lower())


def unseen_words(wanted: Collection[str], train: Tokens, tokenizer: Tokenizer) -> set[str]:
    """The wanted words that occur in no training document."""
    unseen = set(wanted)
    for start, stop in document_spans(train, tokenizer.end_of_text):
        unseen.difference_update(words(tokenizer.decode(train[start:stop].tolist())))
    return unseen


def loops(text: Sequence[str]) -> bool:
    """Whether a phrase of two words or more occurs three times in a row."""
    for n in range(2, len(text) // 3 + 1):
        for start in range(len(text) - 3 * n + 1):
            if text[start : start + 2 * n] == text[start + n : start + 3 * n]:
                return True
    return False


def distinct(texts: Sequence[Sequence[str]], n: int, chosen: Array) -> Array:
    """distinct-n of the texts that each row of `chosen` takes.

    Args:
        texts: words of each, (N,).
        n: words of an n-gram.
        chosen: bool, (R, N).
    Returns:
        (R,); 0 where there are no n-grams.
    """
    owners: dict[tuple[str, ...], set[int]] = {}  # the texts that have each n-gram
    for number, text in enumerate(texts):
        for start in range(len(text) - n + 1):
            owners.setdefault(tuple(text[start : start + n]), set()).add(number)
    totals = chosen @ [max(0, len(text) - n + 1) for text in texts]  # n-grams, (R,)
    if not owners:
        return np.zeros(len(chosen))
    flat: list[int] = []  # the texts that have the first n-gram, those that have the second, ...
    begins = []  # where those of each n-gram begin in `flat`
    for numbers in owners.values():
        begins.append(len(flat))
        flat.extend(sorted(numbers))
    places = np.array(flat)
    found = [np.logical_or.reduceat(row[places], begins).sum() for row in chosen]
    shares: Array = np.array(found) / np.maximum(totals, 1)
    return shares


class Match(NamedTuple):
    """The longest run of tokens that a text shares with the training text.

    Args:
        tokens: its length; 0 for no common token.
        start: where it begins in the text.
        source: where it first begins in the training text.
    """

    tokens: int
    start: int
    source: int


class _Runs(NamedTuple):
    """Runs of tokens of one length, in one text.

    Args:
        positions: where they begin, ascending, (n,).
        ids: a number for each, (n,); equal runs have equal ids.
    """

    positions: Array
    ids: Array

    def choose(self, which: Array) -> "_Runs":
        """The runs that a mask or indices select."""
        return _Runs(self.positions[which], self.ids[which])

    def lengthen(self, step: int) -> "_Runs":
        """Join each run with the one that begins `step` positions later, where there is one.

        The new runs are longer by `step`, which is at most the length of the old ones.
        """
        last = len(self.positions) - 1
        followers = np.minimum(self.positions.searchsorted(self.positions + step), last)
        followed = self.positions[followers] == self.positions + step
        pairs = self.ids << 32 | self.ids[followers]
        return _Runs(self.positions[followed], pairs[followed])


def longest_matches(texts: Sequence[Sequence[int]], train: Tokens) -> list[Match]:
    """The longest run of tokens that each text shares with the training text.

    The search is exact. It compares the runs at all positions of both sides at once and lengthens
    them as Karp, Miller & Rosenberg (1972) do: two shared runs, one `step` behind the other, make a
    longer run; runs that only one side has are dropped. The training text is searched in chunks.
    Once every text has a match, runs that could not beat the shortest match are lengthened by more
    than one token at a time.

    Args:
        texts: token ids without the end-of-text token, so that no run crosses from one training
            document to the next, (N,).
        train: the training text, (n,).
    Returns:
        (N,); one of the longest runs of each text.
    """
    tokens: list[int] = []
    begins = [0]
    for text in texts:
        tokens += [*text, -1]
        begins.append(len(tokens))
    joined = np.array(tokens, np.int64)
    longest = int(np.diff(begins).max())
    best = np.zeros((len(texts), 3), np.int64)  # fields of Match
    for first in range(0, len(train), CHUNK):
        chunk = train[first : first + CHUNK + longest].astype(np.int64)
        _match_chunk(joined, np.array(begins), chunk, first, best)
    return [Match(*row) for row in best.tolist()]


def _match_chunk(joined: Array, begins: Array, chunk: Array, first: int, best: Array) -> None:
    """Search for longer matches in a chunk of the training text.

    Args:
        joined: all texts, each followed by -1, which no training text has.
        begins: where each text begins in `joined`, and the end of the last one, (N + 1,).
        chunk: a part of the training text.
        first: where the chunk begins there.
        best: the fields of the longest Match of each text so far, (N, 3); updated.
    """
    owners = np.repeat(np.arange(len(best)), np.diff(begins))  # the text of each position
    ours = _Runs(np.arange(len(joined)), joined)
    theirs = _Runs(np.arange(len(chunk)), chunk)
    length = 1
    while len(ours.positions) and len(theirs.positions):
        ours, theirs = _common(ours, theirs)
        if not len(ours.positions):
            return
        # Where each run first begins in the chunk: assigned backwards, the first one stays
        source = np.zeros(int(theirs.ids.max()) + 1, np.int64)
        source[theirs.ids[::-1]] = theirs.positions[::-1]

        # The first run of each text whose match is shorter; again the first one stays
        longer = np.flatnonzero(best[owners[ours.positions], 0] < length)[::-1]
        winners = ours.choose(longer)
        texts = owners[winners.positions]
        best[texts, 0] = length
        best[texts, 1] = winners.positions - begins[texts]
        best[texts, 2] = first + source[winners.ids]

        step = max(1, min(length, int(best[:, 0].min()) - length))
        ours = ours.lengthen(step)
        theirs = theirs.lengthen(step)
        length += step


def _common(ours: _Runs, theirs: _Runs) -> tuple[_Runs, _Runs]:
    """The runs that both sides have; equal runs of either side get equal new ids."""
    known, our_ids = np.unique(ours.ids, return_inverse=True)
    their_ids = np.minimum(known.searchsorted(theirs.ids), len(known) - 1)
    shared = known[their_ids] == theirs.ids
    their_ids = their_ids[shared]
    is_shared = np.zeros(len(known), bool)
    is_shared[their_ids] = True
    return (
        _Runs(ours.positions, our_ids).choose(is_shared[our_ids]),
        _Runs(theirs.positions[shared], their_ids),
    )
