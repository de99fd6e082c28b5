"""The numbers behind the pictures: where heads look, what each head is worth, what training did to the weights.

A picture of attention suggests what a head does; only taking the head away shows what it is worth (Olsson et al. 2022).
Shapes: L layers, H heads, T time, V vocabulary.
"""

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch

from tinygpt.lm.evaluation import window_losses
from tinygpt.lm.model import GPT, Block
from tinygpt.lm.weights import Array

PROBE_TOKENS = 50  # longest random sequence that is shown twice to find induction heads
PROBES = 8


@dataclass(frozen=True)
class HeadScores:
    """How each head distributes its attention, every field (L, H).

    Args:
        entropy: of the rows, in bits; 0 for a head that looks at one token.
        previous_token: attention to the token just before (Elhage et al. 2021, "A Mathematical Framework for Transformer
            Circuits").
        first_token: attention to the very first token, where heads with nothing to do rest (Xiao et al. 2024, "attention sinks").
        induction: prefix matching (Olsson et al. 2022, "In-context Learning and Induction Heads"): attention to the token that
            followed an earlier occurrence of the present one, on random tokens shown twice.
    """

    entropy: Array
    previous_token: Array
    first_token: Array
    induction: Array


class HeadWorth(NamedTuple):
    """What the model loses without each head: its output set to zero, all else unchanged.

    Args:
        loss: of the whole model, nats per token.
        change: loss without the head minus `loss`, (L, H); above 0 where the head helps.
        standard_error: of the change, over windows, (L, H); NaN where there is one window.
        tokens: predicted, on each of which all losses are measured.
    """

    loss: float
    change: Array
    standard_error: Array
    tokens: int

    def rank(self, layer: int, head: int) -> int:
        """1 for the head whose loss would hurt most."""
        return 1 + int((self.change > self.change[layer, head]).sum())


class Part(NamedTuple):
    """A group of weights: its layer (None outside the blocks) and what it is."""

    layer: int | None
    kind: str


def attention_maps(model: GPT, token_ids: Sequence[int]) -> Array:
    """Attention weights on one text, (L, H, T, T): row attends to column."""
    return torch.cat(model.attention_weights(torch.tensor([list(token_ids)]))).numpy()


def entropy(maps: Array) -> Array:
    """Mean entropy of the rows in bits, (..., T, T) -> (...)."""
    p = np.where(maps > 0, maps, 1).astype(np.float64)  # a weight of 0 adds nothing, and neither does one of 1
    return np.asarray((p * np.log2(1 / p)).sum(-1).mean(-1))


def previous_token(maps: Array) -> Array:
    """Mean attention from each token but the first to the one before, (..., T, T) -> (...); 0 where T = 1."""
    return _mean_or_zero(np.diagonal(maps, offset=-1, axis1=-2, axis2=-1))


def first_token(maps: Array) -> Array:
    """Mean attention from each token but the first to the first, (..., T, T) -> (...); 0 where T = 1."""
    return _mean_or_zero(maps[..., 1:, 0])


def prefix_matching(maps: Array, token_ids: Sequence[int]) -> Array:
    """Mean attention to tokens that followed an earlier occurrence of the present token, (..., T, T) -> (...).

    The mean is over tokens that occurred before; 0 where none did.
    """
    ids = np.asarray(token_ids)
    # Column j: whether it followed the row's token, at j - 1; an occurrence is earlier if what followed it is not in the future
    follows = np.tril(np.pad(ids[:, None] == ids[:-1], ((0, 0), (1, 0))))
    return _mean_or_zero((maps * follows).sum(-1)[..., follows.any(-1)])


def _mean_or_zero(values: Array) -> Array:
    return np.asarray(values.mean(-1, dtype=np.float64)) if values.shape[-1] else np.zeros(values.shape[:-1])


