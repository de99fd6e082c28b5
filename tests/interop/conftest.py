"""A model of preset demo, and the programs that `make proof-interop` installs to load it.

Everything lies in the folder that INTEROP names, .venv-interop by default: the environments that
install.sh makes, and a store with the model, which is trained once. Tests whose program is not
there are skipped.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tinygpt
from tests.cli.conftest import environment
from tests.conftest import ROOT
from tinygpt.lm.dataset import read_tokens
from tinygpt.store import Artifact, Store

FOLDER = Path(os.environ.get("INTEROP", ROOT / ".venv-interop")).absolute()
PROMPTS = ("Once upon a time", "One day", "Lily had a red ball. She", "The", "Tom and Mia")


def program(name: str) -> Path:
    """A program of an environment below FOLDER; the test is skipped where there is none."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"`{name}` is not in `{FOLDER.name}`; `make proof-interop` installs it")
    return path


def tinygpt_says(*arguments: str | Path) -> str:
    """What a command of tinygpt prints on standard output; it uses the store of the demo."""
    line = [sys.executable, "-m", "tinygpt", *map(str, arguments)]
    done = subprocess.run(
        [*line, "--store", str(FOLDER / "artifacts")],
        cwd=FOLDER,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def ask(python: Path, script: str, target: Path, question: dict[str, Any]) -> dict[str, Any]:
    """The answer of a script of this folder, run by another Python.

    Args:
        script: its name; it is called with `target`, reads and prints JSON.
    """
    done = subprocess.run(
        [python, Path(__file__).with_name(script), target],
        input=json.dumps(question),
        cwd=target.parent,
        env={"PATH": os.environ["PATH"], "LLAMA_CPP_LIB_PATH": str(FOLDER / "llama/build/bin")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture(scope="session")
def demo() -> Artifact:
    """The model of preset demo, which is trained only once for each version of the recipe."""
    if not FOLDER.is_dir():
        pytest.skip(f"`{FOLDER.name}` is not there; `make proof-interop` makes it")
    tinygpt_says("run", "--preset", "demo", "--until", "train")
    return Store(FOLDER / "artifacts").list("train")[0]


@pytest.fixture(scope="session")
def demo_model(demo: Artifact) -> tinygpt.Model:
    return tinygpt.load(demo.folder, device="cpu")


@pytest.fixture(scope="session")
def validation_windows(demo: Artifact, demo_model: tinygpt.Model) -> list[list[int]]:
    """100 windows of the validation split, each with the token that follows the context."""
    record = demo.manifest.inputs["build-dataset"]
    dataset = Store(FOLDER / "artifacts").find("build-dataset", record["key"])
    assert dataset is not None
    tokens = read_tokens(dataset.open("val.bin"), demo_model.tokenizer.vocab_size)
    T = demo_model.config.context_length
    return [tokens[start : start + T + 1].tolist() for start in range(0, 100 * T, T)]
