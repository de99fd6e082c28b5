"""CSV: every value is text, columns never shift, and what is malformed is refused by its line."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.corpus.notes import Notes
from tests.corpus.reading import read, write
from tinygpt.corpus import csv_files
from tinygpt.errors import InputError

HEADER = "id,text\n"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        # a comma at the end of every row, for which the header has no name
        (HEADER + "1,A cat.,\n2,A dog.,\n", ["A cat.", "A dog."]),
        (HEADER + "1,A cat.,,,\n2,A dog.,,,\n", ["A cat.", "A dog."]),
        ("id,text,\n1,A cat.,\n2,A dog.,\n", ["A cat.", "A dog."]),
        ("id,text,\n1,A cat.\n2,A dog.\n", ["A cat.", "A dog."]),
        # the column of row numbers that pandas writes
        (",text\n0,A cat.\n1,A dog.\n", ["A cat.", "A dog."]),
        ("text,id\nA cat.,123456789012345678901234567890\nA dog.,2\n", ["A cat.", "A dog."]),
        # several lines, quotes, delimiters and line ends in a text
        (HEADER + '1,"A ""cat"",\n\nsat."\n2,A dog.\n', ['A "cat",\n\nsat.', "A dog."]),
        (HEADER + '1,A cat said "hi" to me.\n2,5" nails\n', ['A cat said "hi" to me.', '5" nails']),
        (HEADER + '1,"A cat\rsat."\n', ["A cat\rsat."]),
        (HEADER + "1,  indented \n", ["  indented "]),
        (HEADER + "1,a\0b\n", ["a\0b"]),
        ('id, text\n1, "A cat, sat."\n2, A dog.\n', ["A cat, sat.", "A dog."]),
        # line ends of Windows, of a text that was written twice as such, and of old Macs
        ('id,text\r\n1,"A cat\r\nsat."\r\n2,A dog.\r\n', ["A cat\nsat.", "A dog."]),
        ("id,text\r\r\n1,A cat.\r\r\n2,A dog.\r\r\n", ["A cat.", "A dog."]),
        ("id,text\r1,A cat.\r2,A dog.\r", ["A cat.", "A dog."]),
        # blank lines, and rows without any content
        ("\n\n" + HEADER + "\n1,A cat.\n\n,\n2,A dog.", ["A cat.", "", "A dog."]),
        ("\ufeff" + HEADER + "1,A cat.\n", ["A cat."]),
        ("text\nA cat.\n\nA dog.\n", ["A cat.", "A dog."]),
        (HEADER, []),
    ],
)
def test_rows_are_read_whatever_their_line_ends_quotes_and_empty_columns(tmp_path, data, expected):
    path = tmp_path / "a.csv"
    path.write_bytes(data.encode())
    assert read(path) == expected


VALUES = [
    "007",
    "1e5",
    "True",
    "1984",
    "NA",
    "NaN",
    "null",
    "None",
    "inf",
    "2020-01-01",
    "-",
    "1" * 30,
]


def test_values_that_look_like_something_else_stay_text_at_any_number_of_rows(tmp_path):
    values = [VALUES[n % len(VALUES)] for n in range(20_000)]
    rows = "".join(f"{n},{value}\n" for n, value in enumerate(values))
    assert read(write(tmp_path / "a.csv", HEADER + rows)) == values


@pytest.mark.parametrize("delimiter", csv_files.DELIMITERS)
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
def test_the_delimiter_is_found_and_reported(tmp_path, name, delimiter):
    others = "".join(csv_files.DELIMITERS)
    data = f'id{delimiter}text{delimiter}"a{others}"\n1{delimiter}"A{others}cat."{delimiter}x\n'
    reporter = Notes()
    assert read(write(tmp_path / name, data), reporter=reporter) == [f"A{others}cat."]
    separated = f"fields separated by {csv_files.DELIMITERS[delimiter]}"
    assert reporter.notes == [f"`{name}`: {separated}, text in column `text`"]


def test_each_delimiter_is_reported_once_for_many_files(tmp_path):
    for number in range(3):
        write(tmp_path / f"a{number}.csv", HEADER + "1,A cat.\n")
    write(tmp_path / "b.csv", "id;text\n1;A dog.\n")
    reporter = Notes()
    assert read(tmp_path, reporter=reporter) == ["A cat."] * 3 + ["A dog."]
    assert [note.partition(":")[0] for note in reporter.notes] == ["`a0.csv`", "`b.csv`"]


def test_a_text_of_a_million_characters_is_one_field(tmp_path):
    text = "A cat, and a dog.\n" * 60_000
    assert read(write(tmp_path / "a.csv", f'text,id\n"{text}",1\n')) == [text]


ANY_FIELD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff"))


@given(st.lists(st.tuples(ANY_FIELD, ANY_FIELD, ANY_FIELD)))
def test_any_table_comes_back(tmp_path_factory, rows):
    table = io.StringIO()
    csv.writer(table, quoting=csv.QUOTE_ALL).writerows([("id", "text", "note"), *rows])
    path = write(tmp_path_factory.getbasetemp() / "any.csv", table.getvalue())
    texts = [row[1].replace("\r\n", "\n") if "".join(row).strip() else "" for row in rows]
    assert read(path) == texts


TOO_FEW = "fewer fields than"
TOO_MANY = "more fields than the header"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("text\nOnce upon a time, there was a cat.\n", rf"line 2 has {TOO_MANY} \(2 and 1\)"),
        (HEADER + "1,A cat.\n2,A dog ran, and sat.\n", rf"line 3 has {TOO_MANY} \(3 and 2\)"),
        (HEADER + "1,A cat.\n2,A dog.,\n", rf"line 3 has {TOO_MANY} \(3 and 2\)"),
        (HEADER + "1,A cat.,\n2,A dog.\n", rf"line 3 has {TOO_FEW} the rows before it \(2 and 3\)"),
        (HEADER + '1,"A\n\ncat."\n2\n', rf"line 5 has {TOO_FEW} the header \(1 and 2\)"),
        ("id,text,\n1,A cat, and a dog.\n", rf"line 2 has {TOO_MANY} \(3 and 2\)"),
        # the comma at the end of a verse is no empty field
        ("text\nTiger, tiger, burning bright\n", rf"line 2 has {TOO_MANY} \(3 and 1\)"),
        ("text\nIn the forests of the night,\n", rf"line 2 has {TOO_MANY} \(2 and 1\)"),
        (HEADER + '1,A cat.\n2,"Stop" he said.\n', r"line 3: there is text after a closing quote"),
        (HEADER + '1,"He said \\"hi\\"."\n', r"line 2: there is text after a closing quote"),
        (HEADER + '1,A cat.\n2,"A dog.\n3,A cow.\n', r"line 3: a quote is opened and never closed"),
        (HEADER + "1,A cat\rsat.\n", r"line 2: there is a carriage return outside quotes"),
        ("text\nA cat\rsat.\n", r"line 2: there is a carriage return outside quotes"),
        (HEADER + "1,A cat.\nx\rtext\n", r"line 3: there is a carriage return outside quotes"),
        ("id;story\n1;A cat.\n", r"separated by semicolons\): no field `text`; .*: `id`, `story`$"),
        ("A cat, a dog.\n", r"no field `text`; fields present: `A cat`, `a dog.`$"),
        (",,\n1,2,3\n", r"no field `text`"),
        ("id,te\rxt\n1,A cat.\n", r"line 1: there is a carriage return outside quotes"),
        ('"id,text\n' + "1,A cat.\n" * 40_000, r"line 1: a quote is opened and never closed"),
        ("A cat. " * 40_000, r"no field `text`; fields present: `(A cat. ){8}A ca`$"),
        ("\n\n", r"no field `text`"),
        ("text,text\nA cat.,A dog.\n", r"commas\): 2 columns have the name `text`"),
        (b"id,text\n1,A cat.\n2,caf\xe9\n", r"line 3: not UTF-8 \(byte 0xe9 at position 6\)"),
        (b"\xff\xfe\xfdid,text\n1,A cat.\n", r"`a.csv`"),
    ],
)
def test_a_malformed_table_is_refused_with_its_line(tmp_path, data, message):
    path = tmp_path / "a.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert "`a.csv`" in caught.value.message


def test_lines_that_are_texts_are_better_read_as_text(tmp_path):
    with pytest.raises(InputError) as caught:
        read(write(tmp_path / "a.csv", "text\nOnce, there was a cat.\n"))
    assert "`--set data.separator=lines`" in str(caught.value.hint)
