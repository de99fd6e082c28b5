"""`tinygpt artifacts`."""

import json
import re
import shutil
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.conftest import CONFIG
from tinygpt.pipeline import STAGES
from tinygpt.store.artifact import MODEL_FILES
from tinygpt.ui import size


def test_ls_show_path_lineage(project, here):
    listed = json.loads(here("artifacts", "ls", "--json").out)
    assert {"stage", "key", "digest", "path", "created", "bytes"} <= set(listed[0])
    assert {artifact["stage"] for artifact in listed} == set(STAGES)
    plot = next(artifact for artifact in listed if artifact["stage"] == "plot")
    id_ = plot["key"][:12]
    assert here("artifacts", "path", id_).out.strip() == plot["path"]
    assert (
        "train.max_steps"
        in here("artifacts", "show", f"train/{lineage(here, id_)['train']['key'][:12]}").out
    )
    assert (
        json.loads(here("artifacts", "show", id_, "--json").out)["inputs"]["eval"]["stage"]
        == "eval"
    )
    assert here("artifacts", "lineage", id_).out.splitlines()[-1].strip().startswith("corpus")
    assert len(here("artifacts", "ls").out.splitlines()) == len(listed)


FACTS = {
    "corpus": {"source": "builtin", "documents": 80},
    "tokenize": {"vocab_size": 300},
    "train": {"steps": 3, "preset": None, "source": "builtin"},
    "eval": {"judged": "validation split"},
    "sample": {"samples": 1, "prompt": None},
    "plot": {"pictures": 8},
}


def test_ls_says_by_what_people_know_an_artifact(here, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    listed = {row["stage"]: row for row in json.loads(here("artifacts", "ls", "--json").out)}
    for stage, facts in FACTS.items():
        assert facts.items() <= listed[stage].items()
    train = listed["train"]
    perplexity = json.loads(here("eval", "--json").out)["perplexity"]
    assert train["perplexity"] == pytest.approx(perplexity)
    assert listed["plot"]["model"] == train["key"][:12]
    assert train["created"].endswith("+00:00")
    (line,) = here("artifacts", "ls", "train").out.splitlines()
    local = datetime.fromisoformat(train["created"]) + timedelta(hours=5, minutes=30)
    assert line.split()[:4] == ["train", train["key"][:12], *f"{local:%Y-%m-%d %H:%M}".split()]
    assert line.endswith(f"  perplexity {perplexity:,.2f}, 3 steps, builtin")
    monkeypatch.setenv("COLUMNS", "60")
    narrow = here("artifacts", "ls", "train").out.splitlines()
    assert max(map(len, narrow)) <= 60
    assert " ".join(narrow).split() == line.split()


def test_a_model_whose_summary_is_missing_is_listed_and_shown(tinygpt, project, tmp_path):
    store = Path(shutil.copytree(project[0] / "artifacts", tmp_path / "artifacts"))
    next((store / "train").glob("*/summary.json")).unlink()
    (tmp_path / "tinygpt.toml").write_text(CONFIG)
    (row,) = json.loads(tinygpt("artifacts", "ls", "train", "--json").out)
    assert (row["steps"], row["source"]) == (3, "builtin")
    assert "perplexity" not in row
    shown = tinygpt("train")
    assert shown.code == 0
    assert "  missing  summary.json" in shown.err


@pytest.mark.parametrize(
    ("arguments", "code", "said", "hint"),
    [
        (["ls", "models"], 2, "`models` is not a stage", "`train` makes the models"),
        (["ls", "dataset"], 2, "`dataset` is not a stage", "did you mean `build-dataset`?"),
        (["ls", "--store", "nosuch"], 3, "there is no store `", "--store DIR"),
        (["verify", "--store", "nosuch"], 3, "there is no store `", "--store DIR"),
        (["verify", "--repair", "--store", "mine"], 3, "mine` is not a store", "--store DIR"),
        (["gc", "--store", "mine"], 3, "mine` is not a store", "--store DIR"),
    ],
)
def test_what_is_no_stage_and_no_store_is_refused(tinygpt, tmp_path, arguments, code, said, hint):
    trash = tmp_path / "mine" / ".trash"
    trash.mkdir(parents=True)
    for path in (tmp_path / "mine" / "novel.txt", trash / "old.txt"):
        path.write_text("mine")
    result = tinygpt("artifacts", *arguments)
    assert (result.code, result.out) == (code, "")
    assert said in result.err
    assert hint in result.err.splitlines()[-1]
    assert (trash / "old.txt").exists()
    assert not (tmp_path / "nosuch").exists()


def test_a_folder_with_only_a_readme_is_an_empty_store(tinygpt, tmp_path):
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "README.md").write_text("The store")
    assert json.loads(tinygpt("artifacts", "ls", "--json").out) == []
    assert tinygpt("artifacts", "verify").err == "0 artifacts intact\n"


