"""Reading on, one position at a time, with the keys and values of the past kept; and the forward pass of lm/model.py in numpy.

That needs no torch, which alone takes seconds to import, and gives the logits of GPT.forward up to rounding.
Shapes: B sequences, T new positions, S positions read so far, new ones included; C, H, D, V as in lm/model.py.
"""

import ctypes
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

import numpy as np

from tinygpt.config import ModelConfig
from tinygpt.lm.weights import Array, model_of, require

Weights = Mapping[str, Array]

# Arrays, because a Python number is converted anew each time it meets one
_EPSILON, _ONE, _HALF = (np.array(value, np.float32) for value in (1e-5, 1, 0.5))
_LINEAR, _CUBIC = (np.array(value * math.sqrt(2 / math.pi), np.float32) for value in (1, 0.044715))  # of GELU
PREFILL = 256  # positions read at once: bounds the (T, S) scores of a long prompt
LARGE = 10**8  # weights times sequences: from here on PyTorch's import is a small part of the wait, and all cores can help


class Decoder:
    """Reads token ids and says what comes next; remembers what it has read.

    Args:
        context_length: the most positions it can read.
        keys, values: where it remembers them; axis 1 are the sequences, B.
    """

    name = "numpy"

    def __init__(self, context_length: int, keys: Any, values: Any) -> None:
        self.context_length, self.keys, self.values = context_length, keys, values
        self.length = 0  # S

    def start(self, token_ids: Sequence[Sequence[int]]) -> Array:
        """Forget everything, then read (B, T) token ids.

        Returns:
            Logits of the token after the last, (B, V).
        Raises:
            ValueError: T is 0 or exceeds context_length, or B exceeds what there is room for.
        """
        ids, self.length, most = np.asarray(token_ids), 0, self.keys.shape[1]
        if not ids.size or len(ids) > most:
            raise ValueError(f"cannot read {len(ids)} sequences; at least one token and at most {most} sequences")
        for first in range(0, ids.shape[1], PREFILL):
            logits = self.read(ids[:, first : first + PREFILL])
        return logits

    def read(self, token_ids: Array) -> Array:
        """Read (B, T) more token ids.

        Returns:
            Logits of the token after the last, (B, V).
        Raises:
            ValueError: more than context_length positions.
        """
        if (S := self.length + token_ids.shape[1]) > self.context_length:
            raise ValueError(f"{S} tokens exceed the context of {self.context_length}")
        logits = self._read(token_ids)
        self.length = S
        return logits

    def _read(self, token_ids: Array) -> Array:
        raise NotImplementedError

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these of the sequences, in this order; a row named twice is copied."""
        if moved := [new for new, old in enumerate(rows) if new != old]:
            for remembered in (self.keys, self.values):
                remembered[:, moved] = remembered[:, [rows[new] for new in moved]]


class NumpyDecoder(Decoder):
    """The one that starts at once.

    Args:
        config: the model's shape.
        vocab_size: V.
        weights: its parameters by the names of lm/model.py; tied ones once.
        max_sequences: the most sequences read side by side, B.
    Raises:
        CorruptArtifactError: names, shapes or values of the weights do not fit the configuration.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, weights: Weights, *, max_sequences: int = 1) -> None:
        require(dict(_shapes(config, vocab_size)), weights)
        _one_blas_thread()
        self.embedding = weights["token_embedding.weight"]
        self.unembedding = weights.get("unembed.weight", self.embedding).T  # (C, V)
        self.positions = _positions(config, weights)
        if config.norm == "pre":
            self.embedding = _centred(self.embedding)
            self.positions = _centred(self.positions)
        self.layers = [_Layer(config, weights, f"blocks.{i}") for i in range(config.n_layers)]
        self.norm = _Norm(weights, "norm", centres=False) if config.norm == "pre" else None
        L, H, S, D = config.n_layers, config.n_heads, config.context_length, config.d_model // config.n_heads
        # Keys lie transposed, so that both products of attention run along contiguous memory. Their rows are 16 longer than need
        # be: a power of two apart they would share a few lines of the cache, and to write a position of each would take double
        shapes = (L, max_sequences, H, D, S + 16), (L, max_sequences, H, S, D)
        super().__init__(S, *(np.empty(shape, np.float32) for shape in shapes))

    def _read(self, token_ids: Array) -> Array:
        (B, T), old = token_ids.shape, self.length
        x = self.embedding[token_ids]  # (B, T, C)
        x += self.positions[old : old + T]
        x = x.reshape(B * T, -1)
        for layer, keys, values in zip(self.layers, self.keys, self.values, strict=True):
            x = layer(x, keys[:B, :, :, : old + T], values[:B, :, : old + T], old)
        last = x.reshape(B, T, -1)[:, -1]
        return (last if self.norm is None else self.norm(last)).dot(self.unembedding)  # type: ignore[no-any-return]


