"""The parameters of lm/model.py by the names and in the shapes of GPT-2 in transformers.

GPT-2 keeps the matrices of its blocks as (inputs, outputs), lm/model.py as (outputs, inputs).
"""

from collections.abc import Mapping

from tinygpt.lm.weights import Array

OUTSIDE_BLOCKS = {
    "token_embedding": "transformer.wte",
    "position_embedding": "transformer.wpe",
    "norm": "transformer.ln_f",
    "lm_head": "lm_head",
}
IN_BLOCK = {
    "norm_1": "ln_1",
    "attention.qkv": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "norm_2": "ln_2",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}


def gpt2_name(name: str) -> str:
    """The name of a parameter in GPT-2, e.g., of "blocks.0.mlp.up.weight"."""
    module, _, kind = name.rpartition(".")
    if module in OUTSIDE_BLOCKS:
        return f"{OUTSIDE_BLOCKS[module]}.{kind}"
    _, layer, in_block = module.split(".", 2)
    return f"transformer.h.{layer}.{IN_BLOCK[in_block]}.{kind}"


def is_transposed(name: str) -> bool:
    """Whether GPT-2 has the transpose of a parameter of this name, which is lm/model.py's."""
    return name.startswith("blocks.") and name.endswith(".weight") and ".norm_" not in name


def to_gpt2(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The parameters of a model by name as those of GPT-2."""
    tensors = {}
    for name, array in arrays.items():
        tensors[gpt2_name(name)] = array.T if is_transposed(name) else array
    return tensors
