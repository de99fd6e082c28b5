"""config.json becomes the table [model], or is refused with what tinygpt does not compute."""

from typing import Any

import pytest

from tests.imports.folders import CONFIG, MODEL
from tinygpt.errors import InputError
from tinygpt.imports.config_file import COMPUTED, SHAPE, read_config


def read(changes: dict[str, Any], *, tanh_gelu: bool = False):
    return read_config({**CONFIG, **changes}, tanh_gelu=tanh_gelu)


def test_the_shape_is_that_of_the_file():
    found = read({"vocab_size": 512})
    assert found.model == MODEL
    assert found.rows == 512
    assert not found.exact_gelu


def test_every_key_of_the_shape_is_taken():
    wide = {"n_inner": 40, "activation_function": "relu", "tie_word_embeddings": False}
    model = read({**wide, "n_layer": 5, "resid_pdrop": 0.0}).model
    assert (model.d_ff, model.activation, model.tie_embeddings) == (40, "relu", False)
    assert (model.n_layers, model.dropout) == (5, 0.0)


def test_what_the_file_leaves_out_has_the_default_of_gpt2():
    model = read_config({"model_type": "gpt2"}, tanh_gelu=False).model
    assert (model.d_model, model.n_layers, model.n_heads, model.d_ff) == (768, 12, 12, 3072)
    assert (model.context_length, model.dropout, model.tie_embeddings) == (1024, 0.1, True)


@pytest.mark.full
def test_our_defaults_are_those_of_transformers():
    transformers = pytest.importorskip("transformers", reason="needs transformers (extra `bench`)")
    theirs = transformers.GPT2Config()
    for name, default in SHAPE.values():
        assert getattr(theirs, name) == default
    for key, computed in COMPUTED.items():
        assert getattr(theirs, key) == computed
    assert theirs.vocab_size == 50_257
    assert theirs.activation_function == "gelu_new"


REFUSED = {
    "model_type": "llama",
    "layer_norm_epsilon": 1e-6,
    "scale_attn_weights": False,
    "scale_attn_by_inverse_layer_idx": True,
    "reorder_and_upcast_attn": True,
    "add_cross_attention": True,
    "is_encoder_decoder": True,
    "auto_map": {"AutoModelForCausalLM": "modeling.Mine"},
    "quantization_config": {"quant_method": "gptq"},
    "pruned_heads": {"0": [1]},
    "activation_function": "silu",
    "n_embd": 25,
    "n_head": 0,
    "n_layer": 10**9,
    "n_positions": "1024",
    "n_inner": -1,
    "resid_pdrop": None,
    "tie_word_embeddings": 1,
    "vocab_size": True,
}


@pytest.mark.parametrize("key", REFUSED)
def test_another_model_is_refused_with_the_key_that_differs(key):
    with pytest.raises(InputError) as caught:
        read({key: REFUSED[key]})
    assert f"`{key}`" in caught.value.message
    assert caught.value.hint


def test_a_file_without_a_model_type_is_refused():
    with pytest.raises(InputError, match="model_type"):
        read_config({"n_embd": 24}, tanh_gelu=False)


@pytest.mark.parametrize("name", ["gelu_new", "gelu_pytorch_tanh", "gelu_fast"])
def test_names_of_the_tanh_form_are_the_same_activation(name):
    assert read({"activation_function": name}).model.activation == "gelu"
    assert not read({"activation_function": name}, tanh_gelu=True).exact_gelu


def test_the_exact_gelu_needs_a_flag():
    with pytest.raises(InputError, match="the exact GELU") as caught:
        read({"activation_function": "gelu"})
    assert "--tanh-gelu" in str(caught.value.hint)
    found = read({"activation_function": "gelu"}, tanh_gelu=True)
    assert found.exact_gelu
    assert found.model.activation == "gelu"
