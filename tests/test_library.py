"""tinygpt in Python: `tinygpt.load`, and what the package offers by name."""

import json
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

import tinygpt
from tests.helpers import WORSENING, publish, with_settings
from tinygpt.config import TokenizerConfig
from tinygpt.errors import (
    ArtifactError,
    CorruptArtifactError,
    InputError,
    MissingArtifactError,
    StoppedEarly,
    UsageError,
)
from tinygpt.lm import weights
from tinygpt.lm.tokenizer import END_OF_TEXT, Tokenizer
from tinygpt.progress import Limits
from tinygpt.project import Project
from tinygpt.store import Artifact, Store


@pytest.fixture(scope="module")
def train(finished: Project) -> Artifact:
    """The trained artifact."""
    return finished.artifacts("train")[0]


@pytest.fixture(scope="module")
def model(train: Artifact) -> tinygpt.Model:
    return tinygpt.load(train.folder, device="cpu")


def python(code: str, root: Path) -> object:
    """The JSON value that a program prints in a process of its own."""
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, cwd=root, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


class TestPackage:
    def test_importing_it_loads_no_library(self, root: Path) -> None:
        code = """
import json, sys
import tinygpt
names = {name.partition(".")[0] for name in sys.modules}
print(json.dumps(sorted(names - sys.stdlib_module_names - {"__main__"})))
"""
        loaded = python(code, root)
        assert isinstance(loaded, list)
        assert "tinygpt" in loaded
        assert not {"torch", "numpy", "pydantic", "matplotlib", "tokenizers"} & set(loaded)

    def test_a_model_is_loaded_and_generates_without_torch(
        self, root: Path, train: Artifact
    ) -> None:
        code = f"""
import json, sys
import tinygpt
text = tinygpt.load({str(train.folder)!r}, device="cpu").generate_text("Once", seed=1)
print(json.dumps([text, "torch" in sys.modules]))
"""
        expected = tinygpt.load(train.folder, device="cpu").generate_text("Once", seed=1)
        assert python(code, root) == [expected, False]

    def test_every_public_name_is_there_and_listed(self) -> None:
        for name in tinygpt.__all__:
            assert getattr(tinygpt, name).__name__ == name
            assert name in dir(tinygpt)
        assert "__version__" in dir(tinygpt)

    def test_an_unknown_name_is_an_attribute_error(self) -> None:
        with pytest.raises(AttributeError, match="module 'tinygpt' has no attribute 'no_such'"):
            tinygpt.no_such  # noqa: B018


