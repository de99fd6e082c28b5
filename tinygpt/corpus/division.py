"""Where the documents of text files end: `data.separator` = auto, and what is reported.

What stands in a text to separate documents is always taken: `<|endoftext|>`, on a line of its own
or inside one; `[Event "`, which begins a game of chess, if the file begins with it; lines of `%`
alone, as in files of `fortune`, if no document between them has more than 5 % of the text.

Otherwise each of several files is one document. In a single file two or more blank lines separate
documents, or one, or each line is one: the first of these that gives at least 100 documents, none
with more than 5 % of the text. Lines are documents only where blank lines are rare, at most one in
20 lines, and where the text is not wrapped, so that most lines are nearly as long as the longest.
If nothing gives documents, the file is one.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import NamedTuple

from tinygpt.corpus.decoding import lines
from tinygpt.corpus.files import DocumentFile
from tinygpt.corpus.text_files import (
    BLANK_LINES,
    CHESS_GAMES,
    END_OF_TEXT,
    FILE,
    LINES,
    MARK,
    PERCENT_LINES,
    TWO_BLANK_LINES,
    Piece,
    Rule,
    documents,
    named_rule,
    pieces,
)
from tinygpt.progress import Reporter

AT_LEAST = 100
"""Documents that blank lines or line ends must give to be taken for separators."""

LARGEST_SHARE = 0.05
"""Of the text, that a document may have at most."""

RARE = 20  # lines for one blank line
WRAPPED = 0.8  # the median line of a wrapped text, as a share of its longest (95th percentile)
SHOWN = 30  # characters of a document beside a boundary

Lengths = Counter[int]
"""How many documents have which length in characters."""


class Division(NamedTuple):
    """How the text files of a source are divided.

    Args:
        rules: the rule of each text file.
        words: what the rules say, e.g., "blank lines separate documents"; empty without text files.
        unit: "paragraph" or "line" if the documents are such parts of a text.
    """

    rules: Mapping[DocumentFile, Rule]
    words: str
    unit: str | None


class _DividedText(NamedTuple):
    """A text under a rule, with the number of MARKs by where they stand: "alone" or "inside"."""

    rule: Rule
    lengths: Lengths
    marks: Counter[str]


def divide(
    files: Sequence[DocumentFile], separator: str, reporter: Reporter, at_least: int = AT_LEAST
) -> Division:
    """Find where the documents of text files end, and report it.

    Each text file is read once; with `auto`, a line at a time.

    Args:
        files: all files of a source; those of other formats are passed over.
        separator: `data.separator`.
        reporter: receives the rule, number and lengths of the documents, and two boundaries.
        at_least: see AT_LEAST.

    Raises:
        InputError: a file is not UTF-8.
    """
    texts: dict[DocumentFile, _DividedText] = {}
    for file in files:
        if file.format == ".txt" and separator == "auto":
            texts[file] = _divide_auto(file, alone=len(files) == 1, at_least=at_least)
        elif file.format == ".txt":
            texts[file] = _divide_by(file, named_rule(separator))
    rules = {file: text.rule for file, text in texts.items()}
    units = {rule.unit for rule in rules.values()}
    unit = units.pop() if len(units) == 1 else None
    division = Division(rules, _words(rules, alone=len(files) == 1), unit)
    for note in _notes(texts, division, separator):
        reporter.note(note)
    return division


def _divide_by(file: DocumentFile, rule: Rule) -> _DividedText:
    divided = _DividedText(rule, Lengths(), Counter())
    for document in documents(file, rule):
        divided.lengths[len(document)] += 1
        divided.marks["inside"] += document.count(MARK)
    return divided


def _divide_auto(file: DocumentFile, *, alone: bool, at_least: int) -> _DividedText:
    marks = Counter[str]()
    candidates = [END_OF_TEXT, CHESS_GAMES, PERCENT_LINES, FILE]
    if alone:
        candidates += [TWO_BLANK_LINES, BLANK_LINES, LINES]
    tallies = {rule: _Tally(rule) for rule in candidates}
    first: Piece | None = None
    for piece in pieces(_counted(lines(file), marks), marks=True):
        first = first or piece
        for tally in tallies.values():
            tally.add(piece)
    for tally in tallies.values():
        tally.end()
    rule = _choice(tallies, at_least)
    if marks:
        rule = END_OF_TEXT
    elif first is not None and CHESS_GAMES.step(first) == "begin":
        rule = CHESS_GAMES
    return _DividedText(rule, tallies[rule].lengths, marks)


def _counted(text: Iterable[str], marks: Counter[str]) -> Iterator[str]:
    """The lines of a text; the MARKs in them are added to `marks`."""
    for line in text:
        if MARK in line:
            marks["alone" if line.strip() == MARK else "inside"] += line.count(MARK)
        yield line


class _Tally:
    """The lengths of the documents that a rule gives; their text is not kept."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.lengths = Lengths()
        self._length = 0

    def add(self, piece: Piece) -> None:
        step = self.rule.step(piece)
        if step != "join":
            self.end()
        if step != "separate":
            white = len(piece.white) if self._length else 0
            self._length += white + len(piece.text)

    def end(self) -> None:
        if self._length:
            self.lengths[self._length] += 1
            self._length = 0

    def are_documents(self, at_least: int) -> bool:
        """Whether there are enough, and none is too long."""
        characters = sum(length * count for length, count in self.lengths.items())
        is_small = max(self.lengths, default=0) <= LARGEST_SHARE * characters
        return self.lengths.total() >= at_least and is_small


