"""`tinygpt artifacts pack` and `unpack`."""

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import CONFIG


@pytest.fixture
def model(here) -> str:
    """The id of the finished model."""
    return json.loads(here("train", "--json").out)["key"][:12]


@pytest.fixture
def friend(tmp_path, monkeypatch) -> Path:
    """Another folder with the same tinygpt.toml; the working directory from now on."""
    folder = tmp_path / "friend"
    folder.mkdir()
    (folder / "tinygpt.toml").write_text(CONFIG)
    return folder


def test_a_friend_has_everything_cached(here, model, friend, tmp_path, monkeypatch):
    plot = json.loads(here("plot", "--json").out)["key"][:12]
    packed = here("artifacts", "pack", tmp_path / "all.tar", model, f"plot/{plot}")
    assert (packed.code, packed.out) == (0, f"{tmp_path / 'all.tar'}\n")
    lines = packed.err.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == [
        *("plot", "eval", "train", "build-dataset", "tokenize", "corpus")
    ]
    assert re.search(r"corpus +[0-9a-f]{12} +[\d.,]+ (kB|bytes)  the training text$", lines[-2])
    assert "the training text is in it, which `--without-text` leaves out" in lines[-1]
    monkeypatch.chdir(friend)
    unpacked = here("artifacts", "unpack", tmp_path / "all.tar")
    assert unpacked.code == 0
    assert "6 new artifacts in" in unpacked.err
    assert unpacked.err.splitlines()[-1].endswith(f"sample --model {model}")
    for stage in ("tokenize", "build-dataset", "train", "plot"):
        assert json.loads(here(stage, "--json").out)["cached"]
    assert here("artifacts", "verify").err == "6 artifacts intact\n"
    again = here("artifacts", "unpack", tmp_path / "all.tar")
    assert again.err.count("was there") == 6
    assert "0 new artifacts in" in again.err


def test_json(here, model, friend, tmp_path, monkeypatch):
    path = tmp_path / "model.tar"
    packed = json.loads(here("artifacts", "pack", path, model, "--json").out)
    assert packed["path"] == str(path)
    assert packed["bytes"] == path.stat().st_size
    assert packed["text_in"] == ["build-dataset", "corpus"]
    assert packed["artifacts"][0]["stage"] == "train"
    monkeypatch.chdir(friend)
    unpacked = json.loads(here("artifacts", "unpack", path, "--json").out)
    assert {made["state"] for made in unpacked["artifacts"]} == {"new"}
    assert [made["key"] for made in unpacked["artifacts"]] == [
        made["key"] for made in packed["artifacts"]
    ]


def test_without_text_a_model_samples_and_opens_and_says_what_else_it_lacks(
    here, model, friend, tmp_path, monkeypatch
):
    path = tmp_path / "model.tar"
    packed = here("artifacts", "pack", path, model, "--without-text")
    assert "2 artifacts" in packed.err
    assert "without the training text, the model cannot be trained further" in packed.err
    sampled = here("sample", "Once", "--model", model, "--seed", "3").out
    monkeypatch.chdir(friend)
    assert here("artifacts", "unpack", path).code == 0
    assert here("sample", "Once", "--model", model, "--seed", "3").out == sampled
    assert here("page", "--model", model).code == 0
    (tmp_path / "my.txt").write_text("Tom saw a cat. Tom was happy.\n\nMia saw a dog.\n")
    judged = json.loads(here("eval", "--model", model, "--text", tmp_path / "my.txt", "--json").out)
    assert judged["loss"] > 0
    assert judged["generation_metrics"] is None
    for command in ("eval", "plot"):
        refused = here(command, "--model", model)
        assert refused.code == 3
        assert "was made from `build-dataset/" in refused.err
    assert "eval --text my.txt" in here("eval").err.splitlines()[-1]
    assert here("replay", model).code == 3
    assert here("artifacts", "lineage", model).out.count("(gone)") == 2
    missing = here("artifacts", "pack", tmp_path / "more.tar", model)
    assert missing.code == 3
    assert "`--without-text`" in missing.err.splitlines()[-1]
    assert not (tmp_path / "more.tar").exists()


def test_what_holds_text_is_not_packed_without_text(here, tmp_path):
    corpus = json.loads(here("artifacts", "ls", "corpus", "--json").out)[0]["key"][:12]
    refused = here("artifacts", "pack", tmp_path / "x.tar", corpus, "--without-text")
    assert refused.code == 2
    assert "holds text, which `--without-text` leaves out" in refused.err


def test_an_unfinished_run_is_not_packed(tinygpt, tmp_path):
    (tmp_path / "tinygpt.toml").write_text(CONFIG)
    assert tinygpt("run", "--until", "build-dataset").code == 0
    assert tinygpt("train", "--stop-at-step", "1").code == 75
    (run,) = (tmp_path / "artifacts" / ".partial").glob("train-*")
    key = run.name.removeprefix("train-")
    for name in (key, f"train/{key[:6]}"):
        refused = tinygpt("artifacts", "pack", "x.tar", name)
        assert refused.code == 2
        assert f"run `{key}` is not finished: 1 step done" in refused.err
        assert "train --resume`" in refused.err.splitlines()[-1]
    assert tinygpt("train", "--resume").code == 0
    assert tinygpt("artifacts", "pack", "x.tar", key).code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said", "hint"),
    [
        (["pack", "-", "{id}"], 2, "not written to standard output", "name a file"),
        (["pack", "{there}", "{id}"], 2, "there.tar` exists", "choose another name"),
        (["pack", "no folder/x.tar", "{id}"], 8, "no such file", "choose another place"),
        (["pack", "x.tar", "ffffffff"], 3, "there is no artifact `ffffffff`", "artifacts ls"),
        (["pack", "x.tar"], 2, "missing argument `ID`", "artifacts ls"),
        (["unpack", "nowhere.tar"], 3, "there is no file `nowhere.tar`", "check its name"),
        (["unpack", "{there}"], 3, "does not begin a file of a plain tar file", "copy it again"),
        (["unpack", "."], 2, "`.` is a folder and not a pack", "`tinygpt artifacts pack` wrote"),
    ],
)
def test_bad_arguments(here, model, tmp_path, arguments, code, said, hint):
    there = tmp_path / "there.tar"
    there.write_text("mine")
    words = [word.format(id=model, there=there) for word in arguments]
    result = here("artifacts", *words)
    assert (result.code, result.out) == (code, "")
    assert said in result.err
    assert hint in result.err.splitlines()[-1]
    assert there.read_text() == "mine"
    assert not Path("x.tar").exists()
