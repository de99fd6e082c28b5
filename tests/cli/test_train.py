"""`tinygpt train`: stopping, resuming, continuing finished models."""

import json
import signal
import subprocess
import sys
import time

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
