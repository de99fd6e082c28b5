"""`tinygpt artifacts`: what is in the store, how it was made, whether it is whole."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygpt import ui
from tinygpt.cli.failures import Commands
from tinygpt.cli.options import Call, with_options
from tinygpt.errors import VerificationError

if TYPE_CHECKING:
    from tinygpt.store import Artifact, Store

app = typer.Typer(cls=Commands, rich_markup_mode=None, help="List, show, check and remove what the stages made.")
LOCK_TIMEOUT = 60.0  # seconds that `verify --repair` and `gc` wait for running stages
COMMON = ("store", "json", "debug")

Stage = Annotated[str | None, typer.Argument(metavar="[STAGE]", help="Only of this stage.")]
Repair = Annotated[bool, typer.Option("--repair", help="Move what is damaged to the trash.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")]
Remove = Annotated[bool, typer.Option("--remove", help="Take the pin away.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The first digits of an artifact's id, also written STAGE/DIGITS.")]


def record(artifact: "Artifact") -> dict[str, Any]:
    """An artifact in the machine-readable form of `artifacts ls --json`."""
    facts = {name: getattr(artifact, name) for name in ("stage", "key", "digest", "created")}
    return {**facts, "path": str(artifact.folder), "bytes": artifact.size}


def evaluations(train: "Artifact") -> list[float]:
    """The validation perplexities of a run, in the order of its steps."""
    return [row["val_perplexity"] for row in train.read_rows("metrics.jsonl") if row["kind"] == "eval"]


def stories(artifact: "Artifact") -> list[str]:
    """The stories of a sample artifact."""
    return [story["text"] for story in artifact.read_rows("samples.jsonl")]


def pictures(plot: "Artifact") -> list[str]:
    """The names of a plot artifact's pictures, and of the report that holds them all."""
    return [name for name in plot.names() if name.endswith((".png", ".svg", ".html"))]


def put_latest(store: "Store", plot: "Artifact", story: "Artifact | None") -> None:
    """Renew the plain copies under `latest/`."""
    copies = {name: plot.read(name) for name in pictures(plot)}
    if story is not None:
        copies["story.txt"] = ("\n\n".join(stories(story)) + "\n").encode("utf-8", "backslashreplace")
    store.put_latest(copies)


@with_options(*COMMON)
def ls(call: Call, *, stage: Stage = None) -> None:
    """List all artifacts, newest first."""
    store = call.store()
    found = store.list(stage)
    if call.answer([{**record(artifact), "pinned": store.is_pinned(artifact)} for artifact in found]):
        return
    for artifact in found:
        pinned = "  pinned" if store.is_pinned(artifact) else ""
        created = artifact.created[:16].replace("T", " ")
        ui.say_product(f"{artifact.stage:13}  {artifact.id}  {created}  {ui.size(artifact.size):>8}{pinned}")
    for run in store.unfinished():
        ui.say_note(f"unfinished: {run.stage} {run.key12}, step {run.step:,}")
    ui.say_note(f"{ui.count(len(found), 'artifact')}, {ui.size(sum(artifact.size for artifact in found))} in `{store.root}`")


@with_options(*COMMON)
def show(call: Call, *, artifact: Id) -> None:
    """Show how an artifact was made and what is in it."""
    found = call.store().resolve(artifact)
    facts = {**record(found), **found.manifest.model_dump()}
    if not call.answer(facts):
        ui.say_product(ui.table(f"{found.stage} {found.id}", list(_rows(facts))))


def _rows(facts: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Nested facts as rows: {"files": {"a": {"bytes": 5}}} as ("files.a.bytes", "5")."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _rows(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", "none" if value is None else str(value)


@with_options("store", "debug")
def path(call: Call, *, artifact: Id) -> None:
    """Print the folder of an artifact."""
    ui.say_product(str(call.store().resolve(artifact).folder))


@with_options(*COMMON)
def lineage(call: Call, *, artifact: Id) -> None:
    """Show what an artifact was made from, back to the stories."""
    store = call.store()
    tree = _ancestors(store, store.resolve(artifact))
    if not call.answer(tree):
        ui.say_product("\n".join(_branches(tree)))


def _ancestors(store: "Store", artifact: "Artifact") -> dict[str, Any]:
    inputs = {}
    for name, made in artifact.manifest.inputs.items():
        source = store.find(made["stage"], made["key"])
        same = source is not None and source.digest == made["digest"]
        inputs[name] = _ancestors(store, source) if source is not None and same else {**made, "gone": True, "inputs": {}}
    return {**record(artifact), "inputs": inputs}


def _branches(node: dict[str, Any], indent: str = "") -> list[str]:
    gone = "  (gone)" if node.get("gone") else ""
    lines = [f"{indent}{node['stage']} {node['key'][:12]}  digest {node['digest'][:12]}{gone}"]
    return lines + [line for source in node["inputs"].values() for line in _branches(source, indent + "  ")]


@with_options(*COMMON)
def verify(call: Call, *, repair: Repair = False) -> None:
    """Hash every file of every artifact and compare with what was written."""
    from tinygpt.store import upkeep

    store = call.store()
    faults = upkeep.repair(store, timeout=LOCK_TIMEOUT, waiting=ui.say_note) if repair else upkeep.verify(store)
    whole = len(store.list())
    found = [{"kind": fault.kind, "path": str(fault.path), "text": fault.text} for fault in faults]
    call.answer({"artifacts": whole, "faults": found, "repaired": repair})
    for fault in faults:
        ui.say_note(fault.text)
    if remaining := [fault for fault in faults if not (repair and fault.culprit)]:
        hint = None if repair else "`tinygpt artifacts verify --repair` moves what is damaged to the trash"
        raise VerificationError(f"{ui.count(len(remaining), 'fault')} in `{store.root}`", hint=hint)
    repaired = f"; {ui.count(len(faults), 'fault')} repaired, the damaged parts are in `.trash/`" if faults else ""
    ui.say_note(f"{ui.count(whole, 'artifact')} whole{repaired}")


@with_options(*COMMON)
def gc(call: Call, *, dry_run: DryRun = False) -> None:
    """Remove what nothing needs: old results but models, the trash, leftovers."""
    from tinygpt.store import upkeep

    store = call.store()
    unneeded, others = (upkeep.garbage(store), {}) if dry_run else upkeep.gc(store, timeout=LOCK_TIMEOUT, waiting=ui.say_note)
    total = sum([*(artifact.size for artifact in unneeded), *others.values()])
    records = [record(artifact) for artifact in unneeded]
    if call.answer({"artifacts": records, "others": len(others), "bytes": total, "removed": not dry_run}):
        return
    for artifact in unneeded:
        ui.say_note(f"{artifact.stage} {artifact.id}  {ui.size(artifact.size)}")
    leftovers = f" and {ui.count(len(others), 'leftover')}" if others else ""
    ui.say_note(f"{'Would remove' if dry_run else 'Removed'} {ui.count(len(unneeded), 'artifact')}{leftovers}, {ui.size(total)}")


@with_options("store", "debug")
def pin(call: Call, *, artifact: Id, remove: Remove = False) -> None:
    """Make gc keep an artifact and all it was made from."""
    store = call.store()
    found = store.resolve(artifact)
    store.pin(found, pinned=not remove)
    ui.say_note(f"{found.stage} {found.id} is {'no longer ' if remove else ''}pinned")


for command in (ls, show, path, lineage, verify, gc, pin):
    app.command()(command)
