"""The forward pass of lm/model.py in numpy, with a KV cache.

It does not need torch, which alone takes seconds to import, and gives the logits of GPT.forward up
to rounding. Classes mirror those of lm/model.py, in the same order. Shapes: B sequences, T new
positions, S positions with those read before; C, H, D, V as in lm/model.py.
"""

import ctypes
import math
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module

import numpy as np

from tinygpt.config import ModelConfig
from tinygpt.lm.sampling import Decoder
from tinygpt.lm.weights import Array, parameter_shapes, require

Weights = Mapping[str, Array]


def _constant(value: float) -> Array:
    """A number as an array; numpy would convert a Python number at every use."""
    return np.array(value, np.float32)


_EPSILON = _constant(1e-5)
_ONE = _constant(1)
_HALF = _constant(0.5)
_GELU_LINEAR = _constant(math.sqrt(2 / math.pi))
_GELU_CUBIC = _constant(0.044715 * math.sqrt(2 / math.pi))


class _CausalSelfAttention:
    """CausalSelfAttention of lm/model.py."""

    def __init__(self, config: ModelConfig, weights: Weights, name: str) -> None:
        self.qkv, self.qkv_bias = _linear(weights, f"{name}.qkv")
        scale = 1 / math.sqrt(config.d_model // config.n_heads)  # of scores, applied once, here
        self.qkv[:, : config.d_model] *= scale
        self.qkv_bias[:, : config.d_model] *= scale
        self.out, self.out_bias = _linear(weights, f"{name}.out", centered=config.norm == "pre")

    def __call__(self, x: Array, keys: Array, values: Array, old: int) -> Array:
        """Mix each new position with those before it, (B*T, C) -> (B*T, C); see _Block."""
        B, H, S, D = values.shape
        T = S - old
        qkv = x.dot(self.qkv) + self.qkv_bias
        q, k, v = qkv.reshape(B, T, 3, H, D).transpose(2, 0, 3, 1, 4)  # each (B, H, T, D)
        keys[:, :, :, old:] = k.swapaxes(2, 3)
        values[:, :, old:] = v
        weights = q @ keys  # scores, then their exponentials, (B, H, T, S)
        if T > 1:  # a single new position is the last one: it sees everything
            weights += np.triu(np.full((T, S), -np.inf, np.float32), old + 1)
        weights -= np.maximum.reduce(weights, axis=3, keepdims=True)
        np.exp(weights, out=weights)
        y = weights @ values  # (B, H, T, D)
        y /= np.add.reduce(weights, axis=3, keepdims=True)
        y = y.swapaxes(1, 2).reshape(B * T, H * D)
        return y.dot(self.out) + self.out_bias  # type: ignore[no-any-return]


class _MLP:
    """MLP of lm/model.py."""

    def __init__(self, config: ModelConfig, weights: Weights, name: str) -> None:
        self.activation = config.activation
        self.up, self.up_bias = _linear(weights, f"{name}.up")
        self.down, self.down_bias = _linear(weights, f"{name}.down", centered=config.norm == "pre")

    def __call__(self, x: Array) -> Array:
        """Transform each position by itself, (B*T, C) -> (B*T, C)."""
        x = x.dot(self.up) + self.up_bias
        x = _gelu(x) if self.activation == "gelu" else np.maximum(x, 0)
        return x.dot(self.down) + self.down_bias  # type: ignore[no-any-return]


class _Block:
    """Block of lm/model.py."""

    def __init__(self, config: ModelConfig, weights: Weights, name: str) -> None:
        self.pre_norm = config.norm == "pre"
        self.norm_1 = _LayerNorm(weights, f"{name}.norm_1", centers=not self.pre_norm)
        self.attention = _CausalSelfAttention(config, weights, f"{name}.attention")
        self.norm_2 = _LayerNorm(weights, f"{name}.norm_2", centers=not self.pre_norm)
        self.mlp = _MLP(config, weights, f"{name}.mlp")

    def __call__(self, x: Array, keys: Array, values: Array, old: int) -> Array:
        """(B*T, C) -> (B*T, C).

        Args:
            x: activations of the new positions.
            keys: (B, H, D, S); those of the new positions are written after the `old` ones.
            values: (B, H, S, D), likewise.
            old: number of positions read before.
        """
        if self.pre_norm:
            x = x + self.attention(self.norm_1(x), keys, values, old)
            x = x + self.mlp(self.norm_2(x))
        else:
            x = self.norm_1(x + self.attention(x, keys, values, old))
            x = self.norm_2(x + self.mlp(x))
        return x


class NumpyDecoder(Decoder):
    """GPT of lm/model.py as a decoder that starts without importing torch.

    Args:
        config: the model's shape.
        vocab_size: V.
        weights: its parameters by the names of lm/model.py; tied ones once.
        max_sequences: the most sequences read side by side, B.
    Raises:
        CorruptArtifactError: names, shapes or values of the weights do not fit the configuration.
    """

    name = "numpy"

    def __init__(
        self, config: ModelConfig, vocab_size: int, weights: Weights, *, max_sequences: int = 1
    ) -> None:
        require(parameter_shapes(config, vocab_size), weights)
        _use_one_blas_thread()
        self.token_embedding = weights["token_embedding.weight"]
        self.lm_head = weights.get("lm_head.weight", self.token_embedding).T  # (C, V)
        self.positions = _positions(config, weights)
        self.norm: _LayerNorm | None = None
        if config.norm == "pre":
            self.token_embedding = _centered(self.token_embedding)
            self.positions = _centered(self.positions)
            self.norm = _LayerNorm(weights, "norm", centers=False)
        self.blocks = [_Block(config, weights, f"blocks.{i}") for i in range(config.n_layers)]
        L, H, S = config.n_layers, config.n_heads, config.context_length
        D = config.d_model // H
        # Keys are stored transposed, so that both products of attention run along contiguous
        # memory. Their rows are 16 longer than necessary: a power of two apart, they would share a
        # few lines of the CPU's cache, and writing a position of each would take twice as long.
        keys = np.empty((L, max_sequences, H, D, S + 16), np.float32)
        values = np.empty((L, max_sequences, H, S, D), np.float32)
        super().__init__(S, keys, values)

    def _forward(self, token_ids: Array) -> Array:
        B, T = token_ids.shape
        old = self.length
        S = old + T
        x = self.token_embedding[token_ids]  # (B, T, C)
        x += self.positions[old:S]
        x = x.reshape(B * T, -1)
        for block, keys, values in zip(self.blocks, self.keys, self.values, strict=True):
            x = block(x, keys[:B, :, :, :S], values[:B, :, :S], old)
        x = x.reshape(B, T, -1)[:, -1]  # (B, C)
        if self.norm is not None:
            x = self.norm(x)
        return x.dot(self.lm_head)  # type: ignore[no-any-return]


class _LayerNorm:
    """LayerNorm (Ba et al. 2016) of the rows of a matrix.

    Args:
        weights: of the model.
        name: prefix of the names of its weight and bias, e.g., "blocks.0.norm_1".
        centers: subtract the mean. With norm "pre" everything read from the residual stream goes
            through a LayerNorm, which ignores the mean. The weights that write to the stream are
            therefore `_centered` once, and no mean is left to subtract at each step.
    """

    def __init__(self, weights: Weights, name: str, *, centers: bool) -> None:
        self.weight = weights[f"{name}.weight"][None]  # (1, C)
        self.bias = weights[f"{name}.bias"][None]  # (1, C)
        self.centers = centers
        # x.dot(mean) takes an eighth of the time of x.mean()
        self.mean = np.full(self.weight.T.shape, 1 / self.weight.size, np.float32)  # (C, 1)

    def __call__(self, x: Array) -> Array:
        if self.centers:
            x = x - x.dot(self.mean)
        scale = self.weight / np.sqrt((x * x).dot(self.mean) + _EPSILON)
        return x * scale + self.bias  # type: ignore[no-any-return]


def _gelu(x: Array) -> Array:
    """GELU in its tanh form: x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    y = x * x
    y *= _GELU_CUBIC
    y += _GELU_LINEAR
    y *= x
    np.tanh(y, out=y)
    y += _ONE
    y *= x
    y *= _HALF
    return y


def _centered(rows: Array) -> Array:
    """A copy with mean 0 along the last axis."""
    return rows - rows.mean(axis=-1, keepdims=True)  # type: ignore[no-any-return]


def _linear(weights: Weights, name: str, *, centered: bool = False) -> tuple[Array, Array]:
    """Weight (inputs, outputs) and bias (1, outputs) of a Linear, copied.

    Rows of x times contiguous columns is the faster product.
    """
    weight = weights[f"{name}.weight"].T.copy(order="C")
    bias = weights[f"{name}.bias"][None].copy()
    return (_centered(weight), _centered(bias)) if centered else (weight, bias)


def _positions(config: ModelConfig, weights: Weights) -> Array:
    """Position embeddings, (context_length, C); zeros, (context_length, 1), if there are none."""
    if config.positions == "sinusoidal":  # Vaswani et al. 2017, §3.5
        exponents = np.arange(0, config.d_model, 2, dtype=np.float32)
        rates = np.exp(exponents * np.float32(-math.log(10_000) / config.d_model))
        angles = np.arange(config.context_length, dtype=np.float32)[:, None] * rates
        waves = np.stack((np.sin(angles), np.cos(angles)), axis=2)
        return waves.reshape(config.context_length, -1)
    none = np.zeros((config.context_length, 1), np.float32)
    return weights.get("position_embedding.weight", none)


def _use_one_blas_thread() -> None:
    """Make numpy's own OpenBLAS compute in the calling thread; other BLAS libraries are left alone.

    The products are too small to share: a second thread gains nothing, and where the cores are busy
    it waits for them, spinning, for milliseconds. It also makes generated text independent of the
    number of cores.
    """
    # Fails in numpy 1.26, in builds that have no library of that name, and with other BLASes
    with suppress(ImportError, OSError, AttributeError):
        library = ctypes.CDLL(import_module("numpy._core._multiarray_umath").__file__)
        library.scipy_openblas_set_num_threads64_(1)
