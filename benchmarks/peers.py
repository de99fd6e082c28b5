"""What the measurements share: a peer, contenders that take turns, processes, versions."""

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
    """GPT2LMHeadModel of our shape, without an end-of-text token."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=shape.context_length,
        n_embd=shape.d_model,
        n_layer=shape.n_layers,
        n_head=shape.n_heads,
        n_inner=shape.d_ff,
        resid_pdrop=shape.dropout,
        embd_pdrop=shape.dropout,
        attn_pdrop=shape.dropout,
        tie_word_embeddings=shape.tie_embeddings,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = GPT2LMHeadModel(config)
    model.loss_type = "ForCausalLM"  # where it is not set, it falls back to this with a warning
    return model


def median_seconds(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """How long each contender takes.

    They take turns (A B C A B C ...), and the first turn only warms up.
    """
    turns = []
    for _ in range(rounds + 1):
        turns.append({name: timeit.timeit(work, number=1) for name, work in contenders.items()})
    return {name: statistics.median(turn[name] for turn in turns[1:]) for name in contenders}


def in_turns(
    commands: Mapping[str, list[str]], rounds: int, environ: Mapping[str, str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds and peak memory [MiB] of modules that `take_turns`.

    Each has a process of its own, so that its memory is its own. They take turns (A B C A B C ...),
    and the first turn only warms up.

    Args:
        commands: a module and its arguments, by the name of the contender.
        rounds: timed turns of each.
        environ: environment variables beside those of this process.
    """
    workers = {
        name: _start_module(command, environ, stdin=subprocess.PIPE)
        for name, command in commands.items()
    }
    turns = []
    for _ in range(rounds + 1):
        turns.append({name: _ask_for_a_turn(worker) for name, worker in workers.items()})
    seconds = {name: statistics.median(turn[name] for turn in turns[1:]) for name in workers}
    peaks = {name: json.loads(worker.communicate()[0]) for name, worker in workers.items()}
    return seconds, peaks


def take_turns(work: Callable[[], object], best_of: int = 1) -> None:
    """Be a worker of `in_turns`.

    Answers each line of standard input with the seconds that `work` takes, and the end of standard
    input with the peak memory in MiB. Before it is timed, the work is done once, for caches and
    threads that the turns of others left cold.
    """
    for _ in sys.stdin:
        _, *timed = timeit.repeat(work, number=1, repeat=1 + best_of)
        print(min(timed), flush=True)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20)


def in_own_process(command: list[str], environ: Mapping[str, str]) -> Any:
    """Run a module and read the JSON that it prints.

    The number of threads and the CPU capability belong to a process.
    """
    return json.loads(_start_module(command, environ).communicate()[0])


def _start_module(
    command: list[str], environ: Mapping[str, str], stdin: int | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        env={**os.environ, **environ},
        stdin=stdin,
        stdout=subprocess.PIPE,
        text=True,
    )


def _ask_for_a_turn(worker: subprocess.Popen[str]) -> float:
    assert worker.stdout is not None
    print(file=worker.stdin, flush=True)
    return float(worker.stdout.readline())


def ratios(
    rates: Mapping[str, float], peers: Iterable[str], suffix: str = ""
) -> dict[str, float | None]:
    """How many times as fast as each peer tinygpt is; None where the peer was not measured."""
    return {
        f"ratio_vs_{peer}{suffix}": rates["tinygpt"] / rates[peer] if peer in rates else None
        for peer in peers
    }


def threads_of(threads: int | None) -> dict[str, str]:
    """The environment of a process whose libraries use so many threads; None for their default."""
    if threads is None:
        return {}
    return {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def versions(*packages: str) -> dict[str, str | None]:
    """The version of each package; None where it is not installed."""
    found = {}
    for package in packages:
        installed = next(iter(distributions(name=package)), None)
        found[package] = installed.version if installed else None
    return found
