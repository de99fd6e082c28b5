"""What `export --to hf` writes, loaded by transformers: the same logits, ids and text.

The tests run with transformers 5, which `pip install tinygpt[dev]` brings. Transformers 4.57 has an
environment of its own, which `make proof-interop` makes.
"""

import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import safetensors.numpy
import torch

from tests.exports.examples import model_with
from tests.helpers import STORIES, prepare, run_training, with_settings
from tests.interop.conftest import program
from tinygpt.config import Config
from tinygpt.exports.formats import export
from tinygpt.exports.model import ModelToExport, open_model
from tinygpt.library import Model
from tinygpt.lm.tokenizer import END_OF_TEXT
from tinygpt.lm.weights import model_of
from tinygpt.runs.trained_weights import ignore

CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
SCRIPT = Path(__file__).with_name("load_with_transformers.py")
TOLERANCE = 1e-5
PROMPT = "Once upon a time"
RANGES = (
    *((0x20, 0x7F), (0x20, 0x7F), (0, 0x20), (0x80, 0x600), (0x900, 0xE00), (0x2000, 0x2100)),
    *((0x3000, 0x3100), (0x4E00, 0x9FFF), (0xAC00, 0xD7A4), (0xE000, 0x10000)),
    *((0x1F300, 0x1FAFF), (0x10000, 0x110000)),
)


class Case(NamedTuple):
    """An exported model.

    Args:
        model: what was exported.
        folder: where.
        dtype: number format.
    """

    model: ModelToExport
    folder: Path
    dtype: str = "f32"


def random_texts(count: int) -> list[str]:
    """Texts of random characters from all of Unicode, without the end-of-text token."""
    chance = random.Random(17)
    texts = []
    while len(texts) < count:
        characters = []
        for _ in range(chance.randrange(1, 60)):
            characters.append(chr(chance.randrange(*chance.choice(RANGES))))
        texts.append("".join(characters))
        assert END_OF_TEXT not in texts[-1]
    return texts


TEXTS = [
    *random_texts(1_000),
    *STORIES[:20],
    "",
    " ",
    "\n\n  \n",
    "don't  they'll",
    "<|endof",
    "🙂",
]


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory, tiny_config: Config) -> ModelToExport:
    """A model that has learned a little."""
    config = with_settings(
        tiny_config,
        tokenizer={"vocab_size": 400},
        model={"d_model": 32, "context_length": 64, "n_heads": 4},
        train={"max_steps": 200, "batch_size": 8, "learning_rate": 3e-3, "eval_every": 100},
    )
    store, inputs = prepare(tmp_path_factory.mktemp("learned"), config)
    return open_model(run_training(store, inputs, config).artifact)


