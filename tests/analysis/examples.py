"""A small model and a training run, as examples for analyses, pictures and the report."""

import math
from typing import Literal

import numpy as np
import torch

from tinygpt.analysis.curves import Curves
from tinygpt.config import ModelConfig
from tinygpt.lm.init import init_weights
from tinygpt.lm.model import GPT
from tinygpt.records import MetricsRow

V = 40
CONTEXT = 12
TOKENS = np.random.default_rng(0).integers(0, V, 60).astype(np.uint16)


def small_model(
    *, layers: int = 2, heads: int = 2, norm: Literal["pre", "post"] = "pre", tied: bool = True
) -> GPT:
    """A model with heads of width 8 that attend unevenly, so that there is something to measure."""
    config = ModelConfig(
        d_model=8 * heads,
        n_layers=layers,
        n_heads=heads,
        d_ff=16,
        context_length=CONTEXT,
        norm=norm,
        tie_embeddings=tied,
        dropout=0.1,
    )
    model = init_weights(GPT(config, V), 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10)  # untrained heads attend to all tokens alike
    return model


def training_curves(steps: int, sample: str = "Once") -> Curves:
    """A run of 64 tokens a step that is evaluated at steps 1, 10, 100 and the last."""
    rows: list[MetricsRow] = []
    for step in range(1, steps + 1):
        tokens = 64 * step
        loss = 2 + 3 / step**0.5
        rows.append(
            {
                "kind": "step",
                "step": step,
                "tokens": tokens,
                "loss": loss,
                "learning_rate": 1e-3,
                "grad_norm": 1 / step,
                "chain": "0" * 16,
            }
        )
        if step in (1, 10, 100, steps):
            rows.append(
                {
                    "kind": "eval",
                    "step": step,
                    "tokens": tokens,
                    "val_loss": loss + 0.1,
                    "val_perplexity": math.exp(loss + 0.1),
                    "best": True,
                    "sample": f"{sample} after {step} steps",
                }
            )
    return Curves.from_rows(rows)
