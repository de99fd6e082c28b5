"""What a model and a recipe cost: counted from shapes, and compared with a process that trains."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import prepare, with_settings
from tinygpt.analysis.costs import costs, peak_memory, useful_passes
from tinygpt.config import Config, ModelConfig, TrainConfig

MIB = 2**20
V = 8_000

TRAINS = """
import json, sys
from tinygpt.config import Config
from tinygpt.lm.training import train
from tinygpt.runs import pace
from tinygpt.runs.training_run import TrainingRun
from tinygpt.store import Store

config = Config.model_validate_json(sys.argv[1])
store = Store(__import__("pathlib").Path(sys.argv[2]))
inputs = {stage: store.list(stage)[0] for stage in ("build-dataset", "tokenize")}
training = TrainingRun(config, inputs)
pace.measure_seconds(training)
for _ in train(training.state, training.batches, config.train):
    training.evaluate()
    training.files()
status = open("/proc/self/status").read().splitlines()
peak = next(line for line in status if line.startswith("VmHWM"))
print(json.dumps([int(peak.split()[1]) * 1024, training.tokenizer.vocab_size]))
"""


def peak(model: dict[str, object] | None = None, **settings: object) -> int:
    """The estimate for preset reference with some keys changed."""
    processes = settings.pop("processes", 1)
    precision = settings.pop("precision", "fp32")
    vocab_size = settings.pop("vocab_size", V)
    shape = ModelConfig.model_validate(model or {})
    return peak_memory(shape, TrainConfig(**settings), vocab_size, precision, processes)


@pytest.mark.parametrize(
    "model",
    [
        {"d_model": 256},
        {"d_ff": 1_024},
        {"n_layers": 5},
        {"n_heads": 8},
        {"context_length": 512},
        {"tie_embeddings": False},
    ],
)
def test_a_larger_model_takes_more_memory(model: dict[str, object]) -> None:
    assert peak(model) > peak()


def test_larger_batches_vocabularies_and_the_textbook_loss_take_more_memory() -> None:
    assert peak(batch_size=32) > peak()
    assert peak(vocab_size=2 * V) > peak()
    assert peak(loss="plain") > peak()
    assert peak({"dropout": 0.0}) < peak()
    assert peak(precision="bf16") < peak()
    assert peak(optimizer="muon") < peak()


def test_more_micro_batches_take_the_same_memory_and_processes_share_the_sequences() -> None:
    assert peak(grad_accum_steps=64) == peak()
    assert peak(grad_accum_steps=16, processes=16) == peak()
    alone = peak(batch_size=32, grad_accum_steps=1)
    assert peak(batch_size=64, grad_accum_steps=1, processes=2) == alone
    assert peak(batch_size=64, grad_accum_steps=1) > alone


def test_square_masks_of_a_long_context_are_counted() -> None:
    """A matrix of a byte for each pair of positions in each layer."""
    assert peak({"context_length": 65_536}, batch_size=1) > 4 * 65_536**2


def test_a_step_and_a_model_are_counted() -> None:
    cost = costs(ModelConfig(), TrainConfig(), V)
    assert cost.parameters == 1_850_112
    assert cost.tokens_per_step == 65_536
    assert (
        cost.flops_per_token == 6 * (4 * (4 * 128**2 + 2 * 128 * 512) + V * 128) + 4 * 6 * 128 * 256
    )


@pytest.mark.parametrize(("tokens", "passes"), [(10, 5), (999_999, 5), (10**6, 13), (10**9, 13)])
def test_a_text_is_read_as_often_as_was_measured_to_help(tokens: int, passes: int) -> None:
    assert useful_passes(tokens) == passes


@pytest.mark.full
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc/self/status")
@pytest.mark.parametrize(
    ("model", "train"),
    [
        ({}, {"batch_size": 4}),
        ({"dropout": 0.1}, {"batch_size": 16}),
        ({"context_length": 1024}, {"batch_size": 4, "precision": "bf16"}),
        ({"d_model": 512, "d_ff": 2048, "n_layers": 6}, {"batch_size": 2}),
        ({}, {"batch_size": 32, "loss": "plain", "optimizer": "muon"}),
    ],
)
def test_the_estimate_is_near_the_peak_of_a_process_that_trains(
    tmp_path: Path, tiny_config: Config, model: dict[str, object], train: dict[str, object]
) -> None:
    shape = ModelConfig(dropout=0.0).model_copy(update=model)
    settings = {"max_steps": 2, "grad_accum_steps": 1, "sample_tokens": 8, **train}
    config = with_settings(tiny_config, train=settings).model_copy(update={"model": shape})
    prepare(tmp_path, config, [f"Tom saw {number} cats." for number in range(2_000)])
    arguments = [sys.executable, "-c", TRAINS, config.model_dump_json(), str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    measured, vocab_size = json.loads(done.stdout)
    estimated = peak_memory(shape, config.train, vocab_size, config.train.precision)
    print(f"{estimated / MIB:,.0f} MiB estimated, {measured / MIB:,.0f} MiB measured")
    assert estimated == pytest.approx(measured, rel=0.25)
