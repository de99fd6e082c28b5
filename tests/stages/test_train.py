"""Stage `train`: what it writes, how it stops, how it continues."""

import itertools
import math
import re
import shutil
import signal
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from tests.helpers import Notes, prepare, run_training, with_settings
from tests.proofs.figures import RecordFigure
from tinygpt.config import Config, TrainConfig
from tinygpt.errors import ConfigError, DivergedError, InputError, Interrupted, StoppedEarly
from tinygpt.lm import training as lm_training
from tinygpt.lm import weights
from tinygpt.lm.fast.precision import Precision
from tinygpt.progress import Limits
from tinygpt.runs import environment, training_run
from tinygpt.runs.pace import Seconds, measure_seconds
from tinygpt.runs.schedule import is_evaluation_step, snapshot_steps
from tinygpt.stages import train as stage
from tinygpt.store import Artifact
from tinygpt.ui import Screen

HAS_COMPILER = shutil.which("g++") is not None or shutil.which("clang++") is not None


@pytest.fixture
def config(tiny_config: Config) -> Config:
    """Everything that could break a resumed run is on.

    That is dropout, accumulation, warm-up, clipping, evaluation and snapshots.
    """
    return with_settings(
        tiny_config,
        model={"dropout": 0.2},
        train={
            "max_steps": 12,
            "grad_accum_steps": 2,
            "warmup_steps": 3,
            "eval_every": 4,
            "grad_clip": 0.5,
            "snapshots": 5,
        },
        runtime={"checkpoint_every": 3, "threads": 1},
    )


def evaluations(artifact: Artifact) -> list[dict[str, Any]]:
    return [row for row in artifact.read_rows("metrics.jsonl") if row["kind"] == "eval"]


