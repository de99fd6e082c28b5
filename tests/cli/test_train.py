"""`tinygpt train`: stopping, resuming, continuing finished models."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import CONFIG, command, environment


def test_training_stops_resumes_and_starts_over(project, here):
    fast = ("--set", "train.seed=99", "--max-steps", "6")
    stopped = here("train", *fast, "--stop-at-step", "2")
    assert stopped.code == 75, stopped.err
    assert (
        "`tinygpt train --resume --set train.seed=99 --set train.max_steps=6` continues it"
        in stopped.err
    )
    generated = here("sample", "--set", "train.seed=99", "--set", "train.max_steps=6")
    assert generated.code == 0
    assert "checkpoint of step 2" in generated.err
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


def test_training_continues_a_finished_model(here):
    model = json.loads(here("train", "--json").out)["key"][:12]
    further = here("train", "--set", f"train.init_from={model}", "--json")
    assert further.code == 0, further.err
    assert json.loads(further.out)["key"][:12] != model
    assert "cached" in here("train", "--set", f"train.init_from={model}").err


def test_training_refuses_to_continue_with_another_optimizer(here):
    model = json.loads(here("train", "--json").out)["key"][:12]
    refused = here("train", "--from", model, "--set", "train.optimizer=muon")
    assert refused.code == 2
    assert "muon cannot continue from the optimizer state of adamw" in refused.err
    assert "--set train.optimizer=adamw" in refused.err


def test_the_numbers_of_a_run_are_in_its_json(here):
    found = json.loads(here("train", "--json").out)
    path = Path(found["path"])
    numbers = json.loads((path / "summary.json").read_text())["numbers"]
    assert found["numbers"] == numbers
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert numbers["steps"] == 3
    assert numbers["val_loss"] == rows[-1]["val_loss"]
    assert numbers["tokens"] == rows[-1]["tokens"]


def test_another_tokenizer_and_another_shape_cannot_continue_a_model(here):
    model = json.loads(here("train", "--json").out)["key"][:12]
    heads = here("train", "--from", model, "--set", "model.n_heads=1")
    assert heads.code == 2
    assert f"`model.n_heads` = 1 cannot continue model `{model}`, which has 2" in heads.err
    other = ("--source", "builtin@8", "--set", f"train.init_from={model}")
    refused = here("run", "--until", "train", *other)
    assert refused.code == 2
    assert f"cannot continue model `{model}`, which was trained with another one" in refused.err
    (hint,) = re.findall(r"`tinygpt (run [^`]*)`", refused.err)
    assert here(*shlex.split(hint)).code == 0


def test_a_model_continues_on_new_text_with_its_tokenizer_and_no_configuration(
    here, project, tmp_path, monkeypatch
):
    model = json.loads(here("train", "--json").out)["key"][:12]
    monkeypatch.chdir(tmp_path)
    stories = [f"{name} saw a cat. It sat.\n" for name in ("Tom", "Mia", "Ben", "Zoe") * 40]
    (tmp_path / "new.txt").write_text("".join(stories))
    store = ("--store", str(project[0] / "artifacts"))
    command = ("train", "--from", model, "--reuse-tokenizer", "--source", "new.txt", *store)
    missing = here(*command, "--max-steps", "2")
    assert missing.code == 3
    (hint,) = re.findall(r"`tinygpt (run --until build-dataset [^`]*)`", missing.err)
    assert here(*shlex.split(hint)).code == 0
    trained = here(*command, "--max-steps", "2", "--json")
    assert trained.code == 0, trained.err
    assert f"using that of model {model}" in trained.err
    found = json.loads(trained.out)
    assert found["numbers"]["steps"] == 2
    for stage in ("eval", "sample"):
        following = re.findall(rf"next: tinygpt ({stage}\b.*)", trained.err)
        assert following
        assert here(*shlex.split(following[0])).code == 0
    recipe = ("--set", "train.max_steps=2", "--set", f"train.init_from={model}")
    reused = ("--set", f"tokenizer.from={model}", "--source", "new.txt", *store)
    plan = here("run", "--dry-run", "--json", *recipe, *reused)
    assert json.loads(plan.out)["train"]["id"] == found["key"][:12]


def test_a_tokenizer_is_reused_only_from_a_model_that_is_named(here):
    refused = here("train", "--reuse-tokenizer")
    assert refused.code == 2
    assert "`--reuse-tokenizer` needs a model" in refused.err


@pytest.mark.parametrize(
    "sets", [("train.weight_decay=1e10",), ("train.learning_rate=1e5", "train.max_steps=1")]
)
def test_a_run_that_diverges_exits_with_5(here, sets):
    flags = [word for item in sets for word in ("--set", item)]
    diverged = here("train", *flags, "--set", "train.max_steps=20", *flags)
    assert diverged.code == 5, diverged.err
    assert diverged.err.count("error: training diverged") == 1


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_training_saves_and_the_command_it_names_continues(tmp_path, number):
    (tmp_path / "tinygpt.toml").write_text(CONFIG.replace("max_steps = 3", "max_steps = 100000"))
    assert command(tmp_path, "run", "--until", "build-dataset").returncode == 0
    arguments = [sys.executable, "-m", "tinygpt", "train"]
    process = subprocess.Popen(
        arguments, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment()
    )
    deadline = time.monotonic() + 60
    while (
        not list((tmp_path / "artifacts" / ".partial").glob("train-*/checkpoint/*"))
        and time.monotonic() < deadline
    ):
        time.sleep(0.1)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert "Traceback" not in said
    assert "train --resume` continues it" in said
    again = command(tmp_path, "train", "--resume", "--max-minutes", "0.001")
    assert again.returncode == 75, again.stderr
    assert "continuing at step" in again.stderr
