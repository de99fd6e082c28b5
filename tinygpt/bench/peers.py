"""What the measurements share: peers, turns, processes of their own, versions."""

import json
import os
import statistics
import subprocess
import sys
import timeit
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import distributions
from typing import Any

from tinygpt.config import ModelConfig


def hugging_face(shape: ModelConfig, vocab_size: int) -> Any:
    """GPT2LMHeadModel of our shape, without end-of-text token."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config: dict[str, Any] = dict.fromkeys(("bos_token_id", "eos_token_id"))
    config |= dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), shape.dropout)
    config |= {"vocab_size": vocab_size, "n_positions": shape.context_length, "tie_word_embeddings": shape.tie_embeddings}
    config |= {"n_embd": shape.d_model, "n_layer": shape.n_layers, "n_head": shape.n_heads, "n_inner": shape.d_ff}
    model = GPT2LMHeadModel(GPT2Config(**config))
    model.loss_type = "ForCausalLM"  # what it falls back to, with a warning, if it is not told
    return model


def median_seconds(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """How long each contender takes; they take turns (A B C A B C ...), and the first turn only warms up."""
    turns = [{name: timeit.timeit(work, number=1) for name, work in contenders.items()} for _ in range(rounds + 1)]
    return {name: statistics.median(turn[name] for turn in turns[1:]) for name in contenders}


def ratios(rates: Mapping[str, float], peers: Iterable[str], suffix: str = "") -> dict[str, float | None]:
    """By how much tinygpt is faster than each peer; None where that one could not be measured."""
    return {f"ratio_vs_{peer}{suffix}": rates["tinygpt"] / rates[peer] if peer in rates else None for peer in peers}


def in_own_process(module: str, *arguments: object, threads: int | None, **environ: str) -> Any:
    """Run a module, and read the JSON that it prints last: threads, CPU capability and peak memory belong to a process."""
    if threads:
        environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, **environ}, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def versions(*packages: str) -> dict[str, str | None]:
    """The version of each package; None where it is not installed."""
    return {package: next((found.version for found in distributions(name=package)), None) for package in packages}
