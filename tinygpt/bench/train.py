"""How fast training is, as ratios against peers measured in the same run.

Every contender trains the reference model on the same random tokens, 16 sequences of 256, with AdamW. Steps are interleaved
(A B C A B C ...) and medians compared, because machines are noisy. Each contender has a process of its own, so that its
memory is its own, and how it is managed.
"""

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F

from tinygpt.bench.peers import hugging_face, in_own_process, in_turns, ratios, take_turns, threads_of, versions
from tinygpt.config import ModelConfig, TrainConfig
from tinygpt.lm import model as model_module
from tinygpt.lm.costs import costs
from tinygpt.lm.dataset import Batches
from tinygpt.lm.model import GPT, initialise
from tinygpt.lm.precision import choose_precision, prepare_cpu
from tinygpt.lm.training import TrainState, train_step

BATCH, VOCAB = 16, 8_000
SIDE = 2_048  # of the matrices that the share is of
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
        there = [who for who in CONTENDERS if measurable(who, block)]
        note(f"measuring {name or 'dropout 0'}: {rounds} rounds of {len(there)} contenders")
        environ = threads_of(threads) | ({"ATEN_CPU_CAPABILITY": "avx2"} if block.avx2 else {})
        seconds, peaks = in_turns({who: [__name__, name, who] for who in (*there, "matrix")}, rounds, **environ)
        machine = in_own_process(__name__, name, "machine", **environ)
        measured = _block(seconds, peaks, machine)
        report |= {name: measured} if name else measured
    return report


def _block(seconds: dict[str, float], peaks: dict[str, float], machine: dict[str, Any]) -> dict[str, Any]:
    """Tokens per second of every contender, the ratios, the share of the matrix rate, and memory beside the same precision's."""
    matrix_rate, _ = 2 * SIDE**3 / seconds.pop("matrix"), peaks.pop("matrix")
    rates = {name: BATCH * ModelConfig().context_length / taken for name, taken in seconds.items()}
    flops = costs(ModelConfig(), TrainConfig(), VOCAB).flops_per_token
    measured = {"tokens_per_second": rates["tinygpt"], "tokens_per_second_all": rates, **ratios(rates, PEERS)}
    measured["matrix_rate_share"] = flops * rates["tinygpt"] / matrix_rate
    peer = f"hf_{machine['precision']}"
    measured["peak_rss_ratio_vs_hf"] = peaks["tinygpt"] / peaks[peer] if peer in peaks else None
    return {**measured, "peak_rss_mib": peaks, **machine}


def machine() -> dict[str, Any]:
    """What this process can do."""
    precision = choose_precision("auto", torch.device("cpu")).name
    capability, used = torch.backends.cpu.get_cpu_capability(), versions("tinygpt", "torch", "transformers")
    return {"precision": precision, "threads": torch.get_num_threads(), "cpu_capability": capability, "versions": used}


def matrix_product(precision: str) -> Callable[[], object]:
    """A product of matrices large enough for the most FLOP/s that the machine has, into memory at hand."""
    a, b, c = (torch.randn(SIDE, SIDE).to(torch.bfloat16 if precision == "bf16" else torch.float32) for _ in range(3))
    return lambda: torch.mm(a, b, out=c)


def measurable(name: str, block: Block) -> bool:
    """Whether the peer is installed, and its arithmetic the block's; a CPU that only imitates bf16 takes seconds for a step."""
    if name == "hf_bf16" and (block.avx2 or choose_precision("auto", torch.device("cpu")).name != "bf16"):
        return False
    return not name.startswith("hf") or find_spec("transformers") is not None


def contender(name: str, block: Block) -> Step:
    """A function that takes one training step."""
    if name.startswith("hf"):
        return _hugging_face(block, bf16=name == "hf_bf16")
    return _tinygpt(block) if name == "tinygpt" else _plain(block)


def _tinygpt(block: Block) -> Step:
    recipe = TrainConfig(batch_size=BATCH, grad_accum_steps=1)
    prepare_cpu(None)
    model = initialise(GPT(ModelConfig(dropout=block.dropout), VOCAB), 0)
    state = TrainState.start(model, recipe, choose_precision("auto", torch.device("cpu")).name)
    tokens = np.random.default_rng(0).integers(0, VOCAB, 200_000).astype(np.uint16)
    batches = Batches(tokens, ModelConfig().context_length, 0)
    return lambda: train_step(state, batches, recipe).loss


def _plain(block: Block) -> Step:
    """Our model as one writes it first: explicit attention, PyTorch's dropout, all logits at once, fp32, AdamW as it comes."""
    mock.patch.object(model_module, "dropout", lambda x, p, *_: F.dropout(x, p)).start()  # for good, in this process alone
    model = initialise(GPT(ModelConfig(dropout=block.dropout), VOCAB), 0)
    noise: Any = "PyTorch's own"

    def loss(tokens: Any) -> Any:
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


def main(block: str, name: str) -> None:
    """Take the turns of a contender, or tell what the machine can do."""
    if name == "machine":
        print(json.dumps(machine()))  # noqa: T201
    elif name == "matrix":
        take_turns(matrix_product(choose_precision("auto", torch.device("cpu")).name), best_of=5)
    else:
        take_turns(contender(name, BLOCKS[block]))


if __name__ == "__main__":
    main(*sys.argv[1:])
