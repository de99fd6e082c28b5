"""Loads a folder of `tinygpt export --to hf` with TransformerLens, and prints attention as JSON.

It imports nothing of tinygpt, so that it runs in the environment that `make proof-interop` made.

    python load_with_transformer_lens.py FOLDER < question.json > answer.json

The question is an object: `token_ids`, a list of texts as lists of ids.
"""

import json
import os
import sys
from importlib.metadata import version
from typing import Any

os.environ.update({"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"})


def answer(folder: str, question: dict[str, Any]) -> dict[str, Any]:
    """What TransformerLens says about a folder; see the module."""
    import torch
    from transformer_lens.model_bridge import TransformerBridge

    model = TransformerBridge.boot_transformers(folder, device="cpu")
    attention, logits = [], []
    for token_ids in question["token_ids"]:
        last, cache = model.run_with_cache(torch.tensor([token_ids]))
        layers = [
            cache[f"blocks.{layer}.attn.hook_pattern"][0] for layer in range(model.cfg.n_layers)
        ]
        attention.append(torch.stack(layers).tolist())  # (L, H, T, T)
        logits.append(last[0].tolist())
    return {"version": version("transformer-lens"), "attention": attention, "logits": logits}


if __name__ == "__main__":
    json.dump(answer(sys.argv[1], json.load(sys.stdin)), sys.stdout)
