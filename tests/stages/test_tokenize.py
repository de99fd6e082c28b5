"""Stage `tokenize`: it learns from the train split only, and its statistics are right."""

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import ClassVar

import pytest

from tests.helpers import STORIES, Notes, publish, publish_corpus, run_stage, with_settings
from tinygpt.config import Config
from tinygpt.corpus import builtin
from tinygpt.errors import InputError
from tinygpt.hashing import Key
from tinygpt.lm.holdout import document_hash, plan_holdout
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
    parts = plan_holdout(stories, config.dataset).parts(stories)
    return [part.text for part in parts if part.split == "train"]


@pytest.mark.parametrize(
    ("stories", "holdout"),
    [
        (STORIES, "auto"),
        (STORIES, "end"),
        (STORIES[:19], "auto"),
        (STORIES[:19], "hash"),
        ([" ".join(STORIES)], "auto"),
    ],
)
def test_only_the_train_split_is_learned(
    stories: list[str], holdout: str, tmp_path: Path, tiny_config: Config
) -> None:
    config = with_settings(
        tiny_config,
        dataset={"holdout": holdout, "val_fraction": 0.2, "test_fraction": 0.2},
        tokenizer={"vocab_size": 400},
    )
    learned = learn(tmp_path, config, stories).read("tokenizer.json")
    train = train_split(config, stories)
    assert learned == Tokenizer.train(train, config.tokenizer).to_bytes()
    assert learned != Tokenizer.train(stories, config.tokenizer).to_bytes()


def test_words_of_held_out_documents_leave_no_trace(tmp_path: Path, tiny_config: Config) -> None:
    """Whatever is held out of 1,000 documents or more, and whatever the end of a text says."""
    numbered = [f"story {number} of a cat" for number in range(2_000)]
    train = [text for text in numbered if document_hash(text) >= 0.05 * 2**64]
    foreign = [f"qq qq {number}" for number in range(4_000)]
    held_out = [text for text in foreign if document_hash(text) < 0.05 * 2**64]
    expected = Tokenizer.train(train, tiny_config.tokenizer).to_bytes()
    assert len(held_out) > 100
    learned = learn(tmp_path / "hash", tiny_config, [*held_out, *train])
    assert learned.read("tokenizer.json") == expected

    beginning = "a line of twenty....\n" * 95
    expected = Tokenizer.train([beginning], tiny_config.tokenizer).to_bytes()
    learned = learn(tmp_path / "end", tiny_config, [beginning + "qq qq of the end....\n" * 5])
    assert learned.read("tokenizer.json") == expected


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
    assert statistics["unused_bytes"] == 256 - len({token for token in ids if 1 <= token <= 256})
    assert len(statistics["longest_entries"][0].encode()) == max(tokenizer.byte_lengths)
    assert reporter.bars == [
        ("choose what is held out", len(STORIES), len(STORIES)),
        ("learn the tokenizer", len(STORIES), len(STORIES)),
        ("measure the tokenizer", len(STORIES), len(STORIES)),
    ]
    rows = dict(artifact.read_json("summary.json")["rows"])
    assert rows["entries"] == "300"
    assert (
        rows["held out"] == "documents chosen by a hash of each (auto: 150 documents, 20 or more)"
    )


def test_a_small_corpus_says_that_its_vocabulary_is_smaller(
    tmp_path: Path, tiny_config: Config
) -> None:
    config = with_settings(tiny_config, tokenizer={"vocab_size": 8_000})
    artifact = learn(tmp_path, config)
    size = Tokenizer.from_bytes(artifact.read("tokenizer.json")).vocab_size
    assert size < 500
    statistics = artifact.read_json("statistics.json")
    assert (statistics["vocab_size"], statistics["vocab_size_asked"]) == (size, 8_000)
    entries = dict(artifact.read_json("summary.json")["rows"])["entries"]
    assert entries == f"{size} of 8,000; no other pair occurs 2 times or more"


AUTO = "(auto: 64 for every 2 KiB of text to train on, from 320 to 8,000)"


