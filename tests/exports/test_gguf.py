"""What `export --to gguf` writes, read by GGUFReader and by transformers.

tests/interop has llama.cpp read it.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from tests.exports.examples import V, model_with
from tinygpt.errors import ConfigError, CorruptArtifactError, VerificationError
from tinygpt.exports import gguf_file
from tinygpt.exports.formats import export
from tinygpt.exports.gpt2_layout import gpt2_name
from tinygpt.exports.model import ModelToExport
from tinygpt.lm.weights import Array, model_of
from tinygpt.runs.trained_weights import ignore

DTYPES = ("f32", "f16", "q8_0")
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
"""Runs a test for every number format."""


def export_gguf(model: ModelToExport, folder: Path, dtype: str = "f32") -> str:
    """The line that an export to `folder` prints."""
    return export(model, folder, "gguf", dtype, False, ignore)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelToExport:
    return model_with(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def exported(
    model: ModelToExport, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, str]]:
    """The folder of each number format, and the line that was printed."""
    root = tmp_path_factory.mktemp("exported")
    return {dtype: (root / dtype, export_gguf(model, root / dtype, dtype)) for dtype in DTYPES}


def test_an_export_has_the_model_a_modelfile_and_a_card(exported):
    for folder, line in exported.values():
        names = sorted(path.name for path in folder.iterdir())
        assert names == [".tinygpt-export.json", "Modelfile", "README.md", "model.gguf"]
        assert line.startswith("read back: 960 logits differ by up to ")
        assert line.endswith(" token ids are equal")


@each_dtype
def test_equal_models_give_equal_bytes(model, exported, tmp_path, dtype):
    export_gguf(model, tmp_path / "again", dtype)
    for path in exported[dtype][0].iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_the_file_says_what_llama_cpp_needs_to_know(model, exported):
    reader = gguf.GGUFReader(exported["f32"][0] / "model.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tokenizer = json.loads(model.tokenizer_json)["model"]
    assert fields["general.architecture"] == "gpt2"
    assert fields["gpt2.context_length"] == 48
    assert fields["gpt2.embedding_length"] == 64
    assert fields["gpt2.feed_forward_length"] == 96
    assert fields["gpt2.block_count"] == 2
    assert fields["gpt2.attention.head_count"] == 4
    assert fields["gpt2.attention.layer_norm_epsilon"] == pytest.approx(1e-5)
    assert fields["tokenizer.ggml.model"] == "gpt2"
    assert fields["tokenizer.ggml.pre"] == "gpt-2"
    assert fields["tokenizer.ggml.tokens"] == list(tokenizer["vocab"])
    assert fields["tokenizer.ggml.merges"] == [" ".join(pair) for pair in tokenizer["merges"]]
    assert fields["tokenizer.ggml.token_type"] == [3] + [1] * (V - 1)
    assert fields["tokenizer.ggml.bos_token_id"] == 0
    assert fields["tokenizer.ggml.eos_token_id"] == 0
    assert fields["tokenizer.ggml.add_bos_token"] is True


def test_every_bias_and_the_output_matrix_are_there(model, exported):
    reader = gguf.GGUFReader(exported["f32"][0] / "model.gguf")
    read = {part.name: part.data for part in reader.tensors}
    parts = ("attn_norm", "attn_qkv", "attn_output", "ffn_norm", "ffn_up", "ffn_down")
    blocks = {f"blk.{i}.{part}.{kind}" for i in (0, 1) for part in parts for kind in KINDS}
    outside = {"token_embd.weight", "position_embd.weight", "output.weight"}
    assert set(read) == blocks | outside | {"output_norm.weight", "output_norm.bias"}
    weights = model.weights.arrays
    assert np.array_equal(read["output.weight"], weights["token_embedding.weight"])
    assert np.array_equal(read["blk.1.attn_qkv.weight"], weights["blocks.1.attention.qkv.weight"])
    assert np.array_equal(read["blk.0.ffn_down.bias"], weights["blocks.0.mlp.down.bias"])


KINDS = ("weight", "bias")


@each_dtype
def test_matrices_have_the_format_that_was_asked_for_and_the_rest_is_f32(exported, dtype):
    reader = gguf.GGUFReader(exported[dtype][0] / "model.gguf")
    formats = {part.name: part.tensor_type.name for part in reader.tensors}
    for name, found in formats.items():
        small = name.endswith("bias") or "norm" in name or name == "position_embd.weight"
        assert found == ("F32" if small else dtype.upper()), name


def test_an_untied_output_matrix_is_the_models_own(tmp_path):
    model = model_with(tmp_path, tie_embeddings=False)
    export_gguf(model, tmp_path / "out")
    reader = gguf.GGUFReader(tmp_path / "out" / "model.gguf")
    (head,) = [part.data for part in reader.tensors if part.name == "output.weight"]
    assert np.array_equal(head, model.weights.arrays["lm_head.weight"])


def test_no_position_embeddings_become_zeros(tmp_path):
    export_gguf(model_with(tmp_path, positions="none"), tmp_path / "out")
    reader = gguf.GGUFReader(tmp_path / "out" / "model.gguf")
    (positions,) = [part.data for part in reader.tensors if part.name == "position_embd.weight"]
    assert positions.shape == (48, 64)
    assert not positions.any()


def test_the_modelfile_samples_as_tinygpt_does(exported):
    lines = (exported["f16"][0] / "Modelfile").read_text().splitlines()
    assert lines == [
        "FROM ./model.gguf",
        'TEMPLATE "{{ .Prompt }}"',
        "PARAMETER num_ctx 48",
        "PARAMETER temperature 0.8",
        "PARAMETER top_k 0",
        "PARAMETER top_p 1",
        "PARAMETER min_p 0",
        "PARAMETER repeat_penalty 1",
        'PARAMETER stop "<|endoftext|>"',
    ]


def test_nothing_in_the_folder_says_where_it_was_made(exported, model):
    for folder, _ in exported.values():
        for path in folder.iterdir():
            data = path.read_bytes()
            for word in (str(model.train.folder.parents[1]), str(Path.home()), str(folder)):
                assert word.encode() not in data


def load_in_transformers(folder: Path) -> Any:
    """The model of model.gguf, by the legacy reader of transformers."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    # Without a configuration, it takes context length and d_ff for those of OpenAI's GPT-2
    config = transformers.GPT2Config(
        vocab_size=V, n_positions=48, n_embd=64, n_layer=2, n_head=4, n_inner=96
    )
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, gguf_file="model.gguf", config=config
    )


