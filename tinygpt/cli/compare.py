"""`tinygpt compare`: several runs side by side, in a table and in one picture."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinygpt import ui
from tinygpt.cli import failures
from tinygpt.cli.experiment import By, MinEffect, compare_by
from tinygpt.cli.options import Call, with_options
from tinygpt.errors import UsageError

if TYPE_CHECKING:
    from tinygpt.store import Artifact, Store

Runs = Annotated[list[str], typer.Argument(metavar="ID", help="Trained models, by id prefix.")]
Folder = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder for compare.png, instead of latest/ in the store."),
]

LONGEST_CELL = 30


@with_options("store", "json", "debug")
def compare(
    call: Call, *, runs: Runs, out: Folder = None, by: By = None, min_effect: MinEffect = None
) -> None:
    """Show how runs differ, and draw their training curves."""
    if by is None and min_effect is not None:
        raise UsageError("`--min-effect` needs `--by`", hint="name a key, e.g., `--by model.norm`")
    if by is not None and out is not None:
        hint = "leave `--out` out; the page is in the store"
        raise UsageError("`--by` draws no compare.png", hint=hint)
    store = call.store()
    found = {run.id: run for run in (store.resolve(prefix, "train") for prefix in runs)}
    if len(found) < 2:
        raise UsageError(
            "`compare` needs at least two different runs",
            hint="name two; `tinygpt artifacts ls train` lists them",
        )
    if by is not None:
        return compare_by(call, store, by, list(found.values()), min_effect)
    folder = store.latest if out is None else out
    trained = {id_: run for id_, run in found.items() if not run.is_imported}
    picture = _draw(trained, folder.absolute() / "compare.png") if trained else None
    facts = {id_: dict(_settings(store, run)) | _results(store, run) for id_, run in found.items()}
    names = _differing_names(facts)
    differing = {id_: {name: of_run.get(name) for name in names} for id_, of_run in facts.items()}
    answer = {"runs": differing, "picture": str(picture) if picture else None}
    if not call.answer(answer):
        ui.say_output(f"{_table(differing)}\n{picture or ''}".rstrip())


def _draw(runs: Mapping[str, "Artifact"], path: Path) -> Path:
    """Write the picture of all training curves; imported models have none."""
    from tinygpt.analysis.curves import Curves
    from tinygpt.figures.curves import compared
    from tinygpt.figures.style import style, to_bytes
    from tinygpt.store.metrics import read_metrics

    curves = {id_: Curves.from_rows(read_metrics(run)) for id_, run in runs.items()}
    with style():
        picture = to_bytes(compared(curves), "png")
    with failures.writing(path, "choose another folder with `--out DIR`"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
    return path


def _settings(store: "Store", artifact: "Artifact") -> Iterator[tuple[str, object]]:
    """The configuration and the input digests of an artifact and of all that it was made from."""
    for name, record in artifact.manifest.inputs.items():
        source = store.find(record["stage"], record["key"])
        if source is not None:
            yield from _settings(store, source)
        yield name, record["digest"][:12]
    for table, keys in artifact.manifest.tables.items():
        for key, value in keys.items():
            yield f"{table}.{key}", value


def _results(store: "Store", run: "Artifact") -> dict[str, object]:
    """Final and best scores of a run, its tokens and its time; None where unknown."""
    if run.is_imported:
        return {"bits_per_byte": _bits_per_byte(store, run)}
    from tinygpt.store.metrics import evaluations, read_metrics

    rows = evaluations(read_metrics(run))
    final = rows[-1]
    best = min(rows, key=lambda row: row["val_loss"])
    return {
        "final_loss": final["val_loss"],
        "final_perplexity": final["val_perplexity"],
        "best_loss": best["val_loss"],
        "best_perplexity": best["val_perplexity"],
        "best_step": best["step"],
        "bits_per_byte": _bits_per_byte(store, run),
        "tokens": final["tokens"],
        "seconds": run.manifest.provenance.get("seconds"),
    }


def _bits_per_byte(store: "Store", run: "Artifact") -> float | None:
    """Of the newest evaluation of a run on its validation split."""
    from tinygpt.records import EvalRecord

    for artifact in store.list("eval"):
        if artifact.input("train")["digest"] == run.digest:
            evaluation = artifact.read_json("eval.json", EvalRecord)
            if evaluation["judged"] == "validation split":
                return evaluation["bits_per_byte"]
    return None


def _differing_names(facts: Mapping[str, Mapping[str, object]]) -> list[str]:
    """The facts that are not the same for all runs."""
    names = dict.fromkeys(name for of_run in facts.values() for name in of_run)
    return [name for name in names if len({str(run.get(name)) for run in facts.values()}) > 1]


def _table(differing: Mapping[str, Mapping[str, object]]) -> str:
    """A row for each fact, a column for each run."""
    lines = {"run": list(differing)}
    for name in next(iter(differing.values())):
        lines[name] = [_cell(of_run[name]) for of_run in differing.values()]
    width = max(len(cell) for line in lines.values() for cell in line)
    rows = [(name, "  ".join(cell.rjust(width) for cell in line)) for name, line in lines.items()]
    return ui.table("what differs", rows)


def _cell(value: object) -> str:
    if value is None:
        return "none"
    text = f"{value:,.5g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST_CELL else f"{text[: LONGEST_CELL - 1]}…"
