"""A trained model as a page: one HTML file in which the model itself runs.

packing.py makes text of the weights; model.js, tokenizer.js and sampling.js compute what lm/ does;
the other scripts show it. html_shared says why such a file can be trusted.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypedDict

import numpy as np

from tinygpt.config import ModelConfig
from tinygpt.config.tables import PageDtype
from tinygpt.html_page import packing
from tinygpt.html_shared import assemble, embedded_json
from tinygpt.lm.weights import Array

ENGINE = ("unicode.js", "tokenizer.js", "weights.js", "model.js", "sampling.js")
"""The parts of the script that compute; they need no page, so that Node runs them, too."""

VIEWS = (
    *("reading.js", "state.js", "typing.js", "next.js", "attention.js", "switches.js"),
    *("inside.js", "training.js", "about.js", "save.js", "page.js"),
)
"""The parts that show; each uses those before it, and those of html_shared."""

SHARED = ("elements.js", "heads.js")

SNAPSHOT_DTYPE: PageDtype = "int8"


class Ablation(TypedDict):
    """What `plot` measured of each head, as lists (layers, heads)."""

    loss_increase: list[list[float]]
    standard_error: list[list[float | None]]
    tokens: int
    """Validation tokens over which the mean was taken."""


class PageModel(NamedTuple):
    """A model and what its page says about it.

    Args:
        id: of the train artifact.
        config: its shape.
        weights: its parameters by name.
        step: optimizer steps that made the weights; 0 for an imported model.
        max_steps: optimizer steps of the whole run.
        which: "best" or "last" weights.
        dtype: their format in the page.
        tokenizer: the bytes of its tokenizer.json.
        probe: token ids, and the model's logits after the last of them, (P, V).
        bound: by how much the logits of the page may differ from these.
        snapshots: earlier weights by step.
        ablation: None if `plot` has measured none.
    """

    id: str
    config: ModelConfig
    weights: Mapping[str, Array]
    step: int
    max_steps: int
    which: str
    dtype: PageDtype
    tokenizer: bytes
    probe: tuple[Sequence[int], Array]
    bound: float
    snapshots: Mapping[int, Mapping[str, Array]]
    ablation: Ablation | None


def render(model: PageModel) -> bytes:
    """The page as an HTML file; equal arguments give equal bytes."""
    snapshots = []
    for weights in model.snapshots.values():
        packed = packing.pack(weights, SNAPSHOT_DTYPE)
        snapshots.append(f'<script type="text/plain" class="snapshot">{packed}</script>\n')
    blocks = {
        "data": embedded_json(facts(model)),
        "tokenizer": embedded_json(json.loads(model.tokenizer)),
        "weights": packing.pack(model.weights, model.dtype),
        "snapshots": "".join(snapshots),
    }
    return assemble(__package__, SHARED, ENGINE + VIEWS, blocks)


def facts(model: PageModel) -> dict[str, object]:
    """What the script knows besides the tokenizer and the weights."""
    token_ids, logits = model.probe
    return {
        "id": model.id,
        "step": model.step,
        "max_steps": model.max_steps,
        "which": model.which,
        "dtype": model.dtype,
        "snapshot_dtype": SNAPSHOT_DTYPE,
        "config": model.config.model_dump(mode="json"),
        "shapes": {name: model.weights[name].shape for name in sorted(model.weights)},
        "parameters": sum(array.size for array in model.weights.values()),
        "probe": {
            "token_ids": list(token_ids),
            "logits": base64.b64encode(logits.astype("<f4").tobytes()).decode(),
        },
        "bound": model.bound,
        "snapshots": list(model.snapshots),
        "ablation": model.ablation,
    }


def size(model: PageModel) -> int:
    """About how many bytes the page will have."""
    snapshots = [packing.packed_size(kept, SNAPSHOT_DTYPE) for kept in model.snapshots.values()]
    weights = packing.packed_size(model.weights, model.dtype)
    probe = np.size(model.probe[1]) * 6
    return weights + sum(snapshots) + probe + 2 * len(model.tokenizer)
