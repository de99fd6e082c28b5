"""`tinygpt compare`: runs beside each other, in a table and in one picture."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygpt import ui
from tinygpt.cli.options import Call, with_options
from tinygpt.errors import UsageError

if TYPE_CHECKING:
    from tinygpt.store import Artifact, Store

Runs = Annotated[list[str], typer.Argument(metavar="ID ID ...", help="Trained models, by the first digits of their ids.")]
Folder = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for compare.png, instead of latest/ in the store.")]


@with_options("store", "json", "debug")
def compare(call: Call, *, runs: Runs, out: Folder = None) -> None:
    """Show what runs differ in, and their training curves in one picture."""
    from tinygpt.figures.curves import compared
    from tinygpt.figures.findings import Curves
    from tinygpt.figures.style import style, to_bytes

    store = call.store()
    found = {run.id: run for run in (store.resolve(digits, "train") for digits in runs)}
    if len(found) < 2:
        raise UsageError("one run has nothing to be compared with", hint="name two; `tinygpt artifacts ls train` lists them")
    metrics = {id_: run.read_rows("metrics.jsonl") for id_, run in found.items()}
    facts = [dict(_settings(store, run)) | _results(store, run, metrics[id_]) for id_, run in found.items()]
    known = dict.fromkeys(name for each in facts for name in each)
    names = [name for name in known if len({str(each.get(name)) for each in facts}) > 1]
    with style():
        picture = to_bytes(compared({id_: Curves.from_rows(rows) for id_, rows in metrics.items()}), "png")
    path = (out or store.root / "latest").absolute() / "compare.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture)
    differing = [{name: each.get(name) for name in names} for each in facts]
    if call.answer({"runs": dict(zip(found, differing, strict=True)), "picture": str(path)}):
        return
    lines = {"run": list(found)} | {name: [_said(each.get(name)) for each in facts] for name in names}
    width = max(len(cell) for line in lines.values() for cell in line)
    rows = [(name, "  ".join(cell.rjust(width) for cell in line)) for name, line in lines.items()]
    ui.say_product(f"{ui.table('what differs', rows)}\n{path}")


def _settings(store: "Store", artifact: "Artifact") -> Iterator[tuple[str, object]]:
    """The configuration and the inputs, by digest, that an artifact was made from, as far back as they are in the store."""
    for name, source in artifact.manifest.inputs.items():
        if (found := store.find(source["stage"], source["key"])) is not None:
            yield from _settings(store, found)
        yield name, source["digest"][:12]
    yield from ((f"{table}.{key}", value) for table, keys in artifact.manifest.tables.items() for key, value in keys.items())


def _results(store: "Store", run: "Artifact", metrics: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """How far a run went, what it reached and what it cost; None for what is not known."""
    rows = [row for row in metrics if row["kind"] == "eval"]
    final, best = rows[-1], min(rows, key=lambda row: float(row["val_loss"]))
    judged = (e.read_json("eval.json") for e in store.list("eval") if e.manifest.inputs["train"]["digest"] == run.digest)
    bits = next((facts["bits_per_byte"] for facts in judged if facts["judged"] == "validation split"), None)
    named = {"final": final, "best": best}
    losses = {f"{name}_{what}": row[f"val_{what}"] for name, row in named.items() for what in ("loss", "perplexity")}
    cost = {"tokens": final["tokens"], "seconds": run.manifest.provenance.get("seconds")}
    return {**losses, "best_step": best["step"], "bits_per_byte": bits, **cost}


def _said(value: object) -> str:
    text = "none" if value is None else f"{value:,.5g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 30 else f"{text[:29]}…"
