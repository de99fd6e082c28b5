"""Small models that the tests of lm/ share."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from tinygpt.config import ModelConfig
from tinygpt.lm.init import init_weights
from tinygpt.lm.model import GPT
from tinygpt.lm.weights import Array, dump, model_tensors, read_arrays

V = 50
SMALL: Any = {"d_model": 24, "n_layers": 2, "n_heads": 3, "d_ff": 40, "context_length": 24}
CHOICES = {
    "norm": ("pre", "post"),
    "activation": ("gelu", "relu"),
    "positions": ("learned", "sinusoidal", "none"),
    "tie_embeddings": (True, False),
}


def _variants() -> dict[str, ModelConfig]:
    variants = {}
    for values in itertools.product(*CHOICES.values()):
        chosen = dict(zip(CHOICES, values, strict=True))
        variants["-".join(map(str, values))] = ModelConfig(**SMALL, **chosen)
    return variants


VARIANTS = list(_variants().values())
each_variant = pytest.mark.parametrize("config", VARIANTS, ids=list(_variants()))
"""Runs a test for every combination of the choices that a model's configuration has."""


def random_model(config: ModelConfig, seed: int = 0, vocab_size: int = V) -> GPT:
    """A model with no parameter at its initial value, so that each one matters."""
    model = init_weights(GPT(config, vocab_size), seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.empty(parameter.shape).normal_(0, 0.3, generator=generator))
    return model


def random_token_ids(sequences: int, length: int, seed: int = 1) -> torch.Tensor:
    """Token ids below V, (sequences, length)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, V, (sequences, length), generator=generator)


def arrays_of(model: GPT) -> dict[str, Array]:
    """The weights as a decoder gets them: from the bytes of a file."""
    return read_arrays(dump(model_tensors(model)))


def assert_logits_close(found: Array, expected: Array) -> None:
    """Equal up to the rounding of fp32."""
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-4, rtol=2e-4)
