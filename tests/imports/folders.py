"""GPT-2 folders as transformers writes them, made without it."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from tests.html_page.examples import random_weights
from tests.lm.corpus import TOKENIZER
from tinygpt.config import ModelConfig
from tinygpt.exports.gpt2_layout import to_gpt2
from tinygpt.lm.tokenizer import ALPHABET, END_OF_TEXT

CONFIG: dict[str, Any] = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "n_embd": 24,
    "n_layer": 2,
    "n_head": 3,
    "n_inner": None,
    "n_positions": 32,
    "resid_pdrop": 0.1,
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "tie_word_embeddings": True,
    "vocab_size": TOKENIZER.vocab_size,
    "bos_token_id": 50_256,  # as transformers writes it for a tokenizer of any size
    "eos_token_id": 50_256,
}
MODEL = ModelConfig(d_model=24, n_layers=2, n_heads=3, d_ff=96, context_length=32, dropout=0.1)
MERGES: list[list[str]] = json.loads(TOKENIZER.to_bytes())["model"]["merges"]
ENTRIES = [*ALPHABET, *("".join(merge) for merge in MERGES), END_OF_TEXT]
"""In the order of GPT-2: bytes, what merges make, the end-of-text token."""

Change = Callable[[dict[str, Any]], None]


def unchanged(content: dict[str, Any]) -> None:
    """Leave a file as it is."""


def tokenizer_file(
    entries: Sequence[str] = ENTRIES, merges: Sequence[Sequence[str]] = MERGES
) -> dict[str, Any]:
    """The content of a tokenizer.json of GPT-2's kind."""
    added = {"id": list(entries).index(END_OF_TEXT), "content": END_OF_TEXT, "special": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{**added, **flags}],
        "normalizer": None,
        "pre_tokenizer": {**byte_level, "use_regex": True},
        "post_processor": {**byte_level, "use_regex": True},
        "decoder": {**byte_level, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {entry: token_id for token_id, entry in enumerate(entries)},
            "merges": [" ".join(merge) for merge in merges],
        },
    }


@cache
def _tensors(model: ModelConfig, rows: int) -> Mapping[str, Tensor]:
    arrays = {name: array / 4 for name, array in random_weights(model, rows).items()}
    return {name: torch.from_numpy(array.copy()) for name, array in to_gpt2(arrays).items()}


def tensors_of(model: ModelConfig = MODEL, rows: int = TOKENIZER.vocab_size) -> dict[str, Tensor]:
    """Random weights by the names of GPT-2."""
    return {name: tensor.clone().contiguous() for name, tensor in _tensors(model, rows).items()}


def gpt2_folder(
    path: Path,
    *,
    config: Change = unchanged,
    tokenizer: Change = unchanged,
    tensors: Change = unchanged,
    rows: int = TOKENIZER.vocab_size,
    model: ModelConfig = MODEL,
) -> Path:
    """Write a folder.

    Args:
        path: where; its parent exists.
        config, tokenizer, tensors: change what is written to the files.
        rows: of the embedding.
        model: its shape; CONFIG is that of MODEL.
    """
    path.mkdir()
    settings = {**CONFIG, "vocab_size": rows}
    config(settings)
    (path / "config.json").write_text(json.dumps(settings))
    content = tokenizer_file()
    tokenizer(content)
    (path / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False))
    weights: dict[str, Any] = dict(tensors_of(model, rows))
    tensors(weights)
    write_weights(path / "model.safetensors", weights)
    return path


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a safetensors file as transformers does."""
    stored = {name: tensor.contiguous() for name, tensor in weights.items()}
    path.write_bytes(safetensors.torch.save(stored, {"format": "pt"}))


def shard(path: Path, parts: int = 3) -> list[str]:
    """Divide the weights of a folder among files with an index; the names of these."""
    whole = path / "model.safetensors"
    weights = safetensors.torch.load(whole.read_bytes())
    whole.unlink()
    names = [f"model-{part + 1:05d}-of-{parts:05d}.safetensors" for part in range(parts)]
    placed = {name: names[i % parts] for i, name in enumerate(weights)}
    for file in names:
        part = {name: tensor for name, tensor in weights.items() if placed[name] == file}
        write_weights(path / file, part)
    index = {"metadata": {"total_size": 1}, "weight_map": placed}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return names


def legacy(path: Path) -> None:
    """Replace the tokenizer.json of a folder by vocab.json and merges.txt."""
    content = json.loads((path / "tokenizer.json").read_bytes())
    (path / "tokenizer.json").unlink()
    (path / "vocab.json").write_text(json.dumps(content["model"]["vocab"]))
    lines = ["#version: 0.2", *content["model"]["merges"], ""]
    (path / "merges.txt").write_text("\n".join(lines))
