"""Command lines, run inside the test's own process or in one of their own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tinygpt.cli import invoke

CONFIG = """
[data]
source = "builtin"
max_documents = 80
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
"""A model so small that all stages take seconds."""


@dataclass(frozen=True)
class Result:
    """What a command line left."""

    code: int
    out: str
    err: str


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command line in a process of its own."""
    line = [sys.executable, "-m", "tinygpt", *arguments]
    return subprocess.run(
        line, cwd=folder, capture_output=True, text=True, check=False, env=environment()
    )


def hear_sighup() -> None:
    """Called in a new process: also under nohup, SIGHUP is not ignored."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def environment() -> dict[str, str]:
    """This package also in another folder; width and color are nobody's setting."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


@pytest.fixture
def tinygpt(tmp_path, monkeypatch, capsys) -> Callable[..., Result]:
    """tinygpt("train", "--resume") in an empty folder: exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Result:
        capsys.readouterr()
        code = invoke([str(argument) for argument in arguments])
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> tuple[Path, Result]:
    """A folder where `tinygpt run` has run, and what it printed.

    Tests may add artifacts, which others of their file see, but never change these.
    """
    folder = tmp_path_factory.mktemp("project")
    (folder / "tinygpt.toml").write_text(CONFIG)
    done = command(folder, "run")
    return folder, Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def here(project, tinygpt, monkeypatch) -> Callable[..., Result]:
    """tinygpt(...) in the folder of the finished run."""
    monkeypatch.chdir(project[0])
    return tinygpt
