"""Pages of small models with random weights."""

import itertools
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from tests.helpers import STORIES
from tinygpt.config import ModelConfig, TokenizerConfig
from tinygpt.html_page import PageModel, packing
from tinygpt.lm.fast.numpy_decoder import NumpyDecoder
from tinygpt.lm.tokenizer import ALPHABET, END_OF_TEXT, Tokenizer
from tinygpt.lm.weights import Array, parameter_shapes

SMALL: dict[str, Any] = {
    "d_model": 24,
    "n_layers": 2,
    "n_heads": 3,
    "d_ff": 50,
    "context_length": 48,
    "dropout": 0.0,
}
VARIANTS = [
    {**SMALL, "norm": norm, "activation": activation, "positions": positions, "tie_embeddings": tie}
    for norm, activation, positions, tie in itertools.product(
        ("pre", "post"), ("gelu", "relu"), ("learned", "sinusoidal", "none"), (True, False)
    )
]


@cache
def tokenizer_of(vocab_size: int) -> Tokenizer:
    """A tokenizer of exactly this many entries."""
    if vocab_size <= 500:
        config = TokenizerConfig(vocab_size=vocab_size, min_frequency=1)
        tokenizer = Tokenizer.train([*STORIES, "naïve café 日本語 🙂🙂 don't"], config)
    else:
        pairs = itertools.islice(itertools.product(ALPHABET, repeat=2), vocab_size - 257)
        merges = list(pairs)
        tokenizer = Tokenizer([END_OF_TEXT, *ALPHABET, *map("".join, merges)], merges)
    assert tokenizer.vocab_size == vocab_size
    return tokenizer


def random_weights(config: ModelConfig, vocab_size: int, seed: int = 0) -> dict[str, Array]:
    """Weights with which no part of the model is without effect."""
    chance = np.random.default_rng(seed)
    weights = {}
    for name, shape in parameter_shapes(config, vocab_size).items():
        values = chance.normal(0, 0.4, shape).astype(np.float32)
        is_scale = "norm" in name and name.endswith("weight")
        weights[name] = values + 1 if is_scale else values
    return weights


def page_model(
    settings: Mapping[str, Any] = SMALL, *, vocab_size: int = 320, **changes: Any
) -> PageModel:
    """A model and what its page says about it.

    Args:
        settings: of [model].
        vocab_size: V.
        changes: fields of PageModel that are not as usual.
    """
    config = ModelConfig(**settings)
    weights = random_weights(config, vocab_size)
    token_ids = [0, 5, 77, 200, 3]
    dtype = changes.get("dtype", "f32")
    logits = NumpyDecoder(config, vocab_size, weights).prefill([token_ids])
    rounded = packing.rounded(weights, dtype)
    found = NumpyDecoder(config, vocab_size, rounded).prefill([token_ids])
    model = PageModel(
        id="0123456789ab",
        config=config,
        weights=weights,
        step=300,
        max_steps=300,
        which="last",
        dtype="f32",
        tokenizer=tokenizer_of(vocab_size).to_bytes(),
        probe=(token_ids, logits),
        bound=1e-3 + float(np.abs(found - logits).max()),
        snapshots={},
        ablation=None,
    )
    return model._replace(**changes)


def decoder_of(model: PageModel, max_sequences: int = 1) -> NumpyDecoder:
    """The model as tinygpt runs it."""
    vocab_size = len(model.weights["token_embedding.weight"])
    return NumpyDecoder(model.config, vocab_size, model.weights, max_sequences=max_sequences)
