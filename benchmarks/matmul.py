"""How fast a training step could be if it were its matrix products alone.

    python -m benchmarks.matmul [--json] [--threads N] [--rounds N]

It gives the share of the machine's matrix rate that a step cannot exceed. It measures the products
of the loss and of all Linear layers, forward and backward, in the shapes that lm/ uses for 16
sequences of 256 tokens of the reference model, in fp32, each into memory allocated before. The
result, as medians over the rounds:

    step_ms  milliseconds that the products of a step take
    share    their FLOP/s as a share of those of the best of five 2048^3 products in the same round
"""

import statistics
import timeit
from collections.abc import Callable
from typing import NamedTuple

import torch

from benchmarks.command import Json, Rounds, Threads, run_command
from benchmarks.train_contenders import BATCH, SIDE, VOCAB, matrix_product
from tinygpt import ui
from tinygpt.config import ModelConfig
from tinygpt.lm.fast.cross_entropy import CHUNK_LOGITS
from tinygpt.lm.fast.feed_forward import ROWS
from tinygpt.lm.fast.precision import prepare_cpu


class LinearProducts(NamedTuple):
    """The three products of a Linear layer: its result and its two gradients.

    Args:
        times: how often a step takes them.
        products: functions that compute them.
        flop: of the three together, once.
    """

    times: int
    products: list[Callable[[], object]]
    flop: int


def linear_products(times: int, rows: int, inputs: int, outputs: int) -> LinearProducts:
    """The products of a Linear layer, (rows, inputs) -> (rows, outputs)."""
    x = torch.randn(rows, inputs)
    weight = torch.randn(outputs, inputs)
    grad = torch.randn(rows, outputs)
    y = torch.empty_like(grad)
    grad_x = torch.empty_like(x)
    grad_weight = torch.empty_like(weight)
    products: list[Callable[[], object]] = [
        lambda: torch.mm(x, weight.T, out=y),
        lambda: torch.mm(grad, weight, out=grad_x),
        lambda: torch.mm(grad.T, x, out=grad_weight),
    ]
    return LinearProducts(times, products, flop=6 * rows * inputs * outputs)


def step_products() -> list[LinearProducts]:
    """All products of a training step."""
    shape = ModelConfig()
    tokens = BATCH * shape.context_length
    width = shape.d_model
    layers = shape.n_layers
    feed_forward_parts = layers * (tokens // ROWS)
    loss_rows = CHUNK_LOGITS // VOCAB
    return [
        linear_products(layers, tokens, width, 3 * width),
        linear_products(layers, tokens, width, width),
        linear_products(feed_forward_parts, ROWS, width, shape.d_ff),
        linear_products(feed_forward_parts, ROWS, shape.d_ff, width),
        linear_products(tokens // loss_rows, loss_rows, width, VOCAB),
        linear_products(1, tokens % loss_rows, width, VOCAB),
    ]


def bench_matmul(threads: int | None, rounds: int) -> dict[str, float]:
    """Milliseconds of a step's products, and their share of the matrix rate.

    Args:
        threads: of PyTorch; None for its default.
        rounds: how often all are measured.
    """
    prepare_cpu(threads)
    groups = step_products()
    step_flop = sum(group.times * group.flop for group in groups)
    large_product = matrix_product("fp32")
    seconds = []
    shares = []
    for _ in range(rounds):
        taken = 0.0
        for group in groups:
            for product in group.products:
                taken += timeit.timeit(product, number=group.times)
        best = min(timeit.repeat(large_product, number=1))
        seconds.append(taken)
        shares.append((step_flop / taken) / (2 * SIDE**3 / best))
    return {"step_ms": 1e3 * statistics.median(seconds), "share": statistics.median(shares)}


def main(*, threads: Threads = None, rounds: Rounds = 9, json: Json = False) -> None:
    """Measure the matrix products of a training step alone."""
    result = bench_matmul(threads, rounds)
    if json:
        ui.say_json(result)
    rows = [
        ("products", f"{result['step_ms']:.1f} ms"),
        ("share", f"{result['share']:.2f} of the fp32 matrix rate"),
    ]
    ui.say_note(ui.table("a training step", rows))


if __name__ == "__main__":
    run_command(main)
