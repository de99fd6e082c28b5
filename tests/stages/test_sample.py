"""Stage `sample` on a small random model: what it tells, what it stores, what it refuses."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tinygpt.config import Config, ModelConfig, SampleConfig, TokenizerConfig
from tinygpt.errors import InputError, UsageError
from tinygpt.hashing import Key, hash_json
from tinygpt.lm.model import GPT, initialise
from tinygpt.lm.tokenizer import END_OF_STORY, Tokenizer
from tinygpt.lm.weights import dump, model_tensors
from tinygpt.report import SilentReport
from tinygpt.stages import sample
from tinygpt.store import Artifact, Store

STORIES = ["Once upon a time there was a little cat. She liked to play.", "Tim had a red ball. He was happy. Très 🙂!"] * 30
SHAPE = ModelConfig(d_model=16, n_layers=2, n_heads=2, d_ff=32, context_length=32)


@dataclass
class Listener(SilentReport):
    """A Report that remembers."""

    pieces: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def product(self, text: str) -> None:
        self.pieces.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)


def publish(store: Store, stage: str, files: Mapping[str, bytes], name: str) -> Artifact:
    key = Key(hash_json("test", stage, name))
    out = store.begin(stage, key)
    for file, data in files.items():
        out.bytes(file, data)
    return store.publish(out)


def model_files(tokenizer: Tokenizer, *, vocab_size: int | None = None) -> dict[str, bytes]:
    """A train artifact's files: a random model whose logits are far apart."""
    model = initialise(GPT(SHAPE, vocab_size or tokenizer.vocab_size), 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.dim() == 2 else 1)
    config = {"model": SHAPE.model_dump(), "vocab_size": model.vocab_size}
    return {
        "model.safetensors": dump(model_tensors(model)),
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
def inputs(store: Store, tokenizer: Tokenizer) -> dict[str, Artifact]:
    return {
        "train": publish(store, "train", model_files(tokenizer), "model"),
        "tokenize": publish(store, "tokenize", {"tokenizer.json": tokenizer.to_bytes()}, "tokenizer"),
    }


def tell(store: Store, inputs: Mapping[str, Artifact], **settings: Any) -> tuple[Artifact, Listener]:
    how, report = SampleConfig(**{"seed": 7, "max_new_tokens": 40, "temperature": 1.0, **settings}), Listener()
    key = Key(hash_json("test", how.model_dump()))
    out = store.begin("sample", key, inputs=inputs)
    sample.run(Config(sample=how), inputs, out, report)
    return store.publish(out), report


def lines(artifact: Artifact) -> list[dict[str, Any]]:
    return [json.loads(line) for line in artifact.read("samples.jsonl").splitlines()]


def test_what_is_shown_is_what_is_stored(store: Store, inputs: dict[str, Artifact], tokenizer: Tokenizer) -> None:
    artifact, report = tell(store, inputs, prompt="Once upon é")
    (story,) = lines(artifact)
    assert "".join(report.pieces) == story["text"] + "\n"
    assert len(report.pieces) > 10
    assert story["text"].startswith("Once upon é")
    told = [token_id for token_id in story["token_ids"] if token_id != tokenizer.end_of_story]
    assert story["text"] == "Once upon é" + tokenizer.decode(told)
    assert len(story["logprobs"]) == len(story["token_ids"])
    assert all(logprob <= 0 for logprob in story["logprobs"])
    assert story.keys() == {
        "sample", "prompt", "text", "token_ids", "logprobs", "stop_reason", "seed", "model", "tokenizer", "decoder"
    }  # fmt: skip
    assert (story["model"], story["tokenizer"]) == (inputs["train"].digest, inputs["tokenize"].digest)
    assert (story["seed"], story["sample"], story["decoder"]) == (7, 0, "numpy")


def test_the_summary_says_how_the_stories_ended(store: Store, inputs: dict[str, Artifact]) -> None:
    artifact, _ = tell(store, inputs, prompt="Tim", num_samples=3, max_new_tokens=5, top_k=1)
    tokens = sum(len(story["token_ids"]) for story in lines(artifact))
    rows = dict(artifact.read_json("summary.json")["rows"])
    assert (rows["stories"], rows["new tokens"], rows["seed"]) == ("3", str(tokens), "7")
    assert rows["ended"].startswith("3 ")


def test_several_stories_come_in_order_with_an_empty_line_between_them(store: Store, inputs: dict[str, Artifact]) -> None:
    artifact, report = tell(store, inputs, prompt="Tim", num_samples=40, max_new_tokens=20)
    stories = lines(artifact)
    assert [story["sample"] for story in stories] == list(range(40))
    assert "".join(report.pieces) == "\n\n".join(story["text"] for story in stories) + "\n"
    assert len({story["text"] for story in stories}) > 30


def test_property_8_same_seed_same_output_sequence_and_the_first_story_is_the_only_one(
    store: Store, inputs: dict[str, Artifact]
) -> None:
    several, again = (lines(tell(store, inputs, num_samples=5)[0]) for _ in range(2))
    (alone,) = lines(tell(store, inputs)[0])
    assert several == again
    assert several[0]["token_ids"] == alone["token_ids"]


def test_without_a_prompt_the_model_begins_by_itself(store: Store, inputs: dict[str, Artifact], tokenizer: Tokenizer) -> None:
    (story,) = lines(tell(store, inputs)[0])
    assert story["prompt"] is None
    assert story["text"] == tokenizer.decode(story["token_ids"])
    assert END_OF_STORY not in story["text"]


def test_text_before_a_stop_is_shown_and_the_stop_is_not(store: Store, inputs: dict[str, Artifact]) -> None:
    (free,) = lines(tell(store, inputs, prompt="T", max_new_tokens=30)[0])
    continuation = free["text"][1:]
    stop = continuation[8:12]
    artifact, report = tell(store, inputs, prompt="T", max_new_tokens=30, stop=(stop,))
    (stopped,) = lines(artifact)
    assert stopped["stop_reason"] == "stop"
    assert stopped["text"] == "T" + continuation[: continuation.index(stop)]
    assert "".join(report.pieces) == stopped["text"] + "\n"


def test_a_prompt_longer_than_the_context(store: Store, inputs: dict[str, Artifact], tokenizer: Tokenizer) -> None:
    prompt = "Once upon a time " * 20
    count = len(tokenizer.encode(prompt))
    artifact, report = tell(store, inputs, prompt=prompt)
    assert report.notes == [f"the prompt has {count} tokens; the model reads the last 32"]
    assert lines(artifact)[0]["text"].startswith(prompt)
    with pytest.raises(UsageError, match=f"the prompt has {count} tokens, the context of the model 32"):
        tell(store, inputs, prompt=prompt, overflow="stop")


def test_a_story_that_fills_the_context_ends_there_only_if_asked(store: Store, inputs: dict[str, Artifact]) -> None:
    (slid,) = lines(tell(store, inputs, top_k=1, max_new_tokens=60)[0])
    (stopped,) = lines(tell(store, inputs, top_k=1, max_new_tokens=60, overflow="stop")[0])
    assert (slid["stop_reason"], len(slid["token_ids"])) == ("length", 60)
    assert (stopped["stop_reason"], len(stopped["token_ids"])) == ("context", 32)
    assert stopped["token_ids"] == slid["token_ids"][:32]


def test_looking_into_a_story_adds_how_sure_the_model_was_of_each_token(
    store: Store, inputs: dict[str, Artifact], tokenizer: Tokenizer
) -> None:
    settings: dict[str, Any] = {"prompt": "Once upon a time " * 20, "num_samples": 3, "max_new_tokens": 50}  # beyond the context
    artifact, _ = tell(store, inputs, **settings)
    seen = list(sample.look_into(artifact, Config(sample=SampleConfig(**settings)), inputs))
    assert [{key: value for key, value in story.items() if key != "xray"} for story in seen] == lines(artifact)
    for story in seen:
        told = [token["token"] for token in story["xray"]]
        whole = [tokenizer.token_bytes(token_id).decode("utf-8", "backslashreplace") for token_id in story["token_ids"]]
        assert told == [text or END_OF_STORY for text in whole]
        assert [token["probability"] for token in story["xray"]] == pytest.approx(np.exp(story["logprobs"]), rel=1e-3, abs=2e-6)
        assert all(token.keys() == {"token", "probability", "entropy", "alternatives"} for token in story["xray"])
        assert all(len(token["alternatives"]) == 3 for token in story["xray"])


EMPTY: list[tuple[dict[str, Any], str]] = [({"prompt": ""}, "prompt is empty"), ({"stop": ("a", "")}, "stop text is empty")]


@pytest.mark.parametrize(("settings", "message"), EMPTY)
def test_empty_texts_are_refused(store: Store, inputs: dict[str, Artifact], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        tell(store, inputs, **settings)
    assert caught.value.exit_code == 2


def test_tokenizer_and_model_that_do_not_belong_together_are_refused(
    store: Store, inputs: dict[str, Artifact], tokenizer: Tokenizer
) -> None:
    other = Tokenizer.train(["something else " * 9], TokenizerConfig(vocab_size=300)).to_bytes()
    foreign = publish(store, "tokenize", {"tokenizer.json": other}, "other")
    wide = publish(store, "train", model_files(tokenizer, vocab_size=tokenizer.vocab_size + 1), "wide")
    for pair in ({**inputs, "tokenize": foreign}, {**inputs, "train": wide}):
        with pytest.raises(InputError, match="is not the one with which the model") as caught:
            tell(store, pair)
        assert caught.value.exit_code == 4


def test_a_seed_is_needed(store: Store, inputs: dict[str, Artifact]) -> None:
    with pytest.raises(ValueError, match="seed"):
        tell(store, inputs, seed=None)


def test_telling_a_story_imports_no_torch(root: Path) -> None:
    code = "import sys, tinygpt.stages.sample; print(sorted({'torch', 'datasets', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
