"""Text files: what each rule takes for a document, and that nothing else of a text is lost."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.corpus.reading import read, write
from tinygpt.config.source import SEPARATORS
from tinygpt.corpus import text_files
from tinygpt.corpus.files import DocumentFile
from tinygpt.corpus.text_files import MARK, Rule, named_rule

RULES = {
    **{name: named_rule(name) for name in SEPARATORS if name != "auto"},
    "two_blank_lines": text_files.TWO_BLANK_LINES,
    "chess_games": text_files.CHESS_GAMES,
    "percent_lines": text_files.PERCENT_LINES,
    "regex": named_rule("regex:^%$"),
}
SEPARATORS_OF_RULES = {
    "end_of_text": re.escape(MARK),
    "percent_lines": r"%(?=[^\S\n]*(?:\n|\Z))",
    "regex": r"(?<![^\n])%(?=\n|\Z)",
}
"""What a rule takes out of a text, as a pattern; other rules take out nothing but blank lines."""


def documents_of(folder, text: str | bytes, rule: Rule) -> list[str]:
    path = write(folder / "any.txt", text)
    return list(text_files.documents(DocumentFile(path, "any.txt", ".txt"), rule))


@pytest.mark.parametrize(
    ("separator", "text", "expected"),
    [
        ("end_of_text", "a\n\nb\n<|endoftext|>\nc\n", ["a\n\nb", "c"]),
        ("end_of_text", "A cat.\n<|endoftext|>\nA dog.<|endoftext|>A cow.\n", None),
        ("end_of_text", " <|endoftext|> \n<|endoftext|>\na\n\n<|endoftext|>\n\n", ["a"]),
        ("end_of_text", "a <|endoftext|> b", ["a ", " b"]),
        ("end_of_text", "no mark", ["no mark"]),
        ("blank_lines", "a\nb\n\nc\n \t\n\n\nd", ["a\nb", "c", "d"]),
        ("blank_lines", "\n\n  a\n    b\n\n", ["  a\n    b"]),
        ("lines", "a\n\n  b\n\tc \n", ["a", "  b", "\tc "]),
        ("file", "\n \n  a\n\n\n  b \n\n", ["  a\n\n\n  b "]),
        ("file", "a <|endoftext|> b", ["a <|endoftext|> b"]),
        ("regex:^%$", "a\n\nb\n%\nc\n50 %\n%\n%\n", ["a\n\nb", "c\n50 %"]),
        ("regex:(?=^CHAPTER )", "front\nCHAPTER 1\na\nCHAPTER 2\nb", None),
        ("regex:\\n{3,}", "a\n\nb\n\n\nc", ["a\n\nb", "c"]),
        ("regex:x", "\n\n", []),
    ],
)
def test_a_separator_divides_a_text(tmp_path, separator, text, expected):
    special = {
        "A cat.": ["A cat.", "A dog.", "A cow."],
        "front": ["front", "CHAPTER 1\na", "CHAPTER 2\nb"],
    }
    found = read(write(tmp_path / "a.txt", text), separator=separator)
    assert found == (special[text.splitlines()[0]] if expected is None else expected)


def test_a_chess_game_keeps_its_header(tmp_path):
    games = [f'[Event "{n}"]\n[Site "?"]\n\n1. e4 e5 {{[Event "x"]}}\n2. Nf3 *' for n in range(3)]
    text = "\n\n\n" + "\n\n".join(games) + "\n\n"
    assert documents_of(tmp_path, text, text_files.CHESS_GAMES) == games


def test_indentation_is_kept_and_blank_lines_at_the_ends_are_not(tmp_path):
    poem = "    Shall I compare thee\n  to a summer's day?"
    chinese = "\u3000\u3000从前有一座山。"
    code = "\tif a:\n\t\treturn b"
    for document in (poem, chinese, code):
        text = f" \n\n{document}\n\n{MARK}\n\u3000\n{document}\n\n\t\n"
        assert documents_of(tmp_path, text, text_files.END_OF_TEXT) == [document, document]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("line_end", ["\r\n", "\r"])
def test_every_line_end_is_read_as_a_line_feed(tmp_path, rule, line_end):
    text = f'[Event "1"]\na\n\n\n[Event "2"]\nb\n%\n{MARK}\nc \u2028 \x85 \x0b d\n'
    as_lines = documents_of(tmp_path, text, RULES[rule])
    assert documents_of(tmp_path, text.replace("\n", line_end), RULES[rule]) == as_lines


@pytest.mark.parametrize("rule", RULES)
def test_byte_order_marks_of_joined_files_are_dropped(tmp_path, rule):
    text = '\ufeff[Event "1"]\na\ufeffb\n%\n\n\n\ufeff\ufeffc\n'
    expected = documents_of(tmp_path, '[Event "1"]\na\ufeffb\n%\n\n\nc\n', RULES[rule])
    assert documents_of(tmp_path, text, RULES[rule]) == expected


PIECES = st.sampled_from(
    [
        *("a", "B c", "é🙂", "%", '[Event "', MARK, "<|"),
        *("\n", "\n", "\n\n", "\r\n", "\r", " ", "\t", "\u3000", "\x0c", "\x85", "\u2028"),
    ]
)


@pytest.mark.parametrize("name", RULES)
@given(st.lists(PIECES, max_size=30).map("".join))
@example("\n  a\n\n b \n")
@example(f"{MARK}a{MARK} \n{MARK}\n")
@example(f"{MARK}<|")
def test_a_text_is_its_documents_and_what_separates_them(tmp_path_factory, name, text):
    documents = documents_of(tmp_path_factory.getbasetemp(), text, RULES[name])
    normalized = re.sub("\r\n|\r", "\n", text)
    end_of_line = rf"(\n|{SEPARATORS_OF_RULES[name]})" if name in SEPARATORS_OF_RULES else r"\n"
    blank_lines = rf"([^\S\n]*{end_of_line})*"
    gap = blank_lines
    position = 0
    for document in documents:
        assert document.strip()
        before = re.compile(gap).match(normalized, position)
        assert before is not None
        assert normalized.startswith(document, before.end())
        gap = end_of_line + blank_lines
        position = before.end() + len(document)
    assert re.fullmatch(rf"({gap})?[^\S\n]*", normalized[position:])


ANY_LINES = st.text(
    st.characters(
        exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff", include_characters="\t\n"
    )
)


def is_a_document(text: str) -> bool:
    lines = text.split("\n")
    return MARK not in text and bool(lines[0].strip()) and bool(lines[-1].strip())


@given(st.lists(ANY_LINES.filter(is_a_document)))
@example(["  indented", "an <|end"])
def test_any_documents_come_back_from_text(tmp_path_factory, documents):
    text = "\ufeff" + "".join(f"{document}\n<|endoftext|>\n" for document in documents)
    folder = tmp_path_factory.getbasetemp()
    assert documents_of(folder, text, text_files.END_OF_TEXT) == documents
