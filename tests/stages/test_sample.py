"""Stage `sample` on a small random model: what it generates, what it stores, what it refuses."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers import Inputs, Notes, publish, seal
from tinygpt.config import Config, ModelConfig, SampleConfig, TokenizerConfig, TrainConfig
from tinygpt.errors import CorruptArtifactError, InputError, UsageError
from tinygpt.hashing import Key, hash_json
from tinygpt.lm.init import init_weights
from tinygpt.lm.model import GPT
from tinygpt.lm.tokenizer import END_OF_TEXT, Tokenizer
from tinygpt.lm.weights import dump, model_tensors
from tinygpt.stages import sample as stage
from tinygpt.store import Artifact, Store

STORIES = [
    "Once upon a time there was a little cat. She liked to play.",
    "Tim had a red ball. He was happy. Très 🙂!",
] * 30
SHAPE = ModelConfig(d_model=16, n_layers=2, n_heads=2, d_ff=32, context_length=32)
STEP = {"kind": "step", "tokens": 96, "loss": 5.0, "learning_rate": 0.1, "grad_norm": 1.0}
ROWS = (
    *(STEP | {"step": step, "chain": "0123456789abcdef"} for step in (1, 2, 3)),
    {"kind": "eval", "step": 3, "tokens": 96, "val_loss": 5.0, "val_perplexity": 148.4}
    | {"best": True, "sample": ""},
)
LONG_PROMPT = "Once upon a time " * 20  # longer than the context


def model_files(tokenizer: Tokenizer, *, vocab_size: int | None = None) -> dict[str, bytes]:
    """A train artifact's files: a random model whose logits are far apart."""
    model = init_weights(GPT(SHAPE, vocab_size or tokenizer.vocab_size), 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.dim() == 2 else 1)
    config = {
        "model": SHAPE.model_dump(),
        "train": TrainConfig().model_dump(),
        "vocab_size": model.vocab_size,
        "precision": "fp32",
        "step": 3,
    }
    data = dump(model_tensors(model))
    return {
        "model.safetensors": data,
        "best/model.safetensors": data,
        "metrics.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
        "config.json": json.dumps(config).encode(),
        "tokenizer.json": tokenizer.to_bytes(),
    }


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(STORIES, TokenizerConfig(vocab_size=300))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def inputs(store: Store, tokenizer: Tokenizer) -> Inputs:
    return {
        "train": publish(store, "train", model_files(tokenizer)),
        "tokenize": publish(store, "tokenize", {"tokenizer.json": tokenizer.to_bytes()}),
    }


def generate(store: Store, inputs: Inputs, **settings: Any) -> tuple[Artifact, Notes]:
    defaults = {"seed": 7, "max_new_tokens": 40, "temperature": 1.0}
    config = SampleConfig(**(defaults | settings))
    reporter = Notes()
    out = store.begin("sample", Key(hash_json("test", config.model_dump())), inputs=inputs)
    stage.run(Config(sample=config), inputs, out, reporter)
    return store.publish(out), reporter


def samples(store: Store, inputs: Inputs, **settings: Any) -> list[dict[str, Any]]:
    """The records of samples.jsonl."""
    artifact, _ = generate(store, inputs, **settings)
    return artifact.read_rows("samples.jsonl")


def test_the_text_shown_is_the_text_stored(
    store: Store, inputs: Inputs, tokenizer: Tokenizer
) -> None:
    artifact, reporter = generate(store, inputs, prompt="Once upon é")
    (sample,) = artifact.read_rows("samples.jsonl")
    assert "".join(reporter.pieces) == sample["text"] + "\n"
    assert len(reporter.pieces) > 10
    assert sample["text"].startswith("Once upon é")
    shown = [token_id for token_id in sample["token_ids"] if token_id != tokenizer.end_of_text]
    assert sample["text"] == "Once upon é" + tokenizer.decode(shown)
    assert len(sample["logprobs"]) == len(sample["token_ids"])
    assert all(logprob <= 0 for logprob in sample["logprobs"])
    assert sample.keys() == {
        "sample",
        "prompt",
        "text",
        "token_ids",
        "logprobs",
        "stop_reason",
        "seed",
        "model",
        "tokenizer",
        "weights",
        "step",
        "decoder",
    }
    assert sample["model"] == inputs["train"].digest
    assert sample["tokenizer"] == inputs["tokenize"].digest
    assert (sample["seed"], sample["sample"], sample["decoder"]) == (7, 0, "numpy")
    assert (sample["weights"], sample["step"]) == ("last", 3)


