"""G12, G15, G16: what docs/guarantees.md promises of training, at the length the promises need."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers import STORIES, Inputs, prepare, run_training, with_settings
from tests.proofs.figures import RecordFigure
from tinygpt.config import Config
from tinygpt.errors import StoppedEarly
from tinygpt.progress import Limits
from tinygpt.runs import training_run
from tinygpt.runs.training_run import Progress, TrainingRun
from tinygpt.store import Artifact, Store, upkeep

pytestmark = pytest.mark.proof
STEPS = 60


def recipe(tiny_config: Config, optimizer: str) -> Config:
    """Everything that could break a resumed run is on.

    That is dropout, accumulation, warm-up, cosine decay, clipping, evaluation, best weights and
    snapshots; an epoch ends about every 20 steps.
    """
    return with_settings(
        tiny_config,
        dataset={"val_fraction": 0.25, "holdout": "end"},
        model={"dropout": 0.2},
        train={
            "max_steps": STEPS,
            "grad_accum_steps": 3,
            "warmup_steps": 7,
            "eval_every": 5,
            "grad_clip": 0.5,
            "optimizer": optimizer,
            "learning_rate": 0.03,
            "snapshots": 6,
        },
        runtime={"threads": 1, "checkpoint_every": 4},
    )


def prepare_data(root: Path, config: Config) -> tuple[Store, Inputs]:
    """A dataset whose validation split has texts that are unlike all training texts.

    So the validation loss rises again, and the best weights are not the last.
    """
    size = sum(map(len, STORIES)) // 3  # a quarter of all
    unlike = [f"ZORBS GREW {number:03d} WUGS!" for number in range(size // 20)]
    return prepare(root, config, [*STORIES, *unlike])


def train_straight(root: Path, config: Config) -> Artifact:
    """The artifact of a run that is never stopped."""
    return run_training(*prepare_data(root, config), config).artifact


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_resuming_at_every_step_gives_byte_identical_artifacts(
    tmp_path: Path, tiny_config: Config, optimizer: str, figure: RecordFigure
):
    config = recipe(tiny_config, optimizer)
    straight = train_straight(tmp_path / "straight", config)
    assert straight.read("best/model.safetensors") != straight.read("model.safetensors")
    for step in range(1, STEPS):
        store, inputs = prepare_data(tmp_path / f"stopped-{step}", config)
        with pytest.raises(StoppedEarly):
            run_training(store, inputs, config, Limits(stop_at_step=step))
        resumed = run_training(store, inputs, config).artifact
        assert resumed.digest == straight.digest, f"stopped after step {step}"
    figure("G12", "runs stopped after another step each and continued", STEPS - 1)


@pytest.mark.parametrize(
    "forgotten", ["optimizer", "best_loss", "chain", "metrics", "snapshots", "nothing"]
)
def test_a_checkpoint_that_forgets_something_is_noticed(
    tmp_path: Path, tiny_config: Config, forgotten: str, monkeypatch, figure: RecordFigure
):
    config = recipe(tiny_config, "adamw")
    straight = train_straight(tmp_path / "straight", config)
    store, inputs = prepare_data(tmp_path / "stopped", config)
    with pytest.raises(StoppedEarly):
        run_training(store, inputs, config, Limits(stop_at_step=7))
    resume = TrainingRun._resume

    def forgetful(self: TrainingRun, checkpoint: Artifact) -> None:
        resume(self, checkpoint)
        if forgotten == "metrics":
            self.metrics = []
        elif forgotten in vars(self.progress):
            setattr(self.progress, forgotten, getattr(Progress(), forgotten))

    monkeypatch.setattr(TrainingRun, "_resume", forgetful)
    if forgotten == "optimizer":
        monkeypatch.setattr(training_run, "load_optimizer_tensors", lambda *_: None)
    resumed = run_training(store, inputs, config).artifact
    is_equal = resumed.digest == straight.digest
    assert is_equal == (forgotten == "nothing")
    if not is_equal:
        figure("G12", "checkpoints that forget something", 1, 1, control=True)


KILLS = """
import sys
from pathlib import Path
from tests.helpers import run_training
from tinygpt.config import Config
from tinygpt.store import Store
store = Store(Path(sys.argv[1]))
inputs = {name: store.list(name)[0] for name in ("build-dataset", "tokenize")}
print(run_training(store, inputs, Config.model_validate_json(sys.argv[2])).artifact.digest)
"""


def test_a_run_killed_up_to_five_times_at_random_moments_gives_the_same_bytes(
    tmp_path: Path, tiny_config: Config, root: Path, figure: RecordFigure
):
    config = recipe(tiny_config, "adamw")
    straight = train_straight(tmp_path / "straight", config)
    chance = random.Random(0)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    killed = 0
    for chain in range(50):
        store, _ = prepare_data(tmp_path / f"chain-{chain}", config)
        command = [sys.executable, "-c", KILLS, str(store.root), config.model_dump_json()]
        for _ in range(chance.randint(1, 5)):
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, cwd=root)
            # Some are over before; most die while torch is loaded or while they train
            time.sleep(chance.uniform(1, 4))
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, check=True, cwd=root
        )
        assert done.stdout.decode().split()[-1] == straight.digest
        assert not upkeep.verify(Store(store.root))
    assert killed >= 10
    figure("G12", "runs killed up to five times at random moments", 50, seed=0)
    figure("G12", "kills among them", killed)
