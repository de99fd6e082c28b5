"""G14, G15, G16: the data of a step, watching, and values that are not finite, with controls."""

import json
import math
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers import Notes, prepare, run_training, with_settings
from tests.lm.test_training import weights_and_losses
from tests.proofs.figures import RecordFigure
from tinygpt.config import Config
from tinygpt.errors import DivergedError, TinygptError
from tinygpt.lm import evaluation
from tinygpt.lm import training as lm_training
from tinygpt.lm.dataset import Batches
from tinygpt.lm.optim import optimizer_tensors
from tinygpt.lm.training import StepRecord, TrainState
from tinygpt.lm.weights import read_arrays
from tinygpt.progress import Reporter
from tinygpt.runs import training_run
from tinygpt.runs.training_run import TrainingRun
from tinygpt.store import Store, upkeep
from tinygpt.ui import Screen

pytestmark = pytest.mark.proof
TOKENS = np.arange(1, 1_001, dtype=np.uint16)
LAYOUTS = ((6, 2), (4, 3), (1, 12))
"""Other ways to cut 12 sequences: batch_size, grad_accum_steps."""


def steps_that_differ_after_a_stop(steps: int) -> int:
    """How many steps of a run take other sequences if it was stopped and continued before them."""
    straight = Batches(TOKENS, 16, 7)
    taken = [straight.offsets(step, 12).tolist() for step in range(steps)]
    return sum(
        Batches(TOKENS, 16, 7).offsets(step, 12).tolist() != taken[step] for step in range(steps)
    )


def test_a_step_takes_the_same_sequences_wherever_the_run_was_stopped(
    figure: RecordFigure,
) -> None:
    assert steps_that_differ_after_a_stop(400) == 0
    figure("G14", "steps that take the same sequences in a continued run", 400, seed=7)


def test_control_an_order_drawn_from_a_generator_with_a_state_is_noticed(
    figure: RecordFigure, monkeypatch: pytest.MonkeyPatch
) -> None:
    offsets = Batches.offsets

    def draw_next(self: Batches, step: int, size: int) -> object:
        drawn = vars(self).setdefault("drawn", [])
        drawn.append(step)
        return offsets(self, len(drawn) - 1, size)

    monkeypatch.setattr(Batches, "offsets", draw_next)
    bad = steps_that_differ_after_a_stop(400)
    figure("G14", "steps whose sequences come from a stateful generator", 400, bad, 7, control=True)


def layouts_that_train_otherwise(steps: int) -> list[tuple[int, int]]:
    """The layouts whose losses are not within 1e-4 of those of one micro-batch of 12."""
    _, losses = weights_and_losses(steps, batch_size=12, grad_accum_steps=1)
    bad = []
    for layout in LAYOUTS:
        _, other = weights_and_losses(steps, batch_size=layout[0], grad_accum_steps=layout[1])
        if other != pytest.approx(losses, rel=1e-4):
            bad.append(layout)
    return bad


def test_every_layout_of_the_global_batch_has_the_same_losses(figure: RecordFigure) -> None:
    assert layouts_that_train_otherwise(50) == []
    figure("G14", "other layouts of the global batch: 50 losses within 1e-4", len(LAYOUTS))


