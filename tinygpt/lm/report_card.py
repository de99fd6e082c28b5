"""The report card of told stories: do they vary, do they loop, do they end, and how much of them stands in the training text.

A number alone says little, so every measure is to be taken of stories that were held out as well, as many of them and cut to the
same length. A story is its token ids, the end-of-story token included where it was reached. A word is a run of letters and
digits, apostrophes inside it included, in lower case.
"""

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from tinygpt.lm.dataset import Tokens, story_spans
from tinygpt.lm.sampling import Array
from tinygpt.lm.tokenizer import Tokenizer

HALVES = 1_000  # of the stories, drawn for the intervals
MEMORISED = 50  # tokens: so many in one piece are a copy and no turn of phrase (Lee et al. 2022; Carlini et al. 2023)
CHUNK = 1 << 18  # training tokens searched at once: bounds the memory to some 20 MB


class Estimate(NamedTuple):
    """A measure and its 95 % interval, if the stories are a sample of all such stories."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Array) -> "Estimate":
        """From the value (first) and those of random halves of the stories, to six digits; of width 0 for a single story.

        A bootstrap without replacement (Politis & Romano 1994; Bickel, Götze & van Zwet 1997): a mean varies over halves as much
        as over samples of the whole size, and no story is there twice, which would count as repetition. The percentiles are moved
        to the value, because half as much text repeats itself less. Where all stories are alike, e.g., none of N loops, the width
        is 0; up to 3 / N of all stories may loop all the same (Hanley & Lippman-Hand 1983).
        """
        low, high = np.quantile(values[1:], (0.025, 0.975)) + values[0] - values[1:].mean()
        most = max(1.0, values.max())  # a share is never more than 1
        return cls(*(round(float(value), 6) for value in np.clip([values[0], low, high], 0, most)))


def report_card(texts: Sequence[str], ended: Sequence[bool], copied: Array, unseen: set[str]) -> dict[str, Estimate]:
    """Some stories, at least one, in numbers.

    Args:
        texts: of the stories, (N,).
        ended: which of them reached the end-of-story token, (N,).
        copied: the tokens of each that `longest_matches` found, (N,).
        unseen: words that the training text does not have, e.g., from `unseen_words`.
    Returns:
        distinct_1, distinct_2, distinct_3: distinct n-grams of words over all of them, in all stories together (Li et al. 2016).
        unseen_words: share of the words.
        loops: share of stories in which two words or more stand at least three times in a row (the repetition of Holtzman et al.
            2020, anywhere and not only at the end).
        ended: share of stories that reach the end-of-story token behind a full stop or its like.
        longest_match: tokens in one piece that the training text has as well, mean over stories.
        memorised: share of stories with a match of at least MEMORISED tokens.
    """
    spoken, rows = [words(text) for text in texts], halves(len(texts))
    stops = [re.search(r"[.!?…][\"'”’)*]*\s*$", text) is not None for text in texts]
    shares = {"loops": [*map(loops, spoken)], "ended": np.array(ended) & stops, "memorised": copied >= MEMORISED}
    values = {f"distinct_{n}": distinct(spoken, n, rows) for n in (1, 2, 3)}
    missing = [sum(word in unseen for word in text) for text in spoken]
    values["unseen_words"] = rows @ missing / np.maximum(rows @ [len(text) for text in spoken], 1)
    for name, of_each in {**shares, "longest_match": copied}.items():
        values[name] = rows @ np.array(of_each, float) / rows.sum(axis=1)
    return {name: Estimate.of(value) for name, value in values.items()}


def words(text: str) -> list[str]:
    """The words of a text."""
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.lower())


def unseen_words(wanted: Collection[str], train: Tokens, tokenizer: Tokenizer) -> set[str]:
    """Those of the wanted words that no training story has."""
    stories = (tokenizer.decode(train[start:stop].tolist()) for start, stop in story_spans(train, tokenizer.end_of_story))
    return set(wanted).difference(word for story in stories for word in words(story))


def loops(text: Sequence[str]) -> bool:
    """Whether two words or more stand three times in a row."""
    places = ((i, n) for n in range(2, len(text) // 3 + 1) for i in range(len(text) - 3 * n + 1))
    return any(text[i : i + 2 * n] == text[i + n : i + 3 * n] for i, n in places)


def distinct(texts: Sequence[Sequence[str]], n: int, rows: Array) -> Array:
    """distinct-n of the stories that each row takes: bool, (R, stories) -> (R,); 0 where they have no n-grams."""
    pairs = sorted({(gram, i) for i, text in enumerate(texts) for gram in zip(*(text[k:] for k in range(n)), strict=False)})
    stories = np.array([story for _, story in pairs], np.int64)
    firsts = [i for i, (gram, _) in enumerate(pairs) if i == 0 or gram != pairs[i - 1][0]]
    found = np.array([np.logical_or.reduceat(row[stories], firsts).sum() for row in rows])
    return found / np.maximum(rows @ [max(0, len(text) - n + 1) for text in texts], 1)  # type: ignore[no-any-return]


def halves(count: int) -> Array:
    """Random halves of the stories below all of them, bool, (1 + HALVES, count)."""
    raw = np.random.Philox(key=0).random_raw(HALVES * count).reshape(HALVES, count)  # the same in every version of numpy
    return np.append(np.ones((1, count), bool), raw.argsort(axis=1).argsort(axis=1) < max(1, count // 2), axis=0)


def longest_matches(stories: Sequence[Sequence[int]], train: Tokens) -> Array:
    """The longest run of tokens of each story that the training text has too.

    Runs of all places of both sides are compared at once and grow as in Karp, Miller & Rosenberg (1972): two runs that both sides
    have, one `step` behind the other, are one longer run; what only one side has is dropped. So it is exact, and holds a piece of
    the training text at a time. No run that could not beat the worst match so far is grown token by token.

    Args:
        stories: token ids without the end-of-story token, so that no run crosses from one training story to the next.
        train: the training text, (n,).
    Returns:
        Tokens of the run, where it begins in the story, where it begins in `train` first: (stories, 3).
    """
    text = np.concatenate([np.array([*story, -1], np.int64) for story in stories])  # -1, and -2 below, agree with nothing
    begins = np.cumsum([0, *(len(story) + 1 for story in stories)])
    owner, best = np.repeat(np.arange(len(stories)), np.diff(begins)), np.zeros((len(stories), 3), np.int64)
    for first in range(0, len(train), CHUNK):
        piece = np.append(train[first : first + CHUNK + np.diff(begins).max()].astype(np.int64), -2)
        here, there, run_here, run_there, length = np.arange(len(text)), np.arange(len(piece)), text, piece, 1
        while len(here) and len(there):
            runs, run_here = np.unique(run_here, return_inverse=True)
            number = np.minimum(runs.searchsorted(run_there), len(runs) - 1)
            both = runs[number] == run_there
            there, number = there[both], number[both]
            place = np.full(len(runs), -1)
            place[number[::-1]] = there[::-1]  # of equal runs the first is written last
            both = place[run_here] >= 0
            here, run_here = here[both], run_here[both]
            new = np.flatnonzero(best[owner[here], 0] < length)[::-1]
            own = owner[here[new]]
            best[own] = np.stack([np.full(len(own), length), here[new] - begins[own], first + place[run_here[new]]], axis=1)
            step = max(1, min(length, int(best[:, 0].min()) - length))
            here, run_here = _longer(here, run_here, step)
            there, run_there = _longer(there, number, step)
            length += step
    return best


def _longer(places: Array, runs: Array, step: int) -> tuple[Array, Array]:
    """Where a run is followed by another, `step` places on, and the two as one number; the places ascend."""
    then = np.minimum(places.searchsorted(places + step), len(places) - 1)
    both = places[then] == places + step
    return places[both], (runs << 32 | runs[then])[both]
