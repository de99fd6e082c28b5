"""Stage `train`: what it writes, how it stops, how it goes on."""

import itertools
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.stages.training import prepare, run_training
from tinygpt.config import Config, TrainConfig
from tinygpt.errors import DivergedError, InputError, Interrupted, StoppedEarly
from tinygpt.lm import weights
from tinygpt.lm.precision import Precision
from tinygpt.lm.ranks import Ranks
from tinygpt.lm.weights import read_arrays
from tinygpt.report import SilentReport
from tinygpt.stages import train_run
from tinygpt.stages.train import Limits
from tinygpt.stages.train_run import is_evaluation_step, snapshot_steps
from tinygpt.store.artifact import Manifest


@pytest.fixture
def config(tiny_config: Config) -> Config:
    """Everything on that could break a resumed run: dropout, accumulation, warm-up, clipping, evaluation, snapshots."""
    train = tiny_config.train.model_copy(
        update={"max_steps": 12, "grad_accum_steps": 2, "warmup_steps": 3, "eval_every": 4, "grad_clip": 0.5, "snapshots": 5}
    )
    runtime = tiny_config.runtime.model_copy(update={"checkpoint_every": 3, "threads": 1})
    model = tiny_config.model.model_copy(update={"dropout": 0.2})
    return tiny_config.model_copy(update={"train": train, "model": model, "runtime": runtime})


class Notes(SilentReport):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_artifact_holds_weights_records_snapshots_and_summary(tmp_path: Path, config: Config):
    artifact = run_training(*prepare(tmp_path, config), config).artifact
    assert [n for n in artifact.names() if n.startswith("snapshots/")] == [
        f"snapshots/step-{step:08d}.safetensors" for step in (1, 2, 3, 6, 12)
    ]
    rows = [json.loads(line) for line in artifact.read("metrics.jsonl").decode().splitlines()]
    assert [r["step"] for r in rows if r["kind"] == "step"] == list(range(1, 13))
    assert [r["step"] for r in rows if r["kind"] == "eval"] == [1, 4, 8, 10, 12]
    assert rows[-1]["story"].startswith("Once upon a time")
    assert artifact.read("snapshots/step-00000012.safetensors") == artifact.read("model.safetensors")
    model = weights.read_model(artifact.read("config.json"), artifact.read("model.safetensors"))
    assert model.config == config.model
    assert dict(artifact.read_json("summary.json")["rows"])["steps"].startswith("12 ")


@pytest.mark.parametrize("stop", [1, 2, 3, 5, 8, 11])
def test_a_run_stopped_and_continued_gives_the_same_bytes(tmp_path: Path, config: Config, stop: int):
    straight = run_training(*prepare(tmp_path / "a", config), config).artifact
    store, inputs = prepare(tmp_path / "b", config)
    with pytest.raises(StoppedEarly) as caught:
        run_training(store, inputs, config, Limits(stop_at_step=stop))
    assert caught.value.exit_code == 75
    report = Notes()
    continued = run_training(store, inputs, config, report=report).artifact
    assert f"continuing at step {stop} of 12" in report.notes
    assert continued.digest == straight.digest
    assert continued.manifest.provenance["exact"] is True
    assert not store.unfinished()


@pytest.mark.parametrize("asked", [2, 4])
def test_a_run_that_is_past_the_step_asked_for_trains_no_further(tmp_path: Path, config: Config, asked: int):
    store, inputs = prepare(tmp_path, config)
    for limit in (4, asked):
        with pytest.raises(StoppedEarly, match="after step 4"):
            run_training(store, inputs, config, Limits(stop_at_step=limit))
    assert [run.step for run in store.unfinished()] == [4]


def test_a_signal_saves_and_says_which(tmp_path: Path, config: Config):
    store, inputs = prepare(tmp_path, config)
    with pytest.raises(Interrupted, match="SIGTERM after step 1") as caught:
        run_training(store, inputs, config, Limits(interrupted=lambda: signal.SIGTERM))
    assert caught.value.exit_code == 143
    assert [run.step for run in store.unfinished()] == [1]


