"""The weights of a model by layer and kind, and the singular values of each matrix."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tinygpt.lm.model import GPT
from tinygpt.lm.weights import Array

BLOCK_MATRICES = (
    "query",
    "key",
    "value",
    "attention out",
    "feed-forward up",
    "feed-forward down",
)
KINDS = (
    *BLOCK_MATRICES,
    "token embedding",
    "position embedding",
    "lm_head",
    "norm gains",
    "biases",
)
_KINDS_OF = {
    "attention.qkv.weight": ("query", "key", "value"),  # three matrices in one
    "attention.out.weight": ("attention out",),
    "mlp.up.weight": ("feed-forward up",),
    "mlp.down.weight": ("feed-forward down",),
    "token_embedding.weight": ("token embedding",),
    "position_embedding.weight": ("position embedding",),
    "lm_head.weight": ("lm_head",),
}


class WeightGroup(NamedTuple):
    """A group of weights.

    Args:
        layer: None outside the blocks.
        kind: one of KINDS.
    """

    layer: int | None
    kind: str


def weight_groups(arrays: Mapping[str, Array]) -> dict[WeightGroup, Array]:
    """Group the weights by layer and kind, those outside the blocks first.

    Every matrix is a group, query, key and value apart; the gains of a layer's norms are one
    group, and its biases are another.

    Args:
        arrays: all weights by parameter name, e.g., from arrays_of.
    """
    pieces: dict[WeightGroup, list[Array]] = {}
    for name, array in arrays.items():
        layer, parameter = _split_name(name)
        kinds = _kinds(parameter)
        for kind, piece in zip(kinds, np.split(array, len(kinds)), strict=True):
            pieces.setdefault(WeightGroup(layer, kind), []).append(piece)
    return {group: np.concatenate(pieces[group]) for group in sorted(pieces, key=_place)}


def _split_name(name: str) -> tuple[int | None, str]:
    """The layer of a parameter and its name there, e.g., "blocks.3.mlp.up.bias"."""
    block, _, parameter = name.removeprefix("blocks.").partition(".")
    return (int(block), parameter) if block.isdigit() else (None, name)


def _kinds(parameter: str) -> tuple[str, ...]:
    """What a parameter holds, along its first axis."""
    if parameter in _KINDS_OF:
        return _KINDS_OF[parameter]
    return ("biases",) if parameter.endswith("bias") else ("norm gains",)


def _place(group: WeightGroup) -> tuple[int, int]:
    layer = -1 if group.layer is None else group.layer
    return layer, KINDS.index(group.kind)


class Spectrum(NamedTuple):
    """How much a matrix stretches vectors.

    Args:
        values: the singular values, largest first.
        spectral_norm: the largest: the most by which the matrix can stretch a vector.
        stable_rank: how many directions matter: squared Frobenius norm over squared spectral norm
            (Rudelson & Vershynin 2007); 0 for a matrix of zeros.
    """

    values: Array
    spectral_norm: float
    stable_rank: float

    @classmethod
    def of(cls, matrix: Array) -> "Spectrum":
        """From the eigenvalues of the smaller Gram matrix, in float64.

        For a tall matrix this is many times faster than a singular value decomposition.
        """
        m = matrix.astype(np.float64)
        gram = m @ m.T if m.shape[0] <= m.shape[1] else m.T @ m
        values = np.sqrt(np.linalg.eigvalsh(gram).clip(min=0))[::-1]
        norm = float(values[0])
        stable_rank = float((values**2).sum() / (norm * norm)) if norm > 0 else 0.0
        return cls(values, norm, stable_rank)


def spectra(arrays: Mapping[str, Array]) -> dict[WeightGroup, Spectrum]:
    """The spectrum of every matrix; gains and biases have none."""
    groups = weight_groups(arrays)
    return {group: Spectrum.of(array) for group, array in groups.items() if array.ndim == 2}


def arrays_of(model: GPT) -> dict[str, Array]:
    """The model's weights as arrays, tied ones once."""
    return {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
