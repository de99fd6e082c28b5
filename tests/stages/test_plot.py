"""Stage `plot`: what it draws of a run, of an unfinished one, and of odd ones."""

import csv
import io
import json
import math
from pathlib import Path

import pytest

from tests.stages.training import prepare, publish, run_training
from tinygpt.config.tables import Config, EvalConfig, PlotConfig
from tinygpt.errors import ConfigError, CorruptArtifactError, StoppedEarly
from tinygpt.pipeline import STAGES, Outcome, execute, stage_key
from tinygpt.report import SilentReport
from tinygpt.stages import eval as eval_stage
from tinygpt.stages import plot
from tinygpt.stages.train import Limits
from tinygpt.store import Artifact, Store

Inputs = dict[str, Artifact]


class Notes(SilentReport):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.total, self.done = 0, 0

    def note(self, text: str) -> None:
        self.notes.append(text)

    def task(self, title: str, total: int | None = None, *, unit: str = "", done: int = 0) -> None:
        self.total, self.done = total or 0, 0

    def advance(self, amount: int = 1, **figures: float) -> None:
        self.done += amount


def with_run(root: Path, config: Config, *, stop_at: int | None = None) -> tuple[Store, Inputs]:
    """A store in which a model was trained (or left at step `stop_at`) and judged."""
    store, inputs = prepare(root, config)
    try:
        train = run_training(store, inputs, config, Limits(stop_at_step=stop_at)).artifact
    except StoppedEarly:
        key = stage_key(STAGES["train"], config, {name: artifact.digest for name, artifact in inputs.items()}, {})
        newest = store.checkpoints("train", key).newest()
        assert newest is not None
        train = newest
    inputs = {**inputs, "train": train}
    judged = execute(STAGES["eval"], config, inputs, store=store, outside={}, runner=eval_stage.run, report=SilentReport())
    return store, {**inputs, "eval": judged.artifact}


def draw(store: Store, inputs: Inputs, report: SilentReport | None = None, **options: object) -> Outcome:
    """Run the stage as the command does it."""
    config = Config(plot=PlotConfig.model_validate({"ablation_tokens": 64, **options}))
    return execute(STAGES["plot"], config, inputs, store=store, outside={}, runner=plot.run, report=report or SilentReport())