def decoder_for(shape: ModelConfig, vocab_size: int, weights: Weights, device: str, max_sequences: int = 1) -> Decoder:
    """The decoder for `runtime.device`: numpy's for a CPU, PyTorch's for a GPU; for "auto" that only where much is to be done.

    Args and errors: see NumpyDecoder.
    """
    size = sum(array.size for array in weights.values())
    if device == "cpu" or (device == "auto" and size * max_sequences < LARGE):
        return NumpyDecoder(shape, vocab_size, weights, max_sequences=max_sequences)
    from tinygpt.lm.precision import choose_device
    from tinygpt.lm.torch_decoder import TorchDecoder

    return TorchDecoder(model_of(shape, vocab_size, weights).to(choose_device(device)), max_sequences=max_sequences)


class _Layer:
    """One transformer block: Block of lm/model.py."""

    def __init__(self, config: ModelConfig, weights: Weights, name: str) -> None:
        self.pre_norm, self.gelu = config.norm == "pre", config.activation == "gelu"
        self.norm_1, self.norm_2 = (_Norm(weights, f"{name}.norm_{i}", centres=not self.pre_norm) for i in (1, 2))
        self.qkv, self.qkv_bias = _linear(weights, f"{name}.attention.qkv")
        for array in (self.qkv, self.qkv_bias):  # the scale of the scores, applied to the queries once and for all
            array[:, : config.d_model] *= 1 / math.sqrt(config.d_model // config.n_heads)
        self.out, self.out_bias = _linear(weights, f"{name}.attention.out", centred=self.pre_norm)
        self.up, self.up_bias = _linear(weights, f"{name}.mlp.up")
        self.down, self.down_bias = _linear(weights, f"{name}.mlp.down", centred=self.pre_norm)

    def __call__(self, x: Array, keys: Array, values: Array, old: int) -> Array:
        """(B*T, C) -> (B*T, C).

        Args:
            x: activations of the new positions.
            keys: (B, H, D, S); the new ones are written behind the `old` ones.
            values: (B, H, S, D), likewise.
            old: positions read before.
        """
        if self.pre_norm:
            x = x + self.attention(self.norm_1(x), keys, values, old)
            return x + self.mlp(self.norm_2(x))
        x = self.norm_1(x + self.attention(x, keys, values, old))
        return self.norm_2(x + self.mlp(x))

    def attention(self, x: Array, keys: Array, values: Array, old: int) -> Array:
        """Mix each new position with all before it (CausalSelfAttention of lm/model.py)."""
        B, H, S, D = values.shape
        T = S - old
        qkv = x.dot(self.qkv) + self.qkv_bias
        q, k, v = qkv.reshape(B, T, 3, H, D).transpose(2, 0, 3, 1, 4)  # each (B, H, T, D)
        keys[:, :, :, old:] = k.swapaxes(2, 3)
        values[:, :, old:] = v
        scores = q @ keys  # (B, H, T, S)
        if T > 1:  # a single new position is the last: it sees everything
            scores += np.triu(np.full((T, S), -np.inf, np.float32), old + 1)
        scores -= np.maximum.reduce(scores, axis=3, keepdims=True)
        np.exp(scores, out=scores)
        y = scores @ values  # (B, H, T, D)
        y /= np.add.reduce(scores, axis=3, keepdims=True)
        return y.swapaxes(1, 2).reshape(B * T, H * D).dot(self.out) + self.out_bias  # type: ignore[no-any-return]

    def mlp(self, x: Array) -> Array:
        """(B*T, C) -> (B*T, C), each position by itself (MLP of lm/model.py)."""
        hidden = x.dot(self.up) + self.up_bias
        return (_gelu(hidden) if self.gelu else np.maximum(hidden, 0)).dot(self.down) + self.down_bias  # type: ignore[no-any-return]


class _Norm:
    """LayerNorm (Ba et al. 2016) of the rows of a matrix.

    Args:
        weights: of the model.
        name: of its own weight and bias, without the last part.
        centres: subtract the mean. With norm "pre" all that is read from the residual stream goes through a LayerNorm, which
            ignores the mean; so what is written to the stream is `_centred` once, in the weights, and need not be at each step.
    """

    def __init__(self, weights: Weights, name: str, *, centres: bool) -> None:
        self.weight, self.bias, self.centres = weights[f"{name}.weight"][None], weights[f"{name}.bias"][None], centres  # (1, C)
        # x.dot(mean) takes an eighth of the time of x.mean()
        self.mean = np.full(self.weight.T.shape, 1 / self.weight.size, np.float32)  # (C, 1)

    def __call__(self, x: Array) -> Array:
        if self.centres:
            x = x - x.dot(self.mean)
        return x * (self.weight / np.sqrt((x * x).dot(self.mean) + _EPSILON)) + self.bias  # type: ignore[no-any-return]


def _centred(rows: Array) -> Array:
    """A copy with mean 0 along the last axis."""
    return rows - rows.mean(axis=-1, keepdims=True)  # type: ignore[no-any-return]


def _gelu(x: Array) -> Array:
    """GELU in its tanh form: x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    y = x * x
    y *= _CUBIC
    y += _LINEAR
    y *= x
    np.tanh(y, out=y)
    y += _ONE
    y *= x
    y *= _HALF
    return y


def _one_blas_thread() -> None:
    """Have numpy's own OpenBLAS compute in the calling thread, from now on; other BLAS libraries are left as they are.

    The products are too small to share: a second thread gains nothing, and where the cores are busy it waits for them, spinning,
    for milliseconds. A story also no longer depends on the number of cores.
    """
    # Refused by numpy 1.26, by builds where no library lies behind that name, and by other BLAS libraries
    with suppress(ImportError, OSError, AttributeError):
        library = ctypes.CDLL(import_module("numpy._core._multiarray_umath").__file__)
        library.scipy_openblas_set_num_threads64_(1)


def _linear(weights: Weights, name: str, *, centred: bool = False) -> tuple[Array, Array]:
    """Weight (inputs, outputs) and bias of a Linear, own copies; rows of x times contiguous columns is the faster product."""
    weight, bias = weights[f"{name}.weight"].T.copy(order="C"), weights[f"{name}.bias"][None].copy()
    return (_centred(weight), _centred(bias)) if centred else (weight, bias)


def _positions(config: ModelConfig, weights: Weights) -> Array:
    """Position embeddings, (context_length, C); zeros, (context_length, 1), for none."""
    if config.positions == "sinusoidal":  # Vaswani et al. 2017, §3.5
        rates = np.exp(np.arange(0, config.d_model, 2, dtype=np.float32) * np.float32(-math.log(10_000) / config.d_model))
        angle = np.arange(config.context_length, dtype=np.float32)[:, None] * rates
        return np.stack((np.sin(angle), np.cos(angle)), axis=2).reshape(config.context_length, -1)
    return weights.get("position_embedding.weight", np.zeros((config.context_length, 1), np.float32))


def _shapes(config: ModelConfig, vocab_size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every parameter."""
    C, F = config.d_model, config.d_ff
    of_block: dict[str, tuple[int, ...]] = {"norm_1": (C,), "norm_2": (C,)}
    of_block |= {"attention.qkv": (3 * C, C), "attention.out": (C, C), "mlp.up": (F, C), "mlp.down": (C, F)}
    yield "token_embedding.weight", (vocab_size, C)
    if config.positions == "learned":
        yield "position_embedding.weight", (config.context_length, C)
    if not config.tie_embeddings:
        yield "unembed.weight", (vocab_size, C)
    modules = {f"blocks.{i}.{name}": shape for i in range(config.n_layers) for name, shape in of_block.items()}
    if config.norm == "pre":
        modules["norm"] = (C,)
    for name, shape in modules.items():
        yield f"{name}.weight", shape
        yield f"{name}.bias", shape[:1]
