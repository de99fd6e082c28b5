"""Stage `build-dataset`: shards that anything can read, and a description that agrees with them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import (
    STORIES,
    Inputs,
    Notes,
    prepare,
    publish_corpus,
    run_stage,
    with_settings,
)
from tinygpt.config import Config
from tinygpt.errors import InputError
from tinygpt.lm.dataset import document_spans
from tinygpt.lm.holdout import Part, plan_holdout
from tinygpt.lm.tokenizer import END_OF_TEXT, Tokenizer
from tinygpt.stages import build_dataset
from tinygpt.store import Store

PLAY = "".join(
    f"SPEAKER {number}:\nA line of verse, and {number} more.\n\n" for number in range(200)
)


def parts_of(config: Config, stories: Sequence[str], split: str) -> list[Part]:
    parts = plan_holdout(stories, config.dataset).parts(stories)
    return [part for part in parts if part.split == split]


def texts_in(inputs: Inputs, split: str) -> list[tuple[str, bool]]:
    """What a shard holds, as nanoGPT reads it: texts, and whether an end-of-text token follows."""
    dataset = inputs["build-dataset"]
    tokenizer = Tokenizer.from_bytes(inputs["tokenize"].read("tokenizer.json"))
    tokens = np.memmap(dataset.path(f"{split}.bin"), dtype=np.uint16, mode="r")
    end = dataset.read_json("meta.json")["end_of_text"]
    assert dataset.read_json("meta.json")[split]["tokens"] == len(tokens)
    return [
        (tokenizer.decode(tokens[start:stop]), tokens[stop - 1] == end)
        for start, stop in document_spans(tokens, end)
    ]


def rows(inputs: Inputs) -> dict[str, str]:
    return dict(inputs["build-dataset"].read_json("summary.json")["rows"])


@pytest.mark.parametrize("test_fraction", [0.0, 0.1])
@pytest.mark.parametrize("holdout", ["auto", "hash", "end"])
def test_shards_hold_every_document_once_in_its_split(
    holdout: str, test_fraction: float, tmp_path: Path, tiny_config: Config
) -> None:
    stories = [*STORIES, f"It ends with {END_OF_TEXT} here.", *STORIES[:7]]
    config = with_settings(
        tiny_config, dataset={"test_fraction": test_fraction, "holdout": holdout}
    )
    _, inputs = prepare(tmp_path, config, stories)
    dataset = inputs["build-dataset"]
    meta = dataset.read_json("meta.json")
    splits = ("train", "val", "test") if test_fraction else ("train", "val")
    shards = [name for name in dataset.names() if name.endswith(".bin")]
    assert shards == sorted(f"{split}.bin" for split in splits)
    for split in splits:
        expected = parts_of(config, stories, split)
        assert expected
        assert texts_in(inputs, split) == [(part.text, part.is_end) for part in expected]
        assert meta[split]["documents"] == len(expected)
        assert meta[split]["bytes"] == sum(len(part.text.encode()) for part in expected)
    tokenizer = Tokenizer.from_bytes(inputs["tokenize"].read("tokenizer.json"))
    assert meta["vocab_size"] == tokenizer.vocab_size
    assert meta["holdout"] == ("end" if holdout == "end" else "hash")
    assert meta["duplicates"] == 7
    assert "label" not in meta


def test_end_of_text_stands_after_real_documents_only(tmp_path: Path, tiny_config: Config) -> None:
    """One text is cut at a line end into two shards, of which the last alone ends a document."""
    _, inputs = prepare(tmp_path, tiny_config, [PLAY])
    ((train, train_ends),) = texts_in(inputs, "train")
    ((val, val_ends),) = texts_in(inputs, "val")
    assert train + val == PLAY
    assert (train_ends, val_ends) == (False, True)
    assert train.endswith("\n")
    assert 0.045 < len(val) / len(PLAY) < 0.055
    assert rows(inputs)["held out"] == "the end of the text (auto: it is one document)"
    assert rows(inputs)["train"].startswith("1 document, ")


def test_the_result_table_says_what_is_held_out_and_why(
    tmp_path: Path, tiny_config: Config
) -> None:
    speeches = PLAY.split("\n\n")[:-1]
    config = with_settings(tiny_config, dataset={"test_fraction": 0.1})
    _, inputs = prepare(tmp_path / "paragraphs", config, [*speeches, speeches[0]], unit="paragraph")
    assert rows(inputs)["held out"] == (
        "the end of the text (auto: 201 paragraphs of one text; `--set dataset.holdout=hash` "
        "draws from all)"
    )
    assert rows(inputs)["duplicates"] == (
        "1 document is a copy of an earlier one, perhaps in another split"
    )
    assert list(rows(inputs)) == ["train", "val", "test", "held out", "duplicates"]
    _, inputs = prepare(tmp_path / "documents", config, [*speeches, speeches[0], speeches[0]])
    expected = "documents chosen by a hash of each (auto: 202 documents, 20 or more)"
    assert rows(inputs)["held out"] == expected
    assert rows(inputs)["duplicates"] == (
        "2 documents are copies of earlier ones; copies stay in one split"
    )
    _, inputs = prepare(tmp_path / "none", config, speeches)
    assert rows(inputs)["duplicates"] == "none"


def test_the_label_of_the_corpus_is_kept_and_progress_reaches_its_end(
    tmp_path: Path, tiny_config: Config
) -> None:
    label = "template stories, not comparable"
    store, inputs = prepare(tmp_path, tiny_config, label=label)
    assert inputs["build-dataset"].read_json("meta.json")["label"] == label
    config = with_settings(tiny_config, dataset={"val_fraction": 0.3})
    reporter = Notes()
    outcome = run_stage(store, "build-dataset", config, inputs, build_dataset.run, reporter)
    assert reporter.bars == [
        ("choose what is held out", len(STORIES), len(STORIES)),
        ("encode", len(STORIES), len(STORIES)),
    ]
    assert outcome.artifact.manifest.provenance["tokens_per_second"] > 0


def test_a_text_too_small_to_hold_out_a_part_is_an_input_error_and_leaves_no_artifact(
    tmp_path: Path, tiny_config: Config
) -> None:
    store, inputs = prepare(tmp_path, tiny_config)
    inputs["corpus"] = publish_corpus(Store(tmp_path / "small"), ["Roses are red."])
    with pytest.raises(InputError, match=r"the text has 14 bytes; at least 64 are needed"):
        run_stage(store, "build-dataset", tiny_config, inputs, build_dataset.run)
    assert len(store.list("build-dataset")) == 1
