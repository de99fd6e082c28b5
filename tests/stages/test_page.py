"""Stage `page`: what goes into the file of a run, of an unfinished one, and of one too large."""

import getpass
import json
import platform
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import Inputs, Notes, prepare, publish, run_stage, run_training, with_settings
from tinygpt.config import Config
from tinygpt.errors import CorruptArtifactError, InputError, PageError, StoppedEarly
from tinygpt.html_page import packing
from tinygpt.lm.fast.numpy_decoder import NumpyDecoder
from tinygpt.lm.weights import Array
from tinygpt.pipeline import STAGES, stage_key
from tinygpt.progress import Limits
from tinygpt.stages import page
from tinygpt.store import Artifact, Store
from tinygpt.store.artifact import MODEL_FILES
from tinygpt.store.manifest import MANIFEST
from tinygpt.trained_models import find_model

Trained = tuple[Store, Inputs]

HEADS = """step,layer,head,loss_increase,standard_error,tokens
4,0,0,0.5,0.01,48
4,0,1,-0.25,nan,48
4,1,0,0.125,0.02,48
4,1,1,0,0.03,48
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_config: Config) -> Trained:
    """A store in which a model was trained."""
    store, inputs = prepare(tmp_path_factory.mktemp("page"), tiny_config)
    inputs["train"] = run_training(store, inputs, tiny_config).artifact
    return store, inputs


def make(trained: Trained, reporter: Notes | None = None, **settings: object) -> Artifact:
    store, inputs = trained
    config = with_settings(Config(), page=settings)
    return run_stage(store, "page", config, inputs, page.run, reporter).artifact


def facts(artifact: Artifact) -> dict[str, Any]:
    """The data in a page."""
    html = artifact.read("page.html").decode()
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', html)
    assert data is not None
    found: dict[str, Any] = json.loads(data[1])
    return found


def result_table(artifact: Artifact) -> dict[str, str]:
    return dict(artifact.read_json("summary.json")["rows"])


def test_page_names_its_model_step_and_format(trained: Trained):
    artifact = make(trained)
    found = facts(artifact)
    train = trained[1]["train"]
    assert (found["id"], found["step"], found["max_steps"]) == (train.id, 4, 4)
    assert (found["dtype"], found["which"], found["ablation"]) == ("f16", "last", None)
    assert 0.001 < found["bound"] < 0.02
    table = result_table(artifact)
    assert table["model"] == f"{train.id}, step 4 (last weights)"
    assert table["format"].startswith("f16; it moves logits by up to ")


def test_page_holds_no_path_user_or_host(trained: Trained):
    artifact = make(trained)
    html = artifact.read("page.html").decode()
    for path in (str(trained[0].root), str(Path.home()), "/tmp/"):
        assert path not in html
    data = json.dumps(facts(artifact) | {"probe": None})
    for name in (platform.node(), getpass.getuser()):
        assert name not in data


def test_weights_of_the_lowest_loss_can_be_taken(trained: Trained):
    found = facts(make(trained, weights="best"))
    assert found["which"] == "best"


def test_snapshots_before_the_weights_are_spread_evenly(trained: Trained):
    kept = [name for name in trained[1]["train"].names() if name.startswith("snapshots/")]
    assert len(kept) >= 3  # of step 4, too, which the page holds already
    assert facts(make(trained, snapshots=2))["snapshots"] == [1, 3]
    assert facts(make(trained, snapshots=100))["snapshots"] == [1, 2, 3]
    assert facts(make(trained, snapshots=0))["snapshots"] == []
    assert result_table(make(trained, snapshots=0))["snapshots"] == "none"


def test_page_that_would_be_too_large_has_no_snapshots(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(page, "MAX_BYTES", 10_000)
    notes = Notes()
    artifact = make(trained, notes, snapshots=1)
    assert facts(artifact)["snapshots"] == []
    assert any("has no snapshots" in note for note in notes.notes)


def test_heads_that_plot_measured_are_in_the_page(trained: Trained):
    store, inputs = trained
    plot = publish(store, "plot", {page.ABLATION: HEADS.encode()})
    with_plot = make((store, {**inputs, "plot": plot}))
    assert facts(with_plot)["ablation"] == {
        "loss_increase": [[0.5, -0.25], [0.125, 0.0]],
        "standard_error": [[0.01, None], [0.02, 0.03]],
        "tokens": 48,
    }
    assert with_plot.key != make(trained).key


def test_heads_that_plot_measured_with_other_weights_are_not_in_the_page(trained: Trained):
    store, inputs = trained
    of_other_step = HEADS.replace("\n4,", "\n2,").encode()
    plot = publish(store, "plot", {page.ABLATION: of_other_step}, "other")
    assert facts(make((store, {**inputs, "plot": plot})))["ablation"] is None
    without = publish(store, "plot", {"summary.json": b"{}"}, "without ablation")
    assert facts(make((store, {**inputs, "plot": without})))["ablation"] is None


def test_model_copied_without_its_other_files_has_a_page_of_its_last_weights(
    trained: Trained, tmp_path: Path
):
    store, inputs = trained
    train = inputs["train"]
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in (MANIFEST, *MODEL_FILES):
        shutil.copy(train.path(name), copy)
    model = find_model(store, str(copy))
    notes = Notes()
    artifact = make((store, {"train": model, "tokenize": model}), notes)
    found = facts(artifact)
    assert (found["which"], found["step"], found["snapshots"]) == ("last", 4, [])
    assert f"model {train.id} lacks 3 of 3 snapshots of its training" in notes.notes
    notes = Notes()
    make((store, {"train": model, "tokenize": model}), notes, weights="last", snapshots=0)
    assert notes.notes == []
    with pytest.raises(CorruptArtifactError, match=r"`metrics\.jsonl` is missing"):
        make((store, {"train": model, "tokenize": model}), weights="best")


def test_model_of_changed_code_has_no_page(trained: Trained, monkeypatch: pytest.MonkeyPatch):
    from tinygpt.lm.fast import decoder

    class Changed(NumpyDecoder):
        def prefill(self, token_ids: Sequence[Sequence[int]]) -> Array:
            return 1.01 * super().prefill(token_ids)

    monkeypatch.setattr(decoder, "NumpyDecoder", Changed)
    with pytest.raises(PageError, match=r"computes other logits than `lm/model\.py`"):
        make(trained, dtype="f32", snapshots=1)


def test_unfinished_run_gives_a_page_of_its_newest_checkpoint(tmp_path: Path, tiny_config: Config):
    store, inputs = prepare(tmp_path, tiny_config)
    with pytest.raises(StoppedEarly):
        run_training(store, inputs, tiny_config, Limits(stop_at_step=2))
    digests = {name: inputs[name].digest for name in STAGES["train"].inputs}
    key = stage_key(STAGES["train"], tiny_config, digests, {})
    newest = store.unfinished_run("train", key).newest()
    assert newest is not None
    found = facts(make((store, {**inputs, "train": newest})))
    assert (found["step"], found["max_steps"]) == (2, 4)


def test_tokenizer_of_another_model_is_refused(trained: Trained):
    store, inputs = trained
    other = publish(store, "tokenize", {"tokenizer.json": b"{}"}, "other")
    with pytest.raises(InputError, match="not the one with which the model was trained"):
        make((store, {**inputs, "tokenize": other}))


@pytest.mark.parametrize(
    ("parameters", "dtype", "hint"),
    [
        (20_000_001, "f32", "use `tinygpt page --dtype int8`"),
        (20_000_001, "f16", "use `tinygpt page --dtype int8`"),
        (40_000_001, "f16", "use a smaller model"),
        (40_000_001, "int8", "use a smaller model"),
    ],
)
def test_larger_models_are_refused_with_the_format_that_fits(parameters, dtype, hint):
    weights = {"matrix": np.broadcast_to(np.float32(1), (1, parameters))}
    with pytest.raises(PageError, match=f"{parameters:,} parameters") as caught:
        page.refuse_what_does_not_fit(weights, dtype)
    assert caught.value.hint == hint
    smaller = {"matrix": np.zeros((1, 10), np.float32)}
    page.refuse_what_does_not_fit(smaller, dtype)


def test_weights_beyond_f16_are_refused():
    weights = {"matrix": np.array([[1e5]], np.float32)}
    with pytest.raises(PageError, match="where f16 ends") as caught:
        page.refuse_what_does_not_fit(weights, "f16")
    assert caught.value.hint == "use `tinygpt page --dtype f32`"
    page.refuse_what_does_not_fit(weights, "int8")


def test_limits_are_those_of_the_formats():
    assert packing.MAX_PARAMETERS == {"f32": 20_000_000, "f16": 20_000_000, "int8": 40_000_000}