@pytest.mark.parametrize(
    ("documents", "asked", "entries"),
    [
        (10, 320, f"320 {AUTO}"),
        (40, 1_024, f"1,024 {AUTO}"),
        (100, 2_560, f"1,708 of 2,560 {AUTO}; no other pair occurs 2 times or more"),
    ],
)
def test_an_automatic_vocabulary_goes_by_the_size_of_the_train_split(
    documents: int, asked: int, entries: str, tmp_path: Path, tiny_config: Config
) -> None:
    config = with_settings(tiny_config, tokenizer={"vocab_size": "auto"})
    stories = list(islice(builtin.stories(0), documents))
    artifact = learn(tmp_path, config, stories)
    statistics = artifact.read_json("statistics.json")
    assert statistics["vocab_size_asked"] == asked
    size = Tokenizer.from_bytes(artifact.read("tokenizer.json")).vocab_size
    assert statistics["vocab_size"] == size
    rows = dict(artifact.read_json("summary.json")["rows"])
    assert rows["entries"] == entries


def test_a_tokenizer_that_is_reused_is_not_learned(tmp_path: Path, tiny_config: Config) -> None:
    store = Store(tmp_path)
    other = learn(tmp_path / "other", tiny_config, ["other words " * 40])
    config = with_settings(tiny_config, tokenizer={"vocab_size": "auto", "from_": other.id})
    inputs = {"corpus": publish_corpus(store), "from": other}
    out = store.begin("tokenize", Key("0" * 64))
    tokenize.run(config, inputs, out, Notes())
    artifact = store.publish(out)
    assert artifact.read("tokenizer.json") == other.read("tokenizer.json")
    rows = dict(artifact.read_json("summary.json")["rows"])
    size = Tokenizer.from_bytes(other.read("tokenizer.json")).vocab_size
    assert rows["entries"] == f"{size} (of `tokenizer.from`, not learned here)"


def test_the_bytes_of_an_imported_tokenizer_are_counted_wherever_their_ids_are(
    tmp_path: Path, tiny_config: Config
) -> None:
    """In GPT-2's order, bytes come first and the end-of-text token last."""
    end_first = learn(tmp_path / "other", tiny_config, ["other words " * 40])
    model = json.loads(end_first.read("tokenizer.json"))["model"]
    first, *others = model["vocab"]
    end_last = Tokenizer([*others, first], [(left, right) for left, right in model["merges"]])
    found = []
    for name, data in (("a", end_first.read("tokenizer.json")), ("b", end_last.to_bytes())):
        store = Store(tmp_path / name)
        made_from = publish(store, "tokenize", {"tokenizer.json": data})
        config = with_settings(tiny_config, tokenizer={"from_": made_from.id})
        inputs = {"corpus": publish_corpus(store), "from": made_from}
        out = store.begin("tokenize", Key("0" * 64))
        tokenize.run(config, inputs, out, Notes())
        found.append(store.publish(out).read_json("statistics.json"))
    assert found[0] == found[1]
    assert found[0]["unused_bytes"] > 200


def test_a_text_too_small_to_hold_out_a_part_is_an_input_error(
    tmp_path: Path, tiny_config: Config
) -> None:
    with pytest.raises(InputError, match=r"the text has 14 bytes; at least 64 are needed"):
        learn(tmp_path, tiny_config, ["Roses are red."])


def test_a_document_that_is_not_unicode_is_an_input_error(
    tmp_path: Path, tiny_config: Config
) -> None:
    with pytest.raises(InputError, match=r"lone surrogate U\+DC80"):
        learn(tmp_path, tiny_config, [*STORIES, "bad \udc80"])


@pytest.mark.parametrize(
    ("text", "noted"),
    [
        ("ab" * 4000, True),
        ("7" * 8000, True),
        ("-+" * 4000, True),
        ("很久以前，有一只猫。" * 800, False),  # no spaces, but words of a few characters
        ("a word " * 4000, False),
        ("ab" * 2000, False),
    ],
)
def test_a_word_that_takes_long_is_noted(text: str, noted: bool):
    reporter = Notes()
    documents = ["Once upon a time.", text, text]
    assert list(tokenize.note_long_words(documents, reporter)) == documents
    assert len(reporter.notes) == noted
    if noted:
        assert reporter.notes[0].startswith("document 2 has a word of 8,000 characters")


def test_a_long_document_is_reported_piece_by_piece(tmp_path: Path, tiny_config: Config):
    class Figures(Notes):
        tokens: ClassVar[list[float]] = []

        def advance(self, amount: int = 1, **figures: float) -> None:
            super().advance(amount)
            self.tokens += figures.values()

    stories = [*STORIES, "Tom saw a cat. " * 200_000]  # 3 MB
    corpus = publish_corpus(Store(tmp_path), stories)
    reporter = Figures()
    run_stage(Store(tmp_path), "tokenize", tiny_config, {"corpus": corpus}, tokenize.run, reporter)
    assert len(reporter.tokens) == 4
    assert sorted(reporter.tokens) == reporter.tokens
