"""`tinygpt artifacts`."""

import json

from tests.cli.conftest import CONFIG
from tinygpt.pipeline import STAGES


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
