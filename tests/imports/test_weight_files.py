"""Weights arrive as they are; a file that does not hold GPT-2's is refused before it is read."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.imports.folders import (
    MODEL,
    gpt2_folder,
    shard,
    tensors_of,
    write_weights,
)
from tests.lm.corpus import TOKENIZER
from tinygpt.config import ModelConfig
from tinygpt.errors import ConfigError, InputError, UsageError
from tinygpt.exports.gpt2_layout import to_gpt2
from tinygpt.imports import weight_files
from tinygpt.imports.config_file import GPT2Config, read_config
from tinygpt.imports.folder import ModelFolder
from tinygpt.imports.weight_files import ImportedWeights, read_weights

ENTRIES = TOKENIZER.vocab_size


def read(path: Path, entries: int = ENTRIES) -> ImportedWeights:
    folder = ModelFolder(path)
    return read_weights(folder, read_config(folder.json("config.json"), tanh_gelu=False), entries)


def assert_equal(found: ImportedWeights, expected: dict[str, torch.Tensor]) -> None:
    """Whether the weights are those of `expected`, bit for bit, each in GPT's orientation."""
    arrays = {name: tensor.numpy() for name, tensor in found.tensors.items()}
    back = to_gpt2(arrays)
    assert back.keys() == expected.keys()
    for name, array in back.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, expected[name].numpy(), err_msg=name)


def test_weights_are_those_of_the_file_bit_for_bit(tmp_path: Path):
    found = read(gpt2_folder(tmp_path / "model"))
    assert_equal(found, tensors_of())
    assert found.numbers == ["float32"]
    assert (found.dropped_rows, found.zero_biases, found.masks) == (0, 0, 0)


def without_prefix(weights: dict[str, Any]) -> None:
    for name in list(weights):
        weights[name.removeprefix("transformer.")] = weights.pop(name)