def rows(artifact: Artifact, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(artifact.read(name).decode())))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_config: Config) -> tuple[Store, Inputs]:
    train = tiny_config.train.model_copy(update={"max_steps": 12, "snapshots": 4, "learning_rate": 1e-2})
    return with_run(tmp_path_factory.mktemp("run"), tiny_config.model_copy(update={"train": train}))


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made, but not turned into bytes, which takes most of the time."""
    monkeypatch.setattr(plot, "to_bytes", lambda figure, format: b"")


@pytest.fixture(scope="module")
def drawn(trained: tuple[Store, Inputs]) -> tuple[Artifact, Notes]:
    report = Notes()
    return draw(*trained, report).artifact, report


@pytest.mark.full
def test_every_head_layer_and_course_has_its_picture(drawn: tuple[Artifact, Notes]):
    artifact, report = drawn
    summary = artifact.read_json("summary.json")
    pictures = [name for name in artifact.names() if name.endswith(".png")]
    assert (
        sorted(summary["pictures"])
        == pictures
        == sorted(
            ["training_curves.png"]
            + [f"attention_heatmaps/layer-{layer}-head-{head}.png" for layer in (0, 1) for head in (0, 1)]
            + ["attention_heatmaps/overview.png"]
            + [
                f"weight_distributions/{name}.png"
                for name in ("embeddings", "layer-0", "layer-1", "spectral_norms", "singular_values")
            ]
        )
    )
    assert all(artifact.read(name).startswith(b"\x89PNG") for name in pictures)
    assert dict(summary["rows"])["pictures"] == str(len(pictures))
    assert (report.done, report.total) == (len(pictures), len(pictures))


@pytest.mark.full
def test_the_numbers_lie_beside_the_pictures(drawn: tuple[Artifact, Notes]):
    artifact, _ = drawn
    heads = rows(artifact, "attention_heatmaps/heads.csv")
    assert {int(row["step"]) for row in heads} == {0, 1, 2, 5, 12}
    ablated = rows(artifact, "attention_heatmaps/heads_ablated.csv")
    assert [(row["layer"], row["head"]) for row in ablated] == [tuple(place) for place in ("00", "01", "10", "11")]
    assert all(math.isfinite(float(row["loss_change"])) for row in ablated)
    assert all(0 <= float(row["induction"]) <= 1 and float(row["entropy_bits"]) >= 0 for row in heads)
    matrices = rows(artifact, "weight_distributions/matrices.csv")
    spectra = rows(artifact, "weight_distributions/singular_values.csv")
    assert len(matrices) == 6 * len(
        {(row["layer"], row["matrix"]) for row in spectra}
    )  # 0, four snapshots, and the final weights, which are the last snapshot
    query = next(row for row in matrices if (row["step"], row["layer"], row["matrix"]) == ("12", "0", "query"))
    values = [float(row["trained"]) for row in spectra if (row["layer"], row["matrix"]) == ("0", "query")]
    assert float(query["spectral_norm"]) == pytest.approx(max(values), rel=1e-4)
    losses = rows(artifact, "attention_heatmaps/token_losses.csv")
    tokens = int(dict(artifact.read_json("summary.json")["rows"])["text"].split()[0])
    assert sorted({int(row["position"]) for row in losses}) == list(range(1, tokens))
    assert all(math.isfinite(float(row["loss_nats"])) for row in losses)


@pytest.mark.full
def test_a_second_drawing_gives_the_same_bytes(tmp_path: Path, trained: tuple[Store, Inputs], drawn: tuple[Artifact, Notes]):
    assert draw(Store(tmp_path), trained[1]).artifact.digest == drawn[0].digest


@pytest.mark.full
def test_svg_by_option(trained: tuple[Store, Inputs]):
    artifact = draw(*trained, format="svg", ablation_tokens=None).artifact
    assert artifact.read("training_curves.svg").startswith(b"<?xml")
    assert not [name for name in artifact.names() if name.endswith(".png")]


@pytest.mark.usefixtures("unrendered")
def test_a_run_of_one_step_without_snapshots_is_drawn(tmp_path: Path, tiny_config: Config):
    train = tiny_config.train.model_copy(update={"max_steps": 1, "snapshots": 0})
    artifact = draw(
        *with_run(tmp_path, tiny_config.model_copy(update={"train": train, "eval": EvalConfig(baselines=False)}))
    ).artifact
    assert "training_curves.png" in artifact.names()


@pytest.mark.full
@pytest.mark.usefixtures("unrendered")
def test_an_unfinished_run_is_drawn(tmp_path: Path, tiny_config: Config):
    store, inputs = with_run(tmp_path, tiny_config, stop_at=2)
    assert inputs["train"].stage == "checkpoint"
    heads = rows(draw(store, inputs).artifact, "attention_heatmaps/heads.csv")
    assert {row["step"] for row in heads} == {"0", "2"}


@pytest.mark.full
@pytest.mark.usefixtures("unrendered")
def test_a_text_of_one_token(trained: tuple[Store, Inputs]):
    artifact = draw(*trained, text="a", ablation_tokens=None).artifact
    assert rows(artifact, "attention_heatmaps/token_losses.csv") == []
    assert dict(artifact.read_json("summary.json")["rows"])["text"] == "1 token"
    assert "attention_heatmaps/heads_ablated.csv" not in artifact.names()


@pytest.mark.full
@pytest.mark.usefixtures("unrendered")
def test_a_text_longer_than_the_context_is_cut_and_said_so(trained: tuple[Store, Inputs]):
    report = Notes()
    artifact = draw(*trained, report, text="q$z " * 40, ablation_tokens=None).artifact
    assert dict(artifact.read_json("summary.json")["rows"])["text"] == "16 tokens"
    assert report.notes
    assert report.notes[0].endswith("the first 16 are drawn")


def test_an_empty_text_is_refused(trained: tuple[Store, Inputs]):
    with pytest.raises(ConfigError, match=r"`plot\.text` is empty"):
        draw(*trained, text="")


def test_weights_of_another_architecture_are_refused(tmp_path: Path, trained: tuple[Store, Inputs]):
    train = trained[1]["train"]
    card = train.read_json("config.json")
    card["model"]["n_layers"] = 3
    files = {name: train.read(name) for name in train.names() if name != "manifest.json"} | {
        "config.json": json.dumps(card).encode()
    }
    with pytest.raises(CorruptArtifactError, match="blocks"):
        draw(Store(tmp_path / "b"), {**trained[1], "train": publish(Store(tmp_path / "a"), "train", files)})
