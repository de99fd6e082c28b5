"""A run continues from the newest checkpoint that it can use, and saves none that it could not."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from tests.helpers import Inputs, Notes, prepare, run_training, with_settings
from tinygpt.config import Config
from tinygpt.errors import CorruptArtifactError, DivergedError, StoppedEarly
from tinygpt.hashing import hash_bytes
from tinygpt.lm.optim import AdamW
from tinygpt.lm.weights import read_arrays
from tinygpt.progress import Limits
from tinygpt.runs.training_run import TrainingRun
from tinygpt.store import Artifact, Store

OPTIMIZER = "optimizer.safetensors"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def config(tiny_config: Config) -> Config:
    """A checkpoint after each step, and one evaluation at the end."""
    return with_settings(
        tiny_config,
        train={"max_steps": 12, "eval_every": 1000, "snapshots": 0},
        runtime={"checkpoint_every": 1, "threads": 1},
    )


@pytest.fixture
def stopped(tmp_path: Path, config: Config) -> tuple[Store, Inputs]:
    """A run that stopped after step 5, with checkpoints of steps 4 and 5."""
    store, inputs = prepare(tmp_path, config)
    with pytest.raises(StoppedEarly):
        run_training(store, inputs, config, Limits(stop_at_step=5))
    (run,) = store.unfinished_runs()
    assert run.steps() == [4, 5]
    return store, inputs


def replace(artifact: Artifact, files: Mapping[str, bytes]) -> None:
    """Put other bytes into an artifact, with right hashes."""
    records = dict(artifact.manifest.files)
    for name, data in files.items():
        artifact.path(name).unlink()
        artifact.path(name).write_bytes(data)
        records[name] = {"sha256": hash_bytes(data), "bytes": len(data)}
    manifest = artifact.folder / "manifest.json"
    manifest.unlink()
    manifest.write_bytes(artifact.manifest.model_copy(update={"files": records}).to_bytes())


def spoil(artifact: Artifact, file: str, ending: str, value: float) -> None:
    """Put a number into the first tensor whose name has this ending."""
    arrays = {name: array.copy() for name, array in read_arrays(artifact.read(file)).items()}
    name = next(name for name in arrays if name.endswith(ending))
    arrays[name].reshape(-1)[0] = value
    replace(artifact, {file: safetensors.numpy.save(arrays)})


def not_finite(store: Store) -> list[Path]:
    """The files of a store that contain a NaN or an infinity."""
    found = []
    for path in store.root.rglob("*.safetensors"):
        if not all(np.isfinite(array).all() for array in read_arrays(path.read_bytes()).values()):
            found.append(path)
    return found


POISONS = [
    *((OPTIMIZER, "/exp_avg", value) for value in (np.nan, np.inf, 1e38)),
    *((OPTIMIZER, "/exp_avg_sq", value) for value in (np.nan, np.inf, -1.0)),
    *((OPTIMIZER, "/step", value) for value in (np.nan, -3.0)),
    *((WEIGHTS, "up.weight", value) for value in (np.nan, np.inf, 1e38, 1e20)),
    ("best/model.safetensors", "up.weight", np.nan),
]


@pytest.mark.parametrize(("file", "tensor", "value"), POISONS)
def test_a_poisoned_checkpoint_is_skipped_and_the_run_goes_on_from_the_one_before(
    stopped: tuple[Store, Inputs], config: Config, file: str, tensor: str, value: float
) -> None:
    store, inputs = stopped
    (run,) = store.unfinished_runs()
    spoil(run.load(5), file, tensor, value)
    reporter = Notes()
    artifact = run_training(store, inputs, config, reporter=reporter).artifact
    assert "continuing at step 4 of 12" in reporter.notes
    (note,) = [note for note in reporter.notes if "cannot be used" in note]
    assert note.startswith("checkpoint `step-00000005` cannot be used: ")
    assert all(".trash" in path.parts for path in not_finite(store))
    straight = run_training(*prepare(store.root / "straight", config), config).artifact
    assert artifact.digest == straight.digest


def test_if_every_checkpoint_is_poisoned_the_hint_starts_again(
    stopped: tuple[Store, Inputs], config: Config
) -> None:
    store, inputs = stopped
    (run,) = store.unfinished_runs()
    for step in run.steps():
        spoil(run.load(step), OPTIMIZER, "/exp_avg", np.nan)
    with pytest.raises(CorruptArtifactError, match="no checkpoint of this run") as caught:
        run_training(store, inputs, config)
    assert "`tinygpt train --fresh`" in str(caught.value.hint)
    run.set_aside("fresh")
    assert run_training(store, inputs, config).artifact.manifest.provenance["exact"] is True


def spoil_after_step_7(monkeypatch: pytest.MonkeyPatch, tensor: str, value: float) -> None:
    """Let the update of that step put a number into optimizer state."""
    step = AdamW.step

    def spoiling(self: AdamW, scale: float) -> None:
        step(self, scale)
        if next(iter(self.steps)) == 7:
            for name, state in self.state.items():
                if name.endswith(tensor):
                    state.reshape(-1)[0] = value

    monkeypatch.setattr(AdamW, "step", spoiling)


@pytest.mark.parametrize(("tensor", "value"), [("/exp_avg_sq", np.inf), ("/exp_avg", np.nan)])
def test_what_an_update_spoils_is_not_saved(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch, tensor: str, value: float
) -> None:
    store, inputs = prepare(tmp_path, config)
    spoil_after_step_7(monkeypatch, tensor, value)
    with pytest.raises(DivergedError, match=r"diverged at step 7: `.*` is not finite") as caught:
        run_training(store, inputs, config)
    assert "the checkpoints are intact" in str(caught.value.hint)
    assert not_finite(store) == []
    monkeypatch.undo()
    reporter = Notes()
    run_training(store, inputs, config, reporter=reporter)
    assert "continuing at step 6 of 12" in reporter.notes


def test_without_the_check_a_spoiled_state_is_saved(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, inputs = prepare(tmp_path, config)
    spoil_after_step_7(monkeypatch, "/exp_avg_sq", np.inf)
    monkeypatch.setattr("tinygpt.runs.training_run.check_finite", lambda *_: None)
    run_training(store, inputs, config)
    assert [path.name for path in not_finite(store)] == [OPTIMIZER]


def test_a_model_with_poisoned_optimizer_state_is_not_continued(
    tmp_path: Path, config: Config
) -> None:
    store, inputs = prepare(tmp_path, config)
    model = run_training(store, inputs, config).artifact
    spoil(model, OPTIMIZER, "/exp_avg", 1e38)
    spoiled = Artifact.load(model.folder, store.root)
    with pytest.raises(CorruptArtifactError, match=f"model {model.id} cannot be continued"):
        TrainingRun(config, {**inputs, "init_from": spoiled})


def of_another_step(state: dict[str, object]) -> None:
    state["step"] = 2**62


def with_a_snapshot_elsewhere(state: dict[str, object]) -> None:
    state["snapshots"] = {"../../x": "0" * 64}


@pytest.mark.parametrize("change", [of_another_step, with_a_snapshot_elsewhere])
def test_a_state_that_does_not_fit_its_metrics_is_refused(
    stopped: tuple[Store, Inputs], config: Config, change: Callable[[dict[str, object]], None]
) -> None:
    store, inputs = stopped
    (run,) = store.unfinished_runs()
    checkpoint = run.load(5)
    state = json.loads(checkpoint.read("state.json"))
    change(state)
    replace(checkpoint, {"state.json": json.dumps(state).encode()})
    reporter = Notes()
    run_training(store, inputs, config, reporter=reporter)
    assert any("is that of another step" in note for note in reporter.notes)
