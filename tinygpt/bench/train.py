"""How fast training is, as ratios against peers measured in the same run.

Every contender trains the reference model on the same random tokens, 16 sequences of 256, with AdamW. Steps are interleaved
(A B C A B C ...) and medians compared, because machines are noisy. Each block runs in a process of its own, so that its CPU
capability can be set; peak memory is that of one process per contender.
"""

import json
import sys
import timeit
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F

from tinygpt.bench.peers import hugging_face, in_own_process, median_seconds, ratios, versions
from tinygpt.config import ModelConfig, TrainConfig
from tinygpt.lm import model as model_module
from tinygpt.lm.costs import costs
from tinygpt.lm.dataset import Batches
from tinygpt.lm.model import GPT, initialise
from tinygpt.lm.precision import choose_precision
from tinygpt.lm.training import TrainState, train_step

BATCH, VOCAB = 16, 8_000
_HF = "Hugging Face GPT2LMHeadModel"
PEERS = {"hf_fp32": f"{_HF}, fp32", "hf_bf16": f"{_HF}, bf16 autocast", "plain": "the same model as a textbook PyTorch loop"}
CONTENDERS = {**PEERS, "tinygpt": "tinygpt"}
Step = Callable[[], float]


class Block(NamedTuple):
    """One setting under which all contenders are measured.

    Args:
        dropout: of all contenders.
        avx2: as on the many CPUs that have no more than AVX2: fp32 on both sides.
    """

    dropout: float = 0.0
    avx2: bool = False


BLOCKS = {"": Block(), "dropout_0_1": Block(dropout=0.1), "fp32_avx2": Block(avx2=True)}


def bench_train(threads: int | None, rounds: int, note: Callable[[str], None]) -> dict[str, Any]:
    """All blocks; the first block's keys stand at the top level, those of the others under their names."""
    report: dict[str, Any] = {}
    for name, block in BLOCKS.items():
        note(f"measuring {name or 'dropout 0'}: {rounds} rounds of {len(CONTENDERS)} contenders")
        environ = {"ATEN_CPU_CAPABILITY": "avx2"} if block.avx2 else {}
        run = partial(in_own_process, "tinygpt.bench.train", name, rounds, threads=threads, **environ)
        measured = run()
        peak = measured["peak_rss_mib"] = {who: run(who) for who in measured["tokens_per_second_all"]}
        peer = "hf_fp32" if block.avx2 else "hf_bf16"
        measured["peak_rss_ratio_vs_hf"] = peak["tinygpt"] / peak[peer] if peer in peak else None
        report |= {name: measured} if name else measured
    return report


def measure_block(block: Block, rounds: int) -> dict[str, Any]:
    """Tokens per second of every contender, the ratios, and the share of the matrix rate."""
    seconds = median_seconds({name: step for name in CONTENDERS if (step := contender(name, block))}, rounds)
    rates = {name: BATCH * ModelConfig().context_length / taken for name, taken in seconds.items()}
    flops = costs(ModelConfig(), TrainConfig(), VOCAB).flops_per_token
    precision = choose_precision("auto", torch.device("cpu")).name
    share = flops * rates["tinygpt"] / matrix_rate(precision)
    measured = {"tokens_per_second": rates["tinygpt"], "tokens_per_second_all": rates, "matrix_rate_share": share}
    machine = {"threads": torch.get_num_threads(), "cpu_capability": torch.backends.cpu.get_cpu_capability()}
    used = {"precision": precision, "versions": versions("tinygpt", "torch", "transformers")}
    return {**measured, **ratios(rates, PEERS), **machine, **used}


def matrix_rate(precision: str) -> float:
    """FLOP/s of the best of five 2048^3 products."""
    a, b = (torch.randn(2048, 2048).to(torch.bfloat16 if precision == "bf16" else torch.float32) for _ in range(2))
    return 2 * 2048**3 / min(timeit.repeat(lambda: torch.mm(a, b), number=1))


def contender(name: str, block: Block) -> Step | None:
    """A function that takes one training step, or None where the peer is not installed, or has no such arithmetic."""
    if name.startswith("hf"):
        there = find_spec("transformers") and not (name == "hf_bf16" and block.avx2)
        return _hugging_face(block, bf16=name == "hf_bf16") if there else None
    return _tinygpt(block) if name == "tinygpt" else _plain(block)


def _tinygpt(block: Block) -> Step:
    recipe = TrainConfig(batch_size=BATCH, grad_accum_steps=1)
    model = initialise(GPT(ModelConfig(dropout=block.dropout), VOCAB), 0)
    state = TrainState.start(model, recipe, choose_precision("auto", torch.device("cpu")).name)
    tokens = np.random.default_rng(0).integers(0, VOCAB, 200_000).astype(np.uint16)
    batches = Batches(tokens, ModelConfig().context_length, 0)
    return lambda: train_step(state, batches, recipe).loss


def _plain(block: Block) -> Step:
    """Our model as one writes it first: explicit attention, PyTorch's dropout, all logits at once, fp32, AdamW as it comes."""
    model = initialise(GPT(ModelConfig(dropout=block.dropout), VOCAB), 0)
    noise: Any = "PyTorch's own"

    def loss(tokens: Any) -> Any:
        with mock.patch.object(model_module, "dropout", lambda x, p, *_: F.dropout(x, p)):
            logits = model(tokens[:, :-1], noise, explicit=True)
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    return _textbook_step(model, loss, ModelConfig().context_length + 1)


def _hugging_face(block: Block, *, bf16: bool) -> Step:
    """GPT2LMHeadModel of the same shape, as a user of run_clm runs it: labels given to the model, AdamW, clipping."""
    model = hugging_face(ModelConfig(dropout=block.dropout), VOCAB).train()

    def loss(tokens: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return model(tokens, labels=tokens, use_cache=False).loss

    return _textbook_step(model, loss, ModelConfig().context_length)


def _textbook_step(model: Any, loss_of: Callable[[Any], Any], length: int) -> Step:
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


def peak_mib(step: Step) -> float:
    """Peak resident memory of this process after a few steps."""
    import resource  # not on Windows

    for _ in range(4):
        step()
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def main(block: str, rounds: str, name: str = "") -> None:
    """Print the figures of a block, or the peak memory of the contender of that name."""
    step = contender(name, BLOCKS[block]) if name else None
    print(json.dumps(peak_mib(step) if step else measure_block(BLOCKS[block], int(rounds))))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
