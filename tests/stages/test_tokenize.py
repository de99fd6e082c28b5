"""Stage `tokenize`: learned from the train split only, and honest about what it is worth."""

from pathlib import Path

import pytest

from tests.stages.stories import STORIES, Bars, corpus, run_stage
from tinygpt.config import Config
from tinygpt.errors import InputError
from tinygpt.lm.dataset import is_validation
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.stages import tokenize
from tinygpt.store import Artifact, Store


def made(root: Path, config: Config, stories: list[str] = STORIES, report: Bars | None = None) -> Artifact:
    store = Store(root)
    return run_stage(store, "tokenize", config, {"corpus": corpus(store, stories)}, tokenize.run, report)


def train_split(config: Config, stories: list[str] = STORIES) -> list[str]:
    return [story for story in stories if not is_validation(story, config.dataset.val_fraction)]


def test_only_the_train_split_is_learned(tmp_path: Path, tiny_config: Config) -> None:
    artifact = made(tmp_path / "a", tiny_config)
    expected = Tokenizer.train(train_split(tiny_config), tiny_config.tokenizer).to_bytes()
    assert artifact.read("tokenizer.json") == expected
    other_validation = [s if not is_validation(s, tiny_config.dataset.val_fraction) else s + " qq" * 9 for s in STORIES]
    kept = [s for s in other_validation if s in STORIES or is_validation(s, tiny_config.dataset.val_fraction)]
    assert len(kept) > len(train_split(tiny_config))
    assert made(tmp_path / "b", tiny_config, kept).read("tokenizer.json") == expected


def test_the_report_is_what_encoding_the_train_split_gives(tmp_path: Path, tiny_config: Config) -> None:
    report = Bars()
    artifact = made(tmp_path, tiny_config, report=report)
    tokenizer, facts = Tokenizer.from_bytes(artifact.read("tokenizer.json")), artifact.read_json("report.json")
    texts = train_split(tiny_config)
    ids = [token_id for text in texts for token_id in tokenizer.encode(text)]
    text_bytes, words = sum(len(text.encode()) for text in texts), sum(len(text.split()) for text in texts)
    assert facts["train"] == {"stories": len(texts), "bytes": text_bytes, "words": words, "tokens": len(ids)}
    assert facts["bytes_per_token"] == pytest.approx(text_bytes / len(ids), abs=1e-4)
    assert facts["tokens_per_word"] == pytest.approx(len(ids) / words, abs=1e-4)
    assert facts["unused_entries"] == tokenizer.vocab_size - 1 - len(set(ids))
    assert len(facts["longest_entries"][0].encode()) == max(tokenizer.byte_lengths)
    assert report.bars[1] == ["measure it", len(STORIES), len(STORIES)]
    assert dict(artifact.read_json("summary.json")["rows"])["entries"] == "300"


def test_a_small_corpus_says_that_its_vocabulary_is_smaller(tmp_path: Path, tiny_config: Config) -> None:
    config = tiny_config.model_copy(update={"tokenizer": tiny_config.tokenizer.model_copy(update={"vocab_size": 8_000})})
    artifact = made(tmp_path, config)
    size = Tokenizer.from_bytes(artifact.read("tokenizer.json")).vocab_size
    assert size < 500
    assert artifact.read_json("report.json")["vocab_size"] == size
    entries = dict(artifact.read_json("summary.json")["rows"])["entries"]
    assert entries == f"{size} of 8,000 asked for; no other pair occurs 2 times"


def test_no_story_to_learn_from_is_an_input_error(tmp_path: Path, tiny_config: Config) -> None:
    stories = [story for story in STORIES if is_validation(story, tiny_config.dataset.val_fraction)]
    with pytest.raises(InputError, match=rf"none of the {len(stories)} stories is in the train split"):
        made(tmp_path, tiny_config, stories)


def test_a_story_that_is_not_unicode_is_an_input_error(tmp_path: Path, tiny_config: Config) -> None:
    with pytest.raises(InputError, match=r"lone surrogate U\+DC80"):
        made(tmp_path, tiny_config, [*STORIES, "bad \udc80"])
