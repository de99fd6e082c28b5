"""A replay finds the same bits, or says where they part and why."""

from pathlib import Path

import pytest

from tests.helpers import Inputs, prepare, run_training, with_settings
from tinygpt.config import Config
from tinygpt.errors import StoppedEarly, VerificationError
from tinygpt.hashing import hash_bytes
from tinygpt.lm import training as lm_training
from tinygpt.lm.training import StepRecord
from tinygpt.progress import Limits, SilentReporter
from tinygpt.runs.replay import replay
from tinygpt.runs.training_run import TrainingRun
from tinygpt.store import Artifact

STORED = {step: f"snapshots/step-{step:08d}.safetensors" for step in (1, 2, 3, 6)}
STORED[12] = "model.safetensors"


@pytest.fixture
def config(tiny_config: Config) -> Config:
    train = {"max_steps": 12, "grad_accum_steps": 2, "eval_every": 5, "snapshots": 5}
    return with_settings(tiny_config, train=train, model={"dropout": 0.2}, runtime={"threads": 1})


@pytest.fixture
def trained(tmp_path: Path, config: Config) -> tuple[Inputs, Artifact]:
    """What a run read, and its artifact."""
    store, inputs = prepare(tmp_path, config)
    return inputs, run_training(store, inputs, config).artifact


def drift_from(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """From this step on, the loss is off by one part in a million."""
    plain = lm_training.LOSSES["fused"]

    def drifting(model, token_ids, targets, dropout_key):
        error = 1e-6 if dropout_key.step >= step else 0
        return plain(model, token_ids, targets, dropout_key) * (1 + error)

    monkeypatch.setitem(lm_training.LOSSES, "fused", drifting)


def test_the_same_steps_give_the_same_bits(config, trained):
    inputs, artifact = trained
    digest = replay(config, inputs, artifact, STORED, None, SilentReporter())
    assert digest == hash_bytes(artifact.read("model.safetensors"))


def test_the_first_tensor_and_the_first_step_that_differ_are_named(config, trained, monkeypatch):
    drift_from(monkeypatch, 5)
    with pytest.raises(VerificationError) as caught:
        replay(config, *trained, STORED, None, SilentReporter())
    assert caught.value.exit_code == 6
    assert "replayed to step 6, `blocks.0." in caught.value.message
    assert "differ from step 5 on" in caught.value.message
    assert "the conditions are those recorded" in str(caught.value.hint)


def test_a_recorded_difference_is_named_as_the_likely_cause(config, trained, monkeypatch):
    drift_from(monkeypatch, 1)
    other = with_settings(config, runtime={"threads": 2})
    with pytest.raises(VerificationError) as caught:
        replay(other, *trained, STORED, None, SilentReporter())
    assert "threads 1 -> 2" in str(caught.value.hint)


def test_records_that_differ_are_noticed_although_the_weights_agree(config, trained, monkeypatch):
    record = TrainingRun.record

    def forging(self: TrainingRun, step: StepRecord) -> None:
        record(self, step)
        if step.step == 9:
            self.progress.chain = "0" * 64

    monkeypatch.setattr(TrainingRun, "record", forging)
    message = "step 12, the weights are the same; losses or gradients differ from step 9 on"
    with pytest.raises(VerificationError, match=message):
        replay(config, *trained, STORED, None, SilentReporter())


def test_a_run_that_continued_under_other_conditions_is_named_as_the_cause(
    tmp_path, config, monkeypatch
):
    store, inputs = prepare(tmp_path, config)
    with pytest.raises(StoppedEarly):
        run_training(store, inputs, config, Limits(stop_at_step=4))
    other = with_settings(config, runtime={"threads": 2})
    artifact = run_training(store, inputs, other).artifact
    drift_from(monkeypatch, 1)
    with pytest.raises(VerificationError) as caught:
        replay(config, inputs, artifact, STORED, None, SilentReporter())
    assert "exact: false" in str(caught.value.hint)


def test_a_replay_can_start_and_end_at_a_checkpoint(tmp_path, config, monkeypatch):
    store, inputs = prepare(tmp_path, config)
    for stop in (4, 8):
        with pytest.raises(StoppedEarly):
            run_training(store, inputs, config, Limits(stop_at_step=stop))
    (run,) = store.unfinished_runs()
    recorded, start = run.load(8), run.load(4)
    stored = {8: "model.safetensors"}
    digest = replay(config, inputs, recorded, stored, start, SilentReporter())
    assert digest == hash_bytes(recorded.read("model.safetensors"))
    drift_from(monkeypatch, 5)
    with pytest.raises(VerificationError, match="from step 5 on"):
        replay(config, inputs, recorded, stored, start, SilentReporter())
