"""docs/first_steps.ipynb runs from its first cell to its last, and holds no output."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.document_checks import commands_that_do_not_exist, links_that_lead_nowhere, old_words

NOTEBOOK = ROOT / "docs" / "first_steps.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def sources(kind: str) -> list[str]:
    """The text of each cell of a kind."""
    return ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == kind]


def run_cells(cells: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the code of some cells as one script, in a folder."""
    script = folder / "cells.py"
    script.write_text("\n\n".join(cells), encoding="utf-8")
    settings = {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    smaller = {"DATA_MAX_DOCUMENTS": "300", "TOKENIZER_VOCAB_SIZE": "300", "MODEL_D_MODEL": "32"}
    settings |= {f"TINYGPT_{key}": value for key, value in smaller.items()}
    return subprocess.run(
        [sys.executable, "-W", "ignore", script.name],
        cwd=folder,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_the_notebook_holds_no_output():
    for cell in CELLS:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
    ids = [cell["id"] for cell in CELLS]
    assert len(set(ids)) == len(ids) > 5


@pytest.mark.parametrize("check", [commands_that_do_not_exist, links_that_lead_nowhere, old_words])
def test_the_text_of_the_notebook_passes_the_checks_of_documents(check):
    assert check(NOTEBOOK, "\n\n".join(sources("markdown"))) == []


@pytest.mark.full
def test_the_notebook_runs_in_the_folder_of_a_trained_model(trained_folder):
    """The increases of the loss without each head are compared with those of `plot`."""
    check = """
from tinygpt.analysis.ablation import ablate_heads
found = ablate_heads(module, np.array(story_ids, dtype=np.uint16)).loss_increase
here = [[loss_without(i, j, story_ids) - loss(story_ids) for j in range(H)] for i in range(L)]
print("largest difference from plot", abs(found - np.array(here)).max())
"""
    done = run_cells([*sources("code"), check], trained_folder)
    assert done.returncode == 0, done.stderr
    for said in ("2 layers of 2 heads", "temperature 1.5: Once upon a time", "loss with all heads"):
        assert said in done.stdout
    assert done.stdout.count("without layer") == 4
    before, after = done.stdout.split("\nloss ")[-1].split("\n")[0].split(" -> ")
    assert float(after) < float(before) - 1
    assert float(done.stdout.split()[-1]) < 1e-5


@pytest.mark.full
def test_a_cell_that_fails_is_noticed(trained_folder):
    done = run_cells([*sources("code")[:1], "model.generate_txt()"], trained_folder)
    assert done.returncode == 1
    assert "generate_txt" in done.stderr
