"""`tinygpt sample`."""

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import environment
from tinygpt.store.artifact import MODEL_FILES
from tinygpt.store.manifest import MANIFEST
from tinygpt.ui import escape


def test_the_same_seed_generates_the_same_text(here):
    first = here("sample", "Once", "--seed", "5")
    again = here("sample", "Once", "--seed", "5")
    assert first.code == again.code == 0
    assert first.out.startswith("Once")
    assert again.out == first.out
    assert "cached" in again.err
    assert here("sample", "Once", "--seed", "5", "--force", "--no-stream").out == first.out


def test_without_a_seed_one_is_picked_and_printed(here):
    result = here("sample")
    drawn = re.search(r"seed (\d+) \(repeat with --seed \1\)", result.err)
    assert drawn
    assert here("sample", "--seed", drawn[1]).out == result.out


def test_json_prints_one_object_per_sample(here):
    result = here("sample", "Once", "--num-samples", "3", "--seed", "6", "--json")
    stories = [json.loads(line) for line in result.out.splitlines()]
    assert len(stories) == 3
    assert all(story["text"].startswith("Once") for story in stories)
    plain = here("sample", "Once", "--num-samples", "3", "--seed", "6")
    assert plain.out == escape("\n\n".join(story["text"] for story in stories)) + "\n"


def test_the_prompt_may_come_from_a_file(here, tmp_path):
    (tmp_path / "prompt").write_text("Once")
    given = here("sample", "--file", tmp_path / "prompt", "--seed", "5")
    assert given.out == here("sample", "Once", "--seed", "5").out
    (tmp_path / "bad").write_bytes(b"\xff")
    assert here("sample", "--file", tmp_path / "bad").code == 4
    assert here("sample", "--file", tmp_path / "none").code == 4


@pytest.mark.parametrize("prompt", ["", "many words " * 50])
def test_an_empty_or_too_long_prompt_is_refused(here, prompt):
    result = here("sample", prompt, "--overflow", "stop")
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith("hint: ")


