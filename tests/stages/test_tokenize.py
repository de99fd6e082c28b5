"""Stage `tokenize`: it learns from the train split only, and its statistics are right."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.helpers import STORIES, Notes, publish_corpus, run_stage, with_settings
from tinygpt.config import Config
from tinygpt.errors import InputError
from tinygpt.lm.dataset import is_validation
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.stages import tokenize
from tinygpt.store import Artifact, Store


def learn(
    root: Path, config: Config, stories: Sequence[str] = STORIES, reporter: Notes | None = None
) -> Artifact:
    store = Store(root)
    inputs = {"corpus": publish_corpus(store, stories)}
    return run_stage(store, "tokenize", config, inputs, tokenize.run, reporter).artifact


def train_split(config: Config, stories: Sequence[str] = STORIES) -> list[str]:
    return [story for story in stories if not is_validation(story, config.dataset.val_fraction)]


def test_only_the_train_split_is_learned(tmp_path: Path, tiny_config: Config) -> None:
    val_fraction = tiny_config.dataset.val_fraction
    expected = Tokenizer.train(train_split(tiny_config), tiny_config.tokenizer).to_bytes()
    assert learn(tmp_path / "a", tiny_config).read("tokenizer.json") == expected
    foreign = [f"qq qq {number}" for number in range(300)]
    held_out = [text for text in foreign if is_validation(text, val_fraction)]
    stories = [*train_split(tiny_config), *held_out]
    assert held_out
    assert learn(tmp_path / "b", tiny_config, stories).read("tokenizer.json") == expected


def test_the_statistics_are_those_of_the_encoded_train_split(
    tmp_path: Path, tiny_config: Config
) -> None:
    reporter = Notes()
    artifact = learn(tmp_path, tiny_config, reporter=reporter)
    tokenizer = Tokenizer.from_bytes(artifact.read("tokenizer.json"))
    statistics = artifact.read_json("statistics.json")
    texts = train_split(tiny_config)
    ids = [token_id for text in texts for token_id in tokenizer.encode(text)]
    text_bytes = sum(len(text.encode()) for text in texts)
    words = sum(len(text.split()) for text in texts)
    assert statistics["train"] == {
        "documents": len(texts),
        "bytes": text_bytes,
        "words": words,
        "tokens": len(ids),
    }
    assert statistics["bytes_per_token"] == pytest.approx(text_bytes / len(ids), abs=1e-4)
    assert statistics["tokens_per_word"] == pytest.approx(len(ids) / words, abs=1e-4)
    assert statistics["unused_entries"] == tokenizer.vocab_size - 1 - len(set(ids))
    assert len(statistics["longest_entries"][0].encode()) == max(tokenizer.byte_lengths)
    assert reporter.bars == [
        ("learn the tokenizer", len(STORIES), len(STORIES)),
        ("measure the tokenizer", len(STORIES), len(STORIES)),
    ]
    assert dict(artifact.read_json("summary.json")["rows"])["entries"] == "300"


def test_a_small_corpus_says_that_its_vocabulary_is_smaller(
    tmp_path: Path, tiny_config: Config
) -> None:
    config = with_settings(tiny_config, tokenizer={"vocab_size": 8_000})
    artifact = learn(tmp_path, config)
    size = Tokenizer.from_bytes(artifact.read("tokenizer.json")).vocab_size
    assert size < 500
    assert artifact.read_json("statistics.json")["vocab_size"] == size
    entries = dict(artifact.read_json("summary.json")["rows"])["entries"]
    assert entries == f"{size} of 8,000 requested; no other pair occurs 2 times or more"


def test_a_corpus_without_training_documents_is_an_input_error(
    tmp_path: Path, tiny_config: Config
) -> None:
    val_fraction = tiny_config.dataset.val_fraction
    stories = [story for story in STORIES if is_validation(story, val_fraction)]
    expected = rf"none of the {len(stories)} documents is in the train split"
    with pytest.raises(InputError, match=expected):
        learn(tmp_path, tiny_config, stories)


def test_a_document_that_is_not_unicode_is_an_input_error(
    tmp_path: Path, tiny_config: Config
) -> None:
    with pytest.raises(InputError, match=r"lone surrogate U\+DC80"):
        learn(tmp_path, tiny_config, [*STORIES, "bad \udc80"])