def test_control_dropout_masks_numbered_within_the_micro_batch_are_noticed(
    figure: RecordFigure, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropout_key = lm_training.DropoutKey

    def number_from_zero(seed: int, step: int, sequences: torch.Tensor) -> object:
        return dropout_key(seed, step, torch.arange(len(sequences)))

    monkeypatch.setattr(lm_training, "DropoutKey", number_from_zero)
    bad = len(layouts_that_train_otherwise(20))
    figure("G14", "layouts with masks numbered in the micro-batch", len(LAYOUTS), bad, control=True)


@pytest.fixture
def config(tiny_config: Config) -> Config:
    """Dropout, accumulation, warm-up and clipping are on."""
    return with_settings(
        tiny_config,
        model={"dropout": 0.2},
        train={
            "max_steps": 24,
            "grad_accum_steps": 2,
            "warmup_steps": 3,
            "eval_every": 6,
            "grad_clip": 0.5,
            "snapshots": 4,
            "sample_tokens": 0,
        },
        runtime={"threads": 1, "checkpoint_every": 1},
    )


WATCHING: tuple[dict[str, dict[str, object]], ...] = (
    {},
    {"train": {"eval_every": 1}},
    {"train": {"eval_every": 1000}},
    {"train": {"snapshots": 0}},
    {"train": {"snapshots": 16}},
    {"train": {"sample_tokens": 12}},
    {"train": {"sample_tokens": 12, "sample_prompt": "Tom", "eval_every": 2}},
    {"runtime": {"checkpoint_every": 7}},
    {"runtime": {"keep_checkpoints": 5}},
    {"runtime": {"progress": "plain"}},
    {"runtime": {"progress": "bar"}},
)


def final_weights(
    root: Path, config: Config, reporter: Reporter | None = None
) -> tuple[bytes, bytes]:
    """Weights and optimizer state of a run."""
    artifact = run_training(*prepare(root, config), config, reporter=reporter).artifact
    return artifact.read("model.safetensors"), artifact.read("optimizer.safetensors")


def ways_to_watch_that_change_training(tmp_path: Path, config: Config) -> list[int]:
    """The entries of WATCHING that give other weights than the first."""
    bad = []
    for number, tables in enumerate(WATCHING):
        changed = with_settings(config, **tables)
        reporter: Reporter = Notes()
        if "progress" in tables.get("runtime", {}):
            reporter = Screen(changed.runtime.progress, quiet=False)
        weights = final_weights(tmp_path / str(number), changed, reporter)
        if number == 0:
            expected = weights
        if weights != expected:
            bad.append(number)
    return bad


def test_no_way_to_watch_changes_the_weights(
    tmp_path: Path, config: Config, figure: RecordFigure
) -> None:
    assert ways_to_watch_that_change_training(tmp_path, config) == []
    figure("G15", "ways to watch a run", len(WATCHING) - 1)


def test_reading_the_store_beside_a_run_changes_nothing(
    tmp_path: Path, config: Config, figure: RecordFigure
) -> None:
    expected = final_weights(tmp_path / "alone", config)
    store = Store(tmp_path / "watched")
    over = threading.Event()
    looks = []

    def look() -> None:
        while not over.wait(0.01):
            looks.append(len(upkeep.verify(store)) + len(store.list()))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        assert final_weights(store.root, config) == expected
    finally:
        over.set()
        thread.join()
    figure("G15", "looks at the store during a run", len(looks))


def test_control_an_evaluation_that_leaves_gradients_is_noticed(
    tmp_path: Path, config: Config, figure: RecordFigure, monkeypatch: pytest.MonkeyPatch
) -> None:
    mean_loss = evaluation.mean_loss

    def leave_gradients(model: torch.nn.Module, *arguments: object) -> float:
        loss = mean_loss(model, *arguments)  # type: ignore[arg-type]
        for p in model.parameters():
            p.grad = torch.full_like(p, 1e-3)
        return loss

    monkeypatch.setattr(evaluation, "mean_loss", leave_gradients)
    bad = len(ways_to_watch_that_change_training(tmp_path, config))
    what = "ways to watch a run whose evaluation leaves gradients"
    figure("G15", what, len(WATCHING) - 1, bad, control=True)


def spoil_state(name: str, value: float) -> Callable[[TrainState], None]:
    """Puts a value into a tensor of the optimizer."""

    def spoil(state: TrainState) -> None:
        tensors = optimizer_tensors(state.optimizers)
        tensor = next(tensors[key] for key in tensors if key.endswith("/" + name))
        tensor.view(-1)[0] = value

    return spoil


def spoil_weight(value: float) -> Callable[[TrainState], None]:
    def spoil(state: TrainState) -> None:
        with torch.no_grad():
            state.model.token_embedding.weight[5, 3] = value

    return spoil


def spoil_next_gradient(state: TrainState) -> None:
    state.parameters["norm.bias"].register_hook(lambda gradient: gradient * math.nan)


def spoil_next_loss(state: TrainState) -> None:
    fused = lm_training.LOSSES["fused"]
    lm_training.LOSSES["fused"] = lambda *batch: fused(*batch) * math.inf


POISONS: dict[str, Callable[[TrainState], None]] = {
    "loss": spoil_next_loss,
    "gradient": spoil_next_gradient,
    "weight NaN": spoil_weight(math.nan),
    "weight inf": spoil_weight(math.inf),
    "exp_avg NaN": spoil_state("exp_avg", math.nan),
    "exp_avg 1e38": spoil_state("exp_avg", 1e38),
    "exp_avg_sq inf": spoil_state("exp_avg_sq", math.inf),
    "exp_avg_sq NaN": spoil_state("exp_avg_sq", math.nan),
}


def not_finite(root: Path) -> list[str]:
    """The files of tensors below a folder that hold a NaN or an infinity."""
    return [
        path.name
        for path in root.rglob("*.safetensors")
        if not all(np.isfinite(array).all() for array in read_arrays(path.read_bytes()).values())
    ]


def train_poisoned(
    store: Store, config: Config, step: int, poison: Callable[[TrainState], None]
) -> bool:
    """Train, and spoil something after a step; whether training stopped as diverged."""
    record = TrainingRun.record
    inputs = {name: store.list(name)[0] for name in ("build-dataset", "tokenize")}

    def spoil_after_step(self: TrainingRun, taken: StepRecord) -> object:
        row = record(self, taken)
        if taken.step == step:
            poison(self.state)
        return row

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(lm_training.LOSSES, "fused", lm_training.LOSSES["fused"])
        patch.setattr(TrainingRun, "record", spoil_after_step)
        try:
            run_training(store, inputs, config)
        except TinygptError as error:
            return isinstance(error, DivergedError)
    return False


@pytest.mark.parametrize("poison", POISONS)
def test_a_value_that_is_not_finite_is_not_saved_and_the_run_continues_from_before(
    tmp_path: Path, config: Config, poison: str, figure: RecordFigure
) -> None:
    prepared, inputs = prepare(tmp_path / "prepared", config)
    straight = run_training(*prepare(tmp_path / "straight", config), config).artifact
    steps = range(1, 24, 4)
    for step in steps:
        store = Store(shutil.copytree(prepared.root, tmp_path / str(step)))
        stopped = train_poisoned(store, config, step, POISONS[poison])
        assert not_finite(store.root) == [], step
        assert stopped, step
        assert store.list("train") == []
        inputs = {name: store.list(name)[0] for name in ("build-dataset", "tokenize")}
        assert run_training(store, inputs, config).artifact.digest == straight.digest, step
    figure("G16", "runs with a value that is not finite or absurd, in 8 places", len(steps))


def test_control_without_the_checks_such_values_are_saved(
    tmp_path: Path, config: Config, figure: RecordFigure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_run, "check_finite", lambda *_: None)
    prepared, _ = prepare(tmp_path / "prepared", config)
    bad = 0
    for poison in POISONS:
        store = Store(shutil.copytree(prepared.root, tmp_path / poison))
        train_poisoned(store, config, 5, POISONS[poison])
        bad += not_finite(store.root) != []
    print(json.dumps({"poisons": len(POISONS), "saved": bad}))
    figure("G16", "such runs without `check_finite`", len(POISONS), bad, control=True)
