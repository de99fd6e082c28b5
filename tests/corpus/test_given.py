"""Texts given to a command: read by the rules of [data], and divided like the training text."""

import json
from pathlib import Path

import pytest

from tests.corpus.notes import Notes
from tests.corpus.reading import write
from tinygpt.config import DataConfig
from tinygpt.corpus.given import GivenTexts, given_fingerprint, read_given
from tinygpt.errors import InputError
from tinygpt.progress import SilentReporter
from tinygpt.records import DatasetMeta

STORIES = [f"Story {n}.\n  It has {n} lines, and an end." for n in range(40)]
FORMS = {
    "marked.txt": "".join(f"{story}\n<|endoftext|>\n" for story in STORIES),
    "inline.txt": "<|endoftext|>".join(STORIES),
    "blank.txt": "\n\n".join(STORIES) + "\n",
    "windows.txt": ("\ufeff" + "\n\n".join(STORIES)).replace("\n", "\r\n"),
    "lines.jsonl": "\n\n".join(json.dumps({"text": story}) for story in STORIES),
    "array.json": json.dumps([{"text": story} for story in STORIES]),
    "table.csv": "n;text\n" + "".join(f'1;"{story}"\n' for story in STORIES),
}


def given(path: Path | str, trained_on: DatasetMeta | None = None, **data: object) -> GivenTexts:
    return read_given(str(path), config(**data), SilentReporter(), trained_on)


def config(**data: object) -> DataConfig:
    """The table [data] of a model that was trained on a text."""
    return DataConfig(source="my.txt", **data)


@pytest.mark.parametrize("name", FORMS)
def test_the_same_documents_are_read_in_every_form(tmp_path, name):
    (tmp_path / name).write_bytes(FORMS[name].encode())
    assert given(tmp_path / name).documents == STORIES


@pytest.mark.parametrize("name", ["blank.txt", "array.json"])
def test_standard_input_is_read_like_a_file(stdin, name):
    stdin(FORMS[name].encode())
    assert given("-").documents == STORIES


def test_what_was_read_is_reported(tmp_path):
    reporter = Notes()
    read_given(str(write(tmp_path / "a.txt", FORMS["blank.txt"])), DataConfig(), reporter)
    assert reporter.notes[0].startswith("blank lines separate documents: 40 documents, ")


def test_the_title_says_what_was_read(tmp_path):
    for name, title in (
        ("blank.txt", "1 file: blank lines separate documents"),
        ("table.csv", "1 file: texts in `text`"),
    ):
        assert given(write(tmp_path / name, FORMS[name])).title == title
    assert given(tmp_path).title.startswith("2 files (1 .")


@pytest.mark.parametrize(
    ("name", "data", "left_out"),
    [
        (
            "a.txt",
            "\n\nA cat.\n<|endoftext|>\nA dog.<|endoftext|>\n",
            "\n\n\n<|endoftext|>\n<|endoftext|>\n",
        ),
        ("a.txt", "\ufeffA cat.\r\n\r\n  A dog.\r\n \r\n", "\n \n"),
        ("a.txt", "é\n<|endoftext|>\né", "\n<|endoftext|>\n"),
        ("a.jsonl", '{"text": " A cat. "}\n{"text": ""}\n', ""),
        ("a.csv", "id,text\n1,A cat.\n", ""),
    ],
)
def test_bytes_of_a_text_in_no_document_are_counted(tmp_path, name, data, left_out):
    (tmp_path / name).write_bytes(data.encode())
    assert given(tmp_path / name).left_out == len(left_out)


def test_records_beside_a_text_and_repaired_characters_leave_nothing_out(tmp_path):
    write(tmp_path / "a.txt", "itâ€™s a cat\n")
    write(tmp_path / "b.jsonl", '{"text": "itâ€™s a dog"}')
    texts = given(tmp_path, clean=True)
    assert texts.documents == ["it’s a cat", "it’s a dog"]
    assert texts.left_out == len("\n")


def test_there_is_no_limit_on_documents(tmp_path):
    path = write(tmp_path / "a.jsonl", FORMS["lines.jsonl"])
    assert given(path, max_documents=3).documents == STORIES


# The division of a text follows that of the training text