@pytest.fixture(scope="module")
def in_transformers(exported) -> dict[str, Any]:
    """Model and tokenizer of each number format, read by the legacy reader of transformers."""
    transformers = pytest.importorskip("transformers")
    read = {}
    for dtype, (folder, _) in exported.items():
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file="model.gguf")
        read[dtype] = (load_in_transformers(folder), tokenizer)
    return read


@pytest.mark.full
@pytest.mark.parametrize(
    ("dtype", "least", "most"), [("f32", 0, 1e-5), ("f16", 1e-4, 1e-3), ("q8_0", 2e-3, 2e-2)]
)
def test_transformers_computes_the_logits_of_the_model(
    model, exported, in_transformers, dtype, least, most
):
    """Equal but for what the format rounds: `least` and `most` are what f16 and q8_0 move."""
    reader = gguf.GGUFReader(exported[dtype][0] / "model.gguf")
    read = {part.name: gguf.dequantize(part.data, part.tensor_type) for part in reader.tensors}
    rounded = {
        name: np.array(read[gguf_file.gguf_name(gpt2_name(name))]) for name in model.weights.arrays
    }
    token_ids = torch.randint(0, V, (4, 48), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        found = in_transformers[dtype][0](token_ids).logits
        of_rounded = model_of(model.config, V, rounded)(token_ids)
        of_the_model = model.weights.model()(token_ids)
    assert (found - of_rounded).abs().max() <= 1e-5
    assert least <= (found - of_the_model).abs().max() <= most


@pytest.mark.full
def test_transformers_encodes_as_the_models_tokenizer_does(model, in_transformers):
    chance = random.Random(4)
    native = in_transformers["f32"][1]
    compared = 0
    for _ in range(1_000):
        text = "".join(chr(chance.choice(RANGES)(chance)) for _ in range(chance.randrange(1, 30)))
        expected = model.tokenizer.encode(text)
        assert native.encode(text, add_special_tokens=False) == expected, ascii(text)
        compared += len(expected)
    assert compared > 10_000


RANGES: list[Callable[[random.Random], int]] = [
    lambda chance: chance.randrange(0x20, 0x7F),
    lambda chance: chance.randrange(0xA0, 0x3000),
    lambda chance: chance.choice([0x0A, 0x20, 0x3042, 0x4E00, 0xAC00, 0x1F642]),
]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"norm": "post"}, "`model.norm` = post"),
        ({"activation": "relu"}, "`model.activation` = relu"),
        ({"positions": "sinusoidal"}, "`model.positions` = sinusoidal"),
    ],
)
def test_what_gpt2_cannot_express_is_refused_with_the_key(tmp_path, settings, words):
    with pytest.raises(ConfigError, match=words) as refused:
        export_gguf(model_with(tmp_path, **settings), tmp_path / "out")
    assert refused.value.hint is not None
    assert f"model.{next(iter(settings))}=" in refused.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("settings", [{"d_model": 48}, {"d_ff": 50}])
