"""What commands say of weights and code: which weights they use, and by which code they came."""

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy

from tests.conftest import ROOT
from tests.helpers import seal
from tinygpt.runs import code

WORSENING = (
    *("--set", "train.learning_rate=0.3", "--set", "train.schedule=constant"),
    *("--max-steps", "2"),
)
"""Flags with which the last weights are worse than the best."""


def test_the_best_weights_are_used_where_the_last_are_worse_and_that_is_said(here):
    model = json.loads(here("train", *WORSENING, "--json").out)["key"][:12]
    evaluated = here("eval", "--model", model, "--json")
    record = json.loads(evaluated.out)
    best, last = record["step"], record["other_weights"]
    assert (record["weights"], last["weights"], last["step"]) == ("best", "last", 2)
    assert best == 1
    assert last["loss"] > record["loss"] + 0.01
    note = f"validation was best at step {best}; those weights are used"
    assert note in evaluated.err
    assert f"best, of step {best}, chosen on this split" in evaluated.err
    assert f"perplexity {last['perplexity']:,.2f} (step 2)" in evaluated.err
    sampled = here("sample", "--model", model, "--seed", "1", "--json")
    assert note in sampled.err
    assert json.loads(sampled.out)["step"] == best
    of_last = here("sample", "--model", model, "--seed", "1", "--weights", "last", "--json")
    assert "validation was best" not in of_last.err
    assert json.loads(of_last.out)["weights"] == "last"


@pytest.fixture
def other_code(tmp_path, monkeypatch):
    """As if lm/model.py had been edited since."""
    package = shutil.copytree(ROOT / "tinygpt", tmp_path / "tinygpt")
    model = package / "lm" / "model.py"
    model.write_text(model.read_text().replace("/ math.sqrt(D)", "/ D"))
    monkeypatch.setattr(code, "PACKAGE", package)


@pytest.mark.usefixtures("other_code")
@pytest.mark.parametrize("command", ["train", "eval", "sample", "run"])
def test_results_of_other_code_are_named_once_as_such(here, command):
    done = here(command, *(["--seed", "7"] if command == "sample" else []))
    assert done.code == 0, done.err
    lines = [line for line in done.err.splitlines() if "by other code" in line]
    assert len(lines) == 1
    assert "`tinygpt/lm/model.py` changed" in lines[0]
    assert lines[0].endswith("`tinygpt train --force` trains it again")


def test_finite_weights_whose_logits_are_not_are_refused(here, tmp_path):
    """The case model-huge-weights: every hash is right, the weights are finite but huge."""
    model = json.loads(here("train", "--json").out)["path"]
    folder = shutil.copytree(model, tmp_path / "huge")
    for name in ("model.safetensors", "best/model.safetensors"):
        arrays = safetensors.numpy.load((folder / name).read_bytes())
        huge = {key: array * np.float32(1e30) for key, array in arrays.items()}
        (folder / name).chmod(0o644)
        (folder / name).write_bytes(safetensors.numpy.save(huge))
    seal(folder)
    for arguments in (("sample", "Once", "--seed", "1"), ("eval",)):
        refused = here(*arguments, "--model", folder)
        assert refused.code == 3, refused.err
        assert "the model's weights give logits that are not finite" in refused.err
        assert "RuntimeWarning" not in refused.err
        assert refused.out == ""
