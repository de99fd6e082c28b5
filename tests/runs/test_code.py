"""Code that changed after a model was trained: it is named, and no wrong number comes of it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.helpers import Notes, prepare, publish, run_training, with_settings
from tests.lm.edits import EDITS, edited_source
from tinygpt.config import Config
from tinygpt.errors import StoppedEarly
from tinygpt.progress import Limits
from tinygpt.project import Project
from tinygpt.records import CodeRecord
from tinygpt.runs import code
from tinygpt.runs.code import current_code, other_code, what_changed
from tinygpt.store import Store

MODEL = "lm/model.py"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package, which the digests are of."""
    copy = shutil.copytree(ROOT / "tinygpt", tmp_path / "tinygpt")
    monkeypatch.setattr(code, "PACKAGE", copy)
    return copy


def edit(module: Path, old: str, new: str) -> None:
    source = module.read_text(encoding="utf-8")
    assert old in source
    module.write_text(source.replace(old, new), encoding="utf-8")


# ---- digests


def test_the_record_names_the_modules_of_lm_that_training_imports() -> None:
    recorded = current_code()
    assert {"lm/model.py", "lm/training.py", "lm/optim.py", "lm/fast/attention.py"} <= set(
        recorded["modules"]
    )
    assert all(module.startswith("lm/") for module in recorded["modules"])
    assert recorded["python"] == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert what_changed(recorded) == ""


def test_comments_docstrings_and_layout_are_no_change(package: Path) -> None:
    recorded = current_code()
    model = package / "lm" / "model.py"
    edit(model, '"""The language model.', '"""Another docstring.')
    edit(model, "# Press & Wolf 2017", "# another comment")
    edit(
        model,
        "self.n_heads = config.n_heads",
        "self.n_heads = (\n            config.n_heads\n        )",
    )
    assert current_code()["source"] != recorded["source"]
    assert what_changed(recorded) == ""


def test_every_changed_module_is_named_and_a_removed_one_too(package: Path) -> None:
    recorded = current_code()
    edit(package / "lm" / "model.py", "/ math.sqrt(D)", "/ D")
    (package / "lm" / "fast" / "matmul.py").unlink()
    assert what_changed(recorded) == "`tinygpt/lm/fast/matmul.py`, `tinygpt/lm/model.py` changed"


def test_of_another_version_of_tinygpt_only_the_version_is_said(package: Path) -> None:
    recorded: CodeRecord = {**current_code(), "tinygpt": "0.0.1"}
    edit(package / "lm" / "model.py", "/ math.sqrt(D)", "/ D")
    assert what_changed(recorded) == f"tinygpt 0.0.1 -> {code.__version__}"


def test_digests_of_another_version_of_python_are_not_compared(package: Path) -> None:
    recorded: CodeRecord = {**current_code(), "python": "3.99"}
    edit(package / "lm" / "model.py", "/ math.sqrt(D)", "/ D")
    assert what_changed(recorded) == ""


def test_recorded_names_outside_the_package_are_not_read(tmp_path: Path) -> None:
    """A record can come from a file of someone else."""
    os.mkfifo(tmp_path / "pipe.py")  # whoever reads it waits for ever
    outside = os.path.relpath(tmp_path / "pipe.py", code.PACKAGE)
    names = [outside, str(tmp_path / "pipe.py"), "lm/../../x.py", "/etc/passwd", "x" * 5000 + ".py"]
    current = current_code()
    recorded = current | {"source": "0" * 16, "modules": dict.fromkeys(names, "0" * 16)}
    assert what_changed(recorded) == ""


def test_a_model_says_which_code_trained_it(
    tmp_path: Path, tiny_config: Config, package: Path
) -> None:
    model = run_training(*prepare(tmp_path / "store", tiny_config), tiny_config).artifact
    assert other_code(model) == ""
    edit(package / "lm" / "model.py", "/ math.sqrt(D)", "/ D")
    assert other_code(model) == (
        f"model {model.id} was trained by other code: `tinygpt/lm/model.py` changed; "
        "`tinygpt train --force` trains it again"
    )
    older = publish(Store(tmp_path / "older"), "train", {"config.json": b"{}"})
    assert other_code(older) == ""


def test_a_run_that_continues_under_other_code_says_so_once_and_is_not_exact(
    tmp_path: Path, tiny_config: Config, package: Path
) -> None:
    store, inputs = prepare(tmp_path / "store", tiny_config)
    with pytest.raises(StoppedEarly):
        run_training(store, inputs, tiny_config, Limits(stop_at_step=2))
    with (package / "lm" / "optim.py").open("a", encoding="utf-8") as module:
        module.write("\nCHANGED = True\n")
    reporter = Notes()
    artifact = run_training(store, inputs, tiny_config, reporter=reporter).artifact
    assert artifact.manifest.provenance["exact"] is False
    (note,) = [note for note in reporter.notes if "exact: false" in note]
    assert "`tinygpt/lm/optim.py` changed" in note
    assert artifact.manifest.provenance["code"] == current_code()


# ---- edits, each in a copy of the package

