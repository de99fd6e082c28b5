"""`torchrun -m tinygpt train`: several processes train what one would train.

Only rank 0 talks, and a lost process ends the job.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import CONFIG, command, environment
from tinygpt.lm.weights import read_arrays
from tinygpt.store import Artifact, Store

RECIPE = (
    CONFIG.replace("dropout = 0.0", "dropout = 0.2")
    .replace("max_steps = 3", "max_steps = 12\ngrad_clip = 0.5")
    .replace("batch_size = 2", "batch_size = 4")
    .replace("grad_accum_steps = 1", "grad_accum_steps = 3")
    + "[runtime]\nthreads = 1\ncheckpoint_every = 3\n"
)
TORCHRUN = {
    "WORLD_SIZE": "2",
    "RANK": "0",
    "LOCAL_RANK": "0",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "1",
}
BROKEN = """
import sys
from tinygpt.lm.fast.distributed import DataParallelGroup
def first_share(self, sequences, size):
    return iter([range(sequences // self.world_size)])
DataParallelGroup.micro_batches = first_share  # every process takes the first share
from tinygpt.cli import main
main()
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder with everything that training reads."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "tinygpt.toml").write_text(RECIPE)
    (folder / "broken.py").write_text(BROKEN)
    assert command(folder, "run", "--until", "build-dataset").returncode == 0
    return folder


@dataclass(frozen=True)
class Stores:
    """Stores of one folder, each with what training reads."""

    folder: Path

    def __call__(
        self, name: str, processes: int, *arguments: str, module: str = "tinygpt"
    ) -> tuple[int, str]:
        """Exit code and words of `train` in a store, under torchrun."""
        done = subprocess.run(
            self.command(name, processes, *arguments, module=module),
            **self.where(),
            capture_output=True,
            text=True,
            timeout=900,
        )
        return done.returncode, done.stdout + done.stderr

    def command(
        self, name: str, processes: int, *arguments: str, module: str = "tinygpt"
    ) -> list[str]:
        if not (self.folder / name).exists():
            shutil.copytree(self.folder / "artifacts", self.folder / name)
        launcher = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(processes),
        ]
        return [*launcher, "-m", module, "train", "--store", name, *arguments]

    def where(self) -> dict[str, Any]:
        """Folder and environment of a process that is started here."""
        there = environment()
        return {
            "cwd": self.folder,
            "env": {
                **there,
                "PYTHONPATH": f"{there['PYTHONPATH']}:{self.folder}",
                "OMP_NUM_THREADS": "1",
            },
        }

    def run(self, name: str) -> Artifact:
        """The one trained model of a store."""
        (run,) = Store(self.folder / name).list("train")
        return run

    def newest_step(self, name: str) -> int:
        """The step of the newest checkpoint; 0 for none."""
        return max((run.step for run in Store(self.folder / name).unfinished_runs()), default=0)


@pytest.fixture
def train(prepared) -> Stores:
    return Stores(prepared)


def figures(run: Artifact, kind: str, figure: str) -> np.ndarray:
    rows = map(json.loads, run.read("metrics.jsonl").splitlines())
    return np.array([row[figure] for row in rows if row["kind"] == kind])


def differences(a: Artifact, b: Artifact) -> tuple[float, float, float]:
    """The largest between two runs' training losses, validation losses and final weights."""
    losses = [
        np.abs(figures(a, *what) - figures(b, *what)).max()
        for what in (("step", "loss"), ("eval", "val_loss"))
    ]
    ours, theirs = (
        read_arrays(a.read("model.safetensors")),
        read_arrays(b.read("model.safetensors")),
    )
    return (*losses, max(np.abs(ours[name] - theirs[name]).max() for name in ours))


@pytest.mark.full
@pytest.mark.parametrize(
    ("optimizer", "of_losses", "of_weights"), [("adamw", 1e-5, 1e-4), ("muon", 1e-4, 1e-2)]
)
def test_two_and_four_processes_train_what_one_does(
    train: Stores, optimizer: str, of_losses: float, of_weights: float
):
    for processes in (1, 2, 4):
        code, said = train(
            f"{optimizer}-{processes}", processes, "--set", f"train.optimizer={optimizer}"
        )
        assert code == 0, said
        assert said.count("memory      about") == 1, said  # only rank 0 talks
        run, alone = train.run(f"{optimizer}-{processes}"), train.run(f"{optimizer}-1")
        assert run.manifest.provenance["world_size"] == str(processes)
        seen = differences(run, alone)
        print(optimizer, processes, *seen)
        assert max(seen[:2]) < of_losses
        assert seen[2] < of_weights


@pytest.mark.full
def test_control_processes_that_train_on_the_same_sequences_give_other_weights(train: Stores):
    for name, processes, module in (("whole", 1, "tinygpt"), ("broken", 2, "broken")):
        code, said = train(name, processes, module=module)
        assert code == 0, said
    assert differences(train.run("whole"), train.run("broken"))[0] > 1e-3


@pytest.mark.full
def test_resume_is_exact_with_as_many_processes_and_marked_inexact_with_fewer(
    train: Stores,
):
    assert train("straight", 4)[0] == 0
    for store, processes in (("same", 4), ("fewer", 2)):
        code, said = train(store, 4, "--stop-at-step", "5")
        assert code
        assert "stopped after step 5 (`--stop-at-step`)" in said
        assert (
            f"torchrun --nproc-per-node 4 -m tinygpt train --resume --store {store}` continues it"
            in said
        )
        code, said = train(store, processes, "--resume")
        assert code == 0, said
        assert "continuing at step 5" in said
    assert train.run("same").digest == train.run("straight").digest
    assert train.run("same").manifest.provenance["exact"] is True
    assert "world_size 4 -> 2" in said
    assert train.run("fewer").manifest.provenance["exact"] is False
    assert differences(train.run("fewer"), train.run("straight"))[0] < 1e-5


def begun(train: Stores, store: str) -> subprocess.Popen[str]:
    """Two processes with a long training in its first steps."""
    arguments = train.command(store, 2, "--max-steps", "100000")
    process = subprocess.Popen(
        arguments, **train.where(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    deadline = time.monotonic() + 300
    while train.newest_step(store) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    return process


@pytest.mark.full
def test_a_killed_process_ends_the_job_with_one_error_and_one_process_continues(train: Stores):
    process = begun(train, "killed")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (follower,) = (
        child
        for child in children
        if b"\0RANK=1\0" in b"\0" + Path(f"/proc/{child}/environ").read_bytes()
    )
    os.kill(int(follower), signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode
    assert [line for line in said.splitlines() if line.startswith("error: ")] == [
        "error: another of the 2 processes that train together has ended"
    ], said
    step = train.newest_step("killed")
    code, said = train(
        "killed", 1, "--resume", "--max-steps", "100000", "--stop-at-step", str(step + 1)
    )
    assert code
    assert f"continuing at step {step:,}" in said
    assert "world_size 2 -> 1" in said
    assert train.newest_step("killed") == step + 1


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_torchrun_saves_the_step_it_came_in(train: Stores, number: int):
    process = begun(train, f"signal-{number}")
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    (step,) = re.findall(
        rf"stopped by {signal.Signals(number).name} after step ([\d,]+); checkpoint saved", said
    )
    assert train.newest_step(f"signal-{number}") == int(step.replace(",", ""))


def test_what_several_processes_cannot_do_is_refused(tinygpt, tmp_path, monkeypatch):
    (tmp_path / "tinygpt.toml").write_text(RECIPE)
    for name, value in {**TORCHRUN, "WORLD_SIZE": "5"}.items():
        monkeypatch.setenv(name, value)
    odd = tinygpt("train")
    assert odd.code == 2
    assert "12 sequences of a step" in odd.err
    assert "--nproc-per-node 4" in odd.err
    other = tinygpt("run")
    assert other.code == 2
    assert "torchrun is for `train` alone" in other.err
    monkeypatch.setenv("RANK", "1")
    silent = tinygpt("run")
    assert (silent.code, silent.err) == (2, "")


@pytest.mark.parametrize("command", ["train", "sample", "run"])
@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (dict.fromkeys(("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"), ""), "without `RANK`"),
        ({"RANK": ""}, "without `RANK` does"),
        ({"MASTER_ADDR": ""}, "without `MASTER_ADDR` does"),
        ({"LOCAL_RANK": "", "MASTER_PORT": ""}, "without `LOCAL_RANK`, `MASTER_PORT` does"),
        ({"WORLD_SIZE": "two"}, "with `WORLD_SIZE` = two does"),
        ({"WORLD_SIZE": "-2"}, "with `WORLD_SIZE` = -2 does"),
        ({"RANK": "2"}, "with `RANK` = 2 does"),
        ({"RANK": "1.5"}, "with `RANK` = 1.5 does"),
        ({"MASTER_PORT": "http"}, "with `MASTER_PORT` = http does"),
    ],
)
def test_processes_that_torchrun_did_not_start_are_refused_with_what_is_missing(
    tinygpt, tmp_path, monkeypatch, command, changed, named
):
    (tmp_path / "tinygpt.toml").write_text(RECIPE)
    for name, value in {**TORCHRUN, **changed}.items():
        monkeypatch.setenv(name, value)
    refused = tinygpt(command)
    assert refused.code == 2
    assert refused.err.startswith("error: `WORLD_SIZE` = ")
    assert named in refused.err
    assert "hint: `unset WORLD_SIZE`" in refused.err


@pytest.mark.parametrize("environ", [{"WORLD_SIZE": "1"}, {"WORLD_SIZE": ""}, {"RANK": "3"}])
def test_one_process_needs_no_torchrun(tinygpt, tmp_path, monkeypatch, environ):
    (tmp_path / "tinygpt.toml").write_text(RECIPE)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert "no result of `build-dataset`" in tinygpt("train").err
