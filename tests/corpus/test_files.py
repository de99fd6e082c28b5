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

from tests.corpus.notes import Notes
from tests.corpus.reading import read, write
from tinygpt.corpus import files
from tinygpt.errors import InputError


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


# Bad input: always an InputError that names the file, and the line where there are lines

BAD_TEXT = {
    "latin.txt": (
        b"fine\ncaf\xe9\n",
        r"`latin.txt`, line 2: not UTF-8 \(byte 0xe9 at position 4\)",
    ),
    "latin.jsonl": (b'{"text": "a"}\n{"text": "caf\xe9"}\n', r"`latin.jsonl`, line 2: not UTF-8"),
    "latin.csv": (b"text\nfine\ncaf\xe9\n", r"`latin.csv`, line 3: not UTF-8"),
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
        r"`field.csv` \(fields separated by commas\): no field `text`; .*: `title`, `n`",
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
    "row.jsonl": ("5\n", r"line 1: expected an object with the field `text`, found 5"),
    "row.json": ("[1, 2]\n", r"record 1: expected an object with the field `text`, found 1"),
    "number.parquet": (parquet(text=[5]), r"row 1: the field `text` holds 5, not text"),
    "bytes.parquet": (
        parquet(text=[b"\xff"]),
        r"row 1: `text` is not UTF-8 \(byte 0xff at position 1\)",
    ),
}
BAD_TABLES = {
    "ragged.csv": ("text\na\nb,c,d\n", r"`ragged.csv`, line 3 has more fields than the header"),
    "open.csv": ('text\n"a\n', r"`open.csv`, line 2: a quote is opened and never closed"),
    "junk.parquet": (b"PAR1 junk PAR1", r"`junk.parquet` cannot be read as Parquet"),
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
        ("storys.txt", "does not exist"),
        ("*.csv", "matches no text file"),
        ("*.png", "matches no text file"),
    ],
)
def test_a_source_without_text_files_is_refused_with_the_formats_that_are_read(
    tmp_path, name, message
):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "a.png", b"\x89PNG\0")
    with pytest.raises(InputError, match=message) as caught:
        files.find(str(tmp_path / name))
    assert "text in UTF-8 is read, and .jsonl, " in str(caught.value.hint)


def test_a_folder_gives_every_text_whatever_its_ending(tmp_path):
    for name in ("a.md", "b.rst", "c.tex", "d.py", "e.html", "LICENSE", "f.txt.gz"):
        write(tmp_path / name, f"text of {name}")
    (tmp_path / "g.utf16").write_bytes("text of g.utf16".encode("utf-16"))
    found = {file.name: file.format for file in files.find(str(tmp_path))}
    assert found == dict.fromkeys(sorted(path.name for path in tmp_path.iterdir()), ".txt")
    assert read(tmp_path) == [f"text of {name}" for name in found]


def test_files_that_are_not_text_are_skipped_counted_by_ending_and_named(tmp_path):
    write(tmp_path / "a.md", "text")
    for name in ("1.png", "2.PNG", "3.pdf", "latin.log", "binary", "x.tar.gz"):
        write(tmp_path / name, b"caf\xe9 " if name == "latin.log" else b"\0\1\2")
    notes = Notes()
    assert [file.name for file in files.find(str(tmp_path), notes)] == ["a.md"]
    assert notes.notes == [
        "skipped 6 files (2 .png, 1 .gz, 1 .log, 1 .pdf, 1 without ending): "
        "`1.png`, `2.PNG`, `3.pdf`, ..."
    ]


def test_a_text_file_in_another_encoding_is_refused_and_not_skipped(tmp_path):
    write(tmp_path / "a.md", "text")
    write(tmp_path / "b.md", b"caf\xe9")
    with pytest.raises(InputError, match=r"`b\.md`, line 1: not UTF-8"):
        read(tmp_path)


LEFT_OUT = (
    *(".hidden/a.txt", ".git/config", "__pycache__/a.py", "sub/node_modules/x/README.md"),
    *("venv/pyvenv.cfg", "venv/lib/a.py", "artifacts/.tinygpt-store", "artifacts/latest/s.txt"),
    *("out/.partial/x", "out/README.md", "a.txt~", "a.txt.bak", "poetry.lock"),
    *("package-lock.json", "x.min.js", "tinygpt.toml"),
)


@pytest.mark.parametrize("pattern", ["", "**/*"])
def test_what_nobody_wrote_as_text_is_left_out(tmp_path, pattern):
    for name in (*LEFT_OUT, "a.txt", "sub/b.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / name, "text")
    assert [file.name for file in files.find(f"{tmp_path}/{pattern}")] == ["a.txt", "sub/b.txt"]


def test_what_is_named_is_read_wherever_it_is(tmp_path):
    (tmp_path / ".hidden").mkdir()
    path = write(tmp_path / ".hidden" / "a.txt~", "text")
    write(tmp_path / ".hidden" / "b.txt", "text")
    assert [file.path for file in files.find(str(path))] == [path]
    for pattern in (".hidden", ".hidden/*.txt"):
        assert [file.name for file in files.find(str(tmp_path / pattern))] == ["b.txt"]


def test_the_name_of_a_file_says_how_it_is_read_whatever_the_compression(tmp_path):
    formats = {"a.ndjson": ".jsonl", "b.TSV.gz": ".csv", "c.jsonl.zst": ".jsonl", "d.py": ".txt"}
    for name, expected in formats.items():
        (file,) = files.find(str(write(tmp_path / name, b"")))
        assert file.format == expected


def test_zstd_is_decompressed(tmp_path):
    for name in ("a.jsonl", "a.txt"):
        with pa.CompressedOutputStream(str(tmp_path / f"{name}.zst"), "zstd") as stream:
            stream.write(FORMS[name].encode())
        assert read(tmp_path / f"{name}.zst") == TEXTS


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ('{"text": "a"}\n', ".jsonl"),
        ('\ufeff \n{ "text": "a"}', ".jsonl"),
        ('[{"text": "a"}]', ".json"),
        ('[\n "a", "b"]', ".json"),
        ('[Event "a"]\n', ".txt"),
        ("{curly} text", ".txt"),
        ("[1] a footnote", ".txt"),
        ("", ".txt"),
    ],
)
def test_a_file_whose_name_says_nothing_is_json_if_it_begins_like_it(tmp_path, data, expected):
    (file,) = files.find(str(write(tmp_path / "stories", data)))
    assert file.format == expected


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


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "bom.jsonl", "array.json"])
def test_standard_input_is_read_as_text_or_json(stdin, name):
    for data in (FORMS[name].encode(), gzip.compress(FORMS[name].encode())):
        stdin(data)
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
