"""`tinygpt doctor` checks properties and exits with 6 where one does not hold."""

import json

import numpy as np
import pytest

from tests.helpers import STORIES, prepare, with_settings
from tinygpt.analysis import checks
from tinygpt.analysis.checks import Check
from tinygpt.cli import invoke
from tinygpt.cli.doctor import data_checks


def test_a_sound_installation_passes_every_check(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(checks, "ALL", checks.ALL[:1])
    assert invoke(["doctor", "--store", str(tmp_path / "store"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [check["passed"] for check in report["checks"]] == [True, True]
    assert "precision" in report["machine"]


def test_a_broken_model_is_named_and_ends_with_6(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        checks, "ALL", (lambda: Check("loss at initialization is ln V", False, "3.1"),)
    )
    assert invoke(["doctor", "--store", str(tmp_path / "store")]) == 6
    error = capsys.readouterr().err
    assert "WRONG  loss at initialization" in error
    assert "error: 1 of 2 checks failed" in error


def test_a_document_in_both_splits_is_found():
    train, apart, shared = (
        np.array(ids, np.uint16) for ids in ([1, 2, 0, 3, 4, 0], [1, 3, 0], [5, 0, 3, 4, 0])
    )
    assert checks.no_document_in_both_splits(train, apart, 0).passed
    assert not checks.no_document_in_both_splits(train, shared, 0).passed


@pytest.mark.parametrize(("holdout", "passed"), [("hash", [True]), ("end", [])])
def test_a_copy_behind_the_cut_of_a_text_is_no_fault(tmp_path, tiny_config, holdout, passed):
    """By hash, copies are on one side; the end of a text may repeat its beginning."""
    config = with_settings(tiny_config, dataset={"holdout": holdout})
    store, _ = prepare(tmp_path, config, STORIES * 2)
    assert [check.passed for check in data_checks(store)] == passed
