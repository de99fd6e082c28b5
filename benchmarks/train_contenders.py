"""The contenders of benchmarks/train.py, each in a process of its own.

    python -m benchmarks.train_contenders BLOCK NAME

NAME is a contender, "matrix" for the matrix product that is the measure of the machine, or
"machine" for what the machine can do.
"""

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.peers import hugging_face, take_turns, versions
from benchmarks.textbook import TextbookGPT
from tinygpt.config import ModelConfig, TrainConfig
from tinygpt.lm.dataset import Batches
from tinygpt.lm.fast.precision import choose_precision, prepare_cpu
from tinygpt.lm.init import init_weights
from tinygpt.lm.model import GPT
from tinygpt.lm.training import TrainState, train_step

BATCH = 16
VOCAB = 8_000
SIDE = 2_048  # of the matrices whose product is the measure of the machine

PEERS = {
    "hf_fp32": "Hugging Face GPT2LMHeadModel, fp32",
    "hf_bf16": "Hugging Face GPT2LMHeadModel, bf16 autocast",
    "plain": "the same model as a textbook PyTorch loop",
}
CONTENDERS = {**PEERS, "tinygpt": "tinygpt"}

Step = Callable[[], float]
"""Takes one training step and returns its loss."""


class Block(NamedTuple):
    """One setting under which all contenders are measured.

    Args:
        dropout: of all contenders.
        avx2: as on the many CPUs that have nothing beyond AVX2: fp32 for all contenders.
    """

    dropout: float = 0.0
    avx2: bool = False


BLOCKS = {"": Block(), "dropout_0_1": Block(dropout=0.1), "fp32_avx2": Block(avx2=True)}


def measurable(name: str, block: Block) -> bool:
    """Whether a peer is installed, and its arithmetic is that of the block.

    A CPU that only imitates bf16 takes seconds for a step.
    """
    if name == "hf_bf16" and (block.avx2 or cpu_precision() != "bf16"):
        return False
    return not name.startswith("hf") or find_spec("transformers") is not None


def cpu_precision() -> str:
    """What `train.precision` = auto means on this CPU."""
    return choose_precision("auto", torch.device("cpu")).name


def contender(name: str, block: Block) -> Step:
    """A function that takes one training step."""
    if name == "tinygpt":
        return _tinygpt_step(block)
    if name == "plain":
        return _textbook_gpt_step(block)
    return _hugging_face_step(block, bf16=name == "hf_bf16")


def _tinygpt_step(block: Block) -> Step:
    recipe = TrainConfig(batch_size=BATCH, grad_accum_steps=1)
    prepare_cpu(None)
    model = init_weights(GPT(ModelConfig(dropout=block.dropout), VOCAB), 0)
    state = TrainState.start(model, recipe, cpu_precision())
    tokens = np.random.default_rng(0).integers(0, VOCAB, 200_000).astype(np.uint16)
    batches = Batches(tokens, ModelConfig().context_length, 0)
    return lambda: train_step(state, batches, recipe).loss


def _textbook_gpt_step(block: Block) -> Step:
    """Our model as a textbook writes it, in fp32."""
    model = TextbookGPT(ModelConfig(dropout=block.dropout), VOCAB)

    def loss(tokens: Tensor) -> Tensor:
        logits = model(tokens[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    return _textbook_step(model, loss, ModelConfig().context_length + 1)


def _hugging_face_step(block: Block, *, bf16: bool) -> Step:
    """GPT2LMHeadModel as run_clm trains it: labels given to the model, AdamW, clipping."""
    model = hugging_face(ModelConfig(dropout=block.dropout), VOCAB).train()

    def loss(tokens: Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return model(tokens, labels=tokens, use_cache=False).loss

    return _textbook_step(model, loss, ModelConfig().context_length)


def _textbook_step(model: torch.nn.Module, loss_of: Callable[[Tensor], Any], length: int) -> Step:
    """AdamW as it comes, with clipping, on random sequences of `length` tokens."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)

    def step() -> float:
        loss = loss_of(torch.randint(0, VOCAB, (BATCH, length)))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return float(loss.item())

    return step


def matrix_product(precision: str) -> Callable[[], object]:
    """A product of matrices so large that it shows the most FLOP/s that the machine has."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.randn(SIDE, SIDE).to(dtype)
    b = torch.randn(SIDE, SIDE).to(dtype)
    out = torch.empty_like(a)  # allocated once: memory is not what is measured
    return lambda: torch.mm(a, b, out=out)


def machine() -> dict[str, Any]:
    """What this process can do."""
    return {
        "precision": cpu_precision(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "versions": versions("tinygpt", "torch", "transformers"),
    }


def main(block: str, name: str) -> None:
    """Take the turns of a contender, or print what the machine can do."""
    if name == "machine":
        print(json.dumps(machine()))
    elif name == "matrix":
        take_turns(matrix_product(cpu_precision()), best_of=5)
    else:
        take_turns(contender(name, BLOCKS[block]))


if __name__ == "__main__":
    main(*sys.argv[1:])
