"""What all sources have in common: fingerprints, the documents kept, and a light import."""

import gzip
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.corpus.notes import Notes
from tinygpt.config import DataConfig
from tinygpt.corpus import Documents, builtin, fingerprint, hub, read_documents
from tinygpt.errors import InputError
from tinygpt.progress import SilentReporter


def documents_of(data: DataConfig) -> Documents:
    return Documents(data, SilentReporter())


def documents_in(path: Path, texts: list[str | None], **data: object) -> Documents:
    """The documents of a file of JSON lines, made from texts."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return documents_of(DataConfig(source=str(path), **data))


# Fingerprints


def test_the_fingerprint_of_builtin_stories_is_generator_and_seed():
    assert fingerprint(DataConfig(source="builtin")) == f"builtin:{builtin.VERSION}:0"
    assert fingerprint(DataConfig(source="builtin@7")) == f"builtin:{builtin.VERSION}:7"


def test_the_fingerprint_of_files_depends_on_their_bytes(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    first = fingerprint(DataConfig(source=str(path)))
    path.write_text("two!")
    assert fingerprint(DataConfig(source=str(path))) != first


@pytest.mark.parametrize("use", [fingerprint, documents_of])
def test_a_missing_source_is_an_input_error(tmp_path, use):
    with pytest.raises(InputError):
        use(DataConfig(source=str(tmp_path / "no.txt")))


# Documents


def test_builtin_stories_are_labeled():
    documents = documents_of(DataConfig(source="builtin@5"))
    assert documents.source["label"] == builtin.LABEL


def test_builtin_stories_are_the_first_of_their_seed():
    documents = documents_of(DataConfig(source="builtin@5", max_documents=3))
    assert list(documents) == [builtin.story(5, index) for index in range(3)]


def test_empty_documents_are_dropped_and_counted_apart_from_the_number_asked_for(tmp_path):
    texts = ["", "a", " \n\t", None, "b", "c"]
    documents = documents_in(tmp_path / "a.jsonl", texts, max_documents=2)
    assert list(documents) == ["a", "b"]
    assert documents.empty == 3


def test_a_limit_that_leaves_documents_of_a_file_out_is_reported_with_their_number(tmp_path):
    for limit, notes in (
        (2, ["2 of 3 documents are taken; all with `--set data.max_documents=none`"]),
        (3, []),
        (4, []),
        (None, []),
    ):
        documents_in(tmp_path / "a.jsonl", ["a", "b", "", "c"])
        reporter = Notes()
        data = DataConfig(source=str(tmp_path / "a.jsonl"), max_documents=limit)
        assert len(list(Documents(data, reporter))) == min(limit or 3, 3)
        assert reporter.notes == notes


def test_a_limit_on_a_text_counts_its_documents(tmp_path):
    (tmp_path / "a.txt").write_text("a<|endoftext|>b<|endoftext|>c")
    reporter = Notes()
    data = DataConfig(source=str(tmp_path / "a.txt"), max_documents=1)
    assert list(Documents(data, reporter)) == ["a"]
    assert reporter.notes[-1].startswith("1 of 3 documents are taken")


def test_of_the_hub_no_more_is_read_than_shows_that_documents_are_left_out(monkeypatch):
    read = []

    def stream(*_: object) -> Iterator[str]:
        for text in ("a", "b", "c", "d"):
            read.append(text)
            yield text

    monkeypatch.setattr(hub, "documents", stream)
    reporter = Notes()
    documents = Documents(DataConfig(source="org/name", max_documents=2), reporter)
    assert list(documents) == ["a", "b"]
    assert read == ["a", "b", "c"]
    assert reporter.notes == [
        "the first 2 documents are taken; all with `--set data.max_documents=none`"
    ]


def test_the_units_of_a_text_are_known(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(f"Speech {n}." for n in range(120)))
    for separator, words, unit in (
        ("auto", "blank lines separate documents", "paragraph"),
        ("lines", "each line is a document", "line"),
        ("file", "nothing separates documents", None),
    ):
        documents = documents_of(DataConfig(source=str(tmp_path), separator=separator))
        assert (documents.separation, documents.unit) == (words, unit)


def test_records_have_no_separation(tmp_path):
    documents = documents_in(tmp_path / "a.jsonl", ["a"])
    assert (documents.separation, documents.unit) == ("", None)


def test_the_files_of_a_folder_are_counted_by_ending(tmp_path):
    for name in ("a.md", "b.md", "c.py", "LICENSE"):
        (tmp_path / name).write_text("text")
    documents = documents_of(DataConfig(source=str(tmp_path)))
    assert documents.title == "4 files (2 .md, 1 .py, 1 without ending)"
    assert documents.source == {"kind": "files", "files": 4}


def test_half_a_surrogate_pair_is_replaced_and_a_whole_one_is_its_character(tmp_path):
    path = tmp_path / "a.jsonl"
    escaped = ["a\\ud800b", "\\ud83d\\ude00", "\\udc00", "z\\u0000z"]
    path.write_text("".join(f'{{"text": "{text}"}}\n' for text in escaped))
    documents = documents_of(DataConfig(source=str(path)))
    assert list(documents) == ["a\ufffdb", "\U0001f600", "\ufffd", "z\0z"]
    assert documents.repaired == 2


@given(st.text())
def test_any_unicode_text_is_kept_as_it_is(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    documents = documents_in(path, [text, "end"])
    assert list(documents) == ([text, "end"] if text.strip() else ["end"])


MOJIBAKE = ["She said, â€œHello!â€\x9d", "itâ€™s", "“fine” &amp; ﬁne", "café"]


def test_mojibake_stays_unless_repair_is_asked_for(tmp_path):
    assert list(documents_in(tmp_path / "a.jsonl", MOJIBAKE)) == MOJIBAKE


def test_repair_changes_mojibake_and_nothing_else(tmp_path):
    documents = documents_in(tmp_path / "a.jsonl", MOJIBAKE, clean=True)
    assert list(documents) == ["She said, “Hello!”", "it’s", "“fine” &amp; ﬁne", "café"]


def test_stored_documents_come_back(tmp_path):
    texts = ["a\nb", "\U0001f600\u2028\x00", '"quoted"']
    lines = "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts)
    packed = gzip.compress(lines.encode())
    assert list(read_documents(io.BytesIO(packed))) == texts


def test_importing_the_package_imports_no_heavy_library():
    heavy = ["datasets", "huggingface_hub", "ftfy", "numpy", "torch", "pyarrow", "http.client"]
    code = (
        "import sys, tinygpt.corpus; print([name for name in sys.argv[1:] if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, *heavy]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
