"""How `data.separator` = auto divides texts of many kinds, and what is reported."""

import random
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.corpus.notes import Notes
from tests.corpus.reading import read, write
from tinygpt.config.source import SEPARATORS
from tinygpt.corpus import files
from tinygpt.corpus.division import Lengths, describe_lengths, divide, quantile
from tinygpt.corpus.text_files import MARK, named_rule
from tinygpt.errors import InputError

WORDS = ("the", "a", "cat", "dog", "sat", "ran", "of", "in", "tree", "house", "was", "old", "sea")


def sentences(count: int, seed: int = 0, words: tuple[int, int] = (3, 25)) -> list[str]:
    rng = random.Random(seed)
    return [
        " ".join(rng.choices(WORDS, k=rng.randint(*words))).capitalize() + "." for _ in range(count)
    ]


def wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 70))


SPEECHES = [f"Speaker {n % 7}:\n{line}" for n, line in enumerate(sentences(300))]
VERSES = sentences(192)
STANZAS = ["  " + "\n".join(VERSES[first : first + 4]) for first in range(0, 192, 4)]
POEMS = ["\n\n".join(STANZAS[first : first + 4]) for first in range(0, 48, 4)]
PARAGRAPHS = [wrapped(" ".join(sentences(8, seed))) for seed in range(240)]
CHAPTERS = [f"CHAPTER {n}\n\n" + "\n\n".join(PARAGRAPHS[n::12]) for n in range(12)]
MESSAGES = [
    f"[12:{n % 60:02d}] {'Ann' if n % 3 else 'Bob'}: {s}" for n, s in enumerate(sentences(400))
]
DNA = "".join(random.Random(1).choices("ACGT", k=20_000))
GAMES = [f'[Event "Cup"]\n[Round "{n}"]\n\n1. e4 e5 2. Nf3 Nc6 1-0' for n in range(4)]
QUOTES = [f"{line}\n\t\t-- {n}" for n, line in enumerate(sentences(90))]
CHINESE = [
    "　　" + "".join(random.Random(n).choices("的一是山水火木人", k=5 + n % 60)) for n in range(300)
]

KINDS: dict[str, tuple[str, str, int]] = {
    "20 lines": ("\n".join(sentences(20)), "file", 1),
    "20 paragraphs": ("\n\n".join(sentences(20)), "file", 1),
    "12 poems": ("\n\n".join(POEMS), "file", 1),
    "12 poems, two blank lines between": ("\n\n\n".join(POEMS), "file", 1),
    "plays": ("\n\n".join(SPEECHES), "blank_lines", 300),
    "150 stories of paragraphs": (
        "\n\n\n".join("\n\n".join(SPEECHES[n : n + 2]) for n in range(0, 300, 2)),
        "two_blank_lines",
        150,
    ),
    "a novel": ("\n\n\n".join(CHAPTERS), "blank_lines", 252),
    "a chat log": ("\n".join(MESSAGES), "lines", 400),
    "a chat log in four days": (
        "\n\n".join("\n".join(MESSAGES[day::4]) for day in range(4)),
        "lines",
        400,
    ),
    "Chinese": ("\n".join(CHINESE), "lines", 300),
    "names": ("\n".join(word * (1 + n % 3) for n, word in enumerate(WORDS * 30)), "lines", 390),
    "wrapped prose without blank lines": (wrapped(" ".join(sentences(400))), "file", 1),
    "verse without blank lines": ("\n".join(sentences(400, words=(8, 8))), "file", 1),
    "DNA on one line": (DNA, "file", 1),
    "DNA in lines": (">chr1\n" + "\n".join(textwrap.wrap(DNA, 60)), "file", 1),
    "a text of which one paragraph is half": (
        "\n\n".join([*SPEECHES[:150], "\n".join(SPEECHES[150:])]),
        "file",
        1,
    ),
    "quotes": ("\n%\n".join(QUOTES) + "\n%\n", "percent_lines", 90),
    "TeX with a few comments": ("%\n" + "\n%\n".join(CHAPTERS), "blank_lines", 241),
    "chess": ("\n\n".join(GAMES), "chess_games", 4),
    "a text that quotes a game": ("An example:\n" + "\n\n".join(GAMES), "file", 1),
    "40 stories": (f"\n{MARK}\n".join(SPEECHES[:40]), "end_of_text", 40),
    "two texts": (f"{POEMS[0]}{MARK}\n{POEMS[1]}", "end_of_text", 2),
}


def divided(path: Path, text: str, reporter: Notes | None = None) -> tuple[str, list[str]]:
    """The name of the rule that `auto` chooses, and the documents."""
    found = files.find(str(write(path, text)))
    (rule,) = divide(found, "auto", reporter or Notes()).rules.values()
    return rule.name, read(path)


@pytest.mark.parametrize("kind", KINDS)
def test_auto_finds_the_documents_of_many_kinds_of_text(tmp_path, kind):
    text, name, count = KINDS[kind]
    found, documents = divided(tmp_path / "a.txt", text)
    assert (found, len(documents)) == (name, count)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if MARK not in KINDS[kind][0]])
