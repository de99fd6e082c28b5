"""G12, G15, G16: what docs/guarantees.md promises of training, at the length the promises need."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.stages.training import prepare, run_training
from tinygpt.config import Config
from tinygpt.errors import StoppedEarly
from tinygpt.stages import train_run
from tinygpt.stages.train import Limits
from tinygpt.store import Store, upkeep

pytestmark = pytest.mark.proof
STEPS = 60


def recipe(tiny_config: Config, optimizer: str) -> Config:
    """Dropout 0.2, accumulation 3, warm-up, cosine, clipping, evaluation, best weights; an epoch ends about every 15 steps."""
    train = tiny_config.train.model_copy(
        update={
            "max_steps": STEPS,
            "grad_accum_steps": 3,
            "warmup_steps": 7,
            "eval_every": 5,
            "grad_clip": 0.5,
            "optimizer": optimizer,
            "learning_rate": 0.05,  # so high that the validation loss rises again, and the best weights are not the last
            "snapshots": 6,
        }
    )
    model = tiny_config.model.model_copy(update={"dropout": 0.2})
    runtime = tiny_config.runtime.model_copy(update={"threads": 1, "checkpoint_every": 4})
    return tiny_config.model_copy(update={"train": train, "model": model, "runtime": runtime})


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_resuming_at_every_step_gives_byte_identical_artifacts(tmp_path: Path, tiny_config: Config, optimizer: str):
    config = recipe(tiny_config, optimizer)
    straight = run_training(*prepare(tmp_path / "straight", config), config).artifact
    for step in range(1, STEPS):
        store, inputs = prepare(tmp_path / f"stopped-{step}", config)
        with pytest.raises(StoppedEarly):
            run_training(store, inputs, config, Limits(stop_at_step=step))
        assert run_training(store, inputs, config).artifact.digest == straight.digest, f"stopped after step {step}"


@pytest.mark.parametrize("forgotten", ["optimizer", "best_loss", "chain", "metrics", "snapshots"])
def test_a_checkpoint_that_forgets_something_is_noticed(tmp_path: Path, tiny_config: Config, forgotten: str, monkeypatch):
    config = recipe(tiny_config, "adamw")
    straight = run_training(*prepare(tmp_path / "straight", config), config).artifact
    store, inputs = prepare(tmp_path / "stopped", config)
    with pytest.raises(StoppedEarly):
        run_training(store, inputs, config, Limits(stop_at_step=7))
    if forgotten == "optimizer":
        monkeypatch.setattr(train_run, "load_optimizer_tensors", lambda *_: None)
    else:
        resume = train_run.Run._resume

        def forgetful(self: train_run.Run, checkpoint: object) -> None:
            resume(self, checkpoint)  # type: ignore[arg-type]
            if forgotten == "metrics":
                self.metrics = []
            else:
                setattr(self.progress, forgotten, getattr(train_run.Progress(), forgotten))

        monkeypatch.setattr(train_run.Run, "_resume", forgetful)
    assert run_training(store, inputs, config).artifact.digest != straight.digest


KILLS = """
import sys
from pathlib import Path
from tests.stages.training import run_training
from tinygpt.config import Config
from tinygpt.store import Store
store = Store(Path(sys.argv[1]))
inputs = {name: store.list(name)[0] for name in ("build-dataset", "tokenize")}
print(run_training(store, inputs, Config.model_validate_json(sys.argv[2])).artifact.digest)
"""


def test_kill_9_at_random_moments_up_to_five_times_leads_to_the_same_bytes(tmp_path: Path, tiny_config: Config, root: Path):
    config = recipe(tiny_config, "adamw")
    straight = run_training(*prepare(tmp_path / "straight", config), config).artifact
    chance = random.Random(0)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    killed = 0
    for chain in range(50):
        store, _ = prepare(tmp_path / f"chain-{chain}", config)
        command = [sys.executable, "-c", KILLS, str(store.root), config.model_dump_json()]
        for _ in range(chance.randint(1, 5)):
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, cwd=root)
            time.sleep(chance.uniform(1, 4))  # some are over before; most die while torch is loaded or while they train
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, cwd=root)
        assert done.stdout.decode().split()[-1] == straight.digest
        assert not upkeep.verify(Store(store.root))
    print(json.dumps({"chains": 50, "killed": killed}))
    assert killed >= 10
