"""The whole pipeline from the command line, on a model so small that all stages take seconds."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Result
from tinygpt.cli import invoke
from tinygpt.config import parse_source
from tinygpt.store import Store, locks
from tinygpt.ui import escape

CONFIG = """
[data]
source = "builtin"
max_stories = 80
[tokenizer]
vocab_size = 300
[model]
d_model = 16
n_layers = 1
n_heads = 2
d_ff = 32
context_length = 32
dropout = 0.0
[train]
max_steps = 3
batch_size = 2
grad_accum_steps = 1
warmup_steps = "none"
eval_every = 2
snapshots = 2
sample_tokens = 8
precision = "fp32"
[sample]
max_new_tokens = 12
[plot]
ablation_tokens = 512
"""
STAGES = ["corpus", "tokenize", "build-dataset", "train", "eval", "sample", "plot"]


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> tuple[Path, Result]:
    """A folder where `tinygpt run` has run, and what it said. Tests may add artifacts, never spoil these."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "tinygpt.toml").write_text(CONFIG)
    done = command(folder, "run")
    return folder, Result(done.returncode, done.stdout, done.stderr)


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command line in a process of its own."""
    line = [sys.executable, "-m", "tinygpt", *arguments]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False, env=environment())


def environment() -> dict[str, str]:
    """The same package also in another folder; width and colour as set by nobody."""
    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}


@pytest.fixture
def here(project, tinygpt, monkeypatch):
    """tinygpt(...) in the folder of the finished run."""
    monkeypatch.chdir(project[0])
    return tinygpt


def test_run_does_all_stages_and_says_what_came_of_it(project):
    folder, result = project
    assert result.code == 0, result.err
    tables = re.findall(r"^([a-z-]+) [0-9a-f]{12}$", result.err, re.MULTILINE)
    assert tables == STAGES
    assert result.out.strip()
    assert re.search(r"^perplexity [\d,]+ before training, [\d,.]+ after$", result.err, re.MULTILINE)
    pictures = [Path(line) for line in result.err.splitlines() if line.endswith((".png", ".html"))]
    assert pictures
    assert all(picture.is_absolute() and picture.is_file() for picture in pictures)
    assert "-m tinygpt sample" in result.err
    latest = folder / "artifacts" / "latest"
    assert (latest / "training_curves.png").is_file()
    assert escape((latest / "story.txt").read_text()) == result.out


def final(text: str) -> str:
    """What was said from the first result on, without the word that tells a hit from a miss, progress and notes of work."""
    kept, inside = [], False
    for line in text.splitlines():
        inside = bool(re.match(r"[a-z-]+ [0-9a-f]{12}", line)) or (inside and line.startswith("  "))
        if inside or line.endswith((".png", ".html")) or line.startswith(("next:", "perplexity")):
            kept.append(line.removesuffix("  cached"))
    return "\n".join(kept)


def test_a_second_run_is_cached_and_says_the_same(project, here):
    first, again = project[1], here("run")
    assert again.code == 0
    assert again.out == first.out
    said = re.sub(r"next: \S+ -m tinygpt", "next: tinygpt", final(first.err))
    assert final(again.err) == said
    assert len(re.findall("  cached$", again.err, re.MULTILINE)) == len(STAGES)


@pytest.mark.parametrize("stage", ["tokenize", "build-dataset", "train", "eval", "plot"])
def test_a_stage_of_its_own_prints_what_run_printed(project, here, stage):
    result = here(stage)
    assert result.code == 0
    table = final(project[1].err)
    start = re.search(rf"^{stage} [0-9a-f]{{12}}", table, re.MULTILINE)
    assert start
    shown = [line for line in final(result.err).splitlines() if not line.startswith("next:")]
    assert "\n".join(shown) == "\n".join(table[start.start() :].splitlines()[: len(shown)])
    if stage == "plot":
        assert result.out.splitlines() == [line for line in project[1].err.splitlines() if line.endswith((".png", ".html"))]
    else:
        assert result.out == ""


def test_what_is_cached_loads_no_torch(project):
    code = """if True:
        import sys
        from tinygpt.cli import invoke
        for arguments in (["tokenize"], ["build-dataset"], ["train"], ["eval"], ["plot"], ["run"], ["run", "--dry-run"]):
            assert invoke(arguments) == 0, arguments
        print(sorted({"torch", "numpy", "matplotlib", "datasets", "tokenizers", "rich"} & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project[0], capture_output=True, text=True, check=False, env=environment()
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_dry_run_says_what_would_run_and_why(here):
    rows = json.loads(here("run", "--dry-run", "--json").out)
    assert list(rows) == STAGES
    assert all(row["cached"] for row in rows.values())
    changed = here("run", "--dry-run", "--set", "train.max_steps=5")
    assert changed.code == 0
    assert "train.max_steps 3 -> 5" in changed.out
    assert "runs after `train`" in changed.out


def test_the_json_of_a_run_and_of_its_stages(here):
    run = json.loads(here("run", "--json").out)
    assert [stage["stage"] for stage in run["stages"]] == STAGES
    assert run["perplexity"]["before"] > 1
    assert run["stories"]
    train = json.loads(here("train", "--json").out)
    assert {"stage", "key", "digest", "path", "created", "bytes"} <= set(train)
    judged = json.loads(here("eval", "--json").out)
    assert {"loss", "perplexity", "bits_per_byte", "tokens", "baselines"} <= set(judged)


class TestSample:
    """`tinygpt sample`."""

    def test_a_seed_repeats_a_story(self, here):
        first = here("sample", "Once", "--seed", "5")
        again = here("sample", "Once", "--seed", "5")
        assert first.code == again.code == 0
        assert first.out.startswith("Once")
        assert again.out == first.out
        assert "cached" in again.err
        assert here("sample", "Once", "--seed", "5", "--force", "--no-stream").out == first.out

    def test_without_a_seed_one_is_drawn_and_named(self, here):
        result = here("sample")
        drawn = re.search(r"seed (\d+) \(repeat with --seed \1\)", result.err)
        assert drawn
        assert here("sample", "--seed", drawn[1]).out == result.out

    def test_json_is_an_object_a_line(self, here):
        result = here("sample", "Once", "--num-samples", "3", "--seed", "6", "--json")
        stories = [json.loads(line) for line in result.out.splitlines()]
        assert len(stories) == 3
        assert all(story["text"].startswith("Once") for story in stories)
        plain = here("sample", "Once", "--num-samples", "3", "--seed", "6")
        assert plain.out == escape("\n\n".join(story["text"] for story in stories)) + "\n"

    def test_the_prompt_may_come_from_a_file(self, here, tmp_path):
        (tmp_path / "prompt").write_text("Once")
        given = here("sample", "--file", tmp_path / "prompt", "--seed", "5")
        assert given.out == here("sample", "Once", "--seed", "5").out
        (tmp_path / "bad").write_bytes(b"\xff")
        assert here("sample", "--file", tmp_path / "bad").code == 4
        assert here("sample", "--file", tmp_path / "none").code == 4

    @pytest.mark.parametrize("prompt", ["", "many words " * 50])
    def test_a_prompt_that_cannot_be_continued(self, here, prompt):
        result = here("sample", prompt, "--overflow", "stop")
        assert result.code == 2
        assert result.err.splitlines()[-1].startswith("hint: ")

    def test_the_newest_run_stands_in_for_one_that_was_not_named(self, project, here, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        store = project[0] / "artifacts"
        result = here("sample", "--store", store)
        assert result.code == 0
        assert re.search(r"using run [0-9a-f]{12} \(.* old, perplexity [\d.,]+\)", result.err)
        assert here("sample", "--store", store, "--set", "runtime.threads=1").code == 0  # says how, not which
        named = here("sample", "--store", store, "--preset", "demo")
        assert named.code == 3
        assert f"tinygpt run --until train --preset demo --store {store}`" in named.err

    def test_a_model_by_its_id(self, here):
        id_ = json.loads(here("train", "--json").out)["key"][:12]
        assert here("sample", "--model", id_[:6], "--seed", "1").code == 0
        assert here("plot", "--model", id_).code == 0
        wrong = here("sample", "--model", "0000000")
        assert wrong.code == 3
        assert id_ in wrong.err

    def test_a_model_by_its_folder_also_where_it_was_copied_to(self, here, tmp_path):
        made = json.loads(here("train", "--json").out)
        copy = shutil.copytree(made["path"], tmp_path / "a copy")
        told = here("sample", "Once", "--seed", "1", "--model", made["key"][:12]).out
        assert here("sample", "Once", "--seed", "1", "--model", copy).out == told
        assert here("sample", "Once", "--seed", "1", "--model", copy, "--store", tmp_path / "another").out == told
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

    def test_an_xray_is_a_view_of_a_told_story(self, here):
        story = here("sample", "Once", "--seed", "11", "--num-samples", "2").out
        seen = here("sample", "Once", "--seed", "11", "--num-samples", "2", "--xray")
        assert "cached" in seen.err
        assert seen.out.startswith(story)
        rows = seen.out.removeprefix(story).splitlines()
        assert [row.split()[0] for row in rows].count("token") == 2
        lines = here("sample", "Once", "--seed", "11", "--num-samples", "2", "--xray", "--json").out.splitlines()
        stories = [json.loads(line) for line in lines]
        assert len(rows) == 2 + sum(len(story["xray"]) for story in stories)
        assert all(len(story["xray"]) == len(story["token_ids"]) for story in stories)
        fresh = here("sample", "Once", "--seed", "12", "--xray")
        assert "cached" not in fresh.err
        assert fresh.out == here("sample", "Once", "--seed", "12", "--xray").out

    def test_prompt_after_prompt_until_the_input_ends(self, here, monkeypatch):
        def typed(data: bytes) -> None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))

        told = {prompt: here("sample", *prompt, "--seed", "5").out for prompt in ((), ("First",), ("Once",))}
        typed(b"Once\n\nOnce")
        result = here("sample", "First", "--interactive", "--seed", "5")
        assert (result.code, result.err) == (0, "")  # nothing between the stories
        assert result.out == told["First",] + told["Once",] + told[()] + told["Once",]
        typed(b"Once\nOnce\n")
        several = here("sample", "--interactive", "--json", "--quiet")
        one, other = (json.loads(line) for line in several.out.splitlines())
        assert one["seed"] != other["seed"]
        typed(b"Once\ncaf\xe9\n")
        assert here("sample", "--interactive", "--seed", "5").code == 4
        assert here("sample", "--interactive", "--file", "prompt").code == 2

    def test_an_interrupt_ends_prompt_after_prompt_quietly(self, here, monkeypatch):
        def interrupted(mark: str) -> str:
            raise KeyboardInterrupt

        monkeypatch.setattr("builtins.input", interrupted)
        result = here("sample", "--interactive", "--quiet")
        assert (result.code, result.out, result.err) == (130, "", "\n")

    def test_a_reader_that_goes_away_ends_it_quietly(self, project):
        arguments = [sys.executable, "-m", "tinygpt", "sample", "--num-samples", "4", "--seed", "8", "--quiet"]
        process = subprocess.Popen(arguments, cwd=project[0], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_eval_judges_any_text(here, tmp_path):
    (tmp_path / "text.txt").write_text("Once upon a time there was a cat.\n")
    result = here("eval", "--text", tmp_path / "text.txt", "--json")
    assert result.code == 0
    assert json.loads(result.out)["judged"] == "text"
    (tmp_path / "text.txt").write_text("Once upon a time there was a dog.\n")
    assert "cached" not in here("eval", "--text", tmp_path / "text.txt").err
    assert here("eval", "--text", tmp_path / "none.txt").code == 4


def test_plot_copies_where_it_is_told(here, tmp_path):
    result = here("plot", "--out", tmp_path / "pictures")
    assert result.code == 0
    assert str(tmp_path / "pictures" / "training_curves.png") in result.out.splitlines()
    assert (tmp_path / "pictures" / "training_curves.png").stat().st_size > 1000


@pytest.mark.parametrize("display", [True, False])
def test_plot_opens_the_report_or_says_that_it_cannot(here, tmp_path, monkeypatch, display):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or display)
    result = here("plot", "--open", "--out", tmp_path)
    assert result.code == 0
    assert opened == [(tmp_path / "report.html").as_uri()]
    assert (f"no browser to open `{tmp_path / 'report.html'}`" in result.err) == (not display)


def test_compare_says_what_differs_and_overlays_the_curves(project, here, tmp_path):
    one = json.loads(here("train", "--json").out)["key"][:12]
    other = here("run", "--until", "train", "--set", "train.max_steps=4", "--set", "tokenizer.vocab_size=290", "--json")
    two = json.loads(other.out)["stages"][-1]["key"][:12]
    result = here("compare", one[:7], two, "--out", tmp_path / "new", "--json")
    assert result.code == 0, result.err
    said = json.loads(result.out)
    assert list(said["runs"]) == [one, two]
    first, second = said["runs"].values()
    assert (first["train.max_steps"], second["train.max_steps"]) == (3, 4)
    assert (first["tokenizer.vocab_size"], second["tokenizer.vocab_size"]) == (300, 290)
    assert "model.d_model" not in first
    assert first["final_perplexity"] >= first["best_perplexity"] > 1
    judged = json.loads(here("eval", "--json").out)
    assert (first["bits_per_byte"], second["bits_per_byte"]) == (judged["bits_per_byte"], None)
    assert Path(said["picture"]).read_bytes().startswith(b"\x89PNG")
    assert said["picture"] == str(tmp_path / "new" / "compare.png")
    table = here("compare", one, two)
    assert re.search(r"^  train.max_steps +3 +4$", table.out, re.MULTILINE)
    assert table.out.splitlines()[-1] == str(project[0] / "artifacts" / "latest" / "compare.png")
    assert here("artifacts", "verify").code == 0
    assert here("compare", one, one[:6]).code == 2
    assert here("compare", one, "0000000").code == 3
    (tmp_path / "file").write_text("")
    assert here("compare", one, two, "--out", tmp_path / "file").code == 8


@pytest.mark.parametrize(
    ("arguments", "command_"),
    [
        (["build-dataset"], "tinygpt run --until tokenize"),
        (["train"], "tinygpt run --until build-dataset"),
        (["eval", "--set", "train.max_steps=9"], "tinygpt run --until train --set train.max_steps=9"),
        (["sample"], "tinygpt run --until train"),
        (["plot", "--store", "elsewhere"], "tinygpt run --until train --store elsewhere"),
    ],
)
def test_what_is_missing_is_named_with_the_command_that_makes_it(tinygpt, tmp_path, arguments, command_):
    (tmp_path / "tinygpt.toml").write_text(CONFIG)
    result = tinygpt(*arguments)
    assert result.code == 3, result.err
    assert f"`{command_}`" in result.err.splitlines()[-1]


def test_training_stops_resumes_and_starts_afresh(project, here):
    fast = ("--set", "train.seed=99", "--max-steps", "6")
    stopped = here("train", *fast, "--stop-at-step", "2")
    assert stopped.code == 75, stopped.err
    assert "`tinygpt train --resume --set train.seed=99 --set train.max_steps=6` continues it" in stopped.err
    told = here("sample", "--set", "train.seed=99", "--set", "train.max_steps=6")
    assert told.code == 0
    assert "checkpoint of step 2" in told.err
    other = here("train", "--resume", "--set", "train.seed=98", "--max-steps", "6")
    assert other.code == 2
    assert "train.seed 99 -> 98" in other.err
    afresh = here("train", *fast, "--fresh", "--stop-at-step", "1")
    assert afresh.code == 75
    assert ".trash" in afresh.err
    resumed = here("train", *fast, "--resume")
    assert resumed.code == 0, resumed.err
    assert "continuing at step 1" in resumed.err
    done = here("train", *fast, "--resume")
    assert done.code == 0
    assert "is finished" in done.err
    assert "cached" in done.err


def test_force_makes_it_again_and_finds_the_same(here):
    result = here("tokenize", "--force")
    assert result.code == 0
    assert "  reproduced" in result.err


class TestArtifacts:
    """`tinygpt artifacts`."""

    def test_ls_show_path_lineage(self, project, here):
        listed = json.loads(here("artifacts", "ls", "--json").out)
        assert {"stage", "key", "digest", "path", "created", "bytes"} <= set(listed[0])
        assert {artifact["stage"] for artifact in listed} == set(STAGES)
        plot = next(artifact for artifact in listed if artifact["stage"] == "plot")
        id_ = plot["key"][:12]
        assert here("artifacts", "path", id_).out.strip() == plot["path"]
        assert "train.max_steps" in here("artifacts", "show", f"train/{lineage(here, id_)['train']['key'][:12]}").out
        assert json.loads(here("artifacts", "show", id_, "--json").out)["inputs"]["eval"]["stage"] == "eval"
        assert here("artifacts", "lineage", id_).out.splitlines()[-1].strip().startswith("corpus")
        assert len(here("artifacts", "ls").out.splitlines()) == len(listed)

    def test_a_pin_outlasts_gc(self, here):
        here("tokenize", "--set", "tokenizer.vocab_size=280")
        here("tokenize", "--force")
        ids = [artifact["key"][:12] for artifact in json.loads(here("artifacts", "ls", "tokenize", "--json").out)]
        unneeded = [a["key"][:12] for a in json.loads(here("artifacts", "gc", "--dry-run", "--json").out)["artifacts"]]
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


def test_damage_is_named_refused_and_repaired(tinygpt, tmp_path):
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
    (tmp_path / "tiny.txt").write_text("".join(f"Story {number}.\n<|endoftext|>\n" for number in range(40)))
    (tmp_path / "tinygpt.toml").write_text(CONFIG.replace("context_length = 32", "context_length = 4096"))
    result = tinygpt("run", "--source", "tiny.txt")
    assert result.code == 4, result.err


def test_a_source_that_is_gone_is_what_it_was(tinygpt, tmp_path):
    stories = "".join(f"Story {number} of a cat and a dog.\n<|endoftext|>\n" for number in range(60))
    (tmp_path / "my.txt").write_text(stories)
    (tmp_path / "tinygpt.toml").write_text(CONFIG)
    assert tinygpt("tokenize", "--source", "my.txt").code == 0
    (tmp_path / "my.txt").unlink()
    result = tinygpt("build-dataset", "--source", "my.txt")
    assert result.code == 0, result.err
    assert "using the stories read from it before" in result.err
    (tmp_path / "my.txt").write_text(stories + "One more.\n")
    assert "cached" not in tinygpt("tokenize", "--source", "my.txt").err


def test_the_hub_is_asked_only_where_stories_have_to_be_read(tinygpt, tmp_path, monkeypatch):
    (tmp_path / "tinygpt.toml").write_text(CONFIG.replace('"builtin"', '"org/name"'))
    assert tinygpt("train").code == 3  # not 7: it would not read the stories
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


def test_a_signal_leaves_a_store_that_is_whole(tinygpt, tmp_path, monkeypatch):
    def interrupted(config, inputs, out, report):
        out.bytes("tokenizer.json", b"half")
        report.task("learn", 10)
        signal.raise_signal(signal.SIGTERM)

    (tmp_path / "tinygpt.toml").write_text(CONFIG)
    with monkeypatch.context() as patch:
        patch.setattr("tinygpt.stages.tokenize.run", interrupted)
        result = tinygpt("tokenize")
    assert result.code == 143
    assert "stopped by SIGTERM" in result.err
    assert tinygpt("artifacts", "verify").code == 0
    assert not list((tmp_path / "artifacts").glob("tokenize/*"))
    assert tinygpt("tokenize").code == 0


def test_a_store_in_use_exits_9(tinygpt, tmp_path):
    (tmp_path / "tinygpt.toml").write_text(CONFIG)
    store = Store(tmp_path / "artifacts")
    store.lock_file("store").parent.mkdir(parents=True)
    with locks.hold(store.lock_file("store"), timeout=None, waiting=print):
        result = tinygpt("tokenize", "--set", "runtime.lock_timeout=0")
    assert result.code == 9, result.err


def test_training_goes_on_from_a_finished_model(here):
    model = json.loads(here("train", "--json").out)["key"][:12]
    further = here("train", "--set", f"train.init_from={model}", "--json")
    assert further.code == 0, further.err
    assert json.loads(further.out)["key"][:12] != model
    assert "cached" in here("train", "--set", f"train.init_from={model}").err


def test_a_model_is_not_trained_on_with_another_optimizer(here):
    model = json.loads(here("train", "--json").out)["key"][:12]
    refused = here("train", "--from", model, "--set", "train.optimizer=muon")
    assert refused.code == 2
    assert "muon cannot go on from the state of adamw" in refused.err
    assert "--set train.optimizer=adamw" in refused.err


def test_a_store_that_is_a_file_exits_8(tinygpt, tmp_path):
    (tmp_path / "tinygpt.toml").write_text(CONFIG)
    (tmp_path / "store").write_text("")
    assert tinygpt("tokenize", "--store", "store").code == 8


def test_no_network_exits_7_and_names_a_way_without(tinygpt):
    result = tinygpt("tokenize", "--source", "roneneldan/TinyStories")
    assert result.code == 7, result.err
    assert "--preset demo" in result.err


def test_forty_columns_and_no_colour(here, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    result = here("train")
    assert result.code == 0
    assert "\x1b" not in result.err
    assert max(len(line) for line in result.err.splitlines() if not line.startswith("next:")) <= 40


def test_quiet_says_the_product_only(here):
    result = here("sample", "--quiet", "--seed", "5")
    assert result.err == ""
    assert result.out
    assert here("train", "--quiet").err == ""


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_training_saves_and_the_command_it_names_continues(tmp_path, number):
    (tmp_path / "tinygpt.toml").write_text(CONFIG.replace("max_steps = 3", "max_steps = 100000"))
    assert command(tmp_path, "run", "--until", "build-dataset").returncode == 0
    arguments = [sys.executable, "-m", "tinygpt", "train"]
    process = subprocess.Popen(arguments, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment())
    deadline = time.monotonic() + 60
    while not list((tmp_path / "artifacts" / ".partial").glob("train-*/checkpoint/*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert "Traceback" not in said
    assert "train --resume` continues it" in said
    again = command(tmp_path, "train", "--resume", "--max-minutes", "0.001")
    assert again.returncode == 75, again.stderr
    assert "continuing at step" in again.stderr


def test_invoke_can_be_called_twice_in_one_process(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert [invoke(["config", "show", "--preset", "demo"]), invoke(["artifacts", "ls"])] == [0, 0]
