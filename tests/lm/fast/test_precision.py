"""What a process prepares before it computes: threads, memory, device, precision."""

import ctypes
import json
import os
import subprocess
import sys

import pytest
import torch

from tinygpt.errors import ConfigError
from tinygpt.lm.fast.precision import choose_device, choose_precision

FREED = """
import json, resource, torch
from tinygpt.lm.fast.precision import prepare_cpu

def resident():
    "Bytes in memory now."
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

prepare_cpu(3)
blocks = [torch.ones(6_000_000) for _ in range(5)]  # 24 MB each, as activations of a step
before = resident()
del blocks
print(json.dumps([before - resident(), torch.get_num_threads()]))
"""

ONE_STEP = """
import sys, numpy as np
from tinygpt.config import ModelConfig, TrainConfig
from tinygpt.lm.dataset import Batches
from tinygpt.lm.init import init_weights
from tinygpt.lm.model import GPT
from tinygpt.lm.training import TrainState, train_step

config = ModelConfig(d_model=16, n_heads=2, d_ff=16, n_layers=1, context_length=16)
model = init_weights(GPT(config, 300), 0)
recipe = TrainConfig(batch_size=2, grad_accum_steps=1, optimizer="muon")
state = TrainState.start(model, recipe, "fp32")
train_step(state, Batches(np.arange(300, dtype=np.uint16), 16, 0), recipe)
print("torch._dynamo" in sys.modules)
import torch.optim
torch.optim.AdamW(model.parameters())
print("torch._dynamo" in sys.modules)
"""

PRECISION = """
import torch
from tinygpt.lm.fast.precision import choose_precision

print(choose_precision("auto", torch.device("cpu")).name)
"""


def output_of(code: str, **environment: str) -> str:
    """What a new process prints."""
    command = [sys.executable, "-c", code]
    variables = os.environ | environment
    ran = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    return ran.stdout


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallopt"), reason="the setting that keeps memory is glibc's"
)
def test_memory_that_a_step_frees_stays_with_the_process():
    returned, threads = json.loads(output_of(FREED))
    assert returned < 1e6
    assert threads == 3
    returned_by_default, _ = json.loads(output_of(FREED.replace("prepare_cpu(3)", "")))
    assert returned_by_default > 100e6  # else there was nothing to keep


def test_a_step_does_not_load_pytorchs_compiler_as_its_own_optimizers_do():
    assert output_of(ONE_STEP).split() == ["False", "True"]


def test_the_device_is_the_requested_one_or_the_first_available():
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cuda", "mps", "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_the_machine_does_not_have_is_a_config_error():
    with pytest.raises(ConfigError, match=r"`runtime\.device` = cuda is not available") as caught:
        choose_device("cuda")
    assert caught.value.hint == "use `auto`"


@pytest.mark.parametrize("requested", ["fp32", "bf16"])
def test_a_configured_precision_is_taken_as_it_is(requested):
    assert choose_precision(requested, torch.device("cpu")).name == requested


def test_a_device_without_a_known_bf16_unit_computes_in_fp32():
    assert choose_precision("auto", torch.device("mps")).name == "fp32"


def test_a_cpu_whose_avx512_is_switched_off_computes_in_fp32():
    assert output_of(PRECISION, ATEN_CPU_CAPABILITY="avx2").strip() == "fp32"