def test_the_summary_says_how_the_samples_ended(store: Store, inputs: Inputs) -> None:
    settings: dict[str, Any] = {"prompt": "Tim", "num_samples": 3, "max_new_tokens": 5, "top_k": 1}
    artifact, _ = generate(store, inputs, **settings)
    records = artifact.read_rows("samples.jsonl")
    tokens = sum(len(sample["token_ids"]) for sample in records)
    rows = dict(artifact.read_json("summary.json")["rows"])
    assert (rows["samples"], rows["new tokens"], rows["seed"]) == ("3", str(tokens), "7")
    assert rows["ended"].startswith("3 ")


def test_several_samples_come_in_order_with_an_empty_line_between_them(
    store: Store, inputs: Inputs
) -> None:
    artifact, reporter = generate(store, inputs, prompt="Tim", num_samples=40, max_new_tokens=20)
    records = artifact.read_rows("samples.jsonl")
    assert [sample["sample"] for sample in records] == list(range(40))
    texts = [sample["text"] for sample in records]
    assert "".join(reporter.pieces) == "\n\n".join(texts) + "\n"
    assert len(set(texts)) > 30
    assert reporter.bars == [("sample", 40, 40)]


def test_property_8_the_same_seed_gives_the_same_samples(store: Store, inputs: Inputs) -> None:
    several = samples(store, inputs, num_samples=5)
    assert several == samples(store, inputs, num_samples=5)
    (alone,) = samples(store, inputs)
    assert several[0]["token_ids"] == alone["token_ids"]


def test_without_a_prompt_the_model_begins_by_itself(
    store: Store, inputs: Inputs, tokenizer: Tokenizer
) -> None:
    (sample,) = samples(store, inputs)
    assert sample["prompt"] is None
    assert sample["text"] == tokenizer.decode(sample["token_ids"])
    assert END_OF_TEXT not in sample["text"]


def test_text_before_a_stop_is_shown_and_the_stop_is_not(store: Store, inputs: Inputs) -> None:
    (free,) = samples(store, inputs, prompt="T", max_new_tokens=30)
    continuation = free["text"][1:]
    stop = continuation[8:12]
    artifact, reporter = generate(store, inputs, prompt="T", max_new_tokens=30, stop=(stop,))
    (stopped,) = artifact.read_rows("samples.jsonl")
    assert stopped["stop_reason"] == "stop"
    assert stopped["text"] == "T" + continuation[: continuation.index(stop)]
    assert "".join(reporter.pieces) == stopped["text"] + "\n"


def test_of_a_prompt_longer_than_the_context_the_end_is_read_or_it_is_refused(
    store: Store, inputs: Inputs, tokenizer: Tokenizer
) -> None:
    count = len(tokenizer.encode(LONG_PROMPT))
    artifact, reporter = generate(store, inputs, prompt=LONG_PROMPT)
    assert reporter.notes == [f"the prompt has {count} tokens; the model reads the last 32"]
    assert artifact.read_rows("samples.jsonl")[0]["text"].startswith(LONG_PROMPT)
    message = f"the prompt has {count} tokens, the context of the model 32"
    with pytest.raises(UsageError, match=message):
        generate(store, inputs, prompt=LONG_PROMPT, overflow="stop")