@pytest.fixture(scope="session")
def cases(learned: ModelToExport, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """Exports of all kinds of models, and two that are wrong."""
    root = tmp_path_factory.mktemp("cases")
    variants: dict[str, dict[str, Any]] = {
        "untied": {"tie_embeddings": False},
        "no positions": {"positions": "none"},
        "one head": {"n_heads": 1, "d_ff": 4 * 64, "n_layers": 1},
        "f16": {},
        "bf16": {"tie_embeddings": False},
    }
    models = {"learned": learned}
    for name, settings in variants.items():
        models[name] = model_with(root / f"{name} model", **settings)
    made = {}
    for name, model in models.items():
        made[name] = Case(model, root / name, name if name in ("f16", "bf16") else "f32")
        export(model, root / name, "hf", made[name].dtype, False, ignore)
    for name, break_it in (("transposed", transpose_a_matrix), ("no template", drop_the_template)):
        shutil.copytree(root / "learned", root / name)
        break_it(root / name)
        made[name] = Case(learned, root / name)
    return made


def transpose_a_matrix(folder: Path) -> None:
    """Write a square matrix of a block as it is in lm/model.py."""
    path = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    name = "transformer.h.1.attn.c_proj.weight"
    tensors[name] = np.ascontiguousarray(tensors[name].T)
    safetensors.numpy.save_file(tensors, path, {"format": "pt"})


def drop_the_template(folder: Path) -> None:
    """Let the tokenizer put nothing before a text."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_bytes()) | {"post_processor": None}
    path.write_text(json.dumps(content))


def token_ids_of(case: Case) -> list[list[int]]:
    """Random and real texts of a full context, and one of a single token."""
    length, model = case.model.config.context_length, case.model
    chance = random.Random(5)
    drawn = [chance.randrange(model.vocab_size) for _ in range(length)]
    story = [0, *model.tokenizer.encode(" ".join(STORIES))][:length]
    return [drawn, story, [0]]


def new_tokens(case: Case) -> int:
    """How many fit into the context after the prompt."""
    return case.model.config.context_length - 1 - len(case.model.tokenizer.encode(PROMPT))


@pytest.fixture(
    scope="session",
    params=[
        pytest.param("5", marks=pytest.mark.full),
        pytest.param("4", marks=pytest.mark.interop),
    ],
)
def answers(request: pytest.FixtureRequest, cases: dict[str, Case]) -> dict[str, dict[str, Any]]:
    """What transformers of a major version answers about each case."""
    python = sys.executable
    if request.param == "4":
        python = str(program("transformers-4/bin/python"))
    else:
        pytest.importorskip("transformers")
    questions = [
        {
            "folder": str(case.folder),
            "token_ids": token_ids_of(case),
            "texts": TEXTS,
            "prompt": PROMPT,
            "max_new_tokens": new_tokens(case),
        }
        for case in cases.values()
    ]
    done = subprocess.run(
        [python, SCRIPT], input=json.dumps(questions), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert {answer["version"][0] for answer in found} == {request.param}
    return dict(zip(cases, found, strict=True))


GOOD = ("learned", "untied", "no positions", "one head", "f16", "bf16")


def largest_difference(case: Case, answer: dict[str, Any]) -> float:
    """Between the logits of transformers and those of lm/model.py."""
    of_dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[case.dtype]
    weights = {
        name: torch.from_numpy(array).to(of_dtype).float().numpy()
        for name, array in case.model.weights.arrays.items()
    }
    model = model_of(case.model.config, case.model.vocab_size, weights)
    differences = []
    for token_ids, logits in zip(token_ids_of(case), answer["logits"], strict=True):
        with torch.inference_mode():
            expected = model(torch.tensor([token_ids]), explicit=True)[0].numpy()
        differences.append(float(np.abs(np.array(logits) - expected).max()))
    return max(differences)


@pytest.mark.parametrize("name", GOOD)
def test_every_tensor_is_loaded_and_no_other_is_there(answers, name):
    assert answers[name]["problems"] == []


@pytest.mark.parametrize("name", GOOD)
def test_logits_are_those_of_the_model(answers, cases, name):
    assert largest_difference(cases[name], answers[name]) <= TOLERANCE


def test_a_transposed_matrix_is_noticed(answers, cases):
    assert answers["transposed"]["problems"] == []
    assert largest_difference(cases["transposed"], answers["transposed"]) > 100 * TOLERANCE


@pytest.mark.parametrize("name", GOOD)
def test_token_ids_of_any_text_are_those_of_the_model(answers, cases, name):
    tokenizer = cases[name].model.tokenizer
    for text, ids in zip(TEXTS, answers[name]["ids"], strict=True):
        assert ids == tokenizer.encode(text), repr(text)
    assert answers[name]["decoded"] == TEXTS
    assert answers[name]["special"] == [0, 0, 0]


@pytest.mark.parametrize("name", GOOD)
def test_a_text_begins_with_the_end_of_text_token(answers, cases, name):
    assert answers[name]["prompt_ids"] == [0, *cases[name].model.tokenizer.encode(PROMPT)]


@pytest.mark.parametrize("name", ["learned", "untied", "no positions", "one head"])
def test_the_likeliest_continuation_is_that_of_tinygpt_sample(answers, cases, name):
    case = cases[name]
    text = Model(case.model.train, "cpu", "last").generate_text(
        PROMPT, temperature=0, max_new_tokens=new_tokens(case)
    )
    assert answers[name]["greedy"] == PROMPT + text
    assert answers[name]["padded"][0].startswith(PROMPT)
    assert (PROMPT + text).startswith(answers[name]["padded"][0])


def test_without_the_template_the_text_is_another_one(answers, cases):
    found = answers["no template"]
    assert found["prompt_ids"] == cases["learned"].model.tokenizer.encode(PROMPT)
    assert found["greedy"] != answers["learned"]["greedy"]


@pytest.mark.parametrize("name", GOOD)
def test_sampling_without_settings_stays_within_the_context(answers, cases, name):
    token_ids = answers[name]["sampled"]
    prompt = answers[name]["prompt_ids"]
    assert token_ids[: len(prompt)] == prompt
    assert len(prompt) < len(token_ids) <= cases[name].model.config.context_length


@pytest.mark.full
def test_the_lines_of_the_documentation_run(learned, tmp_path, root):
    pytest.importorskip("transformers")
    export(learned, tmp_path / "out", "hf", "f32", False, ignore)
    section = (root / "docs" / "export.md").read_text(encoding="utf-8").partition("## Hugging")[2]
    code = CODE.findall(section)[0]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    continued = Model(learned.train, "cpu", "last").generate_text(
        PROMPT, temperature=0, max_new_tokens=new_tokens(Case(learned, tmp_path))
    )
    assert done.stdout.endswith(f"\n{PROMPT}{continued}\n")