def test_a_time_limit_stops_and_keeps_what_was_done(tmp_path: Path, config: Config):
    store, inputs = prepare(tmp_path, config)
    with pytest.raises(StoppedEarly, match="after step 1"):
        run_training(store, inputs, config, Limits(max_seconds=0))
    assert [run.step for run in store.unfinished()] == [1]


def test_another_number_of_threads_is_told_and_recorded(tmp_path: Path, config: Config):
    store, inputs = prepare(tmp_path, config)
    with pytest.raises(StoppedEarly):
        run_training(store, inputs, config, Limits(stop_at_step=4))
    other = config.model_copy(update={"runtime": config.runtime.model_copy(update={"threads": 2})})
    report = Notes()
    artifact = run_training(store, inputs, other, report=report).artifact
    assert any("threads 1 -> 2" in note and "exact: false" in note for note in report.notes)
    assert artifact.manifest.provenance["exact"] is False


def compiling(config: Config) -> Config:
    return config.model_copy(update={"runtime": config.runtime.model_copy(update={"compile": True})})


@pytest.mark.full
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_blocks_train_the_same_and_resume_exactly(tmp_path: Path, config: Config, recwarn):
    def final(name: str, config: Config, stop: int | None = None) -> tuple[dict[str, np.ndarray], Manifest]:
        store, inputs = prepare(tmp_path / name, config)
        if stop:
            with pytest.raises(StoppedEarly):
                run_training(store, inputs, config, Limits(stop_at_step=stop))
        artifact = run_training(store, inputs, config).artifact
        return read_arrays(artifact.read("model.safetensors")), artifact.manifest

    (plain, _), (compiled, made) = final("plain", config), final("straight", compiling(config))
    resumed, again = final("resumed", compiling(config), 4)
    assert made.provenance["compiled"] == "true"
    assert again.provenance["exact"] is True
    assert plain.keys() == compiled.keys()
    for name, expected in plain.items():
        np.testing.assert_allclose(compiled[name], expected, atol=1e-3)
        assert np.array_equal(compiled[name], resumed[name])
    assert not [warning.message for warning in recwarn if "lru_cache" in str(warning.message)]


def test_where_torch_cannot_compile_training_goes_on_and_says_why(tmp_path: Path, config: Config, monkeypatch):
    def no_compiler(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler\nand more")

    store, inputs = prepare(tmp_path / "a", config)
    plain = run_training(store, inputs, config).artifact
    monkeypatch.setattr(torch, "compile", lambda *_, **__: no_compiler)
    report, (store, inputs) = Notes(), prepare(tmp_path / "b", config)
    artifact = run_training(store, inputs, compiling(config), report=report).artifact
    assert [note for note in report.notes if "torch.compile cannot be used here" in note and note.endswith("no C++ compiler")]
    assert artifact.read("model.safetensors") == plain.read("model.safetensors")


@pytest.mark.parametrize("field", ["torch", "device", "threads", "cpu_capability", "precision", "ranks", "compiled"])
def test_every_recorded_condition_that_changed_is_named(tmp_path: Path, config: Config, monkeypatch, field: str):
    store, inputs = prepare(tmp_path, config)
    with pytest.raises(StoppedEarly):
        run_training(store, inputs, config, Limits(stop_at_step=10))
    here = train_run.environment

    def elsewhere(*what: object) -> dict[str, str]:
        return here(*what) | {field: "another"}  # type: ignore[arg-type]

    monkeypatch.setattr(train_run, "environment", elsewhere)
    report = Notes()
    assert run_training(store, inputs, config, report=report).artifact.manifest.provenance["exact"] is False
    (said,) = (note for note in report.notes if "exact: false" in note)
    assert f"conditions: {field} " in said
    assert " -> another;" in said


def test_the_recorded_conditions_are_those_of_this_process(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "0.1")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "none")
    found = train_run.environment(torch.device("mps"), Precision("bf16", ""), Ranks(0, 3), "true")
    assert found == {
        "torch": "0.1", "device": "mps", "threads": "7", "cpu_capability": "none", "precision": "bf16", "ranks": "3",
        "compiled": "true",
    }  # fmt: skip


