"""What is held out of training: documents chosen by a hash of each, or the end of the text.

`dataset.holdout` = auto takes the end if the documents are paragraphs or lines of one text, or if
fewer than FEW of them differ; else it goes by hash. Neighboring parts of one text resemble each
other: held out at random, they hide that a model learned the others by heart. And a few documents
are each of a kind.

- end: the train split comes first, then val, then test. Each cut is where a document ends, else a
  line, else before white space: at the nearest such place that moves it by no more than a quarter
  of the smaller split beside it. Else it is where the shares ask for it, but never inside a
  character or a CR-LF.
- hash, of MANY different documents or more: those whose hash is below `val_fraction` of the highest
  hash are val, the next `test_fraction` are test. A document keeps its split when the corpus grows.
- hash, of fewer: in the order of their hashes, val and then test take every document that fits into
  their share of the bytes, so that their sizes are off by at most one document.

By hash, equal documents are in one split. No split is empty.
"""

import hashlib
import itertools
import math
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinygpt.config.tables import DatasetConfig
from tinygpt.errors import InputError

FEW = 20
MANY = 1_000
LEAST = 32  # bytes of a split at the end of a text: cuts that move by a quarter of it never meet
FARTHEST = 10_000  # bytes that a cut moves at most; no line is longer, and searching takes time

LINE_START = re.compile(r"(?<=[\r\n])(?=[^\r\n])")
WORD_END = re.compile(r"(?<=\S)(?=\s)")
WORDS = {"hash": "documents chosen by a hash of each", "end": "the end of the text"}

Array = NDArray[Any]
Rule = Literal["hash", "end"]


class Part(NamedTuple):
    """A document, or a part of one.

    Args:
        text: of the part.
        split: "train", "val" or "test".
        is_end: whether the document ends with it.
    """

    text: str
    split: str
    is_end: bool


class Cut(NamedTuple):
    """Where a split ends and the next one begins, in bytes from the start of the first document.

    Args:
        at: where the shares ask for it.
        slack: how far it may move.
    """

    at: int
    slack: int


@dataclass(frozen=True)
class Holdout:
    """Which documents, or parts of them, are in which split.

    Args:
        rule: "hash" or "end".
        reason: for the rule, e.g., "auto: 12 documents, fewer than 20".
        splits: their names, train first.
        duplicates: documents equal to an earlier one.
        train_bytes: of the text to train on; with rule end, before the cut moves.
        held_out: with rule hash, the split of each hash that is not in train.
        cuts: with rule end, between the splits.
    """

    rule: Rule
    reason: str
    splits: Sequence[str]
    duplicates: int
    train_bytes: int
    held_out: Mapping[int, str]
    cuts: Sequence[Cut]

    def __str__(self) -> str:
        return f"{WORDS[self.rule]} ({self.reason})"

    def parts(self, documents: Iterable[str]) -> Iterator[Part]:
        """The documents that the holdout was planned for, in their order; some of them are cut."""
        if self.rule == "end":
            yield from self._cut(documents)
            return
        for text in documents:
            yield Part(text, self.held_out.get(document_hash(text), "train"), is_end=True)

    def _cut(self, documents: Iterable[str]) -> Iterator[Part]:
        number = 0  # of the split
        passed = 0  # bytes of the documents before
        for text in documents:
            size = len(_bytes(text))
            start = 0
            while number < len(self.cuts) and self.cuts[number].at < passed + size:
                cut = self.cuts[number]
                stop = cut_near(text, cut.at - passed, cut.slack)
                if stop > start:
                    yield Part(text[start:stop], self.splits[number], is_end=stop == len(text))
                    start = stop
                number += 1
            if start < len(text):
                yield Part(text[start:], self.splits[number], is_end=True)
            passed += size


def plan_holdout(
    documents: Iterable[str], config: DatasetConfig, unit: str | None = None
) -> Holdout:
    """Choose what is held out of a corpus of any size, of which 16 bytes a document are kept.

    Args:
        documents: all of them, in their order.
        config: the table [dataset].
        unit: "paragraph" or "line" if the documents are such parts of one text.
    Raises:
        InputError: there is too little text to divide.
    """
    hashes = array("Q")
    sizes = array("Q")
    for text in documents:
        hashes.append(document_hash(text))
        sizes.append(len(_bytes(text)))
    different, which = np.unique(np.array(hashes, np.uint64), return_inverse=True)
    bytes_of_each = np.zeros(len(different), np.int64)  # copies included
    np.add.at(bytes_of_each, which, np.array(sizes, np.int64))

    shares = {"val": config.val_fraction}
    if config.test_fraction:
        shares["test"] = config.test_fraction
    rule, reason = choose_rule(config.holdout, len(hashes), len(different), unit)
    held_out: dict[int, str] = {}
    cuts: list[Cut] = []
    if rule == "hash":
        held_out = hold_out_by_hash(different, bytes_of_each, shares)
        in_train = [document not in held_out for document in different.tolist()]
        train_bytes = int(bytes_of_each[in_train].sum())
    else:
        cuts = hold_out_the_end(sum(sizes), shares)
        train_bytes = cuts[0].at
    duplicates = len(hashes) - len(different)
    return Holdout(rule, reason, ("train", *shares), duplicates, train_bytes, held_out, cuts)


