"""An imported folder is a model that computes what its makers' program computes."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from tests.helpers import Notes
from tests.imports.folders import (
    CONFIG,
    ENTRIES,
    MODEL,
    gpt2_folder,
    legacy,
    shard,
    tensors_of,
    write_weights,
)
from tests.lm.corpus import CORPUS
from tinygpt.errors import InputError, UsageError
from tinygpt.exports.formats import export
from tinygpt.exports.gpt2 import last_logits
from tinygpt.exports.model import open_model
from tinygpt.imports.model import Imported, import_model
from tinygpt.library import Model
from tinygpt.lm import probe as probes
from tinygpt.lm.fast.numpy_decoder import NumpyDecoder
from tinygpt.records import ImportRecord, ModelFile, Summary
from tinygpt.runs.trained_weights import ignore, open_weights
from tinygpt.store import Artifact, Store

TOLERANCE = 1e-5  # of the largest logit
END = len(ENTRIES) - 1


def imported(path: Path, store: Path, **settings: Any) -> Imported:
    return import_model(path, Store(store), reporter=Notes(), **settings)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return gpt2_folder(tmp_path / "model")


@pytest.fixture
def model(folder: Path, tmp_path: Path) -> Model:
    return Model(imported(folder, tmp_path / "store").train.artifact, device="cpu")


def random_ids(count: int = MODEL.context_length) -> list[int]:
    chance = random.Random(1)
    return [END, *(chance.randrange(len(ENTRIES)) for _ in range(count - 1))]


def gpt2_logits(folder: Path, token_ids: list[int], **changes: Any) -> np.ndarray:
    """The logits after the last three tokens, by GPT-2 as exports.gpt2 spells it out in numpy."""
    tensors = safetensors.torch.load((folder / "model.safetensors").read_bytes())
    config = json.loads((folder / "config.json").read_bytes())
    config |= {"n_inner": 4 * config["n_embd"], **changes}
    return last_logits(config, lambda name: tensors[name].float().numpy(), token_ids, 3)


def test_logits_are_those_of_gpt2(folder: Path, model: Model):
    ids = random_ids()
    found, expected = model.logits(ids)[-3:], gpt2_logits(folder, ids)
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()
    # The controls: another order of the weights, or one weight more, is far beyond that
    changed = gpt2_logits(folder, [*ids[:-1], ids[-2]])
    assert np.abs(found - changed).max() > 100 * TOLERANCE * np.abs(expected).max()


def test_a_wrong_matrix_would_be_noticed(folder: Path, tmp_path: Path, model: Model):
    name = "transformer.h.0.attn.c_proj.weight"  # square, so that its transpose fits, too
    weights = tensors_of()
    write_weights(folder / "model.safetensors", {**weights, name: weights[name].T})
    expected = gpt2_logits(folder, random_ids())
    difference = np.abs(model.logits(random_ids())[-3:] - expected).max()
    assert difference > 100 * TOLERANCE * np.abs(expected).max()


@pytest.mark.full
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"tie_word_embeddings": False},
        {"activation_function": "relu", "n_inner": 40},
        {"activation_function": "gelu"},
    ],
    ids=["plain", "untied", "relu", "exact GELU"],
)
def test_logits_and_ids_are_those_of_transformers(tmp_path: Path, settings: dict[str, Any]):
    transformers = pytest.importorskip("transformers", reason="needs transformers (extra `dev`)")
    folder = gpt2_folder(tmp_path / "model")  # for its tokenizer
    torch.manual_seed(3)
    config = transformers.GPT2Config(
        **{**CONFIG, "vocab_size": len(ENTRIES) + 6, "initializer_range": 0.3, **settings}
    )
    gpt2 = transformers.GPT2LMHeadModel(config).eval()
    for name, parameter in gpt2.named_parameters():
        if name.endswith(".bias"):  # which are zero at first, so that an error would not be seen
            torch.nn.init.normal_(parameter, std=0.3)
    gpt2.save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    is_exact = config.activation_function == "gelu"
    artifact = imported(folder, tmp_path / "store", tanh_gelu=is_exact).train.artifact
    model = Model(artifact, device="cpu")
    with torch.inference_mode():
        expected = gpt2(torch.tensor([random_ids()])).logits[0].numpy()[:, : len(ENTRIES)]
    difference = np.abs(model.logits(random_ids()) - expected).max()
    if is_exact:
        recorded = artifact.read_json("import.json", ImportRecord)["gelu_difference"]
        assert recorded is not None
        assert recorded / 30 < difference < 30 * recorded
    else:
        assert difference <= TOLERANCE * np.abs(expected).max()
    assert model.eos_token_id == tokenizer.convert_tokens_to_ids("<|endoftext|>")
    for text in CORPUS:
        assert model.encode(text) == tokenizer(text, add_special_tokens=False).input_ids


def test_the_artifacts_are_those_of_a_model(folder: Path, tmp_path: Path):
    tokenize, train = (one.artifact for one in imported(folder, tmp_path / "store"))
    assert (tokenize.stage, train.stage) == ("tokenize", "train")
    assert tokenize.is_imported
    assert train.is_imported
    assert train.manifest.inputs["tokenize"]["digest"] == tokenize.digest
    assert train.manifest.inputs["folder"] == tokenize.manifest.inputs["folder"]
    assert train.manifest.tables == {"model": MODEL.model_dump(mode="json")}
    assert train.manifest.provenance["imported"] == "model"
    assert train.read("tokenizer.json") == tokenize.read("tokenizer.json")
    assert train.read_json("config.json", ModelFile)["step"] == 0
    assert str(tmp_path).encode() not in b"".join(train.read(name) for name in train.names())
    weights = open_weights(train, "auto")
    assert (weights.which, weights.step, weights.note) == ("last", 0, None)
    assert not weights.model().explicit
    assert isinstance(weights.decoder("cpu"), NumpyDecoder)
    with pytest.raises(UsageError, match="was imported"):
        open_weights(train, "best")


def test_the_probe_notices_other_code(folder: Path, tmp_path: Path, monkeypatch: Any):
    train = imported(folder, tmp_path / "store").train.artifact
    probe = open_weights(train, "last").probe
    assert probe.token_ids[0] == END
    model = open_weights(train, "last").model()
    monkeypatch.setattr("tinygpt.lm.model.F.gelu", lambda x, approximate: torch.relu(x))
    assert not probe.agrees(probes.model_logits(model, probe, explicit=True))


def test_importing_again_is_cached_wherever_the_folder_is(folder: Path, tmp_path: Path):
    first = imported(folder, tmp_path / "store")
    assert [one.cached for one in first] == [False, False]
    folder.rename(tmp_path / "elsewhere")
    again = imported(tmp_path / "elsewhere", tmp_path / "store")
    assert [one.cached for one in again] == [True, True]
    assert [one.artifact.key for one in again] == [one.artifact.key for one in first]


def test_another_weight_is_another_model(folder: Path, tmp_path: Path):
    first = imported(folder, tmp_path / "store")
    weights = tensors_of()
    weights["transformer.wte.weight"][0, 0] += 1
    write_weights(folder / "model.safetensors", weights)
    second = imported(folder, tmp_path / "store")
    assert not second.train.cached
    assert second.train.artifact.key != first.train.artifact.key
    assert second.tokenize.artifact.digest == first.tokenize.artifact.digest


def test_two_imports_give_the_same_bytes(folder: Path, tmp_path: Path):
    one = imported(folder, tmp_path / "one").train.artifact
    two = imported(folder, tmp_path / "two").train.artifact
    assert one.digest == two.digest


def test_other_files_with_the_same_weights_give_the_same_weights(folder: Path, tmp_path: Path):
    first = imported(folder, tmp_path / "store").train.artifact
    shard(folder)
    legacy(folder)
    second = imported(folder, tmp_path / "store").train.artifact
    for name in ("model.safetensors", "tokenizer.json", "probe.safetensors"):
        assert first.read(name) == second.read(name)


def test_a_damaged_import_is_imported_again(folder: Path, tmp_path: Path):
    train = imported(folder, tmp_path / "store").train.artifact
    path = train.path("model.safetensors")
    path.chmod(0o644)
    path.write_bytes(b"\0" * path.stat().st_size)
    notes = Notes()
    again = import_model(folder, Store(tmp_path / "store"), reporter=notes).train
    assert not again.cached
    assert again.artifact.digest == train.digest
    again.artifact.check()
    assert "is damaged; importing it again" in notes.notes[0]


def test_a_refused_folder_leaves_nothing(folder: Path, tmp_path: Path):
    weights = tensors_of()
    weights["transformer.wpe.weight"][0, 0] = float("nan")
    write_weights(folder / "model.safetensors", weights)
    with pytest.raises(InputError, match="NaN"):
        imported(folder, tmp_path / "store")
    assert not Store(tmp_path / "store").list("train")
    assert not list((tmp_path / "store" / ".partial").iterdir())


def test_weights_with_logits_that_are_not_finite_are_refused(folder: Path, tmp_path: Path):
    weights = {name: tensor * 1e38 for name, tensor in tensors_of().items()}
    write_weights(folder / "model.safetensors", weights)
    with pytest.raises(InputError, match="not finite"):
        imported(folder, tmp_path / "store")


def test_what_was_done_to_the_weights_is_said_and_recorded(tmp_path: Path):
    def change(weights: dict[str, Any]) -> None:
        del weights["transformer.ln_f.bias"]
        weights["transformer.h.0.attn.masked_bias"] = torch.tensor(-1e4)
        for name in weights:
            weights[name] = weights[name].half()

    folder = gpt2_folder(tmp_path / "model", tensors=change, rows=len(ENTRIES) + 2)
    train = imported(folder, tmp_path / "store").train.artifact
    assert train.read_json("import.json", ImportRecord) == {
        "numbers": ["float16"],
        "dropped_rows": 2,
        "zero_biases": 1,
        "masks": 1,
        "gelu_difference": None,
    }
    rows = dict(map(tuple, train.read_json("summary.json", Summary)["rows"]))
    assert rows["dropped"] == "2 rows of the embedding beyond the tokenizer's entries"
    assert rows["zeros"] == "1 biases that the folder lacks"
    assert rows["numbers"] == "float16, stored as float32"
    assert rows["left out"] == "1 mask buffers, which are no weights"


def exact_gelu(path: Path) -> Path:
    def widen(weights: dict[str, Any]) -> None:
        for name in weights:
            if name.endswith("mlp.c_fc.weight"):
                weights[name] *= 6  # where both forms differ: they agree near zero

    return gpt2_folder(
        path, config=lambda config: config.update(activation_function="gelu"), tensors=widen
    )


def test_the_exact_gelu_is_imported_with_the_largest_difference(tmp_path: Path, monkeypatch: Any):
    folder = exact_gelu(tmp_path / "model")
    with pytest.raises(InputError, match="exact GELU"):
        imported(folder, tmp_path / "store")
    train = imported(folder, tmp_path / "store", tanh_gelu=True).train.artifact
    recorded = train.read_json("import.json", ImportRecord)["gelu_difference"]
    weights = open_weights(train, "last")
    model, gelu = weights.model(), F.gelu
    monkeypatch.setattr("tinygpt.lm.model.F.gelu", lambda x, approximate: gelu(x))
    exact = probes.model_logits(model, weights.probe, explicit=True)
    assert weights.probe.logits is not None
    expected = np.abs(exact - weights.probe.logits).max()
    assert recorded == pytest.approx(expected, rel=1e-3)
    assert expected > weights.probe.tolerance  # more than rounding
    rows = dict(map(tuple, train.read_json("summary.json", Summary)["rows"]))
    assert f"{expected:.2g} from the exact form" in rows["GELU"]


def test_the_flag_changes_nothing_for_the_tanh_form(folder: Path, tmp_path: Path):
    first = imported(folder, tmp_path / "store").train
    assert imported(folder, tmp_path / "store", tanh_gelu=True).train == first._replace(cached=True)


@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": False}, {"d_ff": 40}], ids=str)
def test_what_was_exported_comes_back_bit_for_bit(tmp_path: Path, changes: dict[str, Any]):
    def config(settings: dict[str, Any]) -> None:
        settings["tie_word_embeddings"] = changes.get("tie_embeddings", True)
        settings["n_inner"] = changes.get("d_ff")

    model = MODEL.model_copy(update=changes)
    first = imported(
        gpt2_folder(tmp_path / "model", config=config, model=model), tmp_path / "store"
    ).train.artifact
    export(open_model(first), tmp_path / "exported", "hf", "f32", False, ignore)
    back = imported(tmp_path / "exported", tmp_path / "store").train.artifact
    for name in ("model.safetensors", "tokenizer.json", "probe.safetensors", "config.json"):
        assert back.read(name) == first.read(name), name
    assert back.key != first.key  # of another folder


def test_our_own_models_come_back(finished: Any, tmp_path: Path):
    """The end-of-text token of a tokenizer that we train is id 0, and so it stays."""
    train: Artifact = finished.artifacts("train")[0]
    export(open_model(train, "last"), tmp_path / "exported", "hf", "f32", False, ignore)
    back = imported(tmp_path / "exported", tmp_path / "store").train.artifact
    for name in ("model.safetensors", "tokenizer.json"):
        assert back.read(name) == train.read(name), name
    assert Model(back).eos_token_id == 0
    assert Model(back).generate_text("Once", seed=1) == Model(train).generate_text("Once", seed=1)


@pytest.mark.full
def test_a_folder_with_changed_bytes_is_read_or_refused_with_a_sentence(tmp_path: Path):
    chance = random.Random(0)
    whole = gpt2_folder(tmp_path / "whole")
    parts = gpt2_folder(tmp_path / "parts")
    shard(parts)
    legacy(parts)
    refused: list[str] = []
    for number in range(120):
        folder = tmp_path / str(number)
        shutil.copytree(chance.choice([whole, parts]), folder)
        path = chance.choice(sorted(folder.iterdir()))
        data = bytearray(path.read_bytes())
        for _ in range(chance.randrange(1, 5)):
            at = chance.randrange(min(len(data), 4_000))
            data[at : at + chance.randrange(2)] = chance.choice(
                [b"", b"\0", b'"', b"9", b"]", b"}"]
            )
        path.write_bytes(data)
        try:
            imported(folder, tmp_path / "store")
        except InputError as error:
            refused.append(error.message)
    assert len(refused) > 60
    assert not any("\n" in message for message in refused)