def test_verify_keeps_a_model_whose_snapshot_is_damaged(tinygpt, project, tmp_path):
    store = Path(shutil.copytree(project[0] / "artifacts", tmp_path / "artifacts"))
    (tmp_path / "tinygpt.toml").write_text(CONFIG)
    (model,) = (store / "train").iterdir()
    snapshot = model / "snapshots" / "step-00000001.safetensors"
    for path in (snapshot, model / "tokenizer.json"):
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1])
    assert tinygpt("sample", "--seed", "3").code == 3  # its tokenizer is damaged
    found = json.loads(tinygpt("artifacts", "verify", "--json").out)
    assert [fault["kind"] for fault in found["faults"]] == ["truncated", "truncated"]
    repaired = tinygpt("artifacts", "verify", "--repair")
    assert repaired.code == 6
    assert "restored from `tokenize/" in repaired.err
    assert "1 fault left" in repaired.err
    assert "`tinygpt train --force`" in repaired.err.splitlines()[-1]
    again = tinygpt("artifacts", "verify", "--repair", "--json")
    assert (again.code, json.loads(again.out)["left"]) == (6, 1)
    assert "and can be used without it" in again.err
    for command in (["sample", "--seed", "3"], ["eval"], ["plot"]):
        assert tinygpt(*command).code == 0
    assert re.search("missing +snapshots/step-00000001.safetensors", tinygpt("train").err)


def test_show_names_the_files_that_a_copy_of_a_model_needs(here):
    made = json.loads(here("train", "--json").out)
    shown = json.loads(here("artifacts", "show", made["key"][:12], "--json").out)
    assert shown["needed"] == ["manifest.json", *MODEL_FILES]
    assert shown["missing"] == []
    total = sum(shown["files"][name]["bytes"] for name in MODEL_FILES)
    text = here("artifacts", "show", made["key"][:12]).out
    assert f"{', '.join(shown['needed'])} ({size(total)})" in text


def test_gc_keeps_a_pinned_artifact(here):
    here("tokenize", "--set", "tokenizer.vocab_size=280")
    here("tokenize", "--force")
    ids = [
        artifact["key"][:12]
        for artifact in json.loads(here("artifacts", "ls", "tokenize", "--json").out)
    ]
    unneeded = [
        a["key"][:12]
        for a in json.loads(here("artifacts", "gc", "--dry-run", "--json").out)["artifacts"]
    ]
    pinned = next((id_ for id_ in ids if id_ in unneeded), None)
    if pinned is None:
        here("artifacts", "gc")
        return
    assert here("artifacts", "pin", pinned).code == 0
    collected = here("artifacts", "gc")
    assert collected.code == 0
    assert "Removed" in collected.err
    assert pinned in here("artifacts", "ls").out
    here("artifacts", "pin", pinned, "--remove")


def lineage(here, id_):
    return json.loads(here("artifacts", "lineage", id_, "--json").out)["inputs"]


def test_a_damaged_file_is_refused_by_name_and_repaired(tinygpt, tmp_path):
    (tmp_path / "tinygpt.toml").write_text(CONFIG)
    assert tinygpt("tokenize").code == 0
    file = next((tmp_path / "artifacts" / "tokenize").rglob("tokenizer.json"))
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-2])
    used = tinygpt("build-dataset")
    assert used.code == 3
    assert "tokenizer.json" in used.err
    assert "`tinygpt run --until tokenize --force`" in used.err
    found = tinygpt("artifacts", "verify")
    assert found.code == 6
    assert "tokenizer.json" in found.err
    assert tinygpt("artifacts", "verify", "--repair").code == 0
    assert tinygpt("artifacts", "verify").code == 0
    assert tinygpt("tokenize").code == 0
    assert tinygpt("build-dataset").code == 0
