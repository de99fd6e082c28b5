"""What a process prepares before it computes."""

import ctypes
import json
import subprocess
import sys

import pytest

FREED = """
import json, resource, torch
from tinygpt.lm.precision import prepare_cpu

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
from tinygpt.lm.model import GPT, initialise
from tinygpt.lm.training import TrainState, train_step

model = initialise(GPT(ModelConfig(d_model=16, n_heads=2, d_ff=16, n_layers=1, context_length=16), 300), 0)
recipe = TrainConfig(batch_size=2, grad_accum_steps=1, optimizer="muon")
state = TrainState.start(model, recipe, "fp32")
train_step(state, Batches(np.arange(300, dtype=np.uint16), 16, 0), recipe)
print("torch._dynamo" in sys.modules)
import torch.optim
torch.optim.AdamW(model.parameters())
print("torch._dynamo" in sys.modules)
"""


def output_of(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="memory is kept by a setting of glibc, which is not here")
def test_memory_that_a_step_frees_stays_with_the_process():
    given_back, threads = json.loads(output_of(FREED))
    assert given_back < 1e6
    assert threads == 3
    assert json.loads(output_of(FREED.replace("prepare_cpu(3)", "")))[0] > 100e6  # else there was nothing to keep


def test_a_step_does_not_load_pytorchs_compiler_as_its_own_optimizers_do():
    assert output_of(ONE_STEP).split() == ["False", "True"]
