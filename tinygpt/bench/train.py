"""How fast training is, as ratios against peers measured in the same run.

Every contender trains the reference model on the same random tokens, 16 sequences of 256, with AdamW. Steps are interleaved
(A B C A B C ...) and medians compared, because machines are noisy. Each block runs in a process of its own, so that its CPU
capability can be set; peak memory is that of one process per contender.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from unittest import mock

from tinygpt.config import ModelConfig, TrainConfig
from tinygpt.lm.costs import costs

BATCH, VOCAB = 16, 8_000
CONTENDERS = {
    "hf_fp32": "Hugging Face GPT2LMHeadModel, fp32",
    "hf_bf16": "Hugging Face GPT2LMHeadModel, bf16 autocast",
    "plain": "the same model as a textbook PyTorch loop",
    "tinygpt": "tinygpt",
}
Step = Callable[[], float]


@dataclass(frozen=True)
class Block:
    """One setting under which all contenders are measured."""

    dropout: float = 0.0
    fp32: bool = False
    capability: str | None = None
    threads: int | None = None
    rounds: int = 7


BLOCKS = {"": Block(), "dropout_0_1": Block(dropout=0.1), "fp32_avx2": Block(fp32=True, capability="avx2")}


def bench_train(threads: int | None, rounds: int, note: Callable[[str], None]) -> dict[str, Any]:
    """All blocks; the first block's keys stand at the top level, those of the others under their names."""
    report: dict[str, Any] = {}
    for name, block in BLOCKS.items():
        block = Block(**{**asdict(block), "threads": threads, "rounds": rounds})
        note(f"measuring {name or 'dropout 0'}: {rounds} rounds of {len(CONTENDERS)} contenders")
        measured = _child("block", block)
        measured["peak_rss_mib"] = {name: _child("memory", block, name)["mib"] for name in measured["tokens_per_second_all"]}
        peak = measured["peak_rss_mib"]
        peer = "hf_fp32" if block.fp32 else "hf_bf16"
        measured["peak_rss_ratio_vs_hf"] = peak["tinygpt"] / peak[peer] if peer in peak else None
        report |= {name: measured} if name else measured
    return report


def _child(task: str, block: Block, contender: str = "") -> dict[str, Any]:
    """Run a part in a process of its own and read its result."""
    environment = dict(os.environ)
    if block.capability:
        environment["ATEN_CPU_CAPABILITY"] = block.capability
    command = [sys.executable, "-m", "tinygpt.bench.train", task, json.dumps(asdict(block)), contender]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure_block(block: Block) -> dict[str, Any]:
    """Tokens per second of every contender, the ratios, and the share of the matrix rate."""
    import torch

    if block.threads:
        torch.set_num_threads(block.threads)
    steps = {name: step for name in CONTENDERS if (step := contender(name, block))}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(block.rounds):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - started)
    rates = {name: BATCH * ModelConfig().context_length / statistics.median(t) for name, t in times.items()}
    ours = precision_of(block)
    flops = costs(ModelConfig(), TrainConfig(), VOCAB).flops_per_token
    ratios = {
        f"ratio_vs_{name}": rates["tinygpt"] / rates[name] if name in rates else None for name in CONTENDERS if name != "tinygpt"
    }
    return {
        "tokens_per_second": rates["tinygpt"],
        **ratios,
        "matrix_rate_share": flops * rates["tinygpt"] / matrix_rate(ours),
        "tokens_per_second_all": rates,
        "precision": ours,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "versions": {name: _version(name) for name in ("tinygpt", "torch", "transformers")},
    }


def precision_of(block: Block) -> str:
    """What tinygpt computes in: the rule's choice, or fp32 where the block says so."""
    import torch

    from tinygpt.lm.precision import choose_precision

    return "fp32" if block.fp32 else choose_precision("auto", torch.device("cpu")).name


def matrix_rate(precision: str) -> float:
    """FLOP/s of the best of five 2048^3 products."""
    import torch

    a, b = (torch.randn(2048, 2048).to(torch.bfloat16 if precision == "bf16" else torch.float32) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - started)
    return 2 * 2048**3 / best


def contender(name: str, block: Block) -> Step | None:
    """A function that takes one training step, or None where the peer is not installed."""
    if name == "tinygpt":
        return _tinygpt(block)
    if name == "plain":
        return _plain(block)
    if _version("transformers") is None or (name == "hf_bf16" and block.fp32):
        return None
    return _hugging_face(block, bf16=name == "hf_bf16")


def _tinygpt(block: Block) -> Step:
    import numpy as np

    from tinygpt.lm.dataset import Batches
    from tinygpt.lm.model import GPT, initialise
    from tinygpt.lm.training import TrainState, train_step

    recipe = TrainConfig(batch_size=BATCH, grad_accum_steps=1)
    model = initialise(GPT(ModelConfig(dropout=block.dropout), VOCAB), 0)
    state = TrainState.start(model, recipe, precision_of(block))
    tokens = np.random.default_rng(0).integers(0, VOCAB, 200_000).astype(np.uint16)
    batches = Batches(tokens, ModelConfig().context_length, 0)
    return lambda: train_step(state, batches, recipe).loss


def _plain(block: Block) -> Step:
    """Our model as one writes it first: explicit attention, PyTorch's dropout, all logits at once, fp32, AdamW as it comes."""
    import torch
    import torch.nn.functional as F

    from tinygpt.lm import model as model_module
    from tinygpt.lm.model import GPT, initialise

    model = initialise(GPT(ModelConfig(dropout=block.dropout), VOCAB), 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    noise: Any = "PyTorch's own"

    def step() -> float:
        with mock.patch.object(model_module, "dropout", lambda x, p, *_: F.dropout(x, p)):
            tokens = torch.randint(0, VOCAB, (BATCH, ModelConfig().context_length + 1))
            logits = model(tokens[:, :-1], noise, explicit=True)
            loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        return loss.item()

    return step


def _hugging_face(block: Block, *, bf16: bool) -> Step:
    """GPT2LMHeadModel of the same shape, as a user of run_clm runs it: labels given to the model, AdamW, clipping."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = ModelConfig()
    config = GPT2Config(
        vocab_size=VOCAB,
        n_positions=shape.context_length,
        n_embd=shape.d_model,
        n_layer=shape.n_layers,
        n_head=shape.n_heads,
        n_inner=shape.d_ff,
        resid_pdrop=block.dropout,
        embd_pdrop=block.dropout,
        attn_pdrop=block.dropout,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)

    def step() -> float:
        tokens = torch.randint(0, VOCAB, (BATCH, shape.context_length))
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(tokens, labels=tokens, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return float(loss)

    return step


def measure_memory(name: str, block: Block) -> dict[str, float]:
    """Peak resident memory of this process after a few steps."""
    import resource  # not on Windows

    import torch

    if block.threads:
        torch.set_num_threads(block.threads)
    step = contender(name, block)
    assert step is not None
    for _ in range(4):
        step()
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return {"mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    task, block_json, contender_name = sys.argv[1:4]
    the_block = Block(**json.loads(block_json))
    print(json.dumps(measure_block(the_block) if task == "block" else measure_memory(contender_name, the_block)))  # noqa: T201
