"""How fast text is generated, beside peers measured in the same run.

    python -m benchmarks.sample [--json] [--threads N] [--rounds N]

Rounds are interleaved (A B C A B C ...) and medians compared, because machines are noisy. The time
to the first token is that of the whole command, from a cold start.
"""

import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.command import Json, Rounds, Threads, condition_rows, rate_rows, run_command
from benchmarks.peers import in_own_process, threads_of
from benchmarks.sample_contenders import CONTENDERS, NEW_TOKENS, SHAPE, TOP_P, VOCAB, random_model
from tinygpt import ui
from tinygpt.config import TokenizerConfig
from tinygpt.hashing import Key, hash_json
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.lm.weights import dump, model_tensors
from tinygpt.store import Artifact, Store

PROMPT = "once upon a time"


def bench_sample(threads: int | None, rounds: int) -> dict[str, Any]:
    """Tokens per second at batch 1 and 32, and the time from a cold start to the first token.

    Args:
        threads: of PyTorch, for the peers; None for its default. Our numpy decoder takes one.
        rounds: how often each contender is measured.
    """
    turns = f"{ui.count(rounds, 'round')} of {len(CONTENDERS)} contenders"
    ui.say_note(f"measuring batch 1 and 32: {turns}")
    command = ["benchmarks.sample_contenders", str(rounds)]
    result: dict[str, Any] = in_own_process(command, threads_of(threads))
    ui.say_note(f"measuring {ui.count(rounds, 'cold start')}")
    result["first_token_ms"] = first_token_ms(rounds)
    return result


def first_token_ms(rounds: int) -> float:
    """Median time from the start of `tinygpt sample` to the first token on its standard output."""
    with tempfile.TemporaryDirectory() as folder:
        model = publish_model(Path(folder))
        command = [
            *(sys.executable, "-m", "tinygpt", "sample", PROMPT, "--top-p", str(TOP_P)),
            *("--store", folder, "--model", model, "--quiet"),
            *("--preset", "reference"),  # so that a tinygpt.toml around here does not matter
        ]
        seconds = [_first_token([*command, "--seed", str(seed)]) for seed in range(rounds)]
    return statistics.median(seconds) * 1000


def _first_token(command: list[str]) -> float:
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        shown = child.stdout.read(len(PROMPT) + 1)  # the prompt is shown first
        seconds = time.perf_counter() - started
        child.communicate()
    if not shown:
        raise RuntimeError("`tinygpt sample` generated nothing")
    return seconds


def publish_model(folder: Path) -> str:
    """Make a store with a random model and a tokenizer of 8,000 entries; the id of the model."""
    chance = random.Random(0)
    texts = []
    for _ in range(20):
        words = ["".join(chance.choices("etaoinshrdlu", k=7)) for _ in range(1_000)]
        texts.append(" ".join(words))
    tokenizer = Tokenizer.train(texts, TokenizerConfig(vocab_size=VOCAB, min_frequency=1))
    assert tokenizer.vocab_size == VOCAB

    store = Store(folder)
    key = Key(hash_json("benchmarks", "sample"))
    out = store.begin("tokenize", key, inputs={})
    out.bytes("tokenizer.json", tokenizer.to_bytes())
    inputs: dict[str, Artifact] = {"tokenize": store.publish(out)}
    out = store.begin("train", key, inputs=inputs)
    out.bytes("tokenizer.json", tokenizer.to_bytes())
    out.bytes("model.safetensors", dump(model_tensors(random_model())))
    shape = {"model": SHAPE.model_dump(), "vocab_size": VOCAB}
    out.json("config.json", {**shape, "precision": "fp32", "step": 1})
    return store.publish(out).id


def main(*, threads: Threads = None, rounds: Rounds = 5, json: Json = False) -> None:
    """Measure how fast text is generated beside Hugging Face generate and a plain loop."""
    result = bench_sample(threads, rounds)
    if json:
        ui.say_json(result)
    for batch in NEW_TOKENS:
        rows = rate_rows(result[f"tokens_per_second_all_batch_{batch}"], CONTENDERS)
        ui.say_note(ui.table(f"batch {batch}", rows))
    cold_start = ("first token", f"{result['first_token_ms']:.0f} ms from a cold start")
    ui.say_note(ui.table("both", [cold_start, *condition_rows(result)]))


if __name__ == "__main__":
    run_command(main)