def with_masks(weights: dict[str, Any]) -> None:
    for layer in range(MODEL.n_layers):
        weights[f"transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, 32, 32, dtype=torch.uint8)
        weights[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)


def with_tied_head(weights: dict[str, Any]) -> None:
    weights["lm_head.weight"] = weights["transformer.wte.weight"].clone()


@pytest.mark.parametrize("change", [without_prefix, with_masks, with_tied_head])
def test_other_ways_to_save_the_same_weights_are_read(tmp_path: Path, change: Any):
    found = read(gpt2_folder(tmp_path / "model", tensors=change))
    assert_equal(found, tensors_of())
    assert found.masks == (4 if change is with_masks else 0)


def test_shards_are_read_as_one(tmp_path: Path):
    path = gpt2_folder(tmp_path / "model", tensors=with_masks)
    shard(path)
    assert_equal(read(path), tensors_of())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32_without_loss(tmp_path: Path, dtype: torch.dtype):
    def halve(weights: dict[str, Any]) -> None:
        for name, tensor in weights.items():
            weights[name] = tensor.to(dtype)

    found = read(gpt2_folder(tmp_path / "model", tensors=halve))
    assert_equal(found, {name: tensor.to(dtype).float() for name, tensor in tensors_of().items()})
    assert found.numbers == [str(dtype).removeprefix("torch.")]


def test_missing_biases_become_zeros(tmp_path: Path):
    def drop(weights: dict[str, Any]) -> None:
        for name in list(weights):
            if name.endswith(".bias"):
                del weights[name]

    found = read(gpt2_folder(tmp_path / "model", tensors=drop))
    expected = tensors_of()
    biases = [name for name in expected if name.endswith(".bias")]
    assert found.zero_biases == len(biases) == 13
    for name in biases:
        expected[name] = torch.zeros_like(expected[name])
    assert_equal(found, expected)


def test_rows_of_the_embedding_beyond_the_tokenizer_are_dropped(tmp_path: Path):
    rows = ENTRIES + 24
    found = read(gpt2_folder(tmp_path / "model", rows=rows, tensors=with_tied_head))
    expected = tensors_of(rows=rows)
    expected["transformer.wte.weight"] = expected["transformer.wte.weight"][:ENTRIES]
    assert_equal(found, expected)
    assert found.dropped_rows == 24


def test_an_untied_head_keeps_its_own_weights(tmp_path: Path):
    def untie(config: dict[str, Any]) -> None:
        config["tie_word_embeddings"] = False

    model = MODEL.model_copy(update={"tie_embeddings": False})
    found = read(gpt2_folder(tmp_path / "model", config=untie, model=model))
    assert_equal(found, tensors_of(model))


# ---- refused


def change_tensor(name: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    def apply(weights: dict[str, Any]) -> None:
        weights[name] = change(weights.get(name))

    return apply


def remove(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda weights: weights.pop(name)


def poisoned(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def poison(tensor: torch.Tensor) -> torch.Tensor:
        tensor[-1, -1] = value
        return tensor

    return poison


WTE, UP = "transformer.wte.weight", "transformer.h.1.mlp.c_fc.weight"
ONE_MORE = torch.zeros(3, 3)
REFUSED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another tensor": (change_tensor("score.weight", lambda _: ONE_MORE), "`score.weight`"),
    "a layer more": (
        change_tensor("transformer.h.2.ln_1.weight", lambda _: torch.ones(24)),
        "`transformer.h.2.ln_1.weight`",
    ),
    "a layer less": (remove(UP), "lack `h.1.mlp.c_fc.weight`"),
    "another shape": (change_tensor(UP, lambda tensor: tensor[:, :-1]), "(24, 95)"),
    "transposed": (change_tensor(UP, lambda tensor: tensor.T), "(96, 24)"),
    "flat": (change_tensor(UP, lambda tensor: tensor.flatten()), "(2304,)"),
    "another head": (
        change_tensor("lm_head.weight", lambda _: torch.zeros(ENTRIES, 24)),
        "`lm_head.weight` is not `wte.weight`",
    ),
    "a head of another shape": (
        change_tensor("lm_head.weight", lambda _: torch.zeros(ENTRIES + 1, 24)),
        f"({ENTRIES + 1}, 24)",
    ),
    "integers": (change_tensor(UP, lambda tensor: tensor.to(torch.int8)), "numbers of type I8"),
    "float64": (change_tensor(UP, lambda tensor: tensor.double()), "numbers of type F64"),
    "NaN": (change_tensor(UP, poisoned(float("nan"))), "a NaN or an infinity"),
    "infinity": (change_tensor(WTE, poisoned(float("-inf"))), "a NaN or an infinity"),
    "twice": (change_tensor("wte.weight", lambda _: torch.zeros(ENTRIES, 24)), "there twice"),
}


@pytest.mark.parametrize(("change", "said"), REFUSED.values(), ids=REFUSED)
def test_other_weights_are_refused_with_what_differs(tmp_path: Path, change: Any, said: str):
    path = gpt2_folder(tmp_path / "model", tensors=change)
    with pytest.raises(InputError) as caught:
        read(path)
    assert said in caught.value.message
    assert caught.value.hint


def test_an_untied_head_of_another_shape_is_refused(tmp_path: Path):
    def untie(config: dict[str, Any]) -> None:
        config["tie_word_embeddings"] = False

    head = change_tensor("lm_head.weight", lambda _: torch.zeros(ENTRIES - 1, 24))
    with pytest.raises(InputError, match=rf"`lm_head.weight` is \({ENTRIES - 1}, 24\)"):
        read(gpt2_folder(tmp_path / "model", config=untie, tensors=head))


def test_a_tokenizer_with_more_entries_than_the_embedding_has_rows_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=f"{ENTRIES + 1} entries, `vocab_size` is {ENTRIES}"):
        read(gpt2_folder(tmp_path / "model"), entries=ENTRIES + 1)


@pytest.mark.parametrize("lie", ["n_embd", "n_layer", "n_positions", "vocab_size", "n_inner"])
def test_a_configuration_that_lies_is_refused_before_anything_is_allocated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: str
):
    big = {"n_embd": 12_000, "n_layer": 256, "n_positions": 65_536, "vocab_size": 65_536}
    path = gpt2_folder(
        tmp_path / "model", config=lambda config: config.update({lie: big.get(lie, 131_072)})
    )

    def refuse(*shape: object, **settings: object) -> None:
        raise AssertionError("something was allocated")

    for name in ("empty", "zeros"):
        monkeypatch.setattr(weight_files.torch, name, refuse)
    with pytest.raises(InputError, match=r"by `config\.json` it is|the weights lack"):
        read(path)


def test_a_model_larger_than_the_memory_is_refused(tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr(weight_files, "available_memory", lambda: 100_000)
    path = gpt2_folder(tmp_path / "model")
    with pytest.raises(ConfigError, match="parameters takes about"):
        read(path)
    monkeypatch.setattr(weight_files, "available_memory", lambda: None)
    read(path)


# ---- damaged files


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9999])
def test_half_a_download_is_refused(tmp_path: Path, share: float):
    path = gpt2_folder(tmp_path / "model")
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match="not a whole safetensors file") as caught:
        read(path)
    assert "download" in str(caught.value.hint)