def choose_rule(
    asked: str, documents: int, different: int, unit: str | None = None
) -> tuple[Rule, str]:
    """The rule, and the reason for it.

    Args:
        asked: `dataset.holdout`.
        documents: how many there are.
        different: how many differ.
        unit: see plan_holdout.
    """
    if asked != "auto":
        return asked, f"`dataset.holdout` = {asked}"  # type: ignore[return-value]
    if documents == 1:
        return "end", "auto: it is one document"
    if different < FEW:
        differing = "" if different == documents else f", {different} without copies"
        return "end", f"auto: {documents:,} documents{differing}, fewer than {FEW}"
    if unit is not None:
        by_hash = "`--set dataset.holdout=hash` draws from all"
        return "end", f"auto: {documents:,} {unit}s of one text; {by_hash}"
    return "hash", f"auto: {documents:,} documents, {FEW} or more"


def hold_out_by_hash(hashes: Array, sizes: Array, shares: Mapping[str, float]) -> dict[int, str]:
    """The split of each document that is not trained on.

    Args:
        hashes: of the documents that differ, ascending, (n,).
        sizes: bytes of each, copies included, (n,).
        shares: of val and perhaps test.
    Returns:
        Splits by hash.
    Raises:
        InputError: there are fewer documents than splits.
    """
    if len(hashes) <= len(shares):
        raise InputError(
            f"{' and '.join(shares)} cannot be held out of {len(hashes)} different documents "
            "without leaving a split empty",
            hint="`--set dataset.holdout=end` holds out the end of the text",
        )
    if len(hashes) >= MANY:
        bounds = [0.0, *itertools.accumulate(shares.values())]
        limits = np.array([math.ceil(bound * 2.0**64) for bound in bounds], np.uint64)
        stops = np.searchsorted(hashes, limits).tolist()
        if all(a < b for a, b in itertools.pairwise([*stops, len(hashes)])):
            held_out: dict[int, str] = {}
            for name, (start, stop) in zip(shares, itertools.pairwise(stops), strict=True):
                held_out |= dict.fromkeys(hashes[start:stop].tolist(), name)
            return held_out
    return _fill_in_order(hashes, sizes, shares)


def _fill_in_order(hashes: Array, sizes: Array, shares: Mapping[str, float]) -> dict[int, str]:
    """As hold_out_by_hash, by the rule of a few documents, or where a share is almost nothing."""
    size_of = dict(zip(hashes.tolist(), sizes.tolist(), strict=True))
    total = sum(size_of.values())
    held_out: dict[int, str] = {}
    splits_after = len(shares)  # each needs a document, train included
    for name, share in shares.items():
        room = round(share * total)
        may_take = len(size_of) - splits_after
        chosen: list[int] = []
        for document, size in size_of.items():
            if size <= room and len(chosen) < may_take:
                chosen.append(document)
                room -= size
        for document in chosen or [min(size_of, key=size_of.__getitem__)]:
            held_out[document] = name
            del size_of[document]
        splits_after -= 1
    return held_out


def hold_out_the_end(size: int, shares: Mapping[str, float]) -> list[Cut]:
    """The cuts that leave each split its share of the end of a text.

    Args:
        size: of the text in bytes.
        shares: of val and perhaps test.
    Raises:
        InputError: there are fewer than LEAST bytes for each split.
    """
    needed = LEAST * (1 + len(shares))
    if size < needed:
        raise InputError(
            f"the text has {size} bytes; at least {needed} are needed to hold out a part of it",
            hint="give more text",
        )
    places = [size]
    held_out = 0.0
    for after, share in enumerate(reversed(list(shares.values()))):
        held_out += share
        least = LEAST * (len(shares) - after)  # for the splits before this cut
        place = min(round(size * (1 - held_out)), places[0] - LEAST)
        places.insert(0, max(place, least))
    cuts = []
    for before, at, after in zip([0, *places], places, places[1:], strict=False):
        cuts.append(Cut(at, min((at - before) // 4, (after - at) // 4, FARTHEST)))
    return cuts


def cut_near(text: str, at: int, slack: int) -> int:
    """Where to cut a document.

    Args:
        text: of the document.
        at: the place in bytes that was asked for, less than those of the document.
        slack: how many bytes before or after it the cut may be.
    Returns:
        The number of characters before the cut: 0 or all where an end of the document is near.
    """
    data = _bytes(text)
    lowest, middle, highest = (
        len(data[: max(place, 0)].decode(errors="ignore")) for place in (at - slack, at, at + slack)
    )
    ends = [place for place in (0, len(text)) if lowest <= place <= highest]
    lines = _places(LINE_START, text, lowest, highest)
    words = _places(WORD_END, text, lowest, highest)
    for places in (ends, lines, words):
        if places:
            return min(places, key=lambda place: abs(place - middle))
    inside_cr_lf = text[middle - 1 : middle + 1] == "\r\n"
    return middle + inside_cr_lf


def _places(pattern: re.Pattern[str], text: str, lowest: int, highest: int) -> list[int]:
    return [match.start() for match in pattern.finditer(text, lowest, highest + 1)]


def document_hash(text: str) -> int:
    """The first 64 bits of the SHA-256 of a document."""
    return int.from_bytes(hashlib.sha256(_bytes(text)).digest()[:8])


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # the tokenizer refuses them, with better words
