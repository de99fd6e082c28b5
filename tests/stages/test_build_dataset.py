"""Stage `build-dataset`: shards that anything can read, and a description that agrees with them."""

from pathlib import Path

import numpy as np
import pytest

from tests.helpers import STORIES, Notes, prepare, run_stage, with_settings
from tinygpt.config import Config
from tinygpt.errors import InputError
from tinygpt.lm.dataset import document_spans, is_validation
from tinygpt.lm.tokenizer import END_OF_TEXT, Tokenizer
from tinygpt.stages import build_dataset


def test_shards_hold_every_document_once_in_its_split(tmp_path: Path, tiny_config: Config) -> None:
    stories = [*STORIES, f"It ends with {END_OF_TEXT} here.", *STORIES[:7]]
    _, inputs = prepare(tmp_path, tiny_config, stories)
    dataset = inputs["build-dataset"]
    tokenizer = Tokenizer.from_bytes(inputs["tokenize"].read("tokenizer.json"))
    meta = dataset.read_json("meta.json")
    for name in ("train", "val"):
        # As nanoGPT reads it
        tokens = np.memmap(dataset.path(f"{name}.bin"), dtype=np.uint16, mode="r")
        spans = document_spans(tokens, meta["end_of_text"])
        texts = [tokenizer.decode(tokens[start : stop - 1]) for start, stop in spans]
        expected = []
        for text in stories:
            is_held_out = is_validation(text, tiny_config.dataset.val_fraction)
            if is_held_out == (name == "val"):
                expected.append(text)
        assert texts == expected
        assert meta[name] == {
            "documents": len(texts),
            "tokens": len(tokens),
            "bytes": sum(len(text.encode()) for text in texts),
        }
    assert meta["vocab_size"] == tokenizer.vocab_size
    assert meta["duplicates"] == 7
    assert "label" not in meta


def test_the_label_of_the_corpus_is_kept_and_progress_reaches_its_end(
    tmp_path: Path, tiny_config: Config
) -> None:
    label = "template stories, not comparable"
    store, inputs = prepare(tmp_path, tiny_config, label=label)
    assert inputs["build-dataset"].read_json("meta.json")["label"] == label
    config = with_settings(tiny_config, dataset={"val_fraction": 0.3})
    reporter = Notes()
    outcome = run_stage(store, "build-dataset", config, inputs, build_dataset.run, reporter)
    assert reporter.bars == [("encode", len(STORIES), len(STORIES))]
    assert outcome.artifact.manifest.provenance["tokens_per_second"] > 0


@pytest.mark.parametrize(("split", "val_fraction"), [("train", 1 - 1e-9), ("val", 1e-9)])
def test_an_empty_split_is_an_input_error_and_leaves_no_artifact(
    split: str, val_fraction: float, tmp_path: Path, tiny_config: Config
) -> None:
    store, inputs = prepare(tmp_path, tiny_config)
    config = with_settings(tiny_config, dataset={"val_fraction": val_fraction})
    with pytest.raises(InputError, match=rf"none of the 150 documents is in the {split} split"):
        run_stage(store, "build-dataset", config, inputs, build_dataset.run)
    assert store.list("build-dataset") == [inputs["build-dataset"]]
