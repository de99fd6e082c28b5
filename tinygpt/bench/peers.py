"""What the measurements share: peers, turns, processes of their own, versions."""

import json
import os
import resource
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


def in_turns(commands: Mapping[str, list[object]], rounds: int, **environ: str) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds and peak memory in MiB of modules that take_turns, each in a process of its own, whose memory is its own.

    They take turns (A B C A B C ...), and the first turn only warms up.
    """
    workers = {name: _start(command, environ, stdin=subprocess.PIPE) for name, command in commands.items()}
    turns = [{name: _turn(worker) for name, worker in workers.items()} for _ in range(rounds + 1)]
    peaks = {name: json.loads(worker.communicate()[0]) for name, worker in workers.items()}
    return {name: statistics.median(turn[name] for turn in turns[1:]) for name in workers}, peaks


def take_turns(work: Callable[[], object], best_of: int = 1) -> None:
    """Answer each line of standard input with the seconds that `work` takes, and its end with the peak memory in MiB.

    Before it is timed the work is done once, for caches and threads that the turns of others left cold.
    """
    for _ in sys.stdin:
        print(min(timeit.repeat(work, number=1, repeat=1 + best_of)[1:]), flush=True)  # noqa: T201
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20)  # noqa: T201


def _turn(worker: subprocess.Popen[str]) -> float:
    print(file=worker.stdin, flush=True)
    return float(worker.stdout.readline())  # type: ignore[union-attr]


def _start(command: list[object], environ: Mapping[str, str], stdin: int | None = None) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", *map(str, command)]
    return subprocess.Popen(line, env={**os.environ, **environ}, stdin=stdin, stdout=subprocess.PIPE, text=True)


def ratios(rates: Mapping[str, float], peers: Iterable[str], suffix: str = "") -> dict[str, float | None]:
    """By how much tinygpt is faster than each peer; None where that one could not be measured."""
    return {f"ratio_vs_{peer}{suffix}": rates["tinygpt"] / rates[peer] if peer in rates else None for peer in peers}


def in_own_process(*command: object, **environ: str) -> Any:
    """Run a module, and read the JSON that it prints: threads and CPU capability belong to a process."""
    return json.loads(_start([*command], environ).communicate()[0])


def threads_of(threads: int | None) -> dict[str, str]:
    """The environment of a process whose libraries use so many threads; None for their default."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)) if threads else {}


def versions(*packages: str) -> dict[str, str | None]:
    """The version of each package; None where it is not installed."""
    return {package: next((found.version for found in distributions(name=package)), None) for package in packages}
