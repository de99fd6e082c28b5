"""Which weights of a run are read, and what is said about it."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import WORSENING, Inputs, prepare, publish, run_training, with_settings
from tinygpt.config import Config
from tinygpt.config.tables import EvalConfig
from tinygpt.errors import CorruptArtifactError, StoppedEarly
from tinygpt.lm.weights import read_arrays
from tinygpt.progress import Limits
from tinygpt.runs.trained_weights import FILES, MAX_RISE, choose, open_weights
from tinygpt.store import Artifact, Store
from tinygpt.store.metrics import evaluations, read_metrics


@pytest.fixture(scope="module")
def worsening(tmp_path_factory: pytest.TempPathFactory, tiny_config: Config) -> Artifact:
    """A run whose last validation loss is not its lowest."""
    config = with_settings(tiny_config, train=WORSENING)
    store, inputs = prepare(tmp_path_factory.mktemp("worsening"), config)
    return run_training(store, inputs, config).artifact


@pytest.fixture(scope="module")
def improving(tmp_path_factory: pytest.TempPathFactory, tiny_config: Config) -> Artifact:
    """A run whose last weights are its best."""
    store, inputs = prepare(tmp_path_factory.mktemp("improving"), tiny_config)
    return run_training(store, inputs, tiny_config).artifact


@pytest.mark.parametrize(
    ("last", "best", "expected"),
    [(2.0, 2.0, "last"), (2.009, 2.0, "last"), (2.011, 2.0, "best"), (2.5, 2.0, "best")],
)
def test_auto_takes_the_best_weights_where_the_loss_rose_by_more_than_the_limit(
    last: float, best: float, expected: str
) -> None:
    assert choose(last, best) == expected


def test_the_description_of_the_key_names_the_limit() -> None:
    assert str(MAX_RISE) in str(EvalConfig.model_fields["weights"].description)


def test_the_best_weights_of_an_worsening_run_are_taken_and_that_is_said(
    worsening: Artifact,
) -> None:
    lowest = min(evaluations(read_metrics(worsening)), key=lambda row: row["val_loss"])
    assert lowest["step"] < 12
    found = open_weights(worsening, "auto")
    assert (found.which, found.step) == ("best", lowest["step"])
    assert found.note == f"validation was best at step {lowest['step']}; those weights are used"
    best = read_arrays(worsening.read(FILES["best"]))
    assert all((found.arrays[name] == array).all() for name, array in best.items())


@pytest.mark.parametrize("which", ["best", "last"])
def test_weights_that_were_asked_for_are_taken_without_a_word(
    worsening: Artifact, which: str
) -> None:
    found = open_weights(worsening, which)  # type: ignore[arg-type]
    expected = read_arrays(worsening.read(FILES[which]))
    assert all((found.arrays[name] == array).all() for name, array in expected.items())
    assert (found.which, found.note) == (which, None)
    assert (found.step == 12) == (which == "last")


@pytest.mark.parametrize("which", ["best", "last"])
def test_both_weights_agree_with_their_probe_and_not_with_the_other_one(
    worsening: Artifact, which: str
) -> None:
    found = open_weights(worsening, which)  # type: ignore[arg-type]
    other = open_weights(worsening, "last" if which == "best" else "best")
    assert found.decoder("cpu").name == "numpy"
    assert not found.model().explicit
    assert found.probe.logits is not None
    assert other.probe.logits is not None
    assert found.probe.token_ids == other.probe.token_ids
    assert np.abs(found.probe.logits - other.probe.logits).max() > found.probe.tolerance


def test_the_last_weights_are_taken_where_they_are_the_best(improving: Artifact) -> None:
    found = open_weights(improving, "auto")
    assert (found.which, found.step, found.note) == ("last", 4, None)
    assert open_weights(improving, "best").step == 4


def test_a_checkpoint_is_read_like_a_finished_run(tmp_path: Path, tiny_config: Config) -> None:
    store, inputs = prepare(tmp_path, tiny_config)
    with pytest.raises(StoppedEarly):
        run_training(store, inputs, tiny_config, Limits(stop_at_step=3))
    (run,) = store.unfinished_runs()
    found = open_weights(run.load(3), "auto")
    assert (found.which, found.step) == ("last", 3)
    assert found.decoder("cpu").name == "numpy"


@pytest.mark.parametrize("missing", ["metrics.jsonl", "best/model.safetensors"])
def test_a_copy_without_its_best_weights_or_metrics_gives_the_last_ones_and_says_so(
    worsening: Artifact, tmp_path: Path, missing: str
) -> None:
    files = {name: worsening.read(name) for name in worsening.names() if name != missing}
    copy = publish(Store(tmp_path), "train", files)
    found = open_weights(copy, "auto")
    assert (found.which, found.step) == ("last", 12)
    assert "the last weights are used" in (found.note or "")
    with pytest.raises(CorruptArtifactError, match=missing):
        open_weights(copy, "best")


def test_a_model_of_an_earlier_version_without_a_probe_can_be_read(
    worsening: Artifact, tmp_path: Path
) -> None:
    files = {name: worsening.read(name) for name in worsening.names() if "probe" not in name}
    found = open_weights(publish(Store(tmp_path), "train", files), "last")
    assert found.decoder("cpu").name == "numpy"
    assert found.model() is not None


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("metrics.jsonl", b""),
        ("metrics.jsonl", b'{"kind": "eval"}\n'),
        ("metrics.jsonl", b'{"kind": "eval"\n'),
        ("config.json", None),
    ],
)
def test_files_that_are_not_those_of_a_model_are_refused_in_a_sentence(
    worsening: Artifact, tmp_path: Path, name: str, data: bytes | None
) -> None:
    files = {name: worsening.read(name) for name in worsening.names()}
    model_file = json.loads(files["config.json"])
    del model_file["step"]
    files[name] = json.dumps(model_file).encode() if data is None else data
    artifact = publish(Store(tmp_path), "train", files)
    with pytest.raises(CorruptArtifactError, match="is not what this version of tinygpt writes"):
        open_weights(artifact, "last" if name == "config.json" else "auto")


def test_a_config_json_of_another_model_than_the_recipe_is_refused(
    worsening: Artifact, tmp_path: Path
) -> None:
    """Without learned positions, no shape depends on the length of the context."""
    files = {name: worsening.read(name) for name in worsening.names()}
    model_file = json.loads(files["config.json"])
    model_file["model"]["dropout"] = 0.5
    files["config.json"] = json.dumps(model_file).encode()
    copy = publish(Store(tmp_path), "train", files)
    recipe = copy.manifest.model_copy(update={"tables": worsening.manifest.tables})
    with pytest.raises(CorruptArtifactError, match="the manifest says that it is another model"):
        open_weights(Artifact(copy.folder, recipe, copy.root), "last")
    assert open_weights(copy, "last").config.dropout == 0.5  # no recipe to compare with


def test_the_numbers_of_a_run_are_in_its_summary(worsening: Artifact, tiny_config: Config) -> None:
    numbers = worsening.read_json("summary.json")["numbers"]
    metrics = worsening.read_rows("metrics.jsonl")
    steps = [row for row in metrics if row["kind"] == "step"]
    last = evaluations(read_metrics(worsening))[-1]
    best = min(evaluations(read_metrics(worsening)), key=lambda row: row["val_loss"])
    assert numbers["steps"] == 12
    assert numbers["tokens"] == last["tokens"] == 12 * 2 * 16
    assert numbers["train_loss"] == pytest.approx(sum(row["loss"] for row in steps) / 12)
    assert (numbers["val_loss"], numbers["val_perplexity"]) == (
        last["val_loss"],
        last["val_perplexity"],
    )
    assert (numbers["best_step"], numbers["best_val_loss"]) == (best["step"], best["val_loss"])
    arrays = read_arrays(worsening.read("model.safetensors"))
    assert numbers["parameters"] == sum(array.size for array in arrays.values())


def test_passes_are_counted_over_the_training_text(tmp_path: Path, tiny_config: Config) -> None:
    inputs: Inputs
    store, inputs = prepare(tmp_path, tiny_config)
    artifact = run_training(store, inputs, tiny_config).artifact
    size = inputs["build-dataset"].read_json("meta.json")["train"]["tokens"]
    passes = artifact.read_json("summary.json")["numbers"]["passes"]
    assert passes == pytest.approx(4 * 2 * 16 / size)