def induction_scores(model: GPT) -> Array:
    """Prefix matching on random tokens shown twice, which nothing but induction can predict, (L, H)."""
    generator = torch.Generator().manual_seed(0)  # the same tokens each time, so that scores compare
    n = min(PROBE_TOKENS, model.config.context_length // 2, model.vocab_size)
    probes = [torch.randperm(model.vocab_size, generator=generator)[:n].repeat(2).tolist() for _ in range(PROBES)]
    return np.asarray(np.mean([prefix_matching(attention_maps(model, probe), probe) for probe in probes], axis=0))


def text_losses(model: GPT, token_ids: Sequence[int] | Array) -> Array:
    """Loss of each token of a text after the first, given those before it in its window, in nats, (T - 1,)."""
    return np.concatenate(list(window_losses(model, np.asarray(token_ids)))) if len(token_ids) > 1 else np.zeros(0)


@torch.no_grad()
def head_worth(model: GPT, tokens: Array) -> HeadWorth:
    """Measure the validation loss without each head in turn.

    Zero-ablation: the columns of `attention.out.weight` that read the head are zeroed on a copy of the model, which is
    exactly the model without that head.

    Args:
        model: its weights stay as they are.
        tokens: (N,) with N >= 2; those that fill no window of context_length are left out, if there is a whole one.
    """
    T, D = min(model.config.context_length, len(tokens) - 1), model.config.d_model // model.config.n_heads
    tokens = tokens[: (len(tokens) - 1) // T * T + 1]
    model = copy.deepcopy(model)
    whole, changes = text_losses(model, tokens), []
    for block in cast(list[Block], model.blocks):
        for head in range(model.config.n_heads):
            reads_head = block.attention.out.weight[:, head * D : (head + 1) * D]
            kept = reads_head.clone()
            reads_head.zero_()
            changes.append((text_losses(model, tokens) - whole).reshape(-1, T).mean(-1))
            reads_head.copy_(kept)
    change = np.stack(changes).reshape(model.config.n_layers, model.config.n_heads, -1)  # (L, H, windows)
    windows = change.shape[-1]
    spread = change.std(-1, ddof=1) / math.sqrt(windows) if windows > 1 else np.full(change.shape[:2], np.nan)
    return HeadWorth(float(whole.mean()), change.mean(-1), spread, len(whole))


_KINDS_OF = {  # a parameter of qkv holds three matrices
    "attention.qkv.weight": ("query", "key", "value"),
    "attention.out.weight": ("attention out",),
    "mlp.up.weight": ("feed-forward up",),
    "mlp.down.weight": ("feed-forward down",),
    "token_embedding.weight": ("token embedding",),
    "position_embedding.weight": ("position embedding",),
    "unembed.weight": ("unembedding",),
}
KINDS = (*itertools.chain.from_iterable(_KINDS_OF.values()), "norm gains", "biases")
BLOCK_MATRICES = KINDS[:6]


def parts(arrays: Mapping[str, Array]) -> dict[Part, Array]:
    """The weights by layer and kind, outer ones first: each matrix, with q, k and v apart, then norm gains and biases joined."""
    found: dict[Part, list[Array]] = {}
    for name, array in arrays.items():
        block, _, rest = name.removeprefix("blocks.").partition(".")
        layer, rest = (int(block), rest) if block.isdigit() else (None, name)
        kinds = _KINDS_OF.get(rest, ("biases" if rest.endswith("bias") else "norm gains",))
        for kind, piece in zip(kinds, np.split(array, len(kinds)), strict=True):
            found.setdefault(Part(layer, kind), []).append(piece)
    ordered = sorted(found, key=lambda part: (part.layer is not None, part.layer, KINDS.index(part.kind)))
    return {part: np.concatenate(found[part]) for part in ordered}


class Spectrum(NamedTuple):
    """What a matrix does to vectors.

    Args:
        values: the singular values, largest first.
        spectral_norm: the largest: the most by which the matrix can stretch a vector.
        stable_rank: how many directions matter: squared Frobenius over squared spectral norm (Rudelson & Vershynin 2007); 0 if
            both are.
    """

    values: Array
    spectral_norm: float
    stable_rank: float

    @classmethod
    def of(cls, matrix: Array) -> "Spectrum":
        """From the eigenvalues of the smaller Gram matrix in float64, many times faster than an SVD of a tall matrix."""
        wide = matrix.astype(np.float64)
        wide = wide if wide.shape[0] <= wide.shape[1] else wide.T
        values = np.sqrt(np.linalg.eigvalsh(wide @ wide.T).clip(min=0))[::-1]
        return cls(values, float(values[0]), float((values**2).sum() / values[0] ** 2) if values[0] > 0 else 0.0)


def spectra(arrays: Mapping[str, Array]) -> dict[Part, Spectrum]:
    """The spectrum of every matrix."""
    return {part: Spectrum.of(matrix) for part, matrix in parts(arrays).items() if matrix.ndim == 2}


@dataclass(frozen=True)
class Look:
    """One set of weights, seen through one text.

    Args:
        step: optimizer steps that made the weights; 0 for the initialisation.
        maps: attention weights, (L, H, T, T).
        scores: of the heads.
        losses: of each token after the first, nats, (T - 1,).
        spectra: of the matrices.
    """

    step: int
    maps: Array
    scores: HeadScores
    losses: Array
    spectra: Mapping[Part, Spectrum]

    @classmethod
    def at(cls, model: GPT, token_ids: Sequence[int], step: int) -> "Look":
        """Look at a model of `step` steps."""
        maps = attention_maps(model, token_ids)
        scores = HeadScores(entropy(maps), previous_token(maps), first_token(maps), induction_scores(model))
        return cls(step, maps, scores, text_losses(model, token_ids), spectra(arrays_of(model)))


def arrays_of(model: GPT) -> dict[str, Array]:
    """The model's weights as arrays, tied ones once."""
    return {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
