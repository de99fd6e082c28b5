"""Stage `build-dataset`: shards that anything can read, and a description that agrees with them."""

from pathlib import Path

import numpy as np
import pytest

from tests.stages.stories import STORIES, Bars, run_stage, tokenized
from tinygpt.config import Config
from tinygpt.errors import InputError
from tinygpt.lm.dataset import is_validation, story_spans
from tinygpt.lm.tokenizer import END_OF_STORY, Tokenizer
from tinygpt.stages import build_dataset


def test_shards_hold_every_story_once_on_its_side(tmp_path: Path, tiny_config: Config) -> None:
    stories = [*STORIES, f"It ends with {END_OF_STORY} here.", *STORIES[:7]]
    _, inputs = tokenized(tmp_path, tiny_config, stories)
    dataset, tokenizer = inputs["build-dataset"], Tokenizer.from_bytes(inputs["tokenize"].read("tokenizer.json"))
    meta = dataset.read_json("meta.json")
    for name in ("train", "val"):
        tokens = np.memmap(dataset.path(f"{name}.bin"), dtype=np.uint16, mode="r")  # as nanoGPT reads it
        texts = [tokenizer.decode(tokens[start : stop - 1]) for start, stop in story_spans(tokens, meta["end_of_story"])]
        assert texts == [text for text in stories if is_validation(text, tiny_config.dataset.val_fraction) == (name == "val")]
        assert meta[name] == {"stories": len(texts), "tokens": len(tokens), "bytes": sum(len(text.encode()) for text in texts)}
    assert meta["vocab_size"] == tokenizer.vocab_size
    assert meta["duplicates"] == 7
    assert "label" not in meta


def test_the_label_of_the_corpus_goes_on_and_progress_reaches_its_end(tmp_path: Path, tiny_config: Config) -> None:
    store, inputs = tokenized(tmp_path, tiny_config, label="template stories, not comparable")
    assert inputs["build-dataset"].read_json("meta.json")["label"] == "template stories, not comparable"
    config = tiny_config.model_copy(update={"dataset": tiny_config.dataset.model_copy(update={"val_fraction": 0.3})})
    report = Bars()
    sources = {name: inputs[name] for name in ("corpus", "tokenize")}
    artifact = run_stage(store, "build-dataset", config, sources, build_dataset.run, report)
    assert report.bars == [["encode", len(STORIES), len(STORIES)]]
    assert artifact.manifest.provenance["tokens_per_second"] > 0


@pytest.mark.parametrize("side", ["train", "val"])
def test_an_empty_split_is_an_input_error_and_leaves_no_artifact(side: str, tmp_path: Path, tiny_config: Config) -> None:
    store, inputs = tokenized(tmp_path, tiny_config)
    config = tiny_config.model_copy(
        update={"dataset": tiny_config.dataset.model_copy(update={"val_fraction": 1e-9 if side == "val" else 1 - 1e-9})}
    )
    sources = {name: inputs[name] for name in ("corpus", "tokenize")}
    with pytest.raises(InputError, match=rf"none of the 150 stories is in the {side} split"):
        run_stage(store, "build-dataset", config, sources, build_dataset.run)
    assert len(store.list("build-dataset")) == 1
