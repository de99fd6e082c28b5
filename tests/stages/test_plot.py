"""Stage `plot`: what it draws of a run, of an unfinished one, and of odd ones."""

import csv
import io
import json
import math
from pathlib import Path

import pytest

from tests.helpers import (
    WORSENING,
    Inputs,
    Notes,
    prepare,
    publish,
    run_stage,
    run_training,
    with_settings,
)
from tinygpt.config import Config
from tinygpt.errors import ConfigError, CorruptArtifactError, StoppedEarly
from tinygpt.pipeline import STAGES, stage_key
from tinygpt.progress import Limits
from tinygpt.stages import eval as eval_stage
from tinygpt.stages import plot
from tinygpt.store import Artifact, Store

Trained = tuple[Store, Inputs]


def train_and_evaluate(root: Path, config: Config, *, stop_at: int | None = None) -> Trained:
    """A store in which a model was trained (or left at step `stop_at`) and evaluated."""
    store, inputs = prepare(root, config)
    try:
        train = run_training(store, inputs, config, Limits(stop_at_step=stop_at)).artifact
    except StoppedEarly:
        digests = {name: inputs[name].digest for name in STAGES["train"].inputs}
        key = stage_key(STAGES["train"], config, digests, {})
        newest = store.unfinished_run("train", key).newest()
        assert newest is not None
        train = newest
    inputs["train"] = train
    inputs["eval"] = run_stage(store, "eval", config, inputs, eval_stage.run).artifact
    return store, inputs


def draw(trained: Trained, reporter: Notes | None = None, **settings: object) -> Artifact:
    store, inputs = trained
    config = with_settings(Config(), plot={"ablation_tokens": 64, **settings})
    return run_stage(store, "plot", config, inputs, plot.run, reporter).artifact


def rows(artifact: Artifact, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(artifact.read(name).decode())))


