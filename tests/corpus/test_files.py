"""Files of stories: which are found, what their fingerprint depends on, how each format is read, what is said of bad ones."""

import gzip
import io
import json
import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt.corpus import files, readers
from tinygpt.errors import InputError
from tinygpt.report import SilentReport


class Notes(SilentReport):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def read(path: Path | str, field: str = "text", report: SilentReport | None = None) -> list[str]:
    return list(readers.stories(files.find(str(path)), field, report or SilentReport()))


def write(path: Path, data: str | bytes) -> Path:
    data = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


TEXTS = ["Once.\n\nA second paragraph.", 'Said "two", then left.', "ünï \U0001f600 \x00 end"]
FORMS = {
    "a.txt": "\n<|endoftext|>\n".join(TEXTS),
    "a.jsonl": "\n".join(json.dumps({"n": 1, "text": text}) for text in TEXTS) + "\n\n",
    "strings.jsonl": "\n".join(json.dumps(text) for text in TEXTS),
    "lines.json": "\n".join(json.dumps({"text": text}) for text in TEXTS),
    "array.json": json.dumps([{"text": text} for text in TEXTS], indent=1),
    "bom.jsonl": "\ufeff" + "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in TEXTS),
    "a.csv": "n,text\n" + "\n".join('1,"' + text.replace('"', '""') + '"' for text in TEXTS),
    "a.parquet": parquet(pa.table({"text": TEXTS, "n": [1, 2, 3]})),
}


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("name", FORMS)
def test_every_format_gives_the_same_stories_packed_or_not(tmp_path, name, packed):
    assert read(write(tmp_path / f"{name}{packed}", FORMS[name])) == TEXTS


def test_a_folder_and_a_glob_of_mixed_formats_are_read_in_the_order_of_their_names(tmp_path):
    (tmp_path / "b").mkdir()
    write(tmp_path / "b" / "1.txt", "third")
    write(tmp_path / "a.jsonl", '{"text": "first"}')
    write(tmp_path / "a.txt.gz", "second")
    write(tmp_path / "z.CSV", "text\nfourth\n")
    write(tmp_path / "notes.md", "not a story")
    write(tmp_path / ".hidden.txt", "not a story")
    assert read(tmp_path) == ["first", "second", "third", "fourth"]
    assert read(tmp_path / "**" / "*.[tC][xS]*") == ["second", "third", "fourth"]


@pytest.mark.parametrize("name", ["a [1] {b} #?*c é.csv", "a [1] {b} #?*c é.jsonl", "-.parquet"])
def test_a_name_full_of_special_characters_is_a_name(tmp_path, name):
    content = {".csv": "text\nhere\n", ".jsonl": '{"text": "here"}', ".parquet": parquet(pa.table({"text": ["here"]}))}
    assert read(write(tmp_path / name, content[Path(name).suffix])) == ["here"]


# Text


@pytest.mark.parametrize(
    ("text", "expected", "rule"),
    [
        ("a\n\nb\n<|endoftext|>\nc\n", ["a\n\nb", "c"], None),
        (" <|endoftext|> \na\n<|endoftext|>\n<|endoftext|>\nb\n<|endoftext|>\n\n", ["", "a", "", "b"], None),
        ("an inline <|endoftext|> is text", ["an inline <|endoftext|> is text"], "one story"),
        ("a\n\nb\n\n\nc\n\nd\n", ["a\n\nb", "c\n\nd"], "two blank lines"),
        ("a\nb\n\nc\n\nd", ["a\nb", "c", "d"], "a blank line"),
        ("\n\n\na\n\nb\n\n\n\n", ["a", "b"], "a blank line"),
        ("a\n \t\n\n  \n\nb", ["a", "b"], "two blank lines"),
        ("a\nb", ["a\nb"], "one story"),
        ("\n\n \n", [], "one story"),
        ("\ufeffa\r\nb\r\n\r\nc\r\n", ["a\nb", "c"], "a blank line"),
    ],
)
def test_stories_in_text_end_where_the_stated_rule_says(tmp_path, text, expected, rule):
    report = Notes()
    assert read(write(tmp_path / "a.txt", text), report=report) == expected
    assert [rule in note for note in report.notes] == ([] if rule is None else [True])


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r")).map(str.strip).filter(bool)))
def test_any_stories_come_back_from_text(tmp_path_factory, stories):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    write(path, "".join(f"{story}\n<|endoftext|>\n" for story in stories))
    assert read(path) == stories