def test_rows_that_blocks_do_not_fill_are_refused(tmp_path, settings):
    with pytest.raises(ConfigError, match="not divisible by 32") as refused:
        export_gguf(model_with(tmp_path, **settings), tmp_path / "out", "q8_0")
    assert refused.value.hint == "use `--dtype f16`"
    export_gguf(model_with(tmp_path, **settings), tmp_path / "out", "f16")


def test_weights_beyond_f16_are_refused(tmp_path):
    def grow(weights: dict[str, Array]) -> None:
        weights["blocks.0.mlp.down.bias"][3] = 1e5

    model = model_with(tmp_path, grow)
    with pytest.raises(ConfigError, match="where f16 ends") as refused:
        export_gguf(model, tmp_path / "out", "f16")
    assert refused.value.hint == "use `--dtype f32`"
    export_gguf(model, tmp_path / "out", "f32")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    def spoil(weights: dict[str, Array]) -> None:
        weights["blocks.1.mlp.up.weight"][5, 6] = np.nan

    with pytest.raises(CorruptArtifactError, match=r"`blocks\.1\.mlp\.up\.weight` contains a NaN"):
        export_gguf(model_with(tmp_path, spoil), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_without_merges_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no merges"):
        export_gguf(model_with(tmp_path, vocab_size=257), tmp_path / "out")


def flip(data: bytes, place: int, bit: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1 << bit
    return bytes(changed)


@each_dtype
def test_a_changed_bit_of_a_weight_is_found(model, tmp_path, monkeypatch, dtype):
    """The check reads what is on the disk: a bit that counts is exit 6, and nothing is left."""
    real = gguf_file.to_bytes

    def damaged(*arguments: Any) -> bytes:
        data = real(*arguments)
        return flip(data, len(data) - 5, 6)

    monkeypatch.setattr(gguf_file, "to_bytes", damaged)
    with pytest.raises(VerificationError, match="is off by up to") as refused:
        export_gguf(model, tmp_path / "out", dtype)
    assert refused.value.exit_code == 6
    assert list(tmp_path.iterdir()) == []


def test_every_flipped_bit_before_the_numbers_is_found(model, tmp_path, monkeypatch):
    chance = random.Random(7)
    says = gguf_file.metadata_of(model, "f32")
    data = gguf_file.to_bytes(says, gguf_file.tensors_of(model), "f32")
    names_end = data.index(b"blk.1.ffn_down.bias")
    for number in range(60):
        changed = flip(data, chance.randrange(names_end), chance.randrange(8))
        monkeypatch.setattr(gguf_file, "to_bytes", lambda *_, changed=changed: changed)
        with pytest.raises(VerificationError):
            export_gguf(model, tmp_path / str(number))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left", [3, 100, 2_000, -7])
def test_a_file_that_lacks_its_end_is_found(model, tmp_path, monkeypatch, left):
    real = gguf_file.to_bytes
    monkeypatch.setattr(gguf_file, "to_bytes", lambda *arguments: real(*arguments)[:left])
    with pytest.raises(VerificationError, match="cannot be read back"):
        export_gguf(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def changes() -> dict[str, Callable[[dict[str, Any], dict[str, Array]], None]]:
    """Mistakes in a file: what they do to what it says and to its tensors."""

    def swap(tensors: dict[str, Array], one: str, other: str) -> None:
        tensors[one], tensors[other] = tensors[other], tensors[one]

    def transpose(says: dict[str, Any], tensors: dict[str, Array]) -> None:
        tensors["blk.0.attn_output.weight"] = tensors["blk.0.attn_output.weight"].T.copy()

    def roll(says: dict[str, Any], tensors: dict[str, Array]) -> None:
        tensors["blk.0.attn_qkv.weight"] = np.roll(tensors["blk.0.attn_qkv.weight"], 64, axis=0)

    return {
        "transposed": transpose,
        "k, v and q in another order": roll,
        "norms swapped": lambda says, tensors: swap(
            tensors, "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"
        ),
        "no bias": lambda says, tensors: tensors["blk.1.ffn_up.bias"].fill(0),
        "tensor missing": lambda says, tensors: tensors.pop("output.weight"),
        "other epsilon": lambda says, tensors: says.update(
            {"gpt2.attention.layer_norm_epsilon": 1e-6}
        ),
        "other heads": lambda says, tensors: says.update({"gpt2.attention.head_count": 2}),
        "no first token": lambda says, tensors: says.update(
            {"tokenizer.ggml.add_bos_token": False}
        ),
        "another merge first": lambda says, tensors: says.update(
            {gguf_file.MERGES: says[gguf_file.MERGES][::-1]}
        ),
    }


@pytest.mark.parametrize("mistake", list(changes()))
@each_dtype
def test_a_mistake_in_the_file_is_found(model, tmp_path, monkeypatch, dtype, mistake):
    real = gguf_file.to_bytes

    def mistaken(says: dict[str, Any], tensors: dict[str, Array], dtype: str) -> bytes:
        says, tensors = dict(says), {name: array.copy() for name, array in tensors.items()}
        changes()[mistake](says, tensors)
        return real(says, tensors, dtype)

    monkeypatch.setattr(gguf_file, "to_bytes", mistaken)
    with pytest.raises(VerificationError):
        export_gguf(model, tmp_path / "out", dtype)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
def test_transformers_notices_a_wrong_name_that_writing_and_reading_share(
    model, tmp_path, monkeypatch
):
    """The control of the other reader: our own check cannot know what a name means elsewhere."""
    swapped = {**gguf_file.IN_BLOCK, "ln_1": "ffn_norm", "ln_2": "attn_norm"}
    monkeypatch.setattr(gguf_file, "IN_BLOCK", swapped)
    export_gguf(model, tmp_path / "out")
    token_ids = torch.randint(0, V, (1, 48), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        found = load_in_transformers(tmp_path / "out")(token_ids).logits
        expected = model.weights.model()(token_ids)
    assert (found - expected).abs().max() > 0.01