def test_watching_does_not_change_training(tmp_path: Path, config: Config):
    final = []
    for number, change in enumerate([{}, {"eval_every": 1}, {"snapshots": 0}, {"sample_tokens": 0}, {"sample_prompt": "Tom"}]):
        changed = config.model_copy(update={"train": config.train.model_copy(update=change)})
        artifact = run_training(*prepare(tmp_path / str(number), changed), changed).artifact
        final.append(artifact.read("model.safetensors"))
    assert len(set(final)) == 1


def test_divergence_names_step_tensor_and_text_and_keeps_the_checkpoint(tmp_path: Path, config: Config, monkeypatch):
    from tinygpt.lm import training

    store, inputs = prepare(tmp_path, config)
    plain = training.LOSSES["fused"]
    calls = []

    def poisoned(model, token_ids, targets, noise):
        calls.append(noise.step)
        return plain(model, token_ids, targets, noise) * (float("nan") if noise.step == 8 else 1)

    monkeypatch.setitem(training.LOSSES, "fused", poisoned)
    with pytest.raises(
        DivergedError, match=r"step 8: the loss is not finite.*token_embedding.*its batch begins with '"
    ) as caught:
        run_training(store, inputs, config)
    assert "learning_rate" in (caught.value.hint or "")
    assert [run.step for run in store.unfinished()] == [6]
    monkeypatch.setitem(training.LOSSES, "fused", plain)
    assert run_training(store, inputs, config).artifact


def test_fewer_tokens_than_one_window_is_an_input_error(tmp_path: Path, config: Config):
    long = config.model_copy(update={"model": config.model.model_copy(update={"context_length": 4096})})
    with pytest.raises(InputError, match="context_length"):
        run_training(*prepare(tmp_path, long), long)


def test_costs_are_told_before_training(tmp_path: Path, config: Config):
    report = Notes()
    run_training(*prepare(tmp_path, config), config, report=report)
    assert any(note.startswith("parameters ") for note in report.notes)
    assert any("passes over the stories" in note for note in report.notes)


def test_a_long_run_is_announced_with_a_command_that_ends_sooner(tmp_path: Path, config: Config, monkeypatch):
    monkeypatch.setattr("tinygpt.stages.train.measured_seconds_per_step", lambda session: 3600.0)
    report = Notes()
    run_training(*prepare(tmp_path, config), config, report=report)
    text = "\n".join(report.notes)
    assert "12 hours on this machine" in text
    assert "warm-up alone (3 steps) takes 3 h;" in text
    assert "tinygpt run --preset laptop --source" in text


@pytest.mark.parametrize(("max_steps", "count"), [(1, 16), (5, 16), (10_000, 16), (100, 1), (100, 0)])
def test_snapshots_are_spaced_in_the_logarithm_and_end_with_the_last_step(max_steps, count):
    steps = snapshot_steps(max_steps, count)
    assert len(steps) <= count
    assert steps == sorted(set(steps))
    if count:
        assert steps[-1] == max_steps
    if (max_steps, count) == (10_000, 16):
        ratios = [b / a for a, b in itertools.pairwise(steps[5:])]
        assert max(ratios) / min(ratios) < 1.1


def test_evaluation_comes_early_often_and_last():
    config = TrainConfig(max_steps=1234, eval_every=500)
    assert [s for s in range(1, 1235) if is_evaluation_step(s, config)] == [1, 10, 100, 500, 1000, 1234]