# Bad input: always an InputError that names the file, and the line where there are lines

BAD = {
    "latin.txt": (b"fine\ncaf\xe9\n", r"`latin.txt`, line 2: not UTF-8 \(byte 0xe9 at position 4\)"),
    "latin.jsonl": (b'{"text": "a"}\n{"text": "caf\xe9"}\n', r"`latin.jsonl`, line 2: not UTF-8"),
    "latin.csv": (b"text\nfine\ncaf\xe9\n", r"`latin.csv` cannot be read as csv: 'utf-8' codec"),
    "utf16.txt": ("a story".encode("utf-16"), r"line 1: not UTF-8"),
    "bad.jsonl": ('{"text": "a"}\n\n{"text": "b"\n', r"`bad.jsonl`, line 3: not valid JSON: Expecting ',' delimiter"),
    "tail.jsonl": ('{"text": "a"} x\n', r"line 1: not valid JSON: Extra data"),
    "deep.jsonl": ('"a"\n{"text": ' + "[" * 100_000 + "]" * 100_000 + "}", r"line 2: not valid JSON: maximum recursion"),
    "deep.json": ("[" * 200_000, r"`deep.json`: not valid JSON: maximum recursion"),
    "digits.jsonl": ('{"text": ' + "1" * 10_000 + "}", r"line 1: not valid JSON"),
    "bad.json": ('[{"text": "a"},\n{"text": }]', r"`bad.json`: not valid JSON: Expecting value: line 2"),
    "field.jsonl": ('{"text": "a"}\n{"title": "b", "n": 1}\n', r"line 2: no field `text`; fields present: `title`, `n`"),
    "field.json": ('[{"text": "a"}, {"title": "b"}]', r"record 2: no field `text`; fields present: `title`"),
    "field.csv": ("title,n\na,1\n", r"`field.csv`: no field `text`; fields present: `title`, `n`|row 1: no field `text`"),
    "field.parquet": (parquet(pa.table({"title": ["a"]})), r"`field.parquet`: no field `text`; fields present: `title`"),
    "number.jsonl": ('{"text": "a"}\n{"text": 5, "title": "b"}\n', r"line 2: the field `text` holds 5, not text"),
    "list.jsonl": ('{"text": ["a"]}', r"line 1: the field `text` holds \['a'\], not text"),
    "row.jsonl": ("[1, 2]\n", r"line 1: expected an object with the field `text`, found \[1, 2\]"),
    "number.csv": ("text\n5\n6\n", r"row 1: the field `text` holds 5, not text"),
    "number.parquet": (parquet(pa.table({"text": [5]})), r"row 1: the field `text` holds 5, not text"),
    "bytes.parquet": (parquet(pa.table({"text": [b"\xff"]})), r"row 1: the field `text` holds b'.xff', not text"),
    "ragged.csv": ("text\na\nb,c,d\n", r"`ragged.csv` cannot be read as csv: .*line 3"),
    "open.csv": ('text\n"a\n', r"`open.csv` cannot be read as csv"),
    "junk.parquet": (b"PAR1 junk PAR1", r"`junk.parquet` cannot be read as parquet|cannot read `junk.parquet`"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_with_file_and_line(tmp_path, name):
    data, message = BAD[name]
    with pytest.raises(InputError, match=message):
        read(write(tmp_path / name, data))


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz", "a.csv.gz"])
def test_a_damaged_gzip_file_is_named(tmp_path, name):
    path = write(tmp_path / name, FORMS[name.removesuffix(".gz")])
    whole = path.read_bytes()
    for damaged in (whole[:-9], whole[:20] + b"\0\0\0\0" + whole[24:], b"no gzip at all"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=name):
            read(path)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv", "a.parquet", "a.txt.gz"])
def test_an_empty_file_holds_no_story(tmp_path, name):
    assert read(write(tmp_path / name, b"")) == []


def test_nulls_and_empty_cells_are_empty_stories(tmp_path):
    assert read(write(tmp_path / "a.jsonl", '{"text": null}\n{"text": ""}\n')) == ["", ""]
    assert read(write(tmp_path / "a.csv", "n,text\n1,\n2,NA\n")) == ["", "NA"]
    assert read(write(tmp_path / "a.parquet", parquet(pa.table({"text": ["a", None]})))) == ["a", ""]


def test_a_story_that_looks_like_a_date_stays_text(tmp_path):
    assert read(write(tmp_path / "a.jsonl", '{"text": "2020-01-01"}\n')) == ["2020-01-01"]


def test_another_field_can_be_named(tmp_path):
    for name, data in {"a.jsonl": '{"story": "a", "text": 1}', "a.csv": "text,story\n1,a\n"}.items():
        assert read(write(tmp_path / name, data), field="story") == ["a"]


# Finding


def test_what_holds_no_stories_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "story.docx", "a")
    nothing, missing = "is no file or folder of stories", "does not exist"
    for what, message in {"empty": nothing, "story.docx": nothing, "storys.txt": missing, "*.csv": missing}.items():
        with pytest.raises(InputError, match=message) as caught:
            files.find(str(tmp_path / what))
        assert ".txt, .jsonl" in str(caught.value.hint)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(InputError, match="is no file or folder of stories"):
        files.find(str(tmp_path / "pipe.txt"))


# Fingerprints


def fingerprint(path: Path | str) -> str:
    return files.fingerprint(files.find(str(path)))


def test_the_fingerprint_of_a_file_is_of_its_bytes_and_format_not_of_its_name(tmp_path):
    first = fingerprint(write(tmp_path / "a.txt", "one"))
    assert fingerprint(write(tmp_path / "b.txt", "one")) == first
    assert fingerprint(write(tmp_path / "a.jsonl", "one")) != first
    assert fingerprint(write(tmp_path / "a.txt", "two")) != first
    os.utime(tmp_path / "b.txt", (1, 1))
    assert fingerprint(tmp_path / "b.txt") == first


def test_the_fingerprint_of_a_folder_moves_with_it_and_knows_every_name_and_byte(tmp_path):
    folder = tmp_path / "here"
    (folder / "sub").mkdir(parents=True)
    write(folder / "a.txt", "one")
    write(folder / "sub" / "b.txt", "two")
    first = fingerprint(folder)
    assert fingerprint(folder / "**" / "*.txt") == first
    moved = folder.rename(tmp_path / "there")
    assert fingerprint(moved) == first
    (moved / "a.txt").rename(moved / "c.txt")
    assert fingerprint(moved) != first
    (moved / "c.txt").rename(moved / "a.txt")
    write(moved / "sub" / "b.txt", "TWO")
    assert fingerprint(moved) != first


# Standard input


@pytest.fixture
def stdin(monkeypatch):
    def give(data: bytes) -> None:
        files._standard_input.cache_clear()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    yield give
    files._standard_input.cache_clear()


def test_standard_input_is_text_or_json_lines_read_once_with_the_fingerprint_of_a_file(stdin, tmp_path):
    for name in ("a.txt", "a.jsonl"):
        data = FORMS[name]
        assert isinstance(data, str)
        stdin(data.encode())
        assert list(readers.stories(files.find("-"), "text", SilentReport())) == TEXTS
        assert files.fingerprint(files.find("-")) == fingerprint(write(tmp_path / name, data))


def test_a_terminal_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    with pytest.raises(InputError, match="is a terminal"):
        files.find("-")