def result_table(artifact: Artifact) -> dict[str, str]:
    return dict(artifact.read_json("summary.json")["rows"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_config: Config) -> Trained:
    train = {"max_steps": 12, "snapshots": 4, "learning_rate": 1e-2}
    config = with_settings(tiny_config, train=train)
    return train_and_evaluate(tmp_path_factory.mktemp("run"), config)


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made, but not turned into bytes, which takes most of the time."""
    monkeypatch.setattr(plot, "to_bytes", lambda figure, format: b"")


@pytest.fixture(scope="module")
def drawn(trained: Trained) -> tuple[Artifact, Notes]:
    reporter = Notes()
    return draw(trained, reporter), reporter


@pytest.mark.full
def test_every_head_and_layer_has_its_picture(drawn: tuple[Artifact, Notes]):
    artifact, reporter = drawn
    expected = ["training_curves.png", "attention_heatmaps/overview.png"]
    for layer in (0, 1):
        for head in (0, 1):
            expected.append(f"attention_heatmaps/layer-{layer}-head-{head}.png")
    for name in ("embeddings", "layer-0", "layer-1", "spectral_norms", "singular_values"):
        expected.append(f"weight_distributions/{name}.png")
    pictures = [name for name in artifact.names() if name.endswith(".png")]
    assert pictures == sorted(expected)
    assert sorted(artifact.read_json("summary.json")["pictures"]) == sorted(expected)
    assert all(artifact.read(name).startswith(b"\x89PNG") for name in pictures)
    assert result_table(artifact)["pictures"] == str(len(pictures))
    assert reporter.bars[-1] == ("draw", len(pictures), len(pictures))


@pytest.mark.full
def test_the_numbers_stand_beside_the_pictures(drawn: tuple[Artifact, Notes]):
    artifact, _ = drawn
    heads = rows(artifact, "attention_heatmaps/heads.csv")
    assert {int(row["step"]) for row in heads} == {0, 1, 2, 5, 12}
    assert all(0 <= float(row["induction"]) <= 1 for row in heads)
    assert all(float(row["entropy_bits"]) >= 0 for row in heads)
    ablated = rows(artifact, "attention_heatmaps/heads_ablated.csv")
    expected = [("0", "0"), ("0", "1"), ("1", "0"), ("1", "1")]
    assert [(row["layer"], row["head"]) for row in ablated] == expected
    assert all(math.isfinite(float(row["loss_increase"])) for row in ablated)
    assert {(row["step"], row["tokens"]) for row in ablated} == {("12", "64")}
    losses = rows(artifact, "attention_heatmaps/token_losses.csv")
    tokens = int(result_table(artifact)["text"].split()[0])
    assert sorted({int(row["position"]) for row in losses}) == list(range(1, tokens))
    assert all(math.isfinite(float(row["loss_nats"])) for row in losses)


@pytest.mark.full
def test_the_spectral_norm_is_the_largest_singular_value(drawn: tuple[Artifact, Notes]):
    artifact, _ = drawn
    matrices = rows(artifact, "weight_distributions/matrices.csv")
    spectra = rows(artifact, "weight_distributions/singular_values.csv")
    # Step 0, four snapshots, and the final weights, which are the last snapshot
    assert len(matrices) == 6 * len({(row["layer"], row["matrix"]) for row in spectra})
    named = {(row["step"], row["layer"], row["matrix"]): row for row in matrices}
    norm = float(named["12", "0", "query"]["spectral_norm"])
    values = []
    for row in spectra:
        if (row["layer"], row["matrix"]) == ("0", "query"):
            values.append(float(row["trained"]))
    assert norm == pytest.approx(max(values), rel=1e-4)


@pytest.mark.full
def test_drawing_again_gives_the_same_bytes(
    tmp_path: Path, trained: Trained, drawn: tuple[Artifact, Notes]
):
    again = draw((Store(tmp_path), trained[1]))
    assert again.digest == drawn[0].digest


@pytest.mark.full
def test_pictures_are_svg_if_asked_for(trained: Trained):
    artifact = draw(trained, format="svg", ablation_tokens=None)
    assert artifact.read("training_curves.svg").startswith(b"<?xml")
    assert not [name for name in artifact.names() if name.endswith(".png")]


@pytest.mark.usefixtures("unrendered")
def test_a_run_of_one_step_without_snapshots_is_drawn(tmp_path: Path, tiny_config: Config):
    train = {"max_steps": 1, "snapshots": 0}
    config = with_settings(tiny_config, train=train, eval={"baselines": False})
    artifact = draw(train_and_evaluate(tmp_path, config))
    assert "training_curves.png" in artifact.names()


@pytest.mark.full
@pytest.mark.usefixtures("unrendered")
def test_an_unfinished_run_is_drawn(tmp_path: Path, tiny_config: Config):
    store, inputs = train_and_evaluate(tmp_path, tiny_config, stop_at=2)
    assert inputs["train"].stage == "checkpoint"
    heads = rows(draw((store, inputs)), "attention_heatmaps/heads.csv")
    assert {row["step"] for row in heads} == {"0", "2"}


@pytest.mark.full
@pytest.mark.usefixtures("unrendered")
def test_a_text_of_one_token_is_drawn(trained: Trained):
    artifact = draw(trained, text="a", ablation_tokens=None)
    assert rows(artifact, "attention_heatmaps/token_losses.csv") == []
    assert result_table(artifact)["text"] == "1 token"
    assert "attention_heatmaps/heads_ablated.csv" not in artifact.names()


@pytest.mark.full
@pytest.mark.usefixtures("unrendered")
def test_a_text_longer_than_the_context_is_cut_with_a_note(trained: Trained):
    reporter = Notes()
    artifact = draw(trained, reporter, text="q$z " * 40, ablation_tokens=None)
    assert result_table(artifact)["text"] == "16 tokens"
    assert reporter.notes
    assert reporter.notes[0].endswith("the first 16 are drawn")


@pytest.mark.full
@pytest.mark.usefixtures("unrendered")
def test_the_best_weights_are_drawn_where_the_last_are_worse(tmp_path: Path, tiny_config: Config):
    train = {**WORSENING, "snapshots": 4}
    trained = train_and_evaluate(tmp_path, with_settings(tiny_config, train=train))
    metrics = trained[1]["train"].read_rows("metrics.jsonl")
    best = max(row["step"] for row in metrics if row.get("best"))
    assert best < 12
    reporter = Notes()
    artifact = draw(trained, reporter)
    steps = {int(row["step"]) for row in rows(artifact, "attention_heatmaps/heads.csv")}
    assert steps == {step for step in (0, 1, 2, 5, 12) if step < best} | {best}
    assert result_table(artifact)["weights"] == f"of step {best}"
    assert f"validation was best at step {best}; those weights are used" in reporter.notes
    last = draw(trained, weights="last")
    assert result_table(last)["weights"] == "of step 12"


def test_an_empty_text_is_refused(trained: Trained):
    with pytest.raises(ConfigError, match=r"`plot\.text` is empty"):
        draw(trained, text="")


def test_weights_of_another_architecture_are_refused(tmp_path: Path, trained: Trained):
    train = trained[1]["train"]
    model_file = train.read_json("config.json")
    model_file["model"]["n_layers"] = 3
    files = {name: train.read(name) for name in train.names()}
    files["config.json"] = json.dumps(model_file).encode()
    other = publish(Store(tmp_path / "a"), "train", files)
    with pytest.raises(CorruptArtifactError, match="blocks"):
        draw((Store(tmp_path / "b"), {**trained[1], "train": other}))
