"""`tinygpt export`: which model and weights it takes, what it says, and what it refuses."""

import errno
import json
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from tests.cli.conftest import CONFIG
from tests.proofs.test_signals import start
from tinygpt.exports import hugging_face
from tinygpt.exports.target import MARKER
from tinygpt.hashing import hash_bytes
from tinygpt.store import Artifact, files
from tinygpt.store.artifact import MODEL_FILES
from tinygpt.store.manifest import MANIFEST

FILES = {
    *(MARKER, "README.md", "config.json", "generation_config.json"),
    *("model.safetensors", "tokenizer.json", "tokenizer_config.json"),
}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def model_id(here) -> str:
    """The id of the finished run."""
    return json.loads(here("artifacts", "ls", "train", "--json").out)[-1]["key"][:12]


def test_the_configured_model_is_exported_and_one_line_says_what_was_compared(here, tmp_path):
    done = here("export", tmp_path / "out", "--to", "hf")
    assert done.code == 0, done.err
    assert done.out == f"{tmp_path / 'out'}\n"
    (line,) = done.err.splitlines()
    assert line.startswith("read back: 900 logits differ by up to ")
    assert line.endswith(" token ids are equal")
    assert names(tmp_path / "out") == FILES


def test_json_is_one_object(here, tmp_path):
    done = here("export", tmp_path / "out", "--to", "hf", "--json", "--dtype", "bf16", "--quiet")
    assert done.err == ""
    answer = json.loads(done.out)
    assert answer["checked"].startswith("read back: ")
    assert answer["model"].startswith(model_id(here))
    assert (answer["path"], answer["format"]) == (str(tmp_path / "out"), "hf")


def test_the_card_has_the_lineage_and_the_stated_license(here, tmp_path):
    here("export", tmp_path / "out", "--to", "hf", "--data-license", "CC0")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    evaluation = json.loads(here("eval", "--json").out)
    assert "stories of tinygpt's own generator" in card
    assert "License of the text: CC0" in card
    assert f"| {evaluation['loss']:.4f} |" in card


def test_the_best_weights_are_taken_where_the_last_are_worse(here, tmp_path):
    worsening = ("--set", "train.learning_rate=0.3", "--set", "train.schedule=constant")
    model = json.loads(here("train", *worsening, "--max-steps", "2", "--json").out)["key"][:12]
    done = here("export", tmp_path / "auto", "--to", "hf", "--model", model)
    assert "validation was best at step 1; those weights are used" in done.err
    assert "Step 1 of 2, with the lowest" in (tmp_path / "auto" / "README.md").read_text()
    done = here("export", tmp_path / "last", "--to", "hf", "--model", model, "--weights", "last")
    assert "validation was best" not in done.err
    assert "Step 2 of 2, the last" in (tmp_path / "last" / "README.md").read_text()


def test_of_an_unfinished_run_the_checkpoint_is_named(tinygpt, tmp_path):
    (tmp_path / "tinygpt.toml").write_text(CONFIG)
    tinygpt("run", "--until", "build-dataset")
    assert tinygpt("train", "--stop-at-step", "2").code == 75
    done = tinygpt("export", "out", "--to", "hf")
    assert done.code == 0, done.err
    assert "is not finished: using its checkpoint of step 2" in done.err
    assert "Step 2 of 3" in (tmp_path / "out" / "README.md").read_text()
    (checkpoint,) = (tmp_path / "artifacts" / ".partial").glob("train-*/checkpoint/*")
    done = tinygpt("export", "again", "--to", "hf", "--model", checkpoint)
    assert "is a checkpoint, of step 2" in done.err


@pytest.fixture
def copied(here, tmp_path) -> Path:
    """The folder of a model with nothing but what it needs."""
    folder = tmp_path / "copied"
    folder.mkdir()
    source = Path(here("artifacts", "path", model_id(here)).out.strip())
    for name in (MANIFEST, *MODEL_FILES):
        shutil.copy(source / name, folder / name)
        (folder / name).chmod(0o644)
    return folder


def test_a_copied_folder_is_enough(here, copied, tmp_path):
    done = here("export", tmp_path / "out", "--to", "hf", "--model", copied, "--store", "nowhere")
    assert done.code == 0, done.err
    assert "the last weights are used" in done.err
    card = (tmp_path / "out" / "README.md").read_text()
    assert "The training text is not described here" in card
    assert str(tmp_path) not in card


