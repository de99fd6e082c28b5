"""Files: which are found, how each format is read, what is said of bad ones, and fingerprints."""

import gzip
import io
import json
import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.corpus.notes import Notes
from tinygpt.corpus import files, readers
from tinygpt.errors import InputError
from tinygpt.progress import Reporter, SilentReporter


def read(path: Path | str, field: str = "text", reporter: Reporter | None = None) -> list[str]:
    found = files.find(str(path))
    return list(readers.documents(found, field, reporter or SilentReporter()))


def write(path: Path, data: str | bytes) -> Path:
    """Write a file, compressed if its name ends in .gz."""
    content = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def parquet(**columns: list) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


# Formats


def json_lines(texts: list[str], **options: bool) -> str:
    return "\n".join(json.dumps({"text": text}, **options) for text in texts)


def csv(texts: list[str]) -> str:
    quoted = [text.replace('"', '""') for text in texts]
    return "n,text\n" + "\n".join(f'1,"{text}"' for text in quoted)


TEXTS = ["Once.\n\nA second paragraph.", 'Said "two", then left.', "ünï \U0001f600 \x00 end"]
FORMS = {
    "a.txt": "\n<|endoftext|>\n".join(TEXTS),
    "a.jsonl": "\n".join(json.dumps({"n": 1, "text": text}) for text in TEXTS) + "\n\n",
    "strings.jsonl": "\n".join(json.dumps(text) for text in TEXTS),
    "lines.json": json_lines(TEXTS),
    "array.json": json.dumps([{"text": text} for text in TEXTS], indent=1),
    "bom.jsonl": "\ufeff" + json_lines(TEXTS, ensure_ascii=False),
    "a.csv": csv(TEXTS),
    "a.parquet": parquet(text=TEXTS, n=[1, 2, 3]),
}


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("name", FORMS)
def test_every_format_gives_the_same_documents_packed_or_not(tmp_path, name, packed):
    assert read(write(tmp_path / f"{name}{packed}", FORMS[name])) == TEXTS


def test_a_folder_and_a_glob_of_mixed_formats_are_read_in_the_order_of_their_names(tmp_path):
    (tmp_path / "b").mkdir()
    write(tmp_path / "b" / "1.txt", "third")
    write(tmp_path / "a.jsonl", '{"text": "first"}')
    write(tmp_path / "a.txt.gz", "second")
    write(tmp_path / "z.CSV", "text\nfourth\n")
    write(tmp_path / "notes.md", "not a document")
    write(tmp_path / ".hidden.txt", "not a document")
    assert read(tmp_path) == ["first", "second", "third", "fourth"]
    assert read(tmp_path / "**" / "*.[tC][xS]*") == ["second", "third", "fourth"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a [1] {b} #?*c é.csv", "text\nhere\n"),
        ("a [1] {b} #?*c é.jsonl", '{"text": "here"}'),
        ("-.parquet", parquet(text=["here"])),
    ],
)
def test_a_name_full_of_special_characters_is_a_name(tmp_path, name, content):
    assert read(write(tmp_path / name, content)) == ["here"]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv", "a.parquet", "a.txt.gz"])
def test_an_empty_file_holds_no_document(tmp_path, name):
    assert read(write(tmp_path / name, b"")) == []


def test_nulls_and_empty_cells_are_empty_documents(tmp_path):
    assert read(write(tmp_path / "a.jsonl", '{"text": null}\n{"text": ""}\n')) == ["", ""]
    assert read(write(tmp_path / "a.csv", "n,text\n1,\n2,NA\n")) == ["", "NA"]
    assert read(write(tmp_path / "a.parquet", parquet(text=["a", None]))) == ["a", ""]


def test_a_text_that_looks_like_a_date_stays_text(tmp_path):
    assert read(write(tmp_path / "a.jsonl", '{"text": "2020-01-01"}\n')) == ["2020-01-01"]


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.jsonl", '{"story": "a", "text": 1}'), ("a.csv", "text,story\n1,a\n")],
)
def test_another_field_can_be_named(tmp_path, name, data):
    assert read(write(tmp_path / name, data), field="story") == ["a"]


# Where documents end in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\n\nb\n<|endoftext|>\nc\n", ["a\n\nb", "c"]),
        (
            " <|endoftext|> \na\n<|endoftext|>\n<|endoftext|>\nb\n<|endoftext|>\n\n",
            ["", "a", "", "b"],
        ),
    ],
)
def test_a_separator_line_ends_documents_and_nothing_is_noted(tmp_path, text, expected):
    reporter = Notes()
    assert read(write(tmp_path / "a.txt", text), reporter=reporter) == expected
    assert reporter.notes == []


