"""A replay finds the same bits, or says where they part and why."""

from pathlib import Path

import pytest

from tests.stages.training import prepare, run_training
from tinygpt.config import Config
from tinygpt.errors import StoppedEarly, VerificationError
from tinygpt.hashing import hash_bytes
from tinygpt.lm import training
from tinygpt.report import SilentReport
from tinygpt.stages import train_run
from tinygpt.stages.replay import replay
from tinygpt.stages.train import Limits
from tinygpt.store import Artifact

STORED = {step: f"snapshots/step-{step:08d}.safetensors" for step in (1, 2, 3, 6)} | {12: "model.safetensors"}


@pytest.fixture
def config(tiny_config: Config) -> Config:
    train = tiny_config.train.model_copy(update={"max_steps": 12, "grad_accum_steps": 2, "eval_every": 5, "snapshots": 5})
    model = tiny_config.model.model_copy(update={"dropout": 0.2})
    runtime = tiny_config.runtime.model_copy(update={"threads": 1})
    return tiny_config.model_copy(update={"train": train, "model": model, "runtime": runtime})


@pytest.fixture
def trained(tmp_path: Path, config: Config) -> tuple[dict[str, Artifact], Artifact]:
    """What a run read, and what it made."""
    store, inputs = prepare(tmp_path, config)
    return inputs, run_training(store, inputs, config).artifact


def drifting(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Training that is not what it was, by one part in a million, from this step on."""
    plain = training.LOSSES["fused"]

    def other(model, token_ids, targets, noise):
        return plain(model, token_ids, targets, noise) * (1 + 1e-6 * (noise.step >= step))

    monkeypatch.setitem(training.LOSSES, "fused", other)


def test_the_same_steps_give_the_same_bits(config, trained):
    inputs, made = trained
    assert replay(config, inputs, made, STORED, None, SilentReport()) == hash_bytes(made.read("model.safetensors"))


def test_the_first_tensor_and_the_first_step_that_differ_are_named(config, trained, monkeypatch):
    drifting(monkeypatch, 5)
    with pytest.raises(VerificationError) as caught:
        replay(config, *trained, STORED, None, SilentReport())
    assert caught.value.exit_code == 6
    assert "replayed to step 6, `blocks.0." in caught.value.message
    assert "differ from step 5 on" in caught.value.message
    assert "the conditions are those recorded" in str(caught.value.hint)


def test_a_recorded_difference_is_named_as_the_likely_cause(config, trained, monkeypatch):
    drifting(monkeypatch, 1)
    other = config.model_copy(update={"runtime": config.runtime.model_copy(update={"threads": 2})})
    with pytest.raises(VerificationError) as caught:
        replay(other, *trained, STORED, None, SilentReport())
    assert "threads 1 -> 2" in str(caught.value.hint)


def test_records_that_differ_are_noticed_although_the_weights_agree(config, trained, monkeypatch):
    record = train_run.Run.record

    def other(self, seen):
        record(self, seen)
        if seen.step == 9:
            self.progress.chain = "0" * 64

    monkeypatch.setattr(train_run.Run, "record", other)
    with pytest.raises(VerificationError, match=r"step 12, the weights are the same; losses or gradients differ from step 9 on"):
        replay(config, *trained, STORED, None, SilentReport())


def test_a_run_that_went_on_under_other_conditions_is_called_so(tmp_path, config, monkeypatch):
    store, inputs = prepare(tmp_path, config)
    with pytest.raises(StoppedEarly):
        run_training(store, inputs, config, Limits(stop_at_step=4))
    other = config.model_copy(update={"runtime": config.runtime.model_copy(update={"threads": 2})})
    made = run_training(store, inputs, other).artifact
    drifting(monkeypatch, 1)
    with pytest.raises(VerificationError) as caught:
        replay(config, inputs, made, STORED, None, SilentReport())
    assert "exact: false" in str(caught.value.hint)


def test_a_checkpoint_is_a_start_and_an_end(tmp_path, config, monkeypatch):
    store, inputs = prepare(tmp_path, config)
    for stop in (4, 8):
        with pytest.raises(StoppedEarly):
            run_training(store, inputs, config, Limits(stop_at_step=stop))
    (run,) = store.unfinished()
    made, start = run.load(8), run.load(4)
    last = {8: "model.safetensors"}
    assert replay(config, inputs, made, last, start, SilentReport()) == hash_bytes(made.read("model.safetensors"))
    drifting(monkeypatch, 5)
    with pytest.raises(VerificationError, match="from step 5 on"):
        replay(config, inputs, made, last, start, SilentReport())