def test_weights_that_are_not_finite_are_refused(here, copied, tmp_path):
    weights = safetensors.numpy.load((copied / "model.safetensors").read_bytes())
    weights["norm.weight"][0] = np.inf
    data = safetensors.numpy.save(weights)
    (copied / "model.safetensors").write_bytes(data)
    manifest = Artifact.load(copied).manifest
    record = {"sha256": hash_bytes(data), "bytes": len(data)}
    changed = manifest.model_copy(update={"files": {**manifest.files, "model.safetensors": record}})
    (copied / MANIFEST).write_bytes(changed.to_bytes())
    done = here("export", tmp_path / "out", "--to", "hf", "--model", copied)
    assert done.code == 3, done.err
    assert "`norm.weight` contains a NaN or an infinity" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--to onnx", "there is no format `onnx`"),
        ("--to onnx", "`--to` takes `hf`, `gguf`, `csv`, `tensorboard`"),
        ("", "--to"),
        ("--to hf --dtype q8_0", "hf has no number format `q8_0`"),
        ("--to hf --dtype q8_0", "`--dtype` takes `f32`, `f16`, `bf16`"),
        ("--to gguf --dtype bf16", "gguf has no number format `bf16`"),
        ("--to csv --dtype f32", "csv holds no weights"),
        ("--to tensorboard --weights best", "tensorboard holds no weights"),
        ("--to hf --weights worst", "worst"),
    ],
)
def test_what_a_format_does_not_have_is_refused_before_anything_is_read(
    tinygpt, tmp_path, flags, words
):
    done = tinygpt("export", "out", *flags.split())
    assert done.code == 2, done.err
    assert words in done.err
    assert "\n\nhint: " in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["hf", "gguf"])
def test_a_model_that_gpt2_cannot_express_is_refused_with_what_to_set(here, tmp_path, kind):
    model = json.loads(here("train", "--set", "model.norm=post", "--json").out)["key"][:12]
    done = here("export", tmp_path / "out", "--to", kind, "--model", model)
    assert done.code == 2, done.err
    assert f"{kind} is written as GPT-2, which cannot express `model.norm` = post" in done.err
    assert "--set model.norm=pre" in done.err
    assert not (tmp_path / "out").exists()


def test_an_export_is_replaced_only_with_force_and_only_if_it_is_one(here, tmp_path):
    target = tmp_path / "out"
    assert here("export", target, "--to", "hf").code == 0
    refused = here("export", target, "--to", "hf")
    assert refused.code == 2
    assert "`--force` replaces an earlier export" in refused.err
    assert here("export", target, "--to", "hf", "--dtype", "f16", "--force").code == 0
    assert json.loads((target / "config.json").read_bytes())["dtype"] == "float16"
    (target / "mine.txt").write_text("mine")
    refused = here("export", target, "--to", "hf", "--force")
    assert (refused.code, (target / "mine.txt").read_text()) == (2, "mine")
    for precious in (".", "artifacts", "artifacts/train/new", Path.home()):
        assert here("export", precious, "--to", "hf", "--force").code == 2


def test_a_wrong_export_is_exit_code_6_and_nothing_is_left(here, tmp_path, monkeypatch):
    def without_template(model):
        return model.tokenizer_json

    monkeypatch.setattr(hugging_face, "tokenizer_file", without_template)
    done = here("export", tmp_path / "below" / "out", "--to", "hf")
    assert done.code == 6
    assert done.err.startswith("error: `tokenizer.json`, read back, ")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def full_disk() -> Iterator[None]:
    """A disk on which nothing more can be written."""

    def refuse(operation: files.Operation) -> None:
        if operation.kind == "write":
            raise OSError(errno.ENOSPC, "full")

    files.hook = refuse
    yield
    files.hook = None


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_exit_code_8_and_nothing_is_left(here, tmp_path):
    done = here("export", tmp_path / "out", "--to", "hf")
    assert done.code == 8
    assert "no space left on device" in done.err
    assert "export to another folder" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
def test_a_signal_at_any_moment_leaves_all_or_nothing(project, tmp_path):
    folder, _ = project
    chance = random.Random(3)
    ended = set()
    for number in range(12):
        target = tmp_path / f"{number}" / "out"
        process = start(folder, ("export", str(target), "--to", "hf"))
        time.sleep(chance.uniform(0, 4))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=100)
        assert process.returncode in (0, 130), err
        assert "Traceback" not in err
        ended.add(process.returncode)
        if target.exists():
            assert names(target) == FILES
            assert names(target.parent) == {"out"}
        else:
            assert not target.parent.exists()
    assert 130 in ended
