"""Models with random weights, as if they had been trained, to be exported."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.helpers import publish
from tests.html_page.examples import random_weights, tokenizer_of
from tinygpt.config import ModelConfig, TrainConfig
from tinygpt.errors import TinygptError
from tinygpt.exports.model import ModelToExport, open_model
from tinygpt.lm import probe as probes
from tinygpt.lm.weights import Array, dump
from tinygpt.store import Store

SHAPE: dict[str, Any] = {
    "d_model": 64,
    "n_layers": 2,
    "n_heads": 4,
    "d_ff": 96,
    "context_length": 48,
    "dropout": 0.0,
}
V = 320

Change = Callable[[dict[str, Array]], None]


def model_with(
    folder: Path, change: Change = lambda weights: None, vocab_size: int = V, **settings: Any
) -> ModelToExport:
    """A model with random weights.

    Args:
        folder: where its store goes.
        change: what becomes of the weights before they are stored.
        settings: of [model], besides those of SHAPE.
    """
    config = ModelConfig(**{**SHAPE, **settings})
    weights = {name: array / 4 for name, array in random_weights(config, vocab_size).items()}
    change(weights)
    text = probes.random_text(vocab_size, config.context_length, 0, 1)
    try:
        probe = probes.measure(config, vocab_size, weights, text)
    except TinygptError:  # weights that are not finite
        probe = probes.Probe(text.token_ids, np.zeros((3, vocab_size), np.float32), 1.0)
    config_json = {
        "model": config.model_dump(mode="json"),
        "train": TrainConfig().model_dump(mode="json"),
        "vocab_size": vocab_size,
        "step": 7,
        "precision": "fp32",
    }
    files = {
        "config.json": json.dumps(config_json).encode(),
        "tokenizer.json": tokenizer_of(vocab_size).to_bytes(),
        "model.safetensors": dump({k: torch.from_numpy(array) for k, array in weights.items()}),
        "probe.safetensors": probes.to_bytes({"last": probe}),
    }
    return open_model(publish(Store(folder / "artifacts"), "train", files), "last")