def test_the_artifact_holds_weights_records_snapshots_and_summary(tmp_path: Path, config: Config):
    artifact = run_training(*prepare(tmp_path, config), config).artifact
    snapshots = [name for name in artifact.names() if name.startswith("snapshots/")]
    assert snapshots == [f"snapshots/step-{step:08d}.safetensors" for step in (1, 2, 3, 6, 12)]
    rows = artifact.read_rows("metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "step"] == list(range(1, 13))
    assert [row["step"] for row in evaluations(artifact)] == [1, 4, 8, 10, 12]
    assert rows[-1]["sample"].startswith("Once upon a time")
    final = artifact.read("model.safetensors")
    assert artifact.read("snapshots/step-00000012.safetensors") == final
    model = weights.read_model(artifact.read("config.json"), final)
    assert model.config == config.model
    assert dict(artifact.read_json("summary.json")["rows"])["steps"].startswith("12 ")


def test_each_evaluation_is_one_note_with_step_loss_perplexity_and_best(
    tmp_path: Path, config: Config
):
    reporter = Notes()
    artifact = run_training(*prepare(tmp_path, config), config, reporter=reporter).artifact
    expected = []
    for row in evaluations(artifact):
        perplexity = math.exp(row["val_loss"])
        scores = f"validation loss {row['val_loss']:.4f}, perplexity {perplexity:,.2f}"
        best = ", best so far" if row["best"] else ""
        expected.append(f"step {row['step']}: {scores}{best}")
    assert len(expected) == 5
    assert expected[0].endswith(", best so far")
    assert [note for note in reporter.notes if note.startswith("step ")] == expected
    assert reporter.bars == [("train", 12, 12)]


def test_plain_output_has_one_line_for_each_evaluation(tmp_path: Path, config: Config, capsys):
    screen = Screen("plain", quiet=False)
    artifact = run_training(*prepare(tmp_path, config), config, reporter=screen).artifact
    screen.close()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert len(lines) == len(evaluations(artifact)) == 5
    for line, row in zip(lines, evaluations(artifact), strict=True):
        assert line.startswith(f"step {row['step']}: validation loss {row['val_loss']:.4f}, ")


def test_only_the_lowest_validation_loss_so_far_is_called_best(tmp_path: Path, config: Config):
    rising = with_settings(
        config, train={"learning_rate": 1.0, "max_steps": 20, "warmup_steps": None}
    )
    artifact = run_training(*prepare(tmp_path, rising), rising).artifact
    lowest = math.inf
    flags = []
    for row in evaluations(artifact):
        assert row["best"] == (row["val_loss"] < lowest)
        lowest = min(lowest, row["val_loss"])
        flags.append(row["best"])
    assert not all(flags)


@pytest.mark.parametrize("stop", [1, 2, 3, 5, 8, 11])
def test_a_run_stopped_and_continued_gives_the_same_bytes(
    tmp_path: Path, config: Config, stop: int
):
    straight = run_training(*prepare(tmp_path / "a", config), config).artifact
    store, inputs = prepare(tmp_path / "b", config)
    with pytest.raises(StoppedEarly) as caught:
        run_training(store, inputs, config, Limits(stop_at_step=stop))
    assert caught.value.exit_code == 75
    reporter = Notes()
    continued = run_training(store, inputs, config, reporter=reporter).artifact
    assert f"continuing at step {stop} of 12" in reporter.notes
    assert continued.digest == straight.digest
    assert continued.manifest.provenance["exact"] is True
    assert not store.unfinished_runs()


@pytest.mark.parametrize("asked", [2, 4])
def test_a_run_that_is_past_the_step_asked_for_trains_no_further(
    tmp_path: Path, config: Config, asked: int
):
    store, inputs = prepare(tmp_path, config)
    for limit in (4, asked):
        with pytest.raises(StoppedEarly, match="after step 4"):
            run_training(store, inputs, config, Limits(stop_at_step=limit))
    assert [run.step for run in store.unfinished_runs()] == [4]


def test_a_signal_saves_and_the_error_names_it(tmp_path: Path, config: Config):
    store, inputs = prepare(tmp_path, config)
    with pytest.raises(Interrupted, match="SIGTERM after step 1") as caught:
        run_training(store, inputs, config, Limits(interrupted=lambda: signal.SIGTERM))
    assert caught.value.exit_code == 143
    assert [run.step for run in store.unfinished_runs()] == [1]


def test_a_time_limit_stops_and_keeps_the_steps_done(tmp_path: Path, config: Config):
    store, inputs = prepare(tmp_path, config)
    with pytest.raises(StoppedEarly, match=r"time limit of 0\.0 s reached at step 1"):
        run_training(store, inputs, config, Limits(max_seconds=0))
    assert [run.step for run in store.unfinished_runs()] == [1]


def test_another_number_of_threads_is_noted_and_recorded(tmp_path: Path, config: Config):
    store, inputs = prepare(tmp_path, config)
    with pytest.raises(StoppedEarly):
        run_training(store, inputs, config, Limits(stop_at_step=4))
    reporter = Notes()
    other = with_settings(config, runtime={"threads": 2})
    artifact = run_training(store, inputs, other, reporter=reporter).artifact
    assert any("threads 1 -> 2" in note and "exact: false" in note for note in reporter.notes)
    assert artifact.manifest.provenance["exact"] is False


@pytest.mark.full
@pytest.mark.skipif(not HAS_COMPILER, reason="torch.compile needs a C++ compiler")
def test_compiled_blocks_train_the_same_and_resume_exactly(tmp_path: Path, config: Config, recwarn):
    compiling = with_settings(config, runtime={"compile": True})
    plain = run_training(*prepare(tmp_path / "plain", config), config).artifact
    compiled = run_training(*prepare(tmp_path / "straight", compiling), compiling).artifact
    store, inputs = prepare(tmp_path / "resumed", compiling)
    with pytest.raises(StoppedEarly):
        run_training(store, inputs, compiling, Limits(stop_at_step=4))
    resumed = run_training(store, inputs, compiling).artifact
    assert compiled.manifest.provenance["compiled"] == "true"
    assert resumed.manifest.provenance["exact"] is True
    expected = weights.read_arrays(plain.read("model.safetensors"))
    found = weights.read_arrays(compiled.read("model.safetensors"))
    again = weights.read_arrays(resumed.read("model.safetensors"))
    assert expected.keys() == found.keys() == again.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=1e-3)
        assert np.array_equal(found[name], again[name])
    assert not [warning.message for warning in recwarn if "lru_cache" in str(warning.message)]


