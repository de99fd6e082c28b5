"""What `--source` names: read, missing, unusable, asked of the hub."""

import pytest

from tests.cli.conftest import CONFIG
from tinygpt.config import parse_source


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("none.txt", None, "none.txt"),
        ("empty.txt", b"", "empty.txt"),
        ("latin.txt", b"caf\xe9\n", "UTF-8"),
        ("bad.jsonl", b'{"text": "a"}\n{"text": \n', "line 2"),
        ("field.jsonl", b'{"story": "a"}\n', "story"),
    ],
)
def test_a_source_that_cannot_be_used_exits_4(tinygpt, tmp_path, name, data, said):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    result = tinygpt("tokenize", "--source", name)
    assert result.code == 4, result.err
    assert said in result.err
    assert "Traceback" not in result.err


def test_a_source_too_short_for_one_window_exits_4(tinygpt, tmp_path):
    (tmp_path / "tiny.txt").write_text(
        "".join(f"Story {number}.\n<|endoftext|>\n" for number in range(40))
    )
    (tmp_path / "tinygpt.toml").write_text(
        CONFIG.replace("context_length = 32", "context_length = 4096")
    )
    result = tinygpt("run", "--source", "tiny.txt")
    assert result.code == 4, result.err


def test_a_deleted_source_counts_as_unchanged(tinygpt, tmp_path):
    stories = "".join(
        f"Story {number} of a cat and a dog.\n<|endoftext|>\n" for number in range(60)
    )
    (tmp_path / "my.txt").write_text(stories)
    (tmp_path / "tinygpt.toml").write_text(CONFIG)
    assert tinygpt("tokenize", "--source", "my.txt").code == 0
    (tmp_path / "my.txt").unlink()
    result = tinygpt("build-dataset", "--source", "my.txt")
    assert result.code == 0, result.err
    assert "using the corpus that was read from it earlier" in result.err
    (tmp_path / "my.txt").write_text(stories + "One more.\n")
    assert "cached" not in tinygpt("tokenize", "--source", "my.txt").err


def test_the_hub_is_asked_only_where_a_corpus_has_to_be_made(tinygpt, tmp_path, monkeypatch):
    (tmp_path / "tinygpt.toml").write_text(CONFIG.replace('"builtin"', '"org/name"'))
    assert tinygpt("train").code == 3  # not 7: it would not read the source
    assert tinygpt("run", "--dry-run").code == 0
    with monkeypatch.context() as patch:
        for place in ("tinygpt.corpus.fingerprint", "tinygpt.stages.corpus.fingerprint"):
            patch.setattr(place, lambda data: "org/name@0123")
        patch.setattr("tinygpt.corpus.parse_source", lambda spelling: parse_source("builtin"))
        assert tinygpt("tokenize").code == 0
    assert "cached" in tinygpt("tokenize").err
    assert tinygpt("build-dataset").code == 0
    assert tinygpt("run", "--until", "tokenize", "--force").code == 0
    assert tinygpt("run", "--until", "corpus", "--force").code == 7