HEADER = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}}).encode()
FILES = {
    "pickle": b"\x80\x04\x95\x00N.",
    "zip": b"PK\x03\x04" + b"\0" * 64,
    "huge header": struct.pack("<Q", 2**60) + b"{}",
    "false header": struct.pack("<Q", len(HEADER)) + HEADER + b"\0\0\0\0",
    "text": b"<!DOCTYPE html>",
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
}


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path, data: bytes):
    path = gpt2_folder(tmp_path / "model")
    (path / "model.safetensors").write_bytes(data)
    with pytest.raises(InputError, match="safetensors"):
        read(path)


def test_a_shard_that_is_missing_is_named(tmp_path: Path):
    path = gpt2_folder(tmp_path / "model")
    names = shard(path)
    (path / names[1]).unlink()
    with pytest.raises(InputError, match=f"lacks `{names[1]}`"):
        read(path)


def edit_index(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = path / "model.safetensors.index.json"
    index = json.loads(file.read_bytes())
    change(index["weight_map"])
    file.write_text(json.dumps(index))


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "x.bin"]
)
def test_an_index_names_no_file_outside_the_folder(tmp_path: Path, name: str):
    path = gpt2_folder(tmp_path / "model")
    shard(path)
    write_weights(tmp_path / "secret.safetensors", tensors_of())
    edit_index(path, lambda placed: placed.update({WTE: name}))
    with pytest.raises(InputError, match="no safetensors file of this folder"):
        read(path)


def test_an_index_that_lies_is_refused(tmp_path: Path):
    path = gpt2_folder(tmp_path / "model")
    names = shard(path)
    edit_index(path, lambda placed: placed.update({"transformer.more": names[0]}))
    with pytest.raises(InputError, match=r"lacks `transformer.more`"):
        read(path)


# ---- the folder


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "weights.pkl", "a.pickle"]
)
def test_pickles_are_refused_unread_with_the_way_to_convert_them(tmp_path: Path, name: str):
    path = gpt2_folder(tmp_path / "model")
    (path / "model.safetensors").rename(path / name)
    (path / name).chmod(0)
    with pytest.raises(InputError, match=f"the weights are in `{name}`") as caught:
        ModelFolder(path)
    assert "save_pretrained" in str(caught.value.hint)


def test_a_pickle_beside_safetensors_is_not_read(tmp_path: Path):
    path = gpt2_folder(tmp_path / "model")
    (path / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    assert_equal(read(path), tensors_of())
    assert "pytorch_model.bin" not in ModelFolder(path).as_input().names()


def test_links_are_followed_as_the_cache_of_the_hub_has_them(tmp_path: Path):
    path = gpt2_folder(tmp_path / "model")
    (tmp_path / "blobs").mkdir()
    for file in list(path.iterdir()):
        file.rename(tmp_path / "blobs" / file.name)
        file.symlink_to(tmp_path / "blobs" / file.name)
    assert_equal(read(path), tensors_of())


def test_what_is_no_file_is_never_opened(tmp_path: Path):
    path = gpt2_folder(tmp_path / "model")
    (path / "model.safetensors").unlink()
    os.mkfifo(path / "model.safetensors")  # reading it would wait for ever
    with pytest.raises(InputError, match=r"lacks `model\.safetensors`"):
        read(path)


def test_a_name_of_the_hub_is_answered_with_how_to_download_it(tmp_path: Path):
    with pytest.raises(UsageError, match="is not a folder") as caught:
        ModelFolder(Path("openai-community/gpt2"))
    assert "`hf download openai-community/gpt2 --local-dir gpt2`" in str(caught.value.hint)
    with pytest.raises(InputError, match=r"has no `config.json`"):
        ModelFolder(tmp_path)


def test_a_folder_that_changes_while_it_is_read_is_noticed(tmp_path: Path):
    path = gpt2_folder(tmp_path / "model")
    folder = ModelFolder(path)
    folder.check_unchanged()
    write_weights(path / "model.safetensors", {**tensors_of(), "more": torch.zeros(1)})
    with pytest.raises(InputError, match="changed while it was read"):
        folder.check_unchanged()


def test_the_digest_is_that_of_the_files_that_count(tmp_path: Path):
    path = gpt2_folder(tmp_path / "model")
    before = ModelFolder(path).as_input().digest
    (path / "README.md").write_text("a card")
    assert ModelFolder(path).as_input().digest == before
    config = json.loads((path / "config.json").read_bytes())
    (path / "config.json").write_text(json.dumps({**config, "more": 1}))
    assert ModelFolder(path).as_input().digest != before


def test_shapes_need_no_model(tmp_path: Path):
    """Comparing the largest model that [model] can hold takes no memory of its size."""
    largest = ModelConfig(d_model=16_384, n_layers=256, n_heads=1, d_ff=131_072)
    with pytest.raises(InputError, match="the weights lack"):
        read_weights(
            ModelFolder(gpt2_folder(tmp_path / "model")), GPT2Config(largest, 65_536, False), 400
        )
