"""GPT-2 as other programs have it: its configuration, its tensors, and what it computes.

Exports are checked with `last_logits`, which shares no code with lm/: it reads the configuration
and the tensors of transformers (Radford et al. 2019; `modeling_gpt2.py`). T time, C n_embd,
H n_head, D = C / H, V vocab_size, P positions that are compared.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tinygpt.errors import ConfigError, CorruptArtifactError, DivergedError
from tinygpt.exports.gpt2_layout import to_gpt2
from tinygpt.exports.model import ModelToExport
from tinygpt.lm.probe import Probe, measure
from tinygpt.lm.weights import Array, parameter_shapes, require
from tinygpt.runs.trained_weights import TrainedWeights

Tensors = Callable[[str], Array]
"""A tensor by its name in transformers, float32."""

LAYER_NORM_EPSILON = 1e-5  # of nn.LayerNorm, which lm/model.py uses as it is


def require_gpt2(model: ModelToExport, kind: str) -> ModelToExport:
    """The model as GPT-2, its weights checked, its probe with logits.

    A model without position embeddings gets some that are zero; one from before there were probes
    gets that of lm/model.py as it is now.

    Args:
        kind: name of the format, for the message.
    Raises:
        ConfigError: GPT-2 cannot express the model; with the key to change.
        CorruptArtifactError: a weight is not finite or not of this model, or logits are not finite.
    """
    config = model.config
    for key, value, needed in (
        ("norm", config.norm, "pre"),
        ("activation", config.activation, "gelu"),
        ("positions", config.positions, "learned"),
    ):
        if value not in (needed, "none"):
            raise ConfigError(
                f"{kind} is written as GPT-2, which cannot express `model.{key}` = {value}",
                hint=f"train a model with `--set model.{key}={needed}`",
            )
    weights = model.weights
    require(parameter_shapes(config, model.vocab_size), weights.arrays)
    if weights.probe.logits is None:
        weights = replace(weights, probe=_measured(weights))
    if config.positions == "none":
        learned = config.model_copy(update={"positions": "learned"})
        zeros = np.zeros((config.context_length, config.d_model), np.float32)
        arrays = {**weights.arrays, "position_embedding.weight": zeros}
        weights = replace(weights, config=learned, arrays=arrays)
    return replace(model, weights=weights)


def _measured(weights: TrainedWeights) -> Probe:
    try:
        return measure(weights.config, weights.vocab_size, weights.arrays, weights.probe)
    except DivergedError as error:
        raise CorruptArtifactError(error.message, hint=error.hint) from error


def model_config(model: ModelToExport) -> dict[str, Any]:
    """The shape of a model by the keys of transformers, enough for `last_logits`."""
    config = model.config
    return {
        "vocab_size": model.vocab_size,
        "n_positions": config.context_length,
        "n_ctx": config.context_length,
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_inner": config.d_ff,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": LAYER_NORM_EPSILON,
        "tie_word_embeddings": config.tie_embeddings,
    }


def gpt2_logits(model: ModelToExport, arrays: Mapping[str, Array]) -> Array:
    """What GPT-2 computes for the text of a model's probe, (P, V).

    Args:
        arrays: parameters by the names of lm/model.py.
    """
    probe = model.weights.probe
    tensors = to_gpt2(arrays)
    return last_logits(model_config(model), tensors.__getitem__, probe.token_ids, probe.positions)


@np.errstate(over="ignore", invalid="ignore")  # of weights that were written wrongly
def last_logits(
    config: Mapping[str, Any], tensors: Tensors, token_ids: Sequence[int], positions: int
) -> Array:
    """The logits after the last positions of a text, (positions, V).

    Args:
        config: the content of a config.json.
        tensors: reads the weights.
        token_ids: the text, at most n_positions tokens.
        positions: how many of the last.
    """
    if config["activation_function"] != "gelu_new":
        raise ValueError(f"the activation is {config['activation_function']}")
    epsilon = config["layer_norm_epsilon"]
    embedding = tensors("transformer.wte.weight")
    x = embedding[list(token_ids)] + tensors("transformer.wpe.weight")[: len(token_ids)]  # (T, C)
    for layer in range(config["n_layer"]):
        name = f"transformer.h.{layer}"
        normed = _layer_norm(x, tensors, f"{name}.ln_1", epsilon)
        x = x + _attention(normed, tensors, f"{name}.attn", config["n_head"])
        normed = _layer_norm(x, tensors, f"{name}.ln_2", epsilon)
        hidden = _gelu(_linear(normed, tensors, f"{name}.mlp.c_fc"))
        x = x + _linear(hidden, tensors, f"{name}.mlp.c_proj")
    normed = _layer_norm(x[-positions:], tensors, "transformer.ln_f", epsilon)
    head = embedding if config["tie_word_embeddings"] else tensors("lm_head.weight")
    logits: Array = normed @ head.T
    return logits


def _attention(x: Array, tensors: Tensors, name: str, heads: int) -> Array:
    """Causal self-attention, (T, C) -> (T, C)."""
    T, C = x.shape
    qkv = _linear(x, tensors, f"{name}.c_attn")  # (T, 3C): q, k and v, in each one head by another
    q, k, v = qkv.reshape(T, 3, heads, C // heads).transpose(1, 2, 0, 3)  # each (H, T, D)
    scores = q @ k.transpose(0, 2, 1) / np.float32(math.sqrt(C // heads))  # (H, T, T)
    scores += np.triu(np.full((T, T), -np.inf, np.float32), 1)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    mixed = (weights @ v).transpose(1, 0, 2).reshape(T, C)
    return _linear(mixed, tensors, f"{name}.c_proj")


def _linear(x: Array, tensors: Tensors, name: str) -> Array:
    y: Array = x @ tensors(f"{name}.weight") + tensors(f"{name}.bias")
    return y


def _layer_norm(x: Array, tensors: Tensors, name: str, epsilon: float) -> Array:
    centered = x - x.mean(axis=-1, keepdims=True)
    variance = (centered * centered).mean(axis=-1, keepdims=True)
    normed = centered / np.sqrt(variance + np.float32(epsilon))
    y: Array = normed * tensors(f"{name}.weight") + tensors(f"{name}.bias")
    return y


def _gelu(x: Array) -> Array:
    """GELU in its tanh form (Hendrycks & Gimpel 2016)."""
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
    y: Array = np.float32(0.5) * x * (1 + np.tanh(inner))
    return y
