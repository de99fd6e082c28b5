"""What a hint says to type leads on: it is typed here, and the same error does not come again."""

import os
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.conftest import CONFIG, Result
from tinygpt.pipeline import STAGES

OTHER_CONFIG = CONFIG.replace("max_documents = 80", "max_documents = 90")
ALL = tuple(STAGES)
UP_TO_DATASET = ALL[:3]
UP_TO_MODEL = ALL[:4]
Tinygpt = Callable[..., Result]


class Situation(NamedTuple):
    """What a user has when a command fails.

    Args:
        stages: those whose artifacts are in the store.
        damaged: the stage of which the largest file is changed.
        config: the tinygpt.toml.
    """

    stages: Sequence[str]
    damaged: str | None = None
    config: str = CONFIG


SITUATIONS = {
    "nothing": Situation(()),
    "corpus": Situation(ALL[:1]),
    "dataset": Situation(UP_TO_DATASET),
    "model": Situation(["train"]),
    "no evaluation": Situation(UP_TO_MODEL),
    "model of another configuration": Situation(["train"], config=OTHER_CONFIG),
    "no evaluation, another configuration": Situation(UP_TO_MODEL, config=OTHER_CONFIG),
    "damaged tokenizer": Situation(ALL, "tokenize"),
    "damaged tokenizer, another configuration": Situation(ALL, "tokenize", OTHER_CONFIG),
    "damaged dataset": Situation(ALL, "build-dataset"),
    "damaged dataset, another configuration": Situation(ALL, "build-dataset", OTHER_CONFIG),
    "damaged model": Situation(ALL, "train"),
    "damaged evaluation": Situation(ALL, "eval"),
    "damaged evaluation, another configuration": Situation(ALL, "eval", OTHER_CONFIG),
}
CASES = [
    ("nothing", "build-dataset"),
    ("nothing", "train --store elsewhere --set train.seed=3"),
    ("nothing", "artifacts ls"),
    ("dataset", "plot --model model"),
    ("dataset", "train --stop-at-step 1"),
    ("no evaluation", "plot --model {id}"),
    ("model of another configuration", "eval --model {id}"),
    ("damaged tokenizer, another configuration", "sample x --model {id}"),
    ("damaged evaluation, another configuration", "eval --model {id}"),
]
MORE_CASES = [
    *[("nothing", command) for command in ("train", "train --resume", "eval", "sample x", "plot")],
    *[("nothing", command) for command in ("page", "replay {id}", "sample x --model {id}")],
    ("nothing", "eval --model model"),
    *[("corpus", command) for command in ("build-dataset", "train", "plot --model model")],
    *[("dataset", command) for command in ("eval", "plot")],
    *[("model", command) for command in ("train", "eval --model {id}", "plot", "replay {id}")],
    ("no evaluation", "plot"),
    ("no evaluation", "train --from {id} --set tokenizer.vocab_size=290"),
    ("model of another configuration", "plot --model {id}"),
    ("model of another configuration", "replay {id}"),
    ("no evaluation, another configuration", "plot --model {id}"),
    ("damaged tokenizer", "train --set train.seed=3"),
    ("damaged dataset", "train --set train.seed=3"),
    ("damaged dataset, another configuration", "replay {id}"),
    ("damaged model", "run"),
    ("damaged evaluation", "run"),
]
CASES += [pytest.param(*case, marks=pytest.mark.full) for case in MORE_CASES]


@pytest.fixture
def prepare(project, tmp_path) -> Callable[[Situation], str]:
    """Bring about a situation in an empty folder; the id of the trained model."""
    finished = project[0] / "artifacts"
    model = next((finished / "train").iterdir())

    def bring_about(situation: Situation) -> str:
        (tmp_path / "tinygpt.toml").write_text(situation.config)
        shutil.copytree(model, tmp_path / "model")
        for stage in situation.stages:
            shutil.copytree(finished / stage, tmp_path / "artifacts" / stage)
        if situation.damaged:
            damage(next((tmp_path / "artifacts" / situation.damaged).iterdir()))
        return model.name

    return bring_about


def damage(artifact: Path) -> None:
    """Change a byte of the largest file."""
    files = [path for path in artifact.rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    os.chmod(largest, 0o644)  # noqa: PTH101
    largest.write_bytes(content)


def error_of(result: Result) -> tuple[str, str]:
    """The message and the hint of a failed command."""
    found = re.search(r"^(?:error: )?([^\n]*)\n\nhint: (.*)", result.err, re.MULTILINE | re.DOTALL)
    assert found, result.err
    return found[1], found[2]


@pytest.mark.parametrize(("name", "command"), CASES)
def test_what_a_hint_says_to_type_leads_on(tinygpt, prepare, name, command):
    typed = shlex.split(command.format(id=prepare(SITUATIONS[name])))
    words = typed
    seen: list[str] = []
    while (result := tinygpt(*words)).code != 0:
        message, hint = error_of(result)
        assert message not in seen, f"{hint} leads back"
        seen.append(message)
        next_command = re.search(r"`tinygpt ([^`]*)`", hint)
        if next_command is None:
            return
        words = shlex.split(next_command[1])
    again = tinygpt(*typed)
    if seen and again.code != 0 and "--from" not in typed:
        assert error_of(again)[0] != seen[0]


def test_a_walk_over_hints_finds_a_loop(prepare, monkeypatch, tinygpt):
    """The control: a hint that does not help is noticed."""
    monkeypatch.setattr("tinygpt.model_inputs._compare_with_model", lambda *_: None)
    with pytest.raises(AssertionError):
        test_what_a_hint_says_to_type_leads_on(
            tinygpt, prepare, "model of another configuration", "eval --model {id}"
        )
