"""csv: what was measured of a model, as tables that pandas, spreadsheets and trackio read.

| file | a row for each | columns |
|---|---|---|
| metrics.csv | optimizer step | those of StepRow, and the validation loss where it was measured |
| evaluations.csv | evaluation during training | those of EvalRow that are numbers |
| heads.csv | head at each snapshot | those of stage plot; left out where the model has no plot |

Numbers have all their digits: they are spelled as in metrics.jsonl.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence

from tinygpt.errors import VerificationError
from tinygpt.exports.model import ModelToExport
from tinygpt.exports.target import ExportFolder
from tinygpt.records import MetricsRow
from tinygpt.runs.trained_weights import Note
from tinygpt.store.stage_names import CHECKPOINT

MEASURED: dict[str, tuple[str, ...]] = {
    "step": ("step", "tokens", "loss", "learning_rate", "grad_norm"),
    "eval": ("step", "tokens", "val_loss", "val_perplexity", "best"),
}
"""The numbers of each kind of row in metrics.jsonl."""

VALIDATION = ("val_loss", "val_perplexity")
HEADS = "attention_heatmaps/heads.csv"
"""Where stage plot has the scores of the heads."""


def write(model: ModelToExport, out: ExportFolder, dtype: str, note: Note) -> str:
    """Write the tables, and compare them with metrics.jsonl.

    Args:
        model, out: what is exported, and where it goes.
        dtype: not used; tables hold no weights.
        note: receives a line where there are no scores of heads.
    Returns:
        One line: how many values were compared.
    Raises:
        MissingArtifactError: no training is recorded with the model.
        VerificationError: a table that was read back has another value.
    """
    rows = model.metrics()
    evaluations = [row for row in rows if row["kind"] == "eval"]
    out.write("metrics.csv", _to_csv((*MEASURED["step"], *VALIDATION), _by_step(rows)))
    out.write("evaluations.csv", _to_csv(MEASURED["eval"], evaluations))
    if (plot := model.lineage.get("plot")) is not None:
        out.write("heads.csv", plot.read(HEADS))
    else:
        name = "" if model.train.stage == CHECKPOINT else f" --model {model.id}"
        note(
            f"model {model.id} has no plot, and so there is no heads.csv; "
            f"`tinygpt plot{name}` makes one"
        )
    return _check(out, rows)


def _by_step(rows: Iterable[MetricsRow]) -> list[Mapping[str, object]]:
    """The values of each step, in order; those of an evaluation belong to its step."""
    merged: dict[int, dict[str, object]] = {}
    for row in rows:
        merged.setdefault(row["step"], {}).update(row)
    return list(merged.values())


def _to_csv(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> bytes:
    """A table with a header; a cell is JSON, so that no digit is lost, or empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([json.dumps(row[name]) if name in row else "" for name in columns])
    return text.getvalue().encode()


def _check(out: ExportFolder, rows: Sequence[MetricsRow]) -> str:
    """Read the tables back and compare every value with the record of the training."""
    columns_of = {
        "metrics.csv": {**MEASURED, "eval": ("step", *VALIDATION)},
        "evaluations.csv": {"eval": MEASURED["eval"]},
    }
    compared = 0
    for name, columns in columns_of.items():
        table = list(csv.DictReader(io.StringIO(out.read(name).decode())))
        found = {cells["step"]: cells for cells in table}
        expected = [row for row in rows if row["kind"] in columns]
        if len(table) != len(found) or set(found) != {str(row["step"]) for row in expected}:
            raise VerificationError(f"`{name}` was read back with other steps than were written")
        for row in expected:
            for column, value in row.items():
                cell = found[str(row["step"])].get(column)
                if column in columns[row["kind"]] and cell != json.dumps(value):
                    where = f"`{column}` of step {row['step']:,} in `{name}`"
                    raise VerificationError(f"{where} was read back as {cell}, not {value}")
            compared += len(columns[row["kind"]])
    return f"{compared:,} values in 2 tables read back: all equal those of metrics.jsonl"