def test_sample_uses_the_newest_run_unless_a_run_was_named(project, here, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    store = project[0] / "artifacts"
    result = here("sample", "--store", store)
    assert result.code == 0
    assert re.search(r"using run [0-9a-f]{12} \(.* old, perplexity [\d.,]+\)", result.err)
    assert (
        here("sample", "--store", store, "--set", "runtime.threads=1").code == 0
    )  # says how, not which
    named = here("sample", "--store", store, "--preset", "demo")
    assert named.code == 3
    assert f"tinygpt run --until train --preset demo --store {store}`" in named.err


def test_sample_finds_a_model_by_id_prefix(here):
    id_ = json.loads(here("train", "--json").out)["key"][:12]
    assert here("sample", "--model", id_[:6], "--seed", "1").code == 0
    assert here("plot", "--model", id_).code == 0
    wrong = here("sample", "--model", "0000000")
    assert wrong.code == 3
    assert id_ in wrong.err


def test_sample_accepts_a_copied_model_folder(here, tmp_path):
    made = json.loads(here("train", "--json").out)
    copy = shutil.copytree(made["path"], tmp_path / "a copy")
    generated = here("sample", "Once", "--seed", "1", "--model", made["key"][:12]).out
    assert here("sample", "Once", "--seed", "1", "--model", copy).out == generated
    assert (
        here("sample", "Once", "--seed", "1", "--model", copy, "--store", tmp_path / "another").out
        == generated
    )
    judged = here("eval", "--model", copy)
    assert "cached" in judged.err
    assert f"plot --model '{copy}'" in judged.err
    assert here("eval", "--model", copy, "--store", tmp_path / "another").code == 3
    assert here("sample", "--model", Path(made["path"]).parent).code == 3
    assert here("sample", "--model", json.loads(here("tokenize", "--json").out)["path"]).code == 2
    (copy / "model.safetensors").chmod(0o644)
    (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes()[::-1])
    damaged = here("sample", "Once", "--seed", "1", "--model", copy)
    assert damaged.code == 3
    assert "model.safetensors" in damaged.err


def test_the_needed_files_of_a_model_are_enough_in_a_folder_that_cannot_be_written(
    here, tinygpt, tmp_path, monkeypatch
):
    made = json.loads(here("train", "--json").out)
    generated = here("sample", "Once", "--seed", "1").out
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in (MANIFEST, *MODEL_FILES):
        shutil.copy(Path(made["path"]) / name, copy)
    copy.chmod(0o555)
    (tmp_path / "tinygpt.toml").write_text("[data]\nsource = 'elsewhere.txt'\n")
    settings = ("--set", "sample.max_new_tokens=12")
    assert tinygpt("sample", "Once", "--seed", "1", "--model", copy, *settings).out == generated
    (tmp_path / "text.txt").write_text("Once there was a cat.\n")
    judged = tinygpt("eval", "--model", copy, "--text", "text.txt", "--json")
    assert json.loads(judged.out)["baselines"] == {}
    assert "no baselines, no generation quality" in judged.err
    assert "next: tinygpt plot" not in judged.err
    assert tinygpt("eval", "--model", copy).code == 3
    page = tinygpt("page", "--model", copy, "--out", "page.html")
    assert page.out == f"{tmp_path / 'page.html'}\n"
    assert "snapshots of its training" in page.err
    assert (tmp_path / "page.html").read_bytes().startswith(b"<!DOCTYPE html>")
    assert sorted(path.name for path in copy.iterdir()) == sorted([MANIFEST, *MODEL_FILES])
    (copy / "config.json").chmod(0o644)
    (copy / "config.json").write_bytes(b"{}")
    damaged = tinygpt("eval", "--model", copy, "--text", "text.txt")
    assert damaged.code == 3
    assert "`config.json` has 2 bytes instead of" in damaged.err


def test_xray_shows_every_token_of_a_cached_sample(here):
    story = here("sample", "Once", "--seed", "11", "--num-samples", "2").out
    seen = here("sample", "Once", "--seed", "11", "--num-samples", "2", "--xray")
    assert "cached" in seen.err
    assert seen.out.startswith(story)
    rows = seen.out.removeprefix(story).splitlines()
    assert [row.split()[0] for row in rows].count("token") == 2
    lines = here(
        "sample", "Once", "--seed", "11", "--num-samples", "2", "--xray", "--json"
    ).out.splitlines()
    stories = [json.loads(line) for line in lines]
    assert len(rows) == 2 + sum(len(story["xray"]) for story in stories)
    assert all(len(story["xray"]) == len(story["token_ids"]) for story in stories)
    fresh = here("sample", "Once", "--seed", "12", "--xray")
    assert "cached" not in fresh.err
    assert fresh.out == here("sample", "Once", "--seed", "12", "--xray").out


def test_interactive_continues_each_line_until_the_input_ends(here, monkeypatch):
    def typed(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))

    generated = {
        prompt: here("sample", *prompt, "--seed", "5").out for prompt in ((), ("First",), ("Once",))
    }
    typed(b"Once\n\nOnce")
    result = here("sample", "First", "--interactive", "--seed", "5")
    assert (result.code, result.err) == (0, "")  # nothing between the stories
    assert (
        result.out == generated["First",] + generated["Once",] + generated[()] + generated["Once",]
    )
    typed(b"Once\nOnce\n")
    several = here("sample", "--interactive", "--json", "--quiet")
    one, other = (json.loads(line) for line in several.out.splitlines())
    assert one["seed"] != other["seed"]
    typed(b"Once\ncaf\xe9\n")
    assert here("sample", "--interactive", "--seed", "5").code == 4
    assert here("sample", "--interactive", "--file", "prompt").code == 2


def test_ctrl_c_ends_interactive_quietly(here, monkeypatch):
    def interrupted(mark: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupted)
    result = here("sample", "--interactive", "--quiet")
    assert (result.code, result.out, result.err) == (130, "", "\n")


def test_a_closed_pipe_ends_sample_quietly(project):
    arguments = [
        sys.executable,
        "-m",
        "tinygpt",
        "sample",
        "--num-samples",
        "4",
        "--seed",
        "8",
        "--quiet",
    ]
    process = subprocess.Popen(
        arguments, cwd=project[0], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141