@pytest.mark.parametrize("stray", ["\n\n", "\n\n\n\n", "%\n", "x" * 90 + "\n", '[Event "\n'])
def test_one_stray_line_does_not_change_the_rule(tmp_path, kind, stray):
    text, name, _ = KINDS[kind]
    lines = text.splitlines(keepends=True)
    lines.insert(len(lines) // 2 or 1, stray)
    assert divided(tmp_path / "a.txt", "".join(lines))[0] == name


def test_every_separator_has_its_rule():
    assert [named_rule(name).name for name in SEPARATORS if name != "auto"] == list(SEPARATORS[1:])


def test_fewer_documents_are_enough_where_the_caller_says_so(tmp_path):
    found = files.find(str(write(tmp_path / "a.txt", "\n\n".join(SPEECHES[:40]))))
    (rule,) = divide(found, "auto", Notes(), at_least=20).rules.values()
    assert rule.name == "blank_lines"


# Several files


def test_each_of_several_files_is_one_document_unless_it_says_where_documents_end(tmp_path):
    write(tmp_path / "1.md", KINDS["plays"][0])
    write(tmp_path / "2.md", "Another.")
    write(tmp_path / "3.txt", f"One.{MARK}Two.")
    write(tmp_path / "4.pgn", KINDS["chess"][0])
    write(tmp_path / "5", KINDS["quotes"][0])
    reporter = Notes()
    texts = read(tmp_path, reporter=reporter)
    assert texts == [KINDS["plays"][0], "Another.", "One.", "Two.", *GAMES, *QUOTES]
    assert reporter.notes[0].startswith(
        "each file is one document, but in 1 of them `<|endoftext|>` separates documents, "
        'in 1 of them a line that begins with `[Event "` begins a document, '
        "in 1 of them a line `%` separates documents: 98 documents, shortest "
    )


def test_a_separator_that_is_set_divides_each_of_several_files(tmp_path):
    write(tmp_path / "a.md", "one\n\ntwo")
    write(tmp_path / "b.jsonl", '{"text": "three\\n\\nfour"}')
    write(tmp_path / "c.txt", "five\n\nsix")
    texts = read(tmp_path, separator="blank_lines")
    assert texts == ["one", "two", "three\n\nfour", "five", "six"]


# Notes


def test_the_rule_is_reported_with_lengths_boundaries_and_what_it_means(tmp_path):
    reporter = Notes()
    divided(tmp_path / "a.txt", "\n\n".join(["First speech,\nfirst.", *SPEECHES[1:]]), reporter)
    lengths = sorted(map(len, ["First speech,\nfirst.", *SPEECHES[1:]]))
    first, second, third = "First speech,\nfirst.", *SPEECHES[1:3]
    assert reporter.notes == [
        f"blank lines separate documents: 300 documents, shortest {lengths[0]}, "
        f"median {lengths[149]}, longest {lengths[-1]} characters",
        f"first boundaries: {first!r} | {second[:30]!r} and {second[-30:]!r} | {third[:30]!r}",
        "each document is one paragraph, so a generated text ends after one paragraph; "
        "`sample --ignore-eos` goes on",
        "to divide the text otherwise, e.g., `--set data.separator=file`",
    ]


def test_one_document_is_reported_with_the_flag_that_divides_it(tmp_path):
    reporter = Notes()
    divided(tmp_path / "a.txt", "Once.\n\nThe end.\n", reporter)
    assert reporter.notes == [
        "nothing separates documents: 1 document, 15 characters",
        "to divide the text otherwise, e.g., `--set data.separator=blank_lines`",
    ]


def test_a_mixture_of_separators_on_lines_and_inside_is_reported(tmp_path):
    reporter = Notes()
    text = "A cat.\n<|endoftext|>\nA dog.<|endoftext|>A cow.\n"
    assert divided(tmp_path / "a.txt", text, reporter) == (
        "end_of_text",
        ["A cat.", "A dog.", "A cow."],
    )
    assert (
        "`<|endoftext|>` separates documents wherever it stands: on a line of its own (1) "
        "and inside a line (1)"
    ) in reporter.notes


@pytest.mark.parametrize("separator", ["file", "lines", "regex:^%$"])
def test_marks_that_stay_in_the_text_are_reported(tmp_path, separator):
    reporter = Notes()
    path = write(tmp_path / "a.txt", f"one\n{MARK}\ntwo {MARK}")
    assert MARK in "".join(read(path, separator=separator, reporter=reporter))
    assert any("`<|endoftext|>` stays in the text as it is, 2 times" in n for n in reporter.notes)


def test_a_text_without_documents_is_not_reported(tmp_path):
    reporter = Notes()
    assert read(write(tmp_path / "a.txt", "\n \n"), reporter=reporter) == []
    assert reporter.notes == []


def test_a_text_is_not_held_in_memory_to_find_its_documents(tmp_path):
    import tracemalloc

    peaks = []
    for count in (20_000, 100_000):
        path = write(tmp_path / f"{count}.txt", "\n".join(MESSAGES * (count // 400)))
        found = files.find(str(path))
        tracemalloc.start()
        divide(found, "auto", Notes())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000  # the second file has 7 MB


def test_a_damaged_file_is_refused_with_its_name(tmp_path):
    path = write(tmp_path / "a.txt.gz", "Once. " * 1_000)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"cannot read `a\.txt\.gz`"):
        divide(files.find(str(path)), "auto", Notes())


# Lengths


@given(st.lists(st.integers(1, 50), min_size=1), st.sampled_from([0.05, 0.5, 0.95, 1.0]))
def test_a_quantile_is_the_first_length_that_the_share_does_not_exceed(lengths, share):
    found = quantile(Lengths(lengths), share)
    ordered = sorted(lengths)
    assert found in ordered
    assert sum(length <= found for length in ordered) >= share * len(ordered)
    assert sum(length < found for length in ordered) < share * len(ordered)


def test_lengths_are_described_by_shortest_median_and_longest():
    words = "shortest 1, median 20, longest 3,000 characters"
    assert describe_lengths(Lengths([3_000, 20, 1])) == words
    assert describe_lengths(Lengths([3_000])) == "3,000 characters"