def test_where_torch_cannot_compile_training_continues_and_says_why(
    tmp_path: Path, config: Config, monkeypatch
):
    def no_compiler(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler\nand more")

    plain = run_training(*prepare(tmp_path / "a", config), config).artifact
    monkeypatch.setattr(torch, "compile", lambda *_, **__: no_compiler)
    compiling = with_settings(config, runtime={"compile": True})
    reporter = Notes()
    store, inputs = prepare(tmp_path / "b", compiling)
    artifact = run_training(store, inputs, compiling, reporter=reporter).artifact
    (note,) = [note for note in reporter.notes if "torch.compile is not available" in note]
    assert note.endswith("no C++ compiler")
    assert artifact.read("model.safetensors") == plain.read("model.safetensors")


CONDITIONS = (
    "torch",
    "device",
    "threads",
    "cpu_capability",
    "cpu",
    "mkl",
    "mkl_settings",
    "precision",
    "world_size",
    "compiled",
)


def test_every_recorded_condition_that_changed_is_named(
    tmp_path: Path, config: Config, figure: RecordFigure
):
    here = training_run.environment
    for condition in CONDITIONS:
        store, inputs = prepare(tmp_path / condition, config)
        with pytest.raises(StoppedEarly):
            run_training(store, inputs, config, Limits(stop_at_step=10))

        def elsewhere(*arguments: Any, changed: str = condition, **keywords: Any) -> dict[str, str]:
            return here(*arguments, **keywords) | {changed: "another"}

        reporter = Notes()
        with patch.object(training_run, "environment", elsewhere):
            artifact = run_training(store, inputs, config, reporter=reporter).artifact
        assert artifact.manifest.provenance["exact"] is False
        (note,) = [note for note in reporter.notes if "exact: false" in note]
        assert f"conditions: {condition} " in note
        assert " -> another;" in note
    figure("G13", "conditions that change between two parts of a run, each named", len(CONDITIONS))


def test_the_recorded_conditions_are_those_of_this_process(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "0.1")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "none")
    monkeypatch.setattr(torch.__config__, "show", lambda: "Math Kernel Library Version 7.1 Build")
    monkeypatch.setattr(environment, "cpu_model", lambda: "One (6/85)")
    for name, value in (("MKL_CBWR", "AVX2"), ("ONEDNN_MAX_CPU_ISA", "SSE41"), ("MKLX", "1")):
        monkeypatch.setenv(name, value)
    device, precision = torch.device("mps"), Precision("bf16", "")
    found = training_run.environment(device, precision, 3, compiled=True)
    assert found == {
        "torch": "0.1",
        "device": "mps",
        "threads": "7",
        "cpu_capability": "none",
        "cpu": "One (6/85)",
        "mkl": "7.1",
        "mkl_settings": "MKL_CBWR=AVX2 ONEDNN_MAX_CPU_ISA=SSE41",
        "precision": "bf16",
        "world_size": "3",
        "compiled": "true",
    }
    assert set(found) == set(CONDITIONS)


def test_the_cpu_is_named_with_its_family_and_model():
    assert re.fullmatch(r".+ \(\d+/\d+\)|\w+", environment.cpu_model())


def test_evaluations_snapshots_and_samples_do_not_change_training(tmp_path: Path, config: Config):
    settings: list[dict[str, object]] = [
        {},
        {"eval_every": 1},
        {"snapshots": 0},
        {"sample_tokens": 0},
        {"sample_prompt": "Tom"},
    ]
    final = set()
    for number, train in enumerate(settings):
        changed = with_settings(config, train=train)
        artifact = run_training(*prepare(tmp_path / str(number), changed), changed).artifact
        final.add(artifact.read("model.safetensors"))
    assert len(final) == 1


def test_divergence_names_step_tensor_and_text_and_keeps_the_checkpoint(
    tmp_path: Path, config: Config, monkeypatch
):
    store, inputs = prepare(tmp_path, config)
    plain = lm_training.LOSSES["fused"]

    def poisoned(model, token_ids, targets, dropout_key):
        factor = float("nan") if dropout_key.step == 8 else 1
        return plain(model, token_ids, targets, dropout_key) * factor

    monkeypatch.setitem(lm_training.LOSSES, "fused", poisoned)
    message = r"step 8: the loss is not finite.*token_embedding.*its batch begins with '"
    with pytest.raises(DivergedError, match=message) as caught:
        run_training(store, inputs, config)
    assert "learning_rate" in (caught.value.hint or "")
    assert [run.step for run in store.unfinished_runs()] == [6]
    monkeypatch.setitem(lm_training.LOSSES, "fused", plain)
    assert run_training(store, inputs, config).artifact.stage == "train"


def test_fewer_tokens_than_one_window_is_an_input_error(tmp_path: Path, config: Config):
    long = with_settings(config, model={"context_length": 4096})
    with pytest.raises(InputError, match="context_length"):
        run_training(*prepare(tmp_path, long), long)


def test_the_costs_are_noted_before_training(tmp_path: Path, config: Config):
    reporter = Notes()
    run_training(*prepare(tmp_path, config), config, reporter=reporter)
    first_evaluation = next(
        number for number, note in enumerate(reporter.notes) if note.startswith("step 1:")
    )
    before = reporter.notes[:first_evaluation]
    for beginning in ("memory ", "parameters ", "arithmetic ", "data ", "time "):
        assert sum(note.startswith(beginning) for note in before) == 1, beginning
    assert any("passes over the training text" in note for note in before)