class TestLoading:
    @pytest.mark.parametrize("length", [4, 12, 64])
    def test_an_id_or_its_beginning_is_found_in_the_store(
        self, finished: Project, train: Artifact, length: int
    ) -> None:
        model = tinygpt.load(train.key[:length], store=finished.store.root)
        assert model.artifact.folder == train.folder

    def test_an_open_store_may_be_given(self, finished: Project, train: Artifact) -> None:
        assert tinygpt.load(train.id, store=finished.store).artifact == train

    def test_without_a_store_the_one_of_the_working_directory_is_meant(
        self, finished: Project, train: Artifact, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(finished.store.root.parent)
        assert tinygpt.load(train.id).artifact.digest == train.digest

    def test_a_folder_that_was_copied_elsewhere_is_loaded(
        self, train: Artifact, tmp_path: Path
    ) -> None:
        copy = shutil.copytree(train.folder, tmp_path / "my-model")
        assert tinygpt.load(copy).artifact.digest == train.digest
        assert tinygpt.load(str(copy)).artifact.digest == train.digest

    def test_an_unknown_id_names_the_models_that_are_there(
        self, finished: Project, train: Artifact
    ) -> None:
        unknown = train.id[:-1] + ("0" if train.id[-1] != "0" else "1")
        with pytest.raises(MissingArtifactError, match=f"no trained model `{unknown}`") as caught:
            tinygpt.load(unknown, store=finished.store)
        assert caught.value.hint == f"trained models here: `{train.id}`"

    def test_a_damaged_folder_is_refused(self, train: Artifact, tmp_path: Path) -> None:
        copy = shutil.copytree(train.folder, tmp_path / "copy")
        (copy / "metrics.jsonl").write_text("")
        with pytest.raises(CorruptArtifactError, match=r"metrics\.jsonl") as caught:
            tinygpt.load(copy)
        assert (
            caught.value.hint
            == "copy `metrics.jsonl` again from the store where the model was trained"
        )

    def test_the_folder_of_another_stage_is_refused(self, finished: Project) -> None:
        folder = finished.artifacts("tokenize")[0].folder
        with pytest.raises(UsageError, match="holds a `tokenize` artifact"):
            tinygpt.load(folder)

    def test_weights_or_a_tokenizer_of_another_model_are_refused(
        self, train: Artifact, tmp_path: Path
    ) -> None:
        files = {name: train.read(name) for name in train.names()}
        model_file = json.loads(files["config.json"])
        model_file["model"]["n_layers"] = 3
        deeper = files | {"config.json": json.dumps(model_file).encode()}
        smaller = files | {"tokenizer.json": Tokenizer.train([], TokenizerConfig()).to_bytes()}
        store = Store(tmp_path)
        with pytest.raises(CorruptArtifactError, match=r"blocks\.2"):
            tinygpt.load(publish(store, "train", deeper, "deeper").folder)
        with pytest.raises(CorruptArtifactError, match="has 257 entries, the model 300"):
            tinygpt.load(publish(store, "train", smaller, "smaller").folder)

    def test_best_last_or_automatically_chosen_weights_are_loaded(
        self, finished: Project, tmp_path: Path
    ) -> None:
        store = shutil.copytree(finished.store.root, tmp_path / "artifacts")
        project = Project(
            with_settings(finished.config, train={**WORSENING, "max_steps": 2}), store
        )
        artifact = project.make("train").artifact
        files = {"best": "best/model.safetensors", "last": "model.safetensors"}
        steps = {}
        for which, file in files.items():
            model = tinygpt.load(artifact.folder, weights=which)  # type: ignore[arg-type]
            expected = weights.read_arrays(artifact.read(file))
            assert all((model.weights[name] == array).all() for name, array in expected.items())
            assert model.which == which
            steps[which] = model.step
        assert steps == {"best": 1, "last": 2}
        chosen = tinygpt.load(artifact.folder)
        assert (chosen.which, chosen.step) == ("best", 1)

    def test_weights_that_the_code_computes_otherwise_are_refused(
        self, train: Artifact, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = tinygpt.load(train.folder, device="cpu")
        monkeypatch.setattr(
            "tinygpt.lm.model.CausalSelfAttention.weights",
            lambda self, q, k: (q @ k.mT).softmax(dim=-1),
        )
        with pytest.raises(ArtifactError, match="computes other logits") as caught:
            model.logits("Tom")
        assert caught.value.exit_code == 3
        assert model.generate_text("Tom", max_new_tokens=2)  # in numpy, as it was trained

    def test_a_checkpoint_of_an_unfinished_run_is_loaded(
        self, finished: Project, tmp_path: Path
    ) -> None:
        store = shutil.copytree(finished.store.root, tmp_path / "artifacts")
        config = with_settings(finished.config, train={"seed": 98})
        project = Project(config, store)
        with pytest.raises(StoppedEarly):
            project.run("train", limits=Limits(stop_at_step=2))
        checkpoint = project.find_model()
        assert checkpoint.stage == "checkpoint"
        assert tinygpt.load(checkpoint.folder).generate_text(seed=1, max_new_tokens=3)


class TestModel:
    def test_its_parts_are_those_of_the_artifact(
        self, finished: Project, train: Artifact, model: tinygpt.Model
    ) -> None:
        assert model.config == finished.config.model
        assert model.artifact.id == train.id
        assert model.tokenizer.to_bytes() == train.read("tokenizer.json")
        assert model.eos_token_id == 0
        assert model.decode([model.eos_token_id]) == ""
        expected = weights.read_arrays(train.read("model.safetensors"))
        assert model.weights.keys() == expected.keys()
        parameters = sum(parameter.numel() for parameter in model.module().parameters())
        assert repr(model) == f"<tinygpt.Model {train.id}, {parameters:,} parameters>"

    def test_decoding_what_was_encoded_gives_the_text(self, model: tinygpt.Model) -> None:
        text = f"Once upon a time, Zoë said {END_OF_TEXT} 🙂."
        token_ids = model.encode(text)
        assert token_ids == model.tokenizer.encode(text)
        assert model.decode(token_ids) == text
        with pytest.raises(InputError, match=r"U\+DC80"):
            model.encode("bad \udc80")
        with pytest.raises(ValueError, match="token id 300"):
            model.decode([300])

    def test_logits_are_those_of_the_module(self, model: tinygpt.Model, train: Artifact) -> None:
        text = "Tom saw a cat."
        token_ids = model.encode(text)
        module = weights.read_model(train.read("config.json"), train.read("model.safetensors"))
        with torch.inference_mode():
            expected = module(torch.tensor([token_ids]))[0].numpy()
        found = model.logits(text)
        assert found.shape == (len(token_ids), 300)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(model.logits(token_ids), expected)

    def test_later_tokens_do_not_change_earlier_logits(self, model: tinygpt.Model) -> None:
        token_ids = model.encode("Tom saw a cat.")
        np.testing.assert_allclose(
            model.logits(token_ids)[:3], model.logits(token_ids[:3]), atol=1e-5
        )

    def test_attention_has_a_causal_matrix_for_each_head_whose_rows_sum_to_1(
        self, model: tinygpt.Model
    ) -> None:
        token_ids = [model.eos_token_id, *model.encode("Tom saw a cat.")]
        T = len(token_ids)
        attention = model.attention(token_ids)
        assert attention.shape == (2, 2, T, T)
        assert attention.dtype == np.float32
        assert (attention >= 0).all()
        np.testing.assert_allclose(attention.sum(axis=-1), 1, atol=1e-5)
        future = np.triu(np.ones((T, T), dtype=bool), k=1)
        assert not attention[:, :, future].any()
        np.testing.assert_array_equal(model.attention("Tom"), model.attention(model.encode("Tom")))

    @pytest.mark.parametrize("method", ["logits", "attention"])
    def test_no_token_and_too_many_tokens_are_refused(
        self, model: tinygpt.Model, method: str
    ) -> None:
        compute = getattr(model, method)
        with pytest.raises(ValueError, match="no token"):
            compute("")
        with pytest.raises(ValueError, match="17 tokens exceed the context of 16"):
            compute([1] * 17)

    @pytest.mark.parametrize("first", ["module", "logits", "attention"])
    def test_the_module_is_one_and_can_be_differentiated(self, train: Artifact, first: str) -> None:
        model = tinygpt.load(train.folder, device="cpu")
        if first != "module":
            getattr(model, first)("Tom")
        module = model.module()
        assert module is model.module()
        assert not module.training
        module(torch.tensor([[1, 2, 3]])).sum().backward()
        gradient = module.token_embedding.weight.grad
        assert gradient is not None
        assert gradient.abs().sum() > 0
        model.logits("Tom")  # still works, and needs no gradient


class TestGenerating:
    def test_the_text_is_the_one_of_stage_sample(
        self, finished: Project, model: tinygpt.Model
    ) -> None:
        settings = finished.config.sample
        assert settings.prompt is not None
        (record,) = finished.artifacts("sample")[0].read_rows("samples.jsonl")
        text = model.generate_text(
            settings.prompt, max_new_tokens=settings.max_new_tokens, seed=settings.seed
        )
        assert text
        assert settings.prompt + text == record["text"]

    def test_every_setting_of_stage_sample_has_the_same_effect(
        self, finished: Project, model: tinygpt.Model, tmp_path: Path
    ) -> None:
        settings = {
            "temperature": 1.3,
            "top_k": 50,
            "top_p": 0.95,
            "min_p": 0.01,
            "max_new_tokens": 30,  # beyond the context
            "seed": 5,
        }
        store = shutil.copytree(finished.store.root, tmp_path / "artifacts")
        project = Project(with_settings(finished.config, sample=settings), store)
        outcome = project.make("sample")
        assert not outcome.cached
        (record,) = outcome.artifact.read_rows("samples.jsonl")
        text = model.generate_text("Once upon a time", **settings)
        assert "Once upon a time" + text == record["text"]

    def test_pieces_come_one_by_one_and_add_up_to_the_text(self, model: tinygpt.Model) -> None:
        whole = model.generate_text("Tom", max_new_tokens=20, seed=3)
        pieces = model.generate("Tom", max_new_tokens=20, seed=3)
        first = list(islice(pieces, 2))
        assert len(first) == 2
        assert all(first)
        assert "".join([*first, *pieces]) == whole

    def test_without_a_seed_every_call_gives_another_text(self, model: tinygpt.Model) -> None:
        texts = {model.generate_text("Tom", temperature=2.0) for _ in range(3)}
        assert len(texts) == 3
        same = {model.generate_text("Tom", temperature=2.0, seed=1) for _ in range(3)}
        assert len(same) == 1

    def test_temperature_0_takes_the_likeliest_token(self, model: tinygpt.Model) -> None:
        token_ids = [model.eos_token_id, *model.encode("Tom")]
        likeliest = int(model.logits(token_ids)[-1].argmax())
        text = model.generate_text("Tom", temperature=0, max_new_tokens=1)
        assert text == model.decode([likeliest])

    def test_a_stop_text_ends_the_continuation_and_is_left_out(self, model: tinygpt.Model) -> None:
        free = model.generate_text("Tom", max_new_tokens=30, seed=3)
        stop = free[5:8]
        before = free[: free.index(stop)]
        for given in (stop, [stop], ("never in the text", stop)):
            text = model.generate_text("Tom", max_new_tokens=30, seed=3, stop=given)
            assert text == before

    @pytest.mark.parametrize(
        "settings", [{"temperature": -1.0}, {"top_k": 0}, {"max_new_tokens": 0}, {"stop": ""}]
    )
    def test_a_setting_out_of_range_is_refused_before_generating(
        self, model: tinygpt.Model, settings: dict[str, object]
    ) -> None:
        with pytest.raises(ValueError, match=next(iter(settings))):
            model.generate("Tom", **settings)  # type: ignore[arg-type]