@pytest.mark.parametrize(
    ("text", "expected", "rule"),
    [
        ("an inline <|endoftext|> is text", ["an inline <|endoftext|> is text"], "is one document"),
        ("a\n\nb\n\n\nc\n\nd\n", ["a\n\nb", "c\n\nd"], "two or more blank lines end"),
        ("a\n\n\n\n\nb", ["a", "b"], "two or more blank lines end"),
        ("a\nb\n\nc\n\nd", ["a\nb", "c", "d"], "each blank line ends"),
        ("\n\n\na\n\nb\n\n\n\n", ["a", "b"], "each blank line ends"),
        ("a\n \t\n\n  \n\nb", ["a", "b"], "two or more blank lines end"),
        ("a\nb", ["a\nb"], "is one document"),
        ("\n\n \n", [], "is one document"),
        ("\ufeffa\r\nb\r\n\r\nc\r\n", ["a\nb", "c"], "each blank line ends"),
    ],
)
def test_without_separators_documents_end_where_the_note_says(tmp_path, text, expected, rule):
    reporter = Notes()
    assert read(write(tmp_path / "a.txt", text), reporter=reporter) == expected
    assert len(reporter.notes) == 1
    assert rule in reporter.notes[0]


ANY_LINES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"))


def has_no_separator_line(text: str) -> bool:
    return all(line.strip() != readers.SEPARATOR for line in text.split("\n"))


@given(st.lists(ANY_LINES.map(str.strip).filter(bool).filter(has_no_separator_line)))
@example(["\ufeff is text, too", "an inline <|endoftext|> is text"])
def test_any_documents_come_back_from_text(tmp_path_factory, documents):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    write(path, "\ufeff" + "".join(f"{document}\n<|endoftext|>\n" for document in documents))
    assert read(path) == documents


# Bad input: always an InputError that names the file, and the line where there are lines

BAD_TEXT = {
    "latin.txt": (
        b"fine\ncaf\xe9\n",
        r"`latin.txt`, line 2: not UTF-8 \(byte 0xe9 at position 4\)",
    ),
    "latin.jsonl": (b'{"text": "a"}\n{"text": "caf\xe9"}\n', r"`latin.jsonl`, line 2: not UTF-8"),
    "latin.csv": (b"text\nfine\ncaf\xe9\n", r"`latin.csv` cannot be read as csv: 'utf-8' codec"),
    "utf16.txt": ("a story".encode("utf-16"), r"line 1: not UTF-8"),
}
BAD_JSON = {
    "bad.jsonl": (
        '{"text": "a"}\n\n{"text": "b"\n',
        r"`bad.jsonl`, line 3: not valid JSON: Expecting ',' delimiter",
    ),
    "tail.jsonl": ('{"text": "a"} x\n', r"line 1: not valid JSON: Extra data"),
    "deep.jsonl": (
        '"a"\n{"text": ' + "[" * 100_000 + "]" * 100_000 + "}",
        r"line 2: not valid JSON: maximum recursion",
    ),
    "deep.json": ("[" * 200_000, r"`deep.json`: not valid JSON: maximum recursion"),
    "digits.jsonl": ('{"text": ' + "1" * 10_000 + "}", r"line 1: not valid JSON"),
    "bad.json": (
        '[{"text": "a"},\n{"text": }]',
        r"`bad.json`: not valid JSON: Expecting value: line 2",
    ),
}
BAD_FIELDS = {
    "field.jsonl": (
        '{"text": "a"}\n{"title": "b", "n": 1}\n',
        r"line 2: no field `text`; fields present: `title`, `n`",
    ),
    "field.json": (
        '[{"text": "a"}, {"title": "b"}]',
        r"record 2: no field `text`; fields present: `title`",
    ),
    "field.csv": (
        "title,n\na,1\n",
        r"`field.csv`: no field `text`; fields present: `title`, `n`|row 1: no field `text`",
    ),
    "field.parquet": (
        parquet(title=["a"]),
        r"`field.parquet`: no field `text`; fields present: `title`",
    ),
    "number.jsonl": (
        '{"text": "a"}\n{"text": 5, "title": "b"}\n',
        r"line 2: the field `text` holds 5, not text",
    ),
    "list.jsonl": ('{"text": ["a"]}', r"line 1: the field `text` holds \['a'\], not text"),
    "row.jsonl": ("[1, 2]\n", r"line 1: expected an object with the field `text`, found \[1, 2\]"),
    "number.csv": ("text\n5\n6\n", r"row 1: the field `text` holds 5, not text"),
    "number.parquet": (parquet(text=[5]), r"row 1: the field `text` holds 5, not text"),
    "bytes.parquet": (parquet(text=[b"\xff"]), r"row 1: the field `text` holds b'.xff', not text"),
}
BAD_TABLES = {
    "ragged.csv": ("text\na\nb,c,d\n", r"`ragged.csv` cannot be read as csv: .*line 3"),
    "open.csv": ('text\n"a\n', r"`open.csv` cannot be read as csv"),
    "junk.parquet": (
        b"PAR1 junk PAR1",
        r"`junk.parquet` cannot be read as parquet|cannot read `junk.parquet`",
    ),
}
BAD = {**BAD_TEXT, **BAD_JSON, **BAD_FIELDS, **BAD_TABLES}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_its_file_and_line(tmp_path, name):
    data, message = BAD[name]
    with pytest.raises(InputError, match=message):
        read(write(tmp_path / name, data))


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz", "a.csv.gz"])
def test_a_damaged_gzip_file_is_refused_with_its_name(tmp_path, name):
    path = write(tmp_path / name, FORMS[name.removesuffix(".gz")])
    whole = path.read_bytes()
    cut_off = whole[:-9]
    overwritten = whole[:20] + b"\0\0\0\0" + whole[24:]
    for damaged in (cut_off, overwritten, b"no gzip at all"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=name):
            read(path)


