"""`tinygpt train --tensorboard DIR`: what TensorBoard reads, and what it never changes."""

import errno
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
from tests.exports.test_tensorboard import check_values, read
from tinygpt.store import files

SEEDS = iter(range(1000, 2000))


def new_run(steps=6):
    """Flags of a run that no other test has trained."""
    return ("--max-steps", str(steps), "--set", f"train.seed={next(SEEDS)}")


def rows_of(result):
    """The rows of metrics.jsonl of the run that `--json` printed."""
    text = (Path(json.loads(result.out)["path"]) / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_tensorboard_reads_every_step_with_the_time_at_which_it_was_taken(here, tmp_path):
    began = time.time()
    trained = here("train", *new_run(), "--tensorboard", tmp_path / "runs", "--json")
    ended = time.time()
    assert trained.code == 0, trained.err
    found = read(tmp_path / "runs")
    check_values(found, rows_of(trained))
    times = [event.wall_time for event in found.Scalars("train/loss")]
    assert began < times[0] < times[-1] < ended
    assert times == sorted(times)


def test_watching_changes_neither_the_key_nor_a_byte_of_the_run(here, tmp_path):
    flags = new_run()
    watched = json.loads(here("train", *flags, "--tensorboard", tmp_path, "--json").out)
    again = here("train", *flags, "--force", "--json")
    assert "reproduced" in again.err
    assert json.loads(again.out)["digest"] == watched["digest"]
    assert json.loads(here("train", *flags, "--json").out)["key"] == watched["key"]


def test_a_run_that_is_resumed_continues_in_the_same_folder_without_a_step_twice(here, tmp_path):
    flags = new_run()
    watch = ("--tensorboard", tmp_path / "runs")
    assert here("train", *flags, *watch, "--stop-at-step", "2").code == 75
    assert here("train", *flags, *watch, "--stop-at-step", "5").code == 75
    finished = here("train", *flags, *watch, "--resume", "--json")
    assert finished.code == 0, finished.err
    check_values(read(tmp_path / "runs"), rows_of(finished))
    assert len(list((tmp_path / "runs").iterdir())) == 3
    afresh = here("train", *flags, *watch, "--force", "--json")
    assert afresh.code == 0, afresh.err
    check_values(read(tmp_path / "runs"), rows_of(afresh))


def test_of_a_finished_run_the_command_that_writes_its_events_is_named(here, tmp_path):
    trained = here("train", "--json")
    for folder in (tmp_path / "new folder", tmp_path):
        cached = here("train", "--tensorboard", folder)
        assert cached.code == 0
        (words,) = re.findall(r"`tinygpt (export [^`]*)`", cached.err)
        exported = here(*shlex.split(words))
        assert exported.code == 0, exported.err
        check_values(read(exported.out.strip()), rows_of(trained))


def test_a_folder_of_another_run_is_refused_and_the_one_that_is_named_is_taken(here, tmp_path):
    assert here("train", *new_run(), "--tensorboard", tmp_path).code == 0
    flags = new_run()
    refused = here("train", *flags, "--tensorboard", tmp_path)
    assert refused.code == 2
    assert "holds events of another run" in refused.err
    (named,) = re.findall(r"`--tensorboard ([^`]*)`", refused.err)
    assert here("train", *flags, "--tensorboard", named).code == 0


@pytest.mark.parametrize(
    ("place", "code", "said"),
    [
        ("file", 8, "but it is a file"),
        ("file/below", 8, "not a directory"),
        ("artifacts/runs", 2, "is in the store"),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_error_before_training(
    here, project, tmp_path, place, code, said
):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "artifacts").symlink_to(project[0] / "artifacts")
    refused = here("train", *new_run(), "--tensorboard", tmp_path / place)
    assert refused.code == code
    assert said in refused.err
    assert refused.err.count("error:") == 1
    assert "step" not in refused.err


@pytest.mark.parametrize("place", ["runs", "artifacts"])
def test_a_full_disk_is_one_error_before_training_and_a_note_later(
    here, tmp_path, monkeypatch, place
):
    """Control: an error in the store, where the model goes, does end the training."""
    room = 0

    def full(operation):
        nonlocal room
        if place in operation.path.parts and operation.kind == "write":
            room -= 1
            if room < 0:
                raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(files, "hook", full)
    flags = (*new_run(), "--tensorboard", tmp_path / "runs")
    refused = here("train", *flags)
    assert refused.code == 8
    assert "no space left" in refused.err
    assert refused.err.count("error:") == 1
    if place == "artifacts":
        return
    assert "step" not in refused.err
    assert list((tmp_path / "runs").iterdir()) == []
    room = 4
    trained = here("train", *flags, "--json")
    assert trained.code == 0
    assert trained.err.count("training goes on, and its events are no longer written") == 1
    found = read(tmp_path / "runs")
    assert [event.step for event in found.Scalars("train/loss")] == [1]
    assert len(rows_of(trained)) > 6


def test_without_tensorboard_training_does_not_begin(here, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "tinygpt.exports.tensorboard")
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    flags = new_run()
    refused = here("train", *flags, "--tensorboard", tmp_path / "runs")
    assert refused.code == 2
    assert "`pip install tensorboard` installs it" in refused.err
    assert "step" not in refused.err
    assert not (tmp_path / "runs").exists()
    assert here("train", *flags).code == 0


def test_the_tables_of_an_unfinished_run_are_exported_and_the_plot_that_is_missing_is_named(
    here, tmp_path
):
    flags = new_run()[2:]
    stopped = here("train", *flags, "--stop-at-step", "2")
    assert stopped.code == 75
    exported = here("export", tmp_path / "one", "--to", "csv", *flags)
    assert exported.code == 0, exported.err
    assert len((tmp_path / "one" / "metrics.csv").read_text().splitlines()) == 3
    (words,) = re.findall(r"`tinygpt (plot[^`]*)`", exported.err)
    assert here("eval", *flags).code == 0
    assert here(*shlex.split(words)).code == 0
    again = here("export", tmp_path / "two", "--to", "csv", *flags, "--json")
    assert "heads.csv" not in again.err
    assert (tmp_path / "two" / "heads.csv").read_text().startswith("step,layer,head,")


def steps_in(folder):
    """The steps that TensorBoard reads; none if there is no file yet."""
    found = read(folder) if folder.is_dir() else None
    has_steps = found is not None and "train/loss" in found.Tags()["scalars"]
    return [event.step for event in found.Scalars("train/loss")] if has_steps else []


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_events_of_a_run_that_was_interrupted_or_killed_go_on_where_its_checkpoint_is(
    tmp_path, number
):
    text = (
        CONFIG.replace("max_steps = 3", "max_steps = 100000") + "[runtime]\ncheckpoint_every = 20"
    )
    (tmp_path / "tinygpt.toml").write_text(text)
    assert command(tmp_path, "run", "--until", "build-dataset").returncode == 0
    line = [sys.executable, "-m", "tinygpt", "train", "--tensorboard", "runs"]
    process = subprocess.Popen(
        line, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment()
    )
    deadline = time.monotonic() + 60
    while len(steps_in(tmp_path / "runs")) < 50 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL), said
    before = steps_in(tmp_path / "runs")
    assert before == list(range(1, len(before) + 1))
    again = command(tmp_path, *line[3:], "--max-minutes", "0.01")
    assert again.returncode == 75, again.stderr
    resumed = int(re.findall(r"continuing at step ([\d,]+)", again.stderr)[0].replace(",", ""))
    assert resumed == len(before) or (number == signal.SIGKILL and resumed < len(before) + 1)
    after = steps_in(tmp_path / "runs")
    assert after == list(range(1, len(after) + 1))
    assert len(after) > len(before)
