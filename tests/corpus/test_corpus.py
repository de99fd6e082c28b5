"""What every source has in common: fingerprints, the stories kept, and a light import."""

import gzip
import io
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt.config import DataConfig
from tinygpt.corpus import Stories, builtin, fingerprint, read_stories
from tinygpt.errors import InputError
from tinygpt.report import SilentReport


def stories_of(path, texts: list[str | None], **data: object) -> Stories:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return Stories(DataConfig(source=str(path), **data), SilentReport())


def test_the_fingerprint_of_builtin_stories_is_generator_and_seed():
    assert fingerprint(DataConfig(source="builtin")) == f"builtin:{builtin.VERSION}:0"
    assert fingerprint(DataConfig(source="builtin@7")) == f"builtin:{builtin.VERSION}:7"


def test_the_fingerprint_of_files_is_of_their_bytes(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    first = fingerprint(DataConfig(source=str(path)))
    path.write_text("two!")
    assert fingerprint(DataConfig(source=str(path))) != first


def test_builtin_stories_end_and_are_labelled(monkeypatch):
    monkeypatch.setattr(builtin, "DEFAULT_STORIES", 12)
    stories = Stories(DataConfig(source="builtin@5", max_stories=None), SilentReport())
    assert stories.source["label"] == builtin.LABEL
    assert sum(1 for _ in stories) == 12
    assert list(Stories(DataConfig(source="builtin@5", max_stories=3), SilentReport())) == [builtin.story(5, i) for i in range(3)]


def test_empty_stories_are_dropped_counted_and_not_of_the_number_asked_for(tmp_path):
    stories = stories_of(tmp_path / "a.jsonl", ["", "a", " \n\t", None, "b", "c"], max_stories=2)
    assert (list(stories), stories.empty) == (["a", "b"], 3)


def test_half_a_surrogate_pair_is_replaced_and_a_whole_one_is_its_character(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a\\ud800b"}\n{"text": "\\ud83d\\ude00"}\n{"text": "\\udc00"}\n{"text": "z\\u0000z"}\n')
    stories = Stories(DataConfig(source=str(path)), SilentReport())
    assert list(stories) == ["a\ufffdb", "\U0001f600", "\ufffd", "z\0z"]
    assert stories.repaired == 2


@given(st.text())
def test_a_story_of_any_unicode_text_is_kept_as_it_is(tmp_path_factory, text):
    stories = stories_of(tmp_path_factory.getbasetemp() / "any.jsonl", [text, "end"])
    assert list(stories) == ([text, "end"] if text.strip() else ["end"])


def test_mojibake_is_repaired_if_asked_and_nothing_else_is(tmp_path):
    texts = ["She said, â€œHello!â€\x9d", "itâ€™s", "“fine” &amp; ﬁne", "café"]
    assert list(stories_of(tmp_path / "a.jsonl", texts)) == texts
    assert list(stories_of(tmp_path / "a.jsonl", texts, clean=True)) == ["She said, “Hello!”", "it’s", "“fine” &amp; ﬁne", "café"]


def test_a_missing_source_is_an_input_error(tmp_path):
    for call in (fingerprint, lambda data: Stories(data, SilentReport())):
        with pytest.raises(InputError):
            call(DataConfig(source=str(tmp_path / "no.txt")))


def test_stored_stories_come_back(tmp_path):
    texts = ["a\nb", "\U0001f600\u2028\x00", '"quoted"']
    packed = gzip.compress("".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts).encode())
    assert list(read_stories(io.BytesIO(packed))) == texts


def test_the_package_is_light_to_import():
    code = "import sys, tinygpt.corpus; print([name for name in sys.argv[1:] if name in sys.modules])"
    heavy = ["datasets", "huggingface_hub", "ftfy", "numpy", "torch", "pyarrow", "http.client"]
    assert subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True).stdout == "[]\n"
