"""The tables of an export: every number of the training, to its last digit."""

import csv
import json
import re
import sys
from types import ModuleType

import pandas
import pytest

from tests.conftest import ROOT
from tests.exports.privacy import PRIVATE, private_in
from tests.helpers import prepare, publish, run_training
from tinygpt.errors import MissingArtifactError, VerificationError
from tinygpt.exports import csv_tables
from tinygpt.exports.formats import export
from tinygpt.exports.model import open_model
from tinygpt.store import Store
from tinygpt.trained_models import find_model

HEADS = b"step,layer,head,entropy_bits,previous_token,first_token,induction\n4,0,1,0.5,0.25,1,0\n"


@pytest.fixture(scope="module")
def trained(finished):
    """A finished run."""
    return finished.artifacts("train")[0]


def rows_of(trained, kind):
    """The rows of metrics.jsonl of one kind."""
    rows = [json.loads(line) for line in trained.read("metrics.jsonl").splitlines()]
    return [row for row in rows if row["kind"] == kind]


def write(trained, target, notes=None, **lineage):
    """Export to `target`; the line about the check."""
    notes = [] if notes is None else notes
    model = open_model(trained, lineage=lineage)
    return export(model, target, "csv", None, False, notes.append)


def table(path):
    """The rows of a CSV file, as text."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_number_of_the_training_is_in_the_tables_to_its_last_digit(trained, tmp_path):
    said = write(trained, tmp_path / "out")
    steps, evaluations = rows_of(trained, "step"), rows_of(trained, "eval")
    metrics = table(tmp_path / "out" / "metrics.csv")
    assert next(iter(metrics[0])) == "step"
    assert [int(row["step"]) for row in metrics] == [1, 2, 3, 4]
    for found, row in zip(metrics, steps, strict=True):
        for name in ("tokens", "loss", "learning_rate", "grad_norm"):
            assert float(found[name]) == row[name]
    validated = {int(row["step"]): float(row["val_loss"]) for row in metrics if row["val_loss"]}
    assert validated == {row["step"]: row["val_loss"] for row in evaluations}
    found = table(tmp_path / "out" / "evaluations.csv")
    assert [float(row["val_perplexity"]) for row in found] == [
        row["val_perplexity"] for row in evaluations
    ]
    assert [row["best"] == "true" for row in found] == [row["best"] for row in evaluations]
    values = 5 * len(steps) + 3 * len(evaluations) + 5 * len(evaluations)
    assert said.startswith(f"{values} values in 2 tables read back")


def test_pandas_takes_every_column_as_numbers(trained, tmp_path):
    write(trained, tmp_path / "out")
    metrics = pandas.read_csv(tmp_path / "out" / "metrics.csv", index_col="step")
    assert all(kind.kind in "if" for kind in metrics.dtypes)
    assert metrics["val_loss"].count() == len(rows_of(trained, "eval"))
    evaluations = pandas.read_csv(tmp_path / "out" / "evaluations.csv")
    assert evaluations["best"].dtype == bool


def test_the_scores_of_the_heads_are_those_of_the_plot_or_it_is_said_that_there_are_none(
    trained, tmp_path
):
    plot = publish(Store(tmp_path / "store"), "plot", {csv_tables.HEADS: HEADS})
    notes = []
    write(trained, tmp_path / "with", notes, plot=plot)
    assert (tmp_path / "with" / "heads.csv").read_bytes() == HEADS
    assert notes == []
    write(trained, tmp_path / "without", notes)
    assert not (tmp_path / "without" / "heads.csv").exists()
    assert f"`tinygpt plot --model {trained.id}` makes one" in notes[0]


def test_equal_runs_give_equal_bytes_that_name_no_place_and_no_person(
    tiny_config, tmp_path, hostname
):
    found = []
    for name in ("one", "two"):
        store, inputs = prepare(tmp_path / f"store-{name}", tiny_config)
        run = run_training(store, inputs, tiny_config).artifact
        write(run, tmp_path / name)
        files = sorted(path for path in (tmp_path / name).iterdir())
        found.append({path.name: path.read_bytes() for path in files})
    assert found[0] == found[1]
    assert set(found[0]) == {"metrics.csv", "evaluations.csv", ".tinygpt-export.json"}
    assert private_in(tmp_path / "one", tmp_path) == []
    (tmp_path / "one" / "metrics.csv").write_text(PRIVATE)
    assert private_in(tmp_path / "one", tmp_path) == [PRIVATE]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\n2,", b"\n7,"),  # another step
        (b"\n1,", b"\n1,1"),  # another number of tokens
        (b"true", b"false"),
        (b"true\n", b"true\n9,1,1.5,4.5,true\n"),  # a step that was not there
    ],
)
def test_a_table_that_is_read_back_with_another_value_is_refused(
    trained, tmp_path, monkeypatch, old, new
):
    original = csv_tables._to_csv
    monkeypatch.setattr(csv_tables, "_to_csv", lambda *args: original(*args).replace(old, new, 1))
    with pytest.raises(VerificationError, match="read back"):
        write(trained, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_a_record_of_its_training_is_refused(trained, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("manifest.json", "config.json", "model.safetensors", "probe.safetensors"):
        (folder / name).write_bytes((trained.folder / name).read_bytes())
    (folder / "tokenizer.json").write_bytes(trained.read("tokenizer.json"))
    copy = find_model(Store(tmp_path / "store"), str(folder))
    with pytest.raises(MissingArtifactError, match=r"no `metrics\.jsonl`"):
        write(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def documented(program):
    """The lines of docs/export.md that import a program."""
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (lines,) = [block for block in blocks if re.search(rf"\b{program}\b", block.split("\n\n")[0])]
    assert len(lines.splitlines()) <= 6
    return lines


class Recorded:
    """A run of W&B that remembers what is logged."""

    def __init__(self, **settings):
        assert settings["mode"] == "offline"
        self.logged = []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def log(self, values, step):
        self.logged.append((step, values))


def test_the_documented_lines_give_wandb_every_number(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(trained, tmp_path / "tables")
    wandb = ModuleType("wandb")
    wandb.init = Recorded
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    names = {}
    exec(documented("wandb"), names)
    logged = dict(names["run"].logged)
    assert list(logged) == [1, 2, 3, 4]
    for row in rows_of(trained, "step") + rows_of(trained, "eval"):
        for name in set(row) & set(logged[row["step"]]):
            assert logged[row["step"]][name] == row[name]
    assert "val_loss" not in logged[3]


def test_the_documented_lines_for_pandas_and_trackio_find_the_table(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(trained, tmp_path / "tables")
    names = {}
    exec(documented("pandas"), names)
    assert list(names["metrics"].index) == [1, 2, 3, 4]
    trackio, imported = ModuleType("trackio"), []
    trackio.import_csv = lambda path, project, name: imported.append(table(tmp_path / path))
    trackio.show = lambda project: None
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    exec(documented("trackio"), {})
    assert len(imported[0]) == 4