def dataset(documents: int, unit: str | None = None) -> DatasetMeta:
    """The description of a dataset whose train split has some documents."""
    size = {"documents": documents, "tokens": 9_000, "bytes": 30_000}
    meta = {"holdout": "end", "holdout_reason": "a test", "duplicates": 0}
    meta |= {"vocab_size": 300, "end_of_text": 0, "train": size, "val": size}
    return meta | ({"unit": unit} if unit else {})


PARAGRAPHS = "\n\n".join(f"Paragraph {n} of a chapter." for n in range(30))
VERSES = "\n".join(f"Verse {n}, {'la ' * (n % 9)}" for n in range(30))


@pytest.mark.parametrize(
    ("text", "trained_on", "count"),
    [
        (PARAGRAPHS, None, 30),
        (PARAGRAPHS, dataset(5_000), 30),
        (PARAGRAPHS, dataset(5_000, "paragraph"), 30),
        (PARAGRAPHS, dataset(1), 1),
        (PARAGRAPHS * 10, dataset(1), 1),
        (PARAGRAPHS, dataset(20), 30),
        (PARAGRAPHS, dataset(5_000, "line"), 30),
        ("One.\n\nTwo.\n\nThree.", None, 1),
        ("One.\n\nTwo.\n\nThree.", dataset(5_000, "paragraph"), 3),
        (VERSES, dataset(1), 1),
        (VERSES, dataset(5_000, "line"), 30),
        (VERSES, dataset(5_000, "paragraph"), 1),
        ("One.\n\nTwo.<|endoftext|>Three.", dataset(5_000, "paragraph"), 2),
        ("One.\n\nTwo.<|endoftext|>Three.", dataset(1), 2),
    ],
)
def test_a_text_is_divided_like_the_training_text(tmp_path, text, trained_on, count):
    assert len(given(write(tmp_path / "a.txt", text), trained_on).documents) == count


def test_a_separator_that_is_set_is_followed(tmp_path):
    path = write(tmp_path / "a.txt", PARAGRAPHS)
    for separator, count in (("file", 1), ("blank_lines", 30), ("regex:Paragraph", 30)):
        texts = given(path, dataset(5_000, "paragraph"), separator=separator)
        assert len(texts.documents) == count


def test_a_separator_of_the_source_does_not_matter_for_records(tmp_path):
    path = write(tmp_path / "a.jsonl", FORMS["lines.jsonl"])
    assert given(path, separator="lines").documents == STORIES


# What cannot be read


@pytest.mark.parametrize("pattern", ["no.txt", "builtin", "org/name", "Once upon a time " * 100])
def test_a_name_without_a_file_is_refused_and_is_never_a_dataset(tmp_path, monkeypatch, pattern):
    monkeypatch.chdir(tmp_path)
    for use in (given, lambda pattern: given_fingerprint(pattern, config())):
        with pytest.raises(InputError, match="does not exist"):
            use(pattern)


def test_a_text_without_text_is_refused(tmp_path):
    for name, data in (("a.txt", " \n\n<|endoftext|>\n"), ("a.jsonl", '{"text": " "}\n')):
        with pytest.raises(InputError, match="contains no text"):
            given(write(tmp_path / name, data))


def test_relative_names_patterns_and_folders_start_from_the_working_directory(
    tmp_path, monkeypatch
):
    folder = tmp_path / "a [1]"
    folder.mkdir()
    monkeypatch.chdir(folder)
    write(folder / "a.txt", "A cat.")
    for pattern in ("a.txt", "*.txt", ".", "./a.txt", str(folder / "a.txt")):
        assert given(pattern).documents == ["A cat."]


# Fingerprints


def test_the_fingerprint_depends_on_the_bytes_and_on_what_decides_how_they_are_read(tmp_path):
    path = write(tmp_path / "a.txt", "A cat.")
    settings = [{}, {"separator": "lines"}, {"text_field": "story"}, {"clean": True}]
    prints = [given_fingerprint(str(path), config(**values)) for values in settings]
    unrelated = DataConfig(source="builtin", max_documents=3)
    assert given_fingerprint(str(path), unrelated) == prints[0]
    assert given_fingerprint(str(path.rename(tmp_path / "b.txt")), config()) == prints[0]
    write(tmp_path / "b.txt", "A dog.")
    prints.append(given_fingerprint(str(tmp_path / "b.txt"), config()))
    assert len(set(prints)) == 5
