"""`tinygpt replay`, and what continues a finished run, from the command line."""

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import CONFIG
from tinygpt.lm import training


@pytest.fixture
def trained(tinygpt, tmp_path: Path) -> str:
    """The id of a finished run."""
    (tmp_path / "tinygpt.toml").write_text(CONFIG + "[runtime]\nthreads = 1\n")
    assert tinygpt("run", "--until", "build-dataset").code == 0
    return json.loads(tinygpt("train", "--json").out)["key"][:12]


def test_a_run_is_replayed_to_the_bit_or_the_difference_is_an_error(tinygpt, trained, monkeypatch):
    same = tinygpt("replay", trained[:6])
    assert same.code == 0, same.err
    assert "identical, bit for bit, at step 1, 3" in same.err
    part = tinygpt("replay", trained, "--steps", "0..1", "--json")
    assert json.loads(part.out)["steps"] == [1]
    plain = training.LOSSES["fused"]
    monkeypatch.setitem(training.LOSSES, "fused", lambda *batch: plain(*batch) * 1.001)
    other = tinygpt("replay", trained)
    assert other.code == 6
    assert re.search(
        r"replayed to step 1, `[\w.]+` is the first of \d+ tensors that differ", other.err
    )


@pytest.mark.parametrize(("arguments", "code", "said"), [
    (["--steps", "1..3"], 2, "start from (0) and to compare with (1, 3)"),
    (["--steps", "0..2"], 2, "start from (0) and to compare with (1, 3)"),
    (["--steps", "three"], 2, "start from (0) and to compare with (1, 3)"),
])  # fmt: skip
def test_steps_that_are_not_stored_are_refused(tinygpt, trained, arguments, code, said):
    result = tinygpt("replay", trained, *arguments)
    assert result.code == code
    assert said in result.err


def test_an_unfinished_run_is_replayed_between_its_checkpoints(tinygpt, trained):
    assert tinygpt("replay", "0123").code == 3
    for step in ("2", "4"):
        assert tinygpt("train", "--max-steps", "9", "--stop-at-step", step).code == 75
    (unfinished,) = re.findall(r"unfinished: train ([0-9a-f]{12})", tinygpt("artifacts", "ls").err)
    result = tinygpt("replay", unfinished, "--steps", "2..4", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["steps"] == [4]


def test_a_finished_run_is_continued_by_the_command_that_resume_names(tinygpt, trained):
    asked = tinygpt("train", "--resume", "--max-steps", "8")
    assert asked.code == 2
    assert f"run {trained} is finished after 3 steps" in asked.err
    (command,) = re.findall(r"`tinygpt (train --from [^`]*)`", asked.err)
    assert command == f"train --from {trained} --max-steps 5"
    further = tinygpt(*shlex.split(command), "--json")
    assert further.code == 0, further.err
    assert "is finished" in tinygpt(*shlex.split(command), "--resume").err
    again = tinygpt("train", "--set", f"train.init_from={trained}", "--max-steps", "5")
    assert "cached" in again.err
    replayed = tinygpt("replay", json.loads(further.out)["key"][:12])
    assert replayed.code == 0, replayed.err


def test_another_model_or_other_data_are_not_resumed(tinygpt, trained):
    assert tinygpt("train", "--max-steps", "9", "--stop-at-step", "2").code == 75
    shape = tinygpt("train", "--resume", "--max-steps", "9", "--set", "model.d_model=32")
    assert shape.code == 2
    assert "model.d_model 16 -> 32" in shape.err
    assert tinygpt("run", "--until", "build-dataset", "--set", "dataset.val_fraction=0.2").code == 0
    data = tinygpt("train", "--resume", "--max-steps", "9", "--set", "dataset.val_fraction=0.2")
    assert data.code == 2
    assert "input build-dataset" in data.err