def test_a_sample_that_fills_the_context_ends_there_only_if_asked(
    store: Store, inputs: Inputs
) -> None:
    (slid,) = samples(store, inputs, top_k=1, max_new_tokens=60)
    (stopped,) = samples(store, inputs, top_k=1, max_new_tokens=60, overflow="stop")
    assert (slid["stop_reason"], len(slid["token_ids"])) == ("length", 60)
    assert (stopped["stop_reason"], len(stopped["token_ids"])) == ("context", 32)
    assert stopped["token_ids"] == slid["token_ids"][:32]


def test_the_xray_adds_how_sure_the_model_was_of_each_token(
    store: Store, inputs: Inputs, tokenizer: Tokenizer
) -> None:
    settings: dict[str, Any] = {"prompt": LONG_PROMPT, "num_samples": 3, "max_new_tokens": 50}
    artifact, _ = generate(store, inputs, **settings)
    config = Config(sample=SampleConfig(**settings))
    with_xray = list(stage.add_xray(artifact, config, inputs))
    for sample, record in zip(with_xray, artifact.read_rows("samples.jsonl"), strict=True):
        tokens = sample.pop("xray")
        assert sample == record
        expected = []
        for token_id in sample["token_ids"]:
            text = tokenizer.token_bytes(token_id).decode("utf-8", "backslashreplace")
            expected.append(text or END_OF_TEXT)
        assert [token["token"] for token in tokens] == expected
        probabilities = [token["probability"] for token in tokens]
        assert probabilities == pytest.approx(np.exp(sample["logprobs"]), rel=1e-3, abs=2e-6)
        keys = {"token", "probability", "entropy", "alternatives"}
        assert all(token.keys() == keys for token in tokens)
        assert all(len(token["alternatives"]) == 3 for token in tokens)


def test_an_xray_of_tokens_that_the_vocabulary_lacks_is_refused(
    store: Store, inputs: Inputs, tokenizer: Tokenizer
) -> None:
    artifact, _ = generate(store, inputs)
    rows = artifact.read_rows("samples.jsonl")
    for token_id, problem in ((tokenizer.vocab_size, "not in the vocabulary"), (-1, "token_ids.0")):
        artifact.path("samples.jsonl").chmod(0o644)
        artifact.path("samples.jsonl").write_text(json.dumps(rows[0] | {"token_ids": [token_id]}))
        seal(artifact.folder)
        changed = Artifact.load(artifact.folder)
        with pytest.raises(CorruptArtifactError, match=problem):
            list(stage.add_xray(changed, Config(), inputs))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"prompt": ""}, "prompt is empty"), ({"stop": ("a", "")}, "stop text is empty")],
)
def test_empty_texts_are_refused(
    store: Store, inputs: Inputs, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        generate(store, inputs, **settings)
    assert caught.value.exit_code == 2


def test_a_tokenizer_that_is_not_the_one_of_the_model_is_refused(
    store: Store, inputs: Inputs, tokenizer: Tokenizer
) -> None:
    other = Tokenizer.train(["something else " * 9], TokenizerConfig(vocab_size=300)).to_bytes()
    foreign = publish(store, "tokenize", {"tokenizer.json": other}, "foreign")
    files = model_files(tokenizer, vocab_size=tokenizer.vocab_size + 1)
    wide = publish(store, "train", files, "wide")
    for pair in ({**inputs, "tokenize": foreign}, {**inputs, "train": wide}):
        with pytest.raises(InputError, match="is not the one with which the model") as caught:
            generate(store, pair)
        assert caught.value.exit_code == 4


def test_a_seed_is_needed(store: Store, inputs: Inputs) -> None:
    with pytest.raises(ValueError, match="seed"):
        generate(store, inputs, seed=None)


def test_generating_imports_no_torch(root: Path) -> None:
    code = """
import sys
import tinygpt.stages.sample
print(sorted({"torch", "datasets", "matplotlib"} & set(sys.modules)))
"""
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
