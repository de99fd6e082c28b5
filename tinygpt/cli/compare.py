"""`tinygpt compare`, runs beside each other, and `tinygpt replay`, a run beside itself: does it give the same weights again?"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygpt import ui
from tinygpt.cli.options import Call, with_options
from tinygpt.errors import MissingArtifactError, UsageError

if TYPE_CHECKING:
    from tinygpt.store import Artifact, Store

Runs = Annotated[list[str], typer.Argument(metavar="ID ID ...", help="Trained models, by the first digits of their ids.")]
Folder = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for compare.png, instead of latest/ in the store.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="Training run, finished or not, by the first digits of its id.")]
Steps = Annotated[str | None, typer.Option(metavar="A..B", help="From 0 or a stored checkpoint to stored weights.")]


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


@with_options("config", "preset", "sets", "store", "json", "quiet", "debug")
def replay(call: Call, *, run: Run, steps: Steps = None) -> None:
    """Take a training run's steps again and compare the weights bit for bit."""
    from tinygpt.config import Config
    from tinygpt.stages.replay import replay as repeat

    session = call.session()
    unfinished = next((one for one in session.store.unfinished() if one.stage == "train" and one.key12.startswith(run)), None)
    made = (unfinished and unfinished.newest()) or session.trained(run)
    card, tables = made.read_json("config.json"), made.manifest.tables
    stored = {int(name[15:-12]): name for name in made.names() if name.startswith("snapshots/step-")}
    stored[card["step"]] = "model.safetensors"
    starts = [0, *(unfinished.steps() if unfinished else [])]
    span = re.fullmatch(r"(\d+)\.\.(\d+)", steps or f"0..{card['step']}")
    first, last = map(int, span.groups()) if span else (-1, -1)
    if first not in starts or last not in stored or first >= last:
        known = f"from {', '.join(map(str, starts))} to {', '.join(map(str, sorted(stored)))}"
        raise UsageError(f"`--steps {steps}` cannot be replayed; of this run is stored: {known}", hint="name one of each")
    stored = {step: name for step, name in stored.items() if first < step <= last}

    train = {**tables["train"], "precision": card["precision"]}
    config = Config.model_validate({"model": tables["model"], "train": train, "runtime": session.config.runtime})
    inputs = dict(session.inputs_around("train", made, run))
    if (digest := config.train.init_from) is not None:
        before = [artifact for artifact in session.store.list("train") if artifact.digest == digest]
        if not before:
            raise MissingArtifactError("the model that this run went on from is gone", hint="make it again")
        inputs["init_from"] = before[0]
    with closing(session.report):
        sha256 = repeat(config, inputs, made, stored, unfinished.load(first) if unfinished and first else None, session.report)
    session.report.note(f"the same to the bit at step {', '.join(map(str, sorted(stored)))}; SHA-256 of the last: {sha256}")
    call.answer({"run": made.key, "steps": sorted(stored), "sha256": sha256})
