"""The whole pipeline from the command line."""

import errno
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import CONFIG, environment
from tinygpt.cli import invoke
from tinygpt.errors import BusyError
from tinygpt.pipeline import STAGES
from tinygpt.store import Store, files, locks
from tinygpt.ui import escape


def test_run_does_all_stages_and_ends_with_sample_result_and_four_paths(project):
    folder, result = project
    assert result.code == 0, result.err
    tables = re.findall(r"^([a-z-]+) [0-9a-f]{12}$", result.err, re.MULTILINE)
    assert tables == list(STAGES)
    assert result.out.strip()
    perplexity = r"^perplexity [\d,]+ before training, [\d,.]+ after$"
    assert re.search(perplexity, result.err, re.MULTILINE)
    latest = folder / "artifacts" / "latest"
    paths = re.findall(r"^(report|model|pictures|page) +(/.*)$", result.err, re.MULTILINE)
    assert [name for name, _ in paths] == ["report", "model", "pictures", "page"]
    assert dict(paths)["report"] == str(latest / "report.html")
    assert dict(paths)["pictures"] == str(latest)
    assert (Path(dict(paths)["model"]) / "model.safetensors").is_file()
    assert Path(dict(paths)["page"]).read_bytes().startswith(b"<!DOCTYPE html>")
    assert result.err.count(str(folder)) == 4
    assert "-m tinygpt sample" in result.err
    assert (latest / "training_curves.png").is_file()


def test_run_leaves_its_sample_in_latest(tinygpt, tmp_path):
    (tmp_path / "tinygpt.toml").write_text(CONFIG)
    result = tinygpt("run")
    sample = (tmp_path / "artifacts" / "latest" / "sample.txt").read_text()
    assert escape(sample) == result.out


ENDING = ("report ", "model ", "pictures ", "page ", "next:", "perplexity")


def final(text: str) -> str:
    """The result tables and what follows them, a cached result like a new one."""
    kept, inside = [], False
    for line in text.splitlines():
        inside = bool(re.match(r"[a-z-]+ [0-9a-f]{12}", line)) or (inside and line.startswith("  "))
        if inside or line.startswith(ENDING):
            kept.append(line.removesuffix("  cached"))
    return "\n".join(kept)


def test_a_second_run_is_cached_and_prints_the_same_results(project, here):
    first, again = project[1], here("run")
    assert again.code == 0
    assert again.out == first.out
    said = re.sub(r"next: \S+ -m tinygpt", "next: tinygpt", final(first.err))
    assert final(again.err) == said
    assert len(re.findall("  cached$", again.err, re.MULTILINE)) == len(STAGES)


@pytest.mark.parametrize("stage", ["tokenize", "build-dataset", "train", "eval", "plot", "page"])
def test_a_single_stage_prints_what_run_printed_for_it(project, here, stage):
    result = here(stage)
    assert result.code == 0
    table = final(project[1].err)
    start = re.search(rf"^{stage} [0-9a-f]{{12}}", table, re.MULTILINE)
    assert start
    lines = final(result.err).splitlines()
    shown = [line for line in lines if not line.startswith(("next:", "report "))]
    assert "\n".join(shown) == "\n".join(table[start.start() :].splitlines()[: len(shown)])
    if stage == "plot":
        paths = [Path(line) for line in result.out.splitlines()]
        assert {path.suffix for path in paths} == {".png", ".html"}
        assert all(path.is_absolute() and path.is_file() for path in paths)
        assert lines[-1] == f"report    {project[0] / 'artifacts' / 'latest' / 'report.html'}"
    elif stage == "page":
        assert Path(result.out.strip()).read_bytes().startswith(b"<!DOCTYPE html>")
    else:
        assert result.out == ""