# Finding


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", "contains no text file"),
        ("story.docx", "is not a text file"),
        ("storys.txt", "does not exist"),
        ("*.csv", "does not exist"),
    ],
)
def test_a_source_without_text_files_is_refused_with_the_formats_that_are_read(
    tmp_path, name, message
):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "story.docx", "a")
    with pytest.raises(InputError, match=message) as caught:
        files.find(str(tmp_path / name))
    assert ".txt, .jsonl" in str(caught.value.hint)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(InputError, match="is not a text file"):
        files.find(str(tmp_path / "pipe.txt"))


# Fingerprints


def fingerprint(path: Path | str) -> str:
    return files.fingerprint(files.find(str(path)))


def test_the_fingerprint_of_a_file_depends_on_its_bytes_and_format_but_not_its_name(tmp_path):
    first = fingerprint(write(tmp_path / "a.txt", "one"))
    assert fingerprint(write(tmp_path / "b.txt", "one")) == first
    assert fingerprint(write(tmp_path / "a.jsonl", "one")) != first
    assert fingerprint(write(tmp_path / "a.txt", "two")) != first
    os.utime(tmp_path / "b.txt", (1, 1))
    assert fingerprint(tmp_path / "b.txt") == first


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two files, one of them in a subfolder."""
    path = tmp_path / "here"
    (path / "sub").mkdir(parents=True)
    write(path / "a.txt", "one")
    write(path / "sub" / "b.txt", "two")
    return path


def test_a_folder_and_a_glob_of_its_files_have_the_same_fingerprint(folder):
    assert fingerprint(folder / "**" / "*.txt") == fingerprint(folder)


def test_moving_a_folder_keeps_its_fingerprint(folder, tmp_path):
    first = fingerprint(folder)
    assert fingerprint(folder.rename(tmp_path / "there")) == first


def test_renaming_or_changing_a_file_in_a_folder_changes_its_fingerprint(folder):
    first = fingerprint(folder)
    (folder / "a.txt").rename(folder / "c.txt")
    assert fingerprint(folder) != first
    (folder / "c.txt").rename(folder / "a.txt")
    assert fingerprint(folder) == first
    write(folder / "sub" / "b.txt", "TWO")
    assert fingerprint(folder) != first


# Standard input


@pytest.fixture
def stdin(monkeypatch):
    """Gives bytes to standard input, which is read once per process."""

    def give(data: bytes) -> None:
        files._standard_input.cache_clear()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    yield give
    files._standard_input.cache_clear()


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_standard_input_is_read_as_text_or_json_lines(stdin, name):
    stdin(FORMS[name].encode())
    assert read("-") == TEXTS


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_standard_input_that_was_read_has_the_fingerprint_of_a_file(stdin, tmp_path, name):
    stdin(FORMS[name].encode())
    read("-")
    assert fingerprint("-") == fingerprint(write(tmp_path / name, FORMS[name]))


def test_a_terminal_is_refused_instead_of_waited_for(monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    with pytest.raises(InputError, match="is a terminal"):
        files.find("-")
