"""What the matrix products of a training step would take alone: the share of the matrix rate that a step cannot exceed.

    python -m tests.benchmarks.bench_products [--rounds N]

The products of the loss and of all Linear layers, forward and backward, in the shapes in which lm/ takes them for 16 sequences of
256 tokens of the reference model, in fp32, each into a buffer at hand. Prints one JSON object: the milliseconds of a step's, and
their FLOP/s as a share of that of the best of five 2048^3 products in the same round; medians.
"""

import argparse
import json
import statistics
import timeit
from collections.abc import Callable

import torch

from tinygpt.bench.train import BATCH, SIDE, VOCAB, matrix_product
from tinygpt.config import ModelConfig
from tinygpt.lm.feed_forward import ROWS
from tinygpt.lm.loss import CHUNK_LOGITS
from tinygpt.lm.precision import prepare_cpu

Product = Callable[[], object]


def linear(rows: int, inputs: int, outputs: int) -> tuple[list[Product], int]:
    """The three products of a Linear layer, (rows, inputs) -> (rows, outputs): its result, both gradients; and their FLOP."""
    x, weight, grad = torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.randn(rows, outputs)
    y, grad_x, grad_weight = torch.empty_like(grad), torch.empty_like(x), torch.empty_like(weight)
    products: list[Product] = [lambda: torch.mm(x, weight.T, out=y), lambda: torch.mm(grad, weight, out=grad_x)]
    return [*products, lambda: torch.mm(grad.T, x, out=grad_weight)], 6 * rows * inputs * outputs


def step() -> list[tuple[int, list[Product], int]]:
    """How often a step takes which products, and their FLOP."""
    shape, tokens = ModelConfig(), BATCH * ModelConfig().context_length
    width, layers, pieces = shape.d_model, shape.n_layers, tokens // ROWS
    rows = CHUNK_LOGITS // VOCAB
    layer = [
        (1, tokens, width, 3 * width),
        (1, tokens, width, width),
        (pieces, ROWS, width, shape.d_ff),
        (pieces, ROWS, shape.d_ff, width),
    ]
    loss = [(tokens // rows, rows, width, VOCAB), (1, tokens % rows, width, VOCAB)]
    return [(times, *linear(*sizes)) for times, *sizes in [*((layers * times, *sizes) for times, *sizes in layer), *loss]]


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    prepare_cpu(None)
    work, large = step(), matrix_product("fp32")
    flop = sum(times * of_group for times, _, of_group in work)
    seconds, shares = [], []
    for _ in range(rounds):
        seconds.append(sum(timeit.timeit(product, number=times) for times, products, _ in work for product in products))
        best = min(timeit.repeat(large, number=1))
        shares.append(flop / seconds[-1] / (2 * SIDE**3 / best))
    print(json.dumps({"step_ms": 1e3 * statistics.median(seconds), "share": statistics.median(shares)}))


if __name__ == "__main__":
    main()
