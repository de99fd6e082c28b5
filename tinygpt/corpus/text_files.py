"""Text files as documents: the rules by which a text is divided. division.py chooses one.

Of a text, a document loses the blank lines at its ends and its last line end, and nothing else.
"""

import io
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

from tinygpt.corpus.decoding import lines
from tinygpt.corpus.files import DocumentFile

MARK = "<|endoftext|>"

Step = Literal["join", "begin", "separate"]


class Piece(NamedTuple):
    """A line that is not blank, or a part of one beside a mark.

    Args:
        white: the line end and the blank lines before it.
        text: without its line end.
        blank_lines: how many come before it.
        marked: whether a mark comes before it.
    """

    white: str
    text: str
    blank_lines: int
    marked: bool


class Rule(NamedTuple):
    """How a text is divided.

    Args:
        name: a value of `data.separator`, or a short name where none means the same.
        words: what the rule says.
        step: whether a piece joins the document before it, begins one, or stands between two.
        unit: what a document is, where it is but a small part of a text.
        pattern: the regular expression that separates documents, where one does.
    """

    name: str
    words: str
    step: Callable[[Piece], Step]
    unit: str | None = None
    pattern: re.Pattern[str] | None = None


def _begins(is_start: Callable[[Piece], bool]) -> Callable[[Piece], Step]:
    return lambda piece: "begin" if is_start(piece) else "join"


END_OF_TEXT = Rule(
    "end_of_text", f"`{MARK}` separates documents", _begins(lambda piece: piece.marked)
)
CHESS_GAMES = Rule(
    "chess_games",
    'a line that begins with `[Event "` begins a document',
    _begins(lambda piece: piece.text.startswith('[Event "')),
)
PERCENT_LINES = Rule(
    "percent_lines",
    "a line `%` separates documents",
    lambda piece: "separate" if piece.text.strip() == "%" else "join",
)
TWO_BLANK_LINES = Rule(
    "two_blank_lines",
    "two or more blank lines separate documents",
    _begins(lambda piece: piece.blank_lines >= 2),
)
BLANK_LINES = Rule(
    "blank_lines",
    "blank lines separate documents",
    _begins(lambda piece: piece.blank_lines >= 1),
    unit="paragraph",
)
LINES = Rule("lines", "each line is a document", lambda piece: "begin", unit="line")
FILE = Rule("file", "each file is one document", lambda piece: "join")

_NAMED = {rule.name: rule for rule in (END_OF_TEXT, BLANK_LINES, LINES, FILE)}


def named_rule(separator: str) -> Rule:
    """The rule of a value of `data.separator` other than auto."""
    if separator in _NAMED:
        return _NAMED[separator]
    pattern = re.compile(separator.removeprefix("regex:"), re.MULTILINE)
    return FILE._replace(
        name=separator, words=f"`{pattern.pattern}` separates documents", pattern=pattern
    )


def documents(file: DocumentFile, rule: Rule) -> Iterator[str]:
    """The documents of a text file; none is blank.

    One document is in memory at a time; with a regular expression, the file.

    Raises:
        InputError: the file is not UTF-8.
    """
    if rule.pattern is None:
        yield from _divided(lines(file), rule)
        return
    text = "".join(lines(file))
    start = 0
    for match in rule.pattern.finditer(text):
        yield from _divided(io.StringIO(text[start : match.start()]), FILE)
        start = match.end()
    yield from _divided(io.StringIO(text[start:]), FILE)


def _divided(text: Iterable[str], rule: Rule) -> Iterator[str]:
    """The documents in the lines of a text."""
    document: list[str] = []
    for piece in pieces(text, marks=rule is END_OF_TEXT):
        step = rule.step(piece)
        if step != "join" and document:
            yield "".join(document)
            document = []
        if step != "separate":
            document += [piece.white, piece.text] if document else [piece.text]
    if document:
        yield "".join(document)


def pieces(text: Iterable[str], *, marks: bool) -> Iterator[Piece]:
    """The lines of a text that are not blank; with `marks`, cut where MARK stands."""
    white = ""
    blank_lines = 0
    marked = False
    for line in text:
        for number, part in enumerate(line.split(MARK) if marks else [line]):
            marked = marked or number > 0
            content = part.removesuffix("\n")
            line_end = part[len(content) :]
            if content.strip():
                yield Piece(white, content, blank_lines, marked)
                white = line_end
                blank_lines = 0
                marked = False
            else:
                white += part
                blank_lines += len(line_end)
