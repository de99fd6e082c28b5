"""What a process prepares before it computes."""

import ctypes
import json
import subprocess
import sys

import pytest

FAULTS = """
import json, resource, sys, torch
from tinygpt.lm.precision import prepare_cpu

def faults():
    "Of ten times taking 24 MB five times over and giving it all back, as a step does with activations."
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        blocks = [torch.ones(6_000_000) for _ in range(5)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

unprepared = faults()
prepare_cpu(3)
prepared = min(faults() for _ in range(10))  # the heap grows until it has a place for every block
print(json.dumps([unprepared, prepared, torch.get_num_threads()]))
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
    unprepared, prepared, threads = json.loads(output_of(FAULTS))
    assert unprepared > 10_000  # else there was nothing to gain
    assert prepared < unprepared / 100
    assert threads == 3


def test_a_step_does_not_load_pytorchs_compiler_as_its_own_optimizers_do():
    assert output_of(ONE_STEP).split() == ["False", "True"]