SCRIPT = """
import json, sys
from pathlib import Path
from tests.helpers import Notes
from tinygpt.config import Config
from tinygpt.errors import TinygptError
from tinygpt.project import Project
from tinygpt.runs.code import other_code

notes = Notes()
project = Project(Config.model_validate_json(sys.argv[1]), Path(sys.argv[2]), reporter=notes)
found = {"note": other_code(project.artifacts("train")[0])}

def attempt(stage, **options):
    notes.notes.clear()
    before = len(project.artifacts())
    try:
        artifact = project.make(stage, **options).artifact
    except TinygptError as error:
        stored = len(project.artifacts()) - before
        return {"exit": error.exit_code, "hint": error.hint, "stored": stored}
    row = {"notes": list(notes.notes), "digest": artifact.digest, "exit": 0}
    if stage == "eval":
        row["loss"] = artifact.read_json("eval.json")["loss"]
    if stage == "sample":
        row["decoder"] = artifact.read_rows("samples.jsonl")[0]["decoder"]
    return row

for name, stage, options in json.loads(sys.argv[3]):
    found[name] = attempt(stage, **options)
print(json.dumps(found))
"""
BEFORE = [("sample", "sample", {}), ("eval", "eval", {}), ("plot", "plot", {})]
AFTER = [
    ("train", "train", {"force": True}),
    ("new sample", "sample", {}),
    ("new eval", "eval", {}),
    ("again", "train", {"force": True}),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, pipeline_config: Config) -> Project:
    """A project whose model was trained, evaluated and sampled by the unchanged code."""
    config = with_settings(
        pipeline_config,
        # Activations large enough that the form of GELU matters, small enough for an epsilon
        train={"max_steps": 60, "learning_rate": 0.03, "eval_every": 60, "snapshots": 2},
        sample={"temperature": 0.0},
    )
    project = Project(config, tmp_path_factory.mktemp("trained") / "artifacts")
    project.run("eval")
    return project


def try_edited(
    trained: Project, folder: Path, module: str, source: str, attempts: list[Any]
) -> dict[str, Any]:
    """What the stages do in a copy of the package in which a module has another text."""
    shutil.copytree(ROOT / "tinygpt", folder / "tinygpt")
    (folder / "tinygpt" / module).write_text(source, encoding="utf-8")
    store = shutil.copytree(trained.store.root, folder / "artifacts")
    # Other evaluation samples than those in the store, which would come from the cache
    config = with_settings(trained.config, eval={"num_samples": 2})
    arguments = [config.model_dump_json(), str(store), json.dumps(attempts)]
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


@pytest.mark.full
@pytest.mark.parametrize("name", EDITS)
def test_an_edited_model_is_refused_until_it_is_trained_again(
    name: str, trained: Project, tmp_path: Path
) -> None:
    attempts = [*BEFORE[:2], *AFTER]
    found = try_edited(trained, tmp_path, MODEL, edited_source(MODEL, name), attempts)
    assert "`tinygpt/lm/model.py` changed" in found["note"]
    # numpy's decoder still computes the model as it was trained
    assert (found["sample"]["exit"], found["sample"]["decoder"]) == (0, "numpy")
    assert (found["eval"]["exit"], found["eval"]["stored"]) == (3, 0)
    assert "`tinygpt train --force`" in found["eval"]["hint"]
    assert found["train"]["exit"] == 0
    assert found["new eval"]["exit"] == 0
    assert found["again"]["digest"] == found["train"]["digest"]
    (evaluation,) = trained.artifacts("eval")
    assert found["new eval"]["loss"] != evaluation.read_json("eval.json")["loss"]
    if name != "another epsilon":  # whose effect on the new weights may be that of rounding
        assert found["new sample"]["decoder"].startswith("torch")
        assert any("using torch" in note for note in found["new sample"]["notes"])


FAST_EDITS = {
    "lm/fast/attention.py": ("is_causal=True)", "is_causal=True, scale=1.0)"),
    "lm/fast/feed_forward.py": (
        'return down(F.gelu(up(x), approximate="tanh"))',
        "return down(torch.relu(up(x)))",
    ),
    "lm/fast/numpy_decoder.py": ("y *= _HALF", "y *= _ONE"),
}


@pytest.mark.full
@pytest.mark.parametrize("module", FAST_EDITS)
def test_forms_of_lm_fast_that_compute_something_else_give_way_to_the_model(
    module: str, trained: Project, tmp_path: Path
) -> None:
    old, new = FAST_EDITS[module]
    source = (ROOT / "tinygpt" / module).read_text(encoding="utf-8")
    assert old in source
    found = try_edited(trained, tmp_path, module, source.replace(old, new), BEFORE)
    assert f"`tinygpt/{module}` changed" in found["note"]
    (evaluation,) = trained.artifacts("eval")
    assert found["eval"]["loss"] == pytest.approx(
        evaluation.read_json("eval.json")["loss"], rel=1e-5
    )
    in_numpy = module == "lm/fast/numpy_decoder.py"
    assert found["sample"]["decoder"] == ("torch, cpu" if in_numpy else "numpy")
    assert any("lm/model.py alone" in note for note in found["eval"]["notes"]) != in_numpy
