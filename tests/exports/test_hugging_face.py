"""What `export --to hf` writes, and that a wrong export is noticed.

tests/interop/test_transformers.py loads it with transformers.
"""

import getpass
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import tokenizers
import torch

from tests.exports.examples import V, model_with
from tests.helpers import publish
from tinygpt.errors import ConfigError, CorruptArtifactError, VerificationError
from tinygpt.exports import gpt2, gpt2_layout, hugging_face
from tinygpt.exports.formats import FORMATS, export
from tinygpt.exports.model import ModelToExport, open_model
from tinygpt.project import Project
from tinygpt.runs.trained_weights import ignore
from tinygpt.store import Store

DTYPES = FORMATS["hf"]


def export_hf(model: ModelToExport, folder: Path, dtype: str = "f32") -> str:
    """The line that an export to `folder` prints."""
    return export(model, folder, "hf", dtype, False, ignore)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelToExport:
    return model_with(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def folder(model: ModelToExport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of that model."""
    path = tmp_path_factory.mktemp("exported") / "hf"
    export_hf(model, path)
    return path


def read(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / name).read_bytes())
    return content


def test_the_folder_has_what_transformers_and_people_read(model, folder):
    assert sorted(path.name for path in folder.iterdir()) == [
        ".tinygpt-export.json",
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    config = read(folder, "config.json")
    assert config["architectures"] == ["GPT2LMHeadModel"]
    assert (config["n_positions"], config["n_ctx"], config["n_inner"]) == (48, 48, 96)
    assert (config["activation_function"], config["layer_norm_epsilon"]) == ("gelu_new", 1e-5)
    assert (config["bos_token_id"], config["eos_token_id"], config["vocab_size"]) == (0, 0, V)
    generation = read(folder, "generation_config.json")
    assert (generation["temperature"], generation["top_k"], generation["top_p"]) == (0.8, 0, 1.0)
    assert generation["max_length"] == 48


def test_matrices_of_blocks_are_transposed_and_embeddings_are_not(model, folder):
    arrays = model.weights.arrays
    with safetensors.safe_open(folder / "model.safetensors", framework="numpy") as stored:
        assert stored.metadata() == {"format": "pt"}
        assert len(stored.keys()) == len(arrays) == 2 + 2 * 12 + 2
        for mine, theirs, transposed in (
            ("token_embedding.weight", "transformer.wte.weight", False),
            ("position_embedding.weight", "transformer.wpe.weight", False),
            ("blocks.1.attention.qkv.weight", "transformer.h.1.attn.c_attn.weight", True),
            ("blocks.1.attention.out.weight", "transformer.h.1.attn.c_proj.weight", True),
            ("blocks.0.mlp.up.weight", "transformer.h.0.mlp.c_fc.weight", True),
            ("blocks.0.mlp.down.bias", "transformer.h.0.mlp.c_proj.bias", False),
            ("blocks.0.norm_2.weight", "transformer.h.0.ln_2.weight", False),
            ("norm.bias", "transformer.ln_f.bias", False),
        ):
            expected = arrays[mine].T if transposed else arrays[mine]
            np.testing.assert_array_equal(stored.get_tensor(theirs), expected)


def test_the_tokenizer_puts_the_end_of_text_token_before_a_text(model, folder):
    native = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = "Tom saw a cat. 日本 🙂"
    ids = model.tokenizer.encode(text)
    assert native.encode(text).ids == [0, *ids]
    assert native.encode(text, add_special_tokens=False).ids == ids
    assert native.encode(text, "x").ids == [0, *ids, 0, *model.tokenizer.encode("x")]


def test_equal_models_give_equal_bytes(model, folder, tmp_path):
    export_hf(model, tmp_path / "again")
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"tie_embeddings": False},
        {"positions": "none"},
        {"n_heads": 1, "n_layers": 1, "d_ff": 4 * 64},
        {"n_heads": 8, "context_length": 2},
    ],
    ids=str,
)
def test_every_kind_of_model_passes_its_own_check(tmp_path, settings, dtype):
    line = export_hf(model_with(tmp_path, **settings), tmp_path / "out", dtype)
    positions = min(3, settings.get("context_length", 48))
    assert line.startswith(f"read back: {positions * V:,} logits differ by up to ")
    assert line.endswith(" token ids are equal")
    assert ("from those of the f32 weights" in line) == (dtype != "f32")
    config = read(tmp_path / "out", "config.json")
    assert config["tie_word_embeddings"] == settings.get("tie_embeddings", True)
    with safetensors.safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as stored:
        names = set(stored.keys())
        assert ("lm_head.weight" in names) == ("tie_embeddings" in settings)
        types = {str(stored.get_tensor(name).dtype) for name in names}
        assert types == {f"torch.{config['dtype']}"}
        if settings.get("positions") == "none":
            assert not stored.get_tensor("transformer.wpe.weight").any()


def transposed(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Writes a matrix as it is in lm/model.py."""

    def change(patch: pytest.MonkeyPatch) -> None:
        def wrong(mine: str) -> bool:
            return gpt2_layout_is_transposed(mine) and not mine.endswith(name)

        patch.setattr(gpt2_layout, "is_transposed", wrong)

    return change


def renamed(mine: str, theirs: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Writes a module under the name of another one."""
    return lambda patch: patch.setitem(gpt2_layout.IN_BLOCK, mine, theirs)


gpt2_layout_is_transposed = gpt2_layout.is_transposed


def config_with(**changes: object) -> Callable[[pytest.MonkeyPatch], None]:
    """Writes another config.json."""
    of_model = hugging_face.model_config

    def change(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(hugging_face, "model_config", lambda model: {**of_model(model), **changes})

    return change


def template_left_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(hugging_face, "tokenizer_file", lambda model: model.tokenizer_json)


def tokenizer_with(**changes: object) -> Callable[[pytest.MonkeyPatch], None]:
    """Writes another tokenizer.json."""
    of_model = hugging_face.tokenizer_file

    def change(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(
            hugging_face,
            "tokenizer_file",
            lambda model: json.dumps({**json.loads(of_model(model)), **changes}).encode(),
        )

    return change


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (transposed("attention.out.weight"), "other logits"),
        (config_with(n_head=2), "other logits"),
        (config_with(layer_norm_epsilon=1e-3), "other logits"),
        (template_left_out, "without the end-of-text token"),
        (tokenizer_with(normalizer={"type": "NFC"}), "encodes"),
        (tokenizer_with(pre_tokenizer=None), "encodes"),
    ],
)
def test_a_mistake_in_what_is_written_is_noticed_and_nothing_stays(
    model, tmp_path, monkeypatch, mistake, words, dtype
):
    mistake(monkeypatch)
    with pytest.raises(VerificationError, match=words) as found:
        export_hf(model, tmp_path / "below" / "out", dtype)
    assert found.value.exit_code == 6
    assert "nothing was written" in (found.value.hint or "")
    assert list(tmp_path.iterdir()) == []


def test_a_changed_bit_of_a_weight_on_the_disk_is_noticed(model, tmp_path, monkeypatch):
    save = safetensors.torch.save

    def damaged(tensors: Any, metadata: Any) -> bytes:
        data = bytearray(save(tensors, metadata))
        data[-1] ^= 0x40
        return bytes(data)

    monkeypatch.setattr(safetensors.torch, "save", damaged)
    with pytest.raises(VerificationError, match="other logits"):
        export_hf(model, tmp_path / "out")


def test_a_model_that_is_computed_otherwise_than_gpt2_is_noticed(tmp_path, monkeypatch):
    exact = torch.nn.functional.gelu

    def gelu(x: Any, approximate: str = "none") -> Any:
        return exact(x)

    monkeypatch.setattr("torch.nn.functional.gelu", gelu)  # as if lm/model.py had been changed
    changed = model_with(tmp_path / "model")
    monkeypatch.undo()
    with pytest.raises(VerificationError, match="other logits than the model") as found:
        export_hf(changed, tmp_path / "out")
    assert "if you changed `tinygpt/lm/`" in (found.value.hint or "")


@pytest.mark.parametrize("kind", ["hf", "gguf"])
@pytest.mark.parametrize(
    ("settings", "words", "hint"),
    [
        ({"norm": "post"}, "`model.norm` = post", "--set model.norm=pre"),
        ({"activation": "relu"}, "`model.activation` = relu", "--set model.activation=gelu"),
        (
            {"positions": "sinusoidal"},
            "`model.positions` = sinusoidal",
            "--set model.positions=learned",
        ),
    ],
)
def test_what_gpt2_cannot_express_is_refused_with_the_key(tmp_path, settings, words, hint, kind):
    model = model_with(tmp_path / "model", **settings)
    with pytest.raises(ConfigError, match=words) as refused:
        export(model, tmp_path / "out", kind, None, False, ignore)
    assert hint in (refused.value.hint or "")
    assert not (tmp_path / "out").exists()


def test_weights_that_are_not_finite_or_too_many_are_refused(tmp_path):
    def with_nan(weights: dict[str, Any]) -> None:
        weights["norm.bias"][3] = np.nan

    def with_another(weights: dict[str, Any]) -> None:
        weights["blocks.7.norm_1.bias"] = weights["norm.bias"].copy()

    for number, (change, words) in enumerate(
        [(with_nan, "contains a NaN"), (with_another, "blocks.7.norm_1.bias")]
    ):
        model = model_with(tmp_path / str(number), change)
        with pytest.raises(CorruptArtifactError, match=words):
            export_hf(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_weight_beyond_f16_is_refused_with_the_formats_that_have_it(tmp_path):
    def large(weights: dict[str, Any]) -> None:
        weights["norm.bias"][3] = 70_000

    model = model_with(tmp_path / "model", large)
    with pytest.raises(ConfigError, match="65,504, where f16 ends") as refused:
        export_hf(model, tmp_path / "out", "f16")
    assert "--dtype bf16" in (refused.value.hint or "")
    assert export_hf(model, tmp_path / "out", "bf16")


def test_a_model_from_before_there_were_probes_is_compared_with_the_code_of_now(model, tmp_path):
    files = {name: model.train.read(name) for name in model.train.names()}
    del files["probe.safetensors"]
    old = open_model(publish(Store(tmp_path / "store"), "train", files), "last")
    line = export_hf(old, tmp_path / "out")
    assert float(line.split("up to ")[1].split()[0]) > 0


def test_numpy_gpt2_refuses_another_activation(model):
    config = gpt2.model_config(model) | {"activation_function": "gelu"}
    with pytest.raises(ValueError, match="gelu"):
        gpt2.last_logits(config, {}.__getitem__, [0], 1)


@pytest.fixture(scope="module")
def card(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The model card of a finished run, and its folder."""
    store = finished.store
    lineage = {artifact.stage: artifact for artifact in reversed(store.list())}
    model = open_model(lineage["train"], lineage=lineage, data_license="CC0 <b>\n# `not` a [title]")
    folder = tmp_path_factory.mktemp("card") / "out"
    export_hf(model, folder)
    return (folder / "README.md").read_text(encoding="utf-8"), folder


def test_the_card_says_what_the_model_was_made_from_and_how_good_it_is(card, finished):
    text, _ = card
    lineage = {artifact.stage: artifact for artifact in finished.store.list()}
    evaluation = lineage["eval"].read_json("eval.json")
    for words in (
        f"# tinygpt {lineage['train'].id}",
        "stories of tinygpt's own generator, seed 0",
        f"`{lineage['corpus'].digest}`",
        f"`{lineage['corpus'].manifest.tables['data']['source']}`",
        f"`{lineage['train'].digest}`",
        "max_steps = 4",
        "Step 4 of 4",
        f"| {evaluation['loss']:.4f} | {evaluation['perplexity']:,.2f} |",
        f"| trigram | {evaluation['baselines']['trigram']['loss']:.4f} |",
        evaluation["label"],
        "It reads 16 tokens at once",
        'pipeline("text-generation"',
        "`<|endoftext|>` typed in a text",
    ):
        assert words in text, words


def test_a_license_is_one_line_without_markup_and_missing_if_it_was_not_stated(card, model, folder):
    assert r"License of the text: CC0 \<b\> \# \`not\` a \[title\]" in card[0]
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "License of the text: not stated" in text
    assert "Not evaluated" in text
    assert "is not described here" in text


def test_nothing_exported_names_a_path_a_user_or_a_host(card, finished):
    _, folder = card
    for path in folder.iterdir():
        data = path.read_bytes().decode("latin-1")
        for name in (str(finished.store.root), str(Path.home()), "/tmp/", str(folder.parent)):
            assert name not in data, path.name
        if path.name != "tokenizer.json" and path.suffix != ".safetensors":
            words = set(data.replace('"', " ").split())
            assert not words & {platform.node(), getpass.getuser()}, path.name
