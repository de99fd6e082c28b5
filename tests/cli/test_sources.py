"""What `--source` names: read, missing, unusable, asked of the hub."""

import gzip
import io
import json
import os
import sys
import threading

import pytest

from tests.cli.conftest import CONFIG
from tinygpt.config import parse_source
from tinygpt.corpus import files


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


# Records


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.csv", b"text\nOnce upon a time, there was a cat.\n", "line 2 has more fields"),
        ("b.csv", b'id,text\n1,A cat.\n2,"Stop" he said.\n', "`b.csv`, line 3"),
        ("c.csv", b"id;story\n1;A cat.\n", "fields present: `id`, `story`"),
        ("a.parquet", b"PAR1 no Parquet PAR1", "cannot be read as Parquet"),
        ("a.jsonl.zst", b"no zstd", "cannot read `a.jsonl.zst`"),
    ],
)
def test_records_that_cannot_be_read_exit_4_with_file_and_line(tinygpt, tmp_path, name, data, said):
    (tmp_path / name).write_bytes(data)
    result = tinygpt("tokenize", "--source", name)
    assert result.code == 4, result.err
    assert said in result.err
    assert "Traceback" not in result.err


def test_the_columns_of_a_table_do_not_shift_and_its_delimiter_is_reported(tinygpt, tmp_path):
    rows = "".join(f"{n};Story {n} of a cat, and a dog.;\n" for n in range(60))
    (tmp_path / "my.csv").write_text(f"author;text\n{rows}")
    (tmp_path / "tinygpt.toml").write_text(CONFIG)
    result = tinygpt("tokenize", "--source", "my.csv")
    assert result.code == 0, result.err
    assert "`my.csv`: fields separated by semicolons, text in column `text`" in result.err
    (corpus,) = (tmp_path / "artifacts" / "corpus").glob("*/documents.jsonl.gz")
    first = gzip.decompress(corpus.read_bytes()).decode().splitlines()[0]
    assert json.loads(first) == "Story 0 of a cat, and a dog."


# Texts that a command is given

STORIES = [f"Tom saw {n} cats. Tom was happy." for n in range(30)]
BLANK = "\n\n".join(STORIES) + "\n"
RECORDS = "".join(json.dumps({"text": story}) + "\n" for story in STORIES)


def evaluate(here, *arguments: object) -> dict[str, object]:
    result = here("eval", "--text", *arguments, "--set", "eval.num_samples=none", "--json")
    assert result.code == 0, result.err
    return json.loads(result.out)


def test_eval_gives_a_text_the_same_numbers_in_every_format(here, tmp_path):
    (tmp_path / "a.txt").write_text(BLANK)
    (tmp_path / "a.jsonl").write_text(RECORDS)
    text, records = (evaluate(here, tmp_path / name) for name in ("a.txt", "a.jsonl"))
    assert text["documents"] == records["documents"] == 30
    assert text["perplexity"] == records["perplexity"]
    assert text["bits_per_byte"] == records["bits_per_byte"]
    assert (text["left_out"], records["left_out"]) == (29 * 2 + 1, 0)


def test_eval_reads_standard_input(here, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text(BLANK)
    expected = evaluate(here, tmp_path / "a.txt")
    files._standard_input.cache_clear()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(BLANK.encode())))
    assert evaluate(here, "-") == expected
    files._standard_input.cache_clear()


def test_eval_reads_a_text_anew_when_the_rules_of_reading_change(here, tmp_path):
    (tmp_path / "a.txt").write_text(BLANK)
    assert evaluate(here, tmp_path / "a.txt")["documents"] == 30
    whole = ("--set", "data.separator=file", "--set", "data.source=my.txt")
    model = json.loads(here("train", "--json").out)["key"][:12]
    assert evaluate(here, tmp_path / "a.txt", "--model", model, *whole)["documents"] == 1
    shown = here("eval", "--text", tmp_path / "a.txt", "--set", "eval.num_samples=none")
    assert "  cached" in shown.err
    assert "1 file: blank lines separate documents" in shown.err
    assert "59 bytes between documents" in shown.err


def test_a_text_to_evaluate_that_cannot_be_used_exits_with_a_sentence(here, tmp_path):
    (tmp_path / "a.csv").write_text("text\na, b\n")
    for text, code, said in (
        (tmp_path / "a.csv", 4, "line 2 has more fields"),
        ("Once upon a time", 4, "does not exist"),
        ("roneneldan/TinyStories", 4, "does not exist"),
        ("", 2, "`eval.text`"),
    ):
        result = here("eval", "--text", text)
        assert (result.code, said in result.err) == (code, True), result.err


def test_plot_draws_the_first_document_of_a_file(here, tmp_path):
    (tmp_path / "a.jsonl").write_text(RECORDS)
    from_file = here("plot", "--text-file", tmp_path / "a.jsonl", "--json")
    assert from_file.code == 0, from_file.err
    assert f"text: the first of 30 documents in `{tmp_path / 'a.jsonl'}`" in from_file.err
    typed = json.loads(here("plot", "--text", STORIES[0], "--json").out)
    assert typed["key"] == json.loads(from_file.out)["key"]
    assert typed["cached"]
    both = here("plot", "--text-file", tmp_path / "a.jsonl", "--text", "Tom")
    assert (both.code, "`--text-file` cannot be combined with `--text`" in both.err) == (2, True)
    assert here("plot", "--text-file", tmp_path / "no.txt").code == 4


@pytest.mark.parametrize(
    ("data", "prompt"),
    [
        (b"\xef\xbb\xbfTom saw\r\na cat\r\n", "Tom saw\na cat"),
        (b"Tom saw\n\n", "Tom saw\n"),
        (b"  Tom\n\n  saw", "  Tom\n\n  saw"),
        ("Tom saw".encode("utf-16"), "Tom saw"),
        (gzip.compress(b"Tom saw\n", mtime=0), "Tom saw"),
    ],
)
def test_a_prompt_file_is_one_text_without_mark_carriage_returns_and_last_line_end(
    here, tmp_path, data, prompt
):
    (tmp_path / "a.txt").write_bytes(data)
    result = here("sample", "--file", tmp_path / "a.txt", "--seed", "5", "--json")
    assert json.loads(result.out)["prompt"] == prompt
    assert f"prompt: {len(prompt)} characters from `{tmp_path / 'a.txt'}`" in result.err


def test_the_prompt_may_be_the_first_record_of_a_file(here, tmp_path):
    (tmp_path / "a.jsonl").write_text(RECORDS)
    result = here("sample", "--file", tmp_path / "a.jsonl", "--seed", "5", "--json")
    assert json.loads(result.out)["prompt"] == STORIES[0]
    assert "the first of 30 documents" in result.err


def test_a_space_at_the_end_of_a_prompt_is_noted(here, tmp_path):
    (tmp_path / "a.txt").write_text("Tom saw \n")
    for prompt, is_noted in (
        (["Tom saw "], True),
        (["--file", tmp_path / "a.txt"], True),
        (["Tom saw"], False),
        (["Tom saw\n"], False),
        ([], False),
    ):
        result = here("sample", *prompt, "--seed", "5")
        assert result.code == 0
        assert ("the prompt ends in a space" in result.err) == is_noted


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_prompt_comes_through_a_named_pipe(here, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=["Tom saw\n"])
    writer.start()
    result = here("sample", "--file", tmp_path / "pipe", "--seed", "5", "--json")
    writer.join()
    assert json.loads(result.out)["prompt"] == "Tom saw"