@pytest.mark.parametrize(
    ("model", "train", "runtime"),
    [
        ({"context_length": 65_536, "d_model": 16_384, "n_layers": 256, "n_heads": 256}, {}, {}),
        ({"context_length": 65_536}, {"batch_size": 512}, {}),
        ({"d_ff": 131_072, "n_layers": 256, "d_model": 4_096}, {}, {"compile": True}),
        ({}, {"batch_size": 65_536, "grad_accum_steps": 65_536}, {}),
    ],
)
def test_more_memory_than_there_is_is_refused_before_any_of_it_is_allocated(
    tmp_path: Path, config: Config, monkeypatch, model, train, runtime
):
    model = {"d_model": 2048, "d_ff": 8192, "n_layers": 64, **model}
    large = with_settings(config, model=model, train=train, runtime=runtime)
    store, inputs = prepare(tmp_path, config)
    monkeypatch.setattr(stage, "TrainingRun", None)  # it cannot be made
    with pytest.raises(ConfigError, match=r"training needs about .* of memory, and there are"):
        run_training(store, inputs, large)
    assert not store.unfinished_runs()


def test_measuring_the_pace_leaves_no_trace_in_the_run(tmp_path: Path, config: Config):
    _, inputs = prepare(tmp_path, config)
    measured = training_run.TrainingRun(config, inputs)
    seconds = measure_seconds(measured)
    assert seconds.step > 0
    assert seconds.evaluation > 0
    fresh = training_run.TrainingRun(config, inputs)
    assert measured.files() == fresh.files()
    assert all(p.grad is None for p in measured.state.parameters.values())


def test_more_passes_than_a_text_bears_are_a_warning_with_the_steps_that_fit(
    tmp_path: Path, config: Config
):
    _, inputs = prepare(tmp_path, config)
    tokens = inputs["build-dataset"].read_json("meta.json")["train"]["tokens"]
    tokens_per_step = 2 * 2 * 16
    bears = math.floor(5 * tokens / tokens_per_step)

    def warnings(max_steps: int) -> list[str]:
        reporter = Notes()
        stage.report_passes(tokens_per_step, tokens, max_steps, reporter)
        return [note for note in reporter.notes if note.startswith("warning: ")]

    assert warnings(bears) == []
    (warning,) = warnings(bears + 1)
    assert f"`--max-steps {bears}` " in warning
    assert "more than about 5 passes" in warning
    assert warnings(12) == []


@pytest.mark.parametrize(
    "train",
    [
        {"weight_decay": 1e10},
        {"learning_rate": 1e5, "max_steps": 1},
        {"learning_rate": 1e300},
        {"weight_decay": 1e300},
        {"optimizer": "muon", "muon_learning_rate": 1e300, "max_steps": 1},
        {"optimizer": "muon", "muon_weight_decay": 1e300},
        {"optimizer": "muon", "weight_decay": 1e10},
    ],
)
@pytest.mark.parametrize("sample_tokens", [0, 8])
def test_weights_that_predict_nothing_end_the_run_and_are_not_stored(
    tmp_path: Path, config: Config, train: dict[str, object], sample_tokens: int
):
    always = {"sample_tokens": sample_tokens, "warmup_steps": None}
    reckless = with_settings(config, train=always | train, runtime={"checkpoint_every": 1})
    store, inputs = prepare(tmp_path, reckless)
    with pytest.raises(DivergedError) as caught:
        run_training(store, inputs, reckless)
    assert caught.value.exit_code == 5
    assert "training diverged" in caught.value.message
    assert "learning_rate" in str(caught.value.hint)
    assert store.list("train") == []


def test_before_a_long_run_a_command_that_ends_sooner_is_named(
    tmp_path: Path, config: Config, monkeypatch
):
    seconds = Seconds(step=3600.0, evaluation=0.0)
    monkeypatch.setattr(stage, "measure_seconds", lambda training: seconds)
    reporter = Notes()
    run_training(*prepare(tmp_path, config), config, reporter=reporter)
    text = "\n".join(reporter.notes)
    assert "12 hours on this machine" in text
    assert "warm-up alone (3 steps) takes 3 h," in text
    assert "tinygpt run --preset laptop --source" in text


@pytest.mark.parametrize(
    ("max_steps", "count"), [(1, 16), (5, 16), (10_000, 16), (100, 1), (100, 0)]
)
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
    steps = [step for step in range(1, 1235) if is_evaluation_step(step, config)]
    assert steps == [1, 10, 100, 500, 1000, 1234]
