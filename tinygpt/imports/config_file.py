"""config.json of a GPT-2 folder: its shape as the table [model], or what differs from GPT-2."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from tinygpt.config import ModelConfig
from tinygpt.errors import InputError

COMPUTED = {
    "model_type": "gpt2",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "add_cross_attention": False,
    "is_encoder_decoder": False,
}
"""What `lm/model.py` computes, by key; where one is not set, transformers takes the same value."""

UNKNOWN = ("auto_map", "quantization_config", "pruned_heads")
"""Keys that make another model of the weights."""

TANH_GELU = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_python_tanh")
EXACT_GELU = ("gelu", "gelu_python")
SHAPE = {
    "d_model": ("n_embd", 768),
    "n_layers": ("n_layer", 12),
    "n_heads": ("n_head", 12),
    "context_length": ("n_positions", 1024),
    "dropout": ("resid_pdrop", 0.1),
}
"""Keys of [model], those of config.json, and the defaults of transformers."""


class GPT2Config(NamedTuple):
    """What a config.json says.

    Args:
        model: the shape.
        rows: of the token embedding; the tokenizer may have fewer entries.
        exact_gelu: it was trained with the exact form of GELU, which lm/model.py does not compute.
    """

    model: ModelConfig
    rows: int
    exact_gelu: bool


def read_config(content: Mapping[str, Any], *, tanh_gelu: bool) -> GPT2Config:
    """The model that a config.json describes.

    Args:
        content: of the file.
        tanh_gelu: compute GELU in its tanh form although the model was trained with the exact one.
    Raises:
        InputError: it describes another model than lm/model.py, or no possible one.
    """
    for key, computed in COMPUTED.items():
        value = content.get(key, computed if key != "model_type" else None)
        if value != computed:
            raise InputError(
                f"`config.json` has `{key}` = {value!r}; tinygpt reads models with {computed!r}",
                hint="import a model of the architecture GPT-2, e.g., `gpt2` or `distilgpt2`",
            )
    for key in UNKNOWN:
        if content.get(key):
            raise InputError(
                f"`config.json` has `{key}`, so that its weights are not those of a plain GPT-2",
                hint="import the model that it was made from",
            )
    activation = content.get("activation_function", "gelu_new")
    if activation in EXACT_GELU and not tanh_gelu:
        raise InputError(
            f"the model was trained with the exact GELU (`activation_function` = {activation!r}), "
            "and tinygpt computes GELU in its tanh form",
            hint="`--tanh-gelu` imports it all the same, and shows how far its logits move",
        )
    if activation not in (*TANH_GELU, *EXACT_GELU, "relu"):
        raise InputError(
            f"`config.json` has `activation_function` = {activation!r}; tinygpt computes "
            "gelu_new and relu",
            hint="import a model with one of these",
        )
    model = _shape(content, activation)
    rows = content.get("vocab_size", 50_257)
    if type(rows) is not int or rows < 1:
        raise InputError(f"`config.json` has `vocab_size` = {rows!r}", hint="it is damaged")
    return GPT2Config(model, rows, activation in EXACT_GELU)


def _shape(content: Mapping[str, Any], activation: str) -> ModelConfig:
    values = {key: content.get(name, default) for key, (name, default) in SHAPE.items()}
    width, d_ff = values["d_model"], content.get("n_inner")
    if d_ff is None and type(width) is int:
        d_ff = 4 * width
    try:
        return ModelConfig.model_validate(
            {
                **values,
                "d_ff": d_ff,
                "activation": "relu" if activation == "relu" else "gelu",
                "tie_embeddings": content.get("tie_word_embeddings", True),
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][-1]) if first["loc"] else "d_model"
        name = {"d_ff": "n_inner", "tie_embeddings": "tie_word_embeddings"}.get(key, key)
        name, _ = SHAPE.get(key, (name, None))
        problem = str(first.get("ctx", {}).get("error", first["msg"].lower()))
        raise InputError(
            f"`config.json` has `{name}` = {content.get(name)!r}: {problem}",
            hint="tinygpt cannot hold this model; `tinygpt init` writes the limits of [model]",
        ) from error
