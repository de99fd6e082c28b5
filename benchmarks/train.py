"""How fast training is, beside peers measured in the same run.

    python -m benchmarks.train [--json] [--threads N] [--rounds N]

Every contender trains the reference model on random tokens, 16 sequences of 256, with AdamW. Steps
are interleaved (A B C A B C ...) and medians compared, because machines are noisy. Each contender
has a process of its own, so that its memory is its own, and how it is managed.
"""

from collections.abc import Mapping
from typing import Any

from benchmarks.command import Json, Rounds, Threads, condition_rows, rate_rows, run_command
from benchmarks.peers import in_own_process, in_turns, ratios, threads_of
from benchmarks.train_contenders import (
    BATCH,
    BLOCKS,
    CONTENDERS,
    PEERS,
    SIDE,
    VOCAB,
    Block,
    measurable,
)
from tinygpt import ui
from tinygpt.analysis.costs import costs
from tinygpt.config import ModelConfig, TrainConfig

WORKER = "benchmarks.train_contenders"


def bench_train(threads: int | None, rounds: int) -> dict[str, Any]:
    """All blocks; the keys of the first stand at the top level, the others under their names.

    Args:
        threads: of every contender; None for the default of its libraries.
        rounds: timed steps of each contender.
    """
    result: dict[str, Any] = {}
    for name, block in BLOCKS.items():
        measured = measure(name, block, threads, rounds)
        if name:
            result[name] = measured
        else:
            result.update(measured)
    return result


def measure(name: str, block: Block, threads: int | None, rounds: int) -> dict[str, Any]:
    """Speed, share of the matrix rate and memory of every contender in one block."""
    contenders = [contender for contender in CONTENDERS if measurable(contender, block)]
    title = name or "dropout 0"
    turns = f"{ui.count(rounds, 'round')} of {len(contenders)} contenders"
    ui.say_note(f"measuring {title}: {turns}")
    environ = threads_of(threads)
    if block.avx2:
        environ["ATEN_CPU_CAPABILITY"] = "avx2"
    commands = {worker: [WORKER, name, worker] for worker in (*contenders, "matrix")}
    seconds, peaks = in_turns(commands, rounds, environ)
    machine = in_own_process([WORKER, name, "machine"], environ)

    matrix_flops_per_second = 2 * SIDE**3 / seconds.pop("matrix")
    del peaks["matrix"]
    tokens = BATCH * ModelConfig().context_length
    rates = {contender: tokens / taken for contender, taken in seconds.items()}
    flops_per_token = costs(ModelConfig(), TrainConfig(), VOCAB).flops_per_token
    peer = f"hf_{machine['precision']}"
    return {
        "tokens_per_second": rates["tinygpt"],
        "tokens_per_second_all": rates,
        **ratios(rates, PEERS),
        "matrix_rate_share": flops_per_token * rates["tinygpt"] / matrix_flops_per_second,
        "peak_rss_ratio_vs_hf": peaks["tinygpt"] / peaks[peer] if peer in peaks else None,
        "peak_rss_mib": peaks,
        **machine,
    }


def block_table(title: str, block: Mapping[str, Any]) -> str:
    """What was measured in one block, for people."""
    memory = [f"{name} {mib:,.0f} MiB" for name, mib in block["peak_rss_mib"].items()]
    share = f"{block['matrix_rate_share']:.2f} of the {block['precision']} matrix rate"
    rows = [
        *rate_rows(block["tokens_per_second_all"], CONTENDERS),
        ("share", share),
        ("peak memory", ", ".join(memory)),
        *condition_rows(block, block["cpu_capability"]),
    ]
    return ui.table(title, rows)


def main(*, threads: Threads = None, rounds: Rounds = 7, json: Json = False) -> None:
    """Measure training speed beside Hugging Face and a textbook loop."""
    result = bench_train(threads, rounds)
    if json:
        ui.say_json(result)
    for name in BLOCKS:
        block = result[name] if name else result
        ui.say_note(block_table(name or "dropout 0", block))


if __name__ == "__main__":
    run_command(main)