def _choice(tallies: Mapping[Rule, _Tally], at_least: int) -> Rule:
    """The rule for a text in which nothing but `%`, blank lines and line ends can separate."""
    if tallies[PERCENT_LINES].are_documents(2):
        return PERCENT_LINES
    for rule in (TWO_BLANK_LINES, BLANK_LINES):
        if rule in tallies and tallies[rule].are_documents(at_least):
            return rule
    if LINES in tallies and tallies[LINES].are_documents(at_least):
        lengths = tallies[LINES].lengths
        is_wrapped = quantile(lengths, 0.5) >= WRAPPED * quantile(lengths, 0.95)
        if not is_wrapped and tallies[BLANK_LINES].lengths.total() * RARE <= lengths.total():
            return LINES
    return FILE


def quantile(lengths: Lengths, share: float) -> int:
    """The length that this share of the documents does not exceed; 0 if there are none."""
    rank = share * lengths.total()
    for length in sorted(lengths):
        rank -= lengths[length]
        if rank <= 0:
            return length
    return 0


def describe_lengths(lengths: Lengths) -> str:
    """E.g., "shortest 12, median 80, longest 900 characters"."""
    shortest, longest = min(lengths), max(lengths)
    if lengths.total() == 1:
        return f"{longest:,} characters"
    return (
        f"shortest {shortest:,}, median {quantile(lengths, 0.5):,}, longest {longest:,} characters"
    )


def _words(rules: Mapping[DocumentFile, Rule], *, alone: bool) -> str:
    by_rule = Counter(rules.values())
    if alone and FILE in by_rule:
        return "nothing separates documents"
    others = [rule for rule, _ in by_rule.most_common() if rule is not FILE]
    if FILE not in by_rule or not others:
        return ", ".join(rule.words for rule in by_rule)
    exceptions = [f"in {by_rule[rule]:,} of them {rule.words}" for rule in others]
    return f"{FILE.words}, but {', '.join(exceptions)}"


def _notes(
    texts: Mapping[DocumentFile, _DividedText], division: Division, separator: str
) -> Iterator[str]:
    """What the user should know of the rules and of the documents that they give."""
    lengths = Lengths()
    marks = Counter[str]()
    for text in texts.values():
        lengths.update(text.lengths)
        marks.update(text.marks)
    if not lengths:
        return
    count = "1 document" if lengths.total() == 1 else f"{lengths.total():,} documents"
    yield f"{division.words}: {count}, {describe_lengths(lengths)}"
    yield from _note_on_marks(marks, separator)
    file_by_rule = {rule: file for file, rule in division.rules.items() if rule is not FILE}
    for rule, file in file_by_rule.items():
        yield from _note_on_boundaries(file, rule)
    if division.unit is not None:
        one = f"one {division.unit}"
        goes_on = "`sample --ignore-eos` goes on"
        yield f"each document is {one}, so a generated text ends after {one}; {goes_on}"
    if separator == "auto":
        other = "file" if file_by_rule else "blank_lines"
        yield f"to divide the text otherwise, e.g., `--set data.separator={other}`"


def _note_on_marks(marks: Counter[str], separator: str) -> Iterator[str]:
    if separator not in ("auto", END_OF_TEXT.name) and marks.total():
        yield (
            f"`{MARK}` stays in the text as it is, {marks.total():,} times; "
            "`--set data.separator=end_of_text` divides the text there"
        )
    elif marks["inside"]:
        yield (
            f"`{MARK}` separates documents wherever it stands: on a line of its own "
            f"({marks['alone']:,}) and inside a line ({marks['inside']:,})"
        )


def _note_on_boundaries(file: DocumentFile, rule: Rule) -> Iterator[str]:
    first = list(islice(documents(file, rule), 3))
    shown = [f"{before[-SHOWN:]!r} | {after[:SHOWN]!r}" for before, after in pairwise(first)]
    if shown:
        yield f"first boundaries: {' and '.join(shown)}"
