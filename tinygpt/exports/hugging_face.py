"""hf: a folder that transformers loads as GPT-2, with a model card.

The tokenizer puts the end-of-text token before a text, as `tinygpt sample` does and as every
document began in training: without it, whoever loads the model gets other text.
"""

import json
from typing import Any

import safetensors
import safetensors.torch
import tokenizers
import torch

from tinygpt.config import SampleConfig
from tinygpt.errors import ConfigError, VerificationError
from tinygpt.exports import model_card
from tinygpt.exports.gpt2 import last_logits, model_config, require_gpt2
from tinygpt.exports.gpt2_layout import to_gpt2
from tinygpt.exports.model import ModelToExport
from tinygpt.exports.self_check import NOTHING_LEFT, compare_ids, compare_logits
from tinygpt.exports.target import ExportFolder
from tinygpt.lm.tokenizer import END_OF_TEXT
from tinygpt.lm.weights import Array
from tinygpt.runs.trained_weights import Note

WEIGHTS = "model.safetensors"
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}

HOW_TO_LOAD = """\
```python
from transformers import pipeline

generate = pipeline("text-generation", "path/to/this/folder")
print(generate("Once upon a time")[0]["generated_text"])
print(generate("Once upon a time", do_sample=False)[0]["generated_text"])  # the likeliest tokens
```"""


def write(model: ModelToExport, out: ExportFolder, dtype: str, note: Note) -> str:
    """Write the folder, read it back and compare.

    Args:
        model, out: what is exported, and where it goes.
        dtype: of the weights, a key of DTYPES.
        note: not used.
    Returns:
        What was compared, and the largest difference.
    Raises:
        ConfigError: GPT-2 or the number format cannot express the model.
        CorruptArtifactError: see require_gpt2.
        VerificationError: what was written is not the model.
    """
    model = require_gpt2(model, "hf")
    rounded = {name: _rounded(array, DTYPES[dtype]) for name, array in model.weights.arrays.items()}
    tensors = {
        name: torch.from_numpy(array).to(DTYPES[dtype]).contiguous()
        for name, array in to_gpt2(rounded).items()
    }
    out.write("config.json", _json(config_file(model, dtype)))
    out.write("generation_config.json", _json(generation_config(model)))
    out.write(WEIGHTS, safetensors.torch.save(tensors, {"format": "pt"}))
    out.write("tokenizer.json", tokenizer_file(model))
    out.write("tokenizer_config.json", _json(tokenizer_config(model)))
    out.write("README.md", model_card.render(model, HOW_TO_LOAD, dtype))
    logits = compare_logits(model, _logits(model, out), None if dtype == "f32" else rounded)
    return f"read back: {logits}; {_compare_tokenizer(model, out)}"


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _rounded(array: Array, dtype: torch.dtype) -> Array:
    """The weights as their format in the file has them, float32.

    Raises:
        ConfigError: one is larger than the largest number of the format.
    """
    rounded: Array = torch.from_numpy(array).to(dtype).float().numpy()
    if not (abs(rounded) <= torch.finfo(dtype).max).all():
        raise ConfigError(
            f"a weight is larger than {torch.finfo(dtype).max:,.0f}, where f16 ends",
            hint="use `--dtype f32` or `--dtype bf16`",
        )
    return rounded


def config_file(model: ModelToExport, dtype: str) -> dict[str, Any]:
    """The content of config.json."""
    dropout = model.config.dropout
    end_of_text = model.tokenizer.end_of_text
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        **model_config(model),
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout),
        "initializer_range": 0.02,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "use_cache": True,
        # No pad_token_id: it would be the bos_token_id, and every text seem to begin with padding
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "dtype": str(DTYPES[dtype]).removeprefix("torch."),
        "torch_dtype": str(DTYPES[dtype]).removeprefix("torch."),
    }


def generation_config(model: ModelToExport) -> dict[str, Any]:
    """The content of generation_config.json: how `tinygpt sample` generates.

    Text ends where the context does, because position embeddings end there.
    """
    sampling = SampleConfig()
    ids = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {
        **dict.fromkeys(ids, model.tokenizer.end_of_text),
        "do_sample": True,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k or 0,
        "top_p": sampling.top_p or 1.0,
        "max_length": model.config.context_length,
    }


def tokenizer_file(model: ModelToExport) -> bytes:
    """The tokenizer.json, which puts the end-of-text token before every text."""
    content = json.loads(model.tokenizer_json)
    prefix = {"SpecialToken": {"id": END_OF_TEXT, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    ids = [model.tokenizer.end_of_text]
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [prefix, first],
        "pair": [prefix, first, prefix, second],
        "special_tokens": {END_OF_TEXT: {"id": END_OF_TEXT, "ids": ids, "tokens": [END_OF_TEXT]}},
    }
    return _json(content)


def tokenizer_config(model: ModelToExport) -> dict[str, Any]:
    """The content of tokenizer_config.json.

    The class takes tokenizer.json as it is, in every version of transformers; GPT2Tokenizer builds
    another one of its vocabulary.
    """
    tokens = ("bos_token", "eos_token", "unk_token", "pad_token")
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.config.context_length,
        "model_input_names": ["input_ids", "attention_mask"],
        **dict.fromkeys(tokens, END_OF_TEXT),
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
    }


def _logits(model: ModelToExport, out: ExportFolder) -> Array:
    """What GPT-2 computes for the probe of a model from the files in the folder, (P, V)."""
    probe = model.weights.probe
    config = json.loads(out.read("config.json"))
    with safetensors.safe_open(out.folder / WEIGHTS, framework="pt") as stored:

        def tensor(name: str) -> Array:
            array: Array = stored.get_tensor(name).float().numpy()
            return array

        return last_logits(config, tensor, probe.token_ids, probe.positions)


def _compare_tokenizer(model: ModelToExport, out: ExportFolder) -> str:
    """See compare_ids; the end-of-text token has to stand before a text."""
    native = tokenizers.Tokenizer.from_str(out.read("tokenizer.json").decode())
    ids = native.encode("a").ids
    if ids != [model.tokenizer.end_of_text, *model.tokenizer.encode("a")]:
        raise VerificationError(
            f"`tokenizer.json`, read back, encodes `a` as {ids}, without the end-of-text token",
            hint=NOTHING_LEFT,
        )
    return compare_ids(model, lambda text: native.encode(text, add_special_tokens=False).ids)