def test_cached_stages_do_not_import_torch(project):
    code = """if True:
        import sys
        from tinygpt.cli import invoke
        stages = ("tokenize", "build-dataset", "train", "eval", "plot", "page")
        for line in (*stages, "run", "run --dry-run"):
            assert invoke(line.split()) == 0, line
        heavy = {"torch", "numpy", "matplotlib", "datasets", "tokenizers", "rich"}
        print(sorted(heavy & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project[0],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_dry_run_lists_what_would_run_and_why(here):
    rows = json.loads(here("run", "--dry-run", "--json").out)
    assert list(rows) == list(STAGES)
    assert all(row["cached"] for row in rows.values())
    changed = here("run", "--dry-run", "--set", "train.max_steps=5")
    assert changed.code == 0
    assert re.search(r"train.max_steps \d -> 5", changed.out)
    assert "runs after `train`" in changed.out


def test_the_json_of_a_run_and_of_its_stages(here):
    run = json.loads(here("run", "--json").out)
    assert [stage["stage"] for stage in run["stages"]] == list(STAGES)
    assert run["perplexity"]["before"] > 1
    assert run["samples"]
    assert Path(run["page"]).name == "page.html"
    train = json.loads(here("train", "--json").out)
    assert {"stage", "key", "digest", "path", "created", "bytes"} <= set(train)
    judged = json.loads(here("eval", "--json").out)
    assert {"loss", "perplexity", "bits_per_byte", "tokens", "baselines"} <= set(judged)


def test_eval_accepts_a_text_file(here, tmp_path):
    (tmp_path / "text.txt").write_text("Once upon a time there was a cat.\n")
    result = here("eval", "--text", tmp_path / "text.txt", "--json")
    assert result.code == 0
    assert json.loads(result.out)["judged"] == "text"
    (tmp_path / "text.txt").write_text("Once upon a time there was a dog.\n")
    assert "cached" not in here("eval", "--text", tmp_path / "text.txt").err
    assert here("eval", "--text", tmp_path / "none.txt").code == 4


def test_plot_copies_the_pictures_to_a_folder(here, tmp_path):
    result = here("plot", "--out", tmp_path / "pictures")
    assert result.code == 0
    assert str(tmp_path / "pictures" / "training_curves.png") in result.out.splitlines()
    assert (tmp_path / "pictures" / "training_curves.png").stat().st_size > 1000


def test_page_is_copied_to_a_file_and_opened(here, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    page = tmp_path / "new" / "my model.html"
    result = here("page", "--out", page, "--open", "--dtype", "int8", "--snapshots", "0")
    assert result.code == 0
    assert result.out.strip() == str(page)
    assert page.read_bytes().startswith(b"<!DOCTYPE html>")
    assert opened == [page.as_uri()]
    assert "int8; it moves logits by up to" in result.err
    again = here("page", "--dtype", "int8", "--snapshots", "0", "--json")
    assert json.loads(again.out)["cached"]


def test_page_of_a_model_that_is_too_large_is_refused_with_the_format_that_fits(here, monkeypatch):
    from tinygpt.html_page import packing

    monkeypatch.setitem(packing.MAX_PARAMETERS, "f32", 100)
    result = here("page", "--dtype", "f32")
    assert result.code == 2
    assert "parameters; a page in f32 holds up to 100" in result.err
    assert "page --dtype int8" in result.err


def test_run_of_a_model_too_large_for_a_page_ends_with_a_note(here, monkeypatch):
    from tinygpt.html_page import packing

    monkeypatch.setitem(packing.MAX_PARAMETERS, "f32", 100)
    result = here("run", "--set", "page.dtype=f32")
    assert result.code == 0
    assert "no page: the model has" in result.err
    assert not re.search("^next: .* page", result.err, re.MULTILINE)
    assert here("run", "--until", "page", "--set", "page.dtype=f32").code == 2


@pytest.mark.parametrize("display", [True, False])
def test_plot_opens_the_report_or_says_that_it_cannot(here, tmp_path, monkeypatch, display):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or display)
    result = here("plot", "--open", "--out", tmp_path)
    assert result.code == 0
    assert opened == [(tmp_path / "report.html").as_uri()]
    assert (f"cannot open `{tmp_path / 'report.html'}`" in result.err) == (not display)


@pytest.mark.parametrize(
    ("arguments", "command_"),
    [
        (["build-dataset"], "tinygpt run --until tokenize"),
        (["train"], "tinygpt run --until build-dataset"),
        (
            ["eval", "--set", "train.max_steps=9"],
            "tinygpt run --until train --set train.max_steps=9",
        ),
        (["sample"], "tinygpt run --until train"),
        (["plot", "--store", "elsewhere"], "tinygpt run --until train --store elsewhere"),
    ],
)
def test_a_missing_input_is_named_with_the_command_that_makes_it(
    tinygpt, tmp_path, arguments, command_
):
    (tmp_path / "tinygpt.toml").write_text(CONFIG)
    result = tinygpt(*arguments)
    assert result.code == 3, result.err
    assert f"`{command_}`" in result.err.splitlines()[-1]


def test_force_recomputes_and_reports_reproduced(here):
    result = here("tokenize", "--force")
    assert result.code == 0
    assert "  reproduced" in result.err


def test_a_signal_leaves_no_partial_artifact(tinygpt, tmp_path, monkeypatch):
    def interrupted(config, inputs, out, reporter):
        out.bytes("tokenizer.json", b"half")
        reporter.task("learn", 10)
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
    with locks.hold(store.lock_file("store"), timeout=None, on_wait=print):
        result = tinygpt("tokenize", "--set", "runtime.lock_timeout=0")
    assert result.code == 9, result.err


def test_the_command_that_holds_a_lock_is_named_as_it_was_typed(tinygpt, tmp_path, monkeypatch):
    (tmp_path / "tinygpt.toml").write_text(CONFIG)
    monkeypatch.setattr(sys, "argv", ["/bin/tinygpt", "train", "--set", "train.seed=7"])
    store = Store(tmp_path / "artifacts")
    store.lock_file("store").parent.mkdir(parents=True)
    wait = "runtime.lock_timeout=0"
    with locks.hold(store.lock_file("store"), timeout=None, on_wait=print):
        result = tinygpt("tokenize", "--set", wait, "--set", "tokenizer.vocab_size=280")
    first = result.err.splitlines()[0]
    assert "(tinygpt train --set train.seed=7, started " in first
    assert "vocab_size" not in first
    # Who shares the lock of the store is known by the other one that a stage holds
    with (
        locks.hold(store.lock_file("store"), timeout=None, on_wait=print, shared=True),
        locks.hold(store.lock_file("train-0123"), timeout=None, on_wait=print),
        pytest.raises(BusyError, match=r"\(tinygpt train --set train\.seed=7, started "),
        locks.hold(store.lock_file("store"), timeout=0, on_wait=print),
    ):
        pass


def test_a_store_that_cannot_be_written_answers_from_the_cache(
    project, here, monkeypatch, tmp_path
):
    sampled = here("sample", "Tom", "--seed", "8")
    latest = project[0] / "artifacts" / "latest"
    before = sorted(latest.rglob("*"))

    def refuse(operation):
        raise OSError(errno.EROFS, "injected")

    with monkeypatch.context() as patch:
        patch.setattr(files, "hook", refuse)
        run = here("run")
        assert (run.code, run.out) == (0, project[1].out)
        plot = json.loads(here("plot", "--json").out)["path"]
        assert f"report    {plot}/report.html" in run.err
        assert f"`{latest}` keeps older copies" in run.err
        assert here("plot").code == 0
        assert here("sample", "Tom", "--seed", "8").out == sampled.out
        for command in (["sample", "Tom", "--seed", "9"], ["artifacts", "gc"]):
            refused = here(*command)
            assert refused.code == 8
            assert "read-only" in refused.err
            assert "`--store DIR`" in refused.err
    assert sorted(latest.rglob("*")) == before
    model = json.loads(here("train", "--json").out)["path"]
    elsewhere = here("sample", "Tom", "--seed", "8", "--model", model, "--store", tmp_path / "new")
    assert (elsewhere.code, elsewhere.out) == (0, sampled.out)


def test_a_store_that_is_a_file_exits_8(tinygpt, tmp_path):
    (tmp_path / "tinygpt.toml").write_text(CONFIG)
    (tmp_path / "store").write_text("")
    assert tinygpt("tokenize", "--store", "store").code == 8


def test_no_network_exits_7_and_suggests_an_offline_preset(tinygpt):
    result = tinygpt("tokenize", "--source", "roneneldan/TinyStories")
    assert result.code == 7, result.err
    assert "--preset demo" in result.err


def test_output_fits_40_columns_without_color(here, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    result = here("train")
    assert result.code == 0
    assert "\x1b" not in result.err
    assert max(len(line) for line in result.err.splitlines() if not line.startswith("next:")) <= 40


def test_quiet_prints_only_the_output(here):
    result = here("sample", "--quiet", "--seed", "5")
    assert result.err == ""
    assert result.out
    assert here("train", "--quiet").err == ""


def test_invoke_can_be_called_twice_in_one_process(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "artifacts").mkdir()
    assert [invoke(["config", "show", "--preset", "demo"]), invoke(["artifacts", "ls"])] == [0, 0]
