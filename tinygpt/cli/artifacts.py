"""`tinygpt artifacts`: what the store contains, how it was made, whether it is intact."""

import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygpt import ui
from tinygpt.cli.commands import Command, Commands
from tinygpt.cli.options import Call, with_options
from tinygpt.cli.results import artifact_record, facts, in_words
from tinygpt.errors import VerificationError

if TYPE_CHECKING:
    from tinygpt.store import Artifact, Store

app = typer.Typer(
    cls=Commands, rich_markup_mode=None, help="List, show, check and remove what the stages made."
)
LOCK_TIMEOUT = 60.0  # seconds that `verify --repair` and `gc` wait for running stages
SHARED = ("store", "json", "debug")

StageName = Annotated[
    str | None, typer.Argument(metavar="STAGE", help="List only artifacts of this stage.")
]
Repair = Annotated[
    bool, typer.Option("--repair", help="Restore damaged files, or move them to the trash.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")]
Remove = Annotated[bool, typer.Option("--remove", help="Remove the pin.")]
Id = Annotated[
    str, typer.Argument(metavar="ID", help="First digits of an id (at least 4), or STAGE/DIGITS.")
]


@with_options(*SHARED)
def ls(call: Call, *, stage: StageName = None) -> None:
    """List all artifacts, newest first."""
    from tinygpt.pipeline import check_stage
    from tinygpt.store.stage_names import KEPT_STAGES

    if stage is not None and stage not in KEPT_STAGES:
        check_stage(stage)
    store = _existing_store(call)
    artifacts = store.list(stage)
    records = [
        {
            **artifact_record(artifact),
            **facts(store, artifact),
            "pinned": store.is_pinned(artifact),
        }
        for artifact in artifacts
    ]
    if call.answer(records):
        return
    for artifact, record in zip(artifacts, records, strict=True):
        made = f"{_local_time(artifact)}  {ui.size(artifact.size):>8}"
        line = f"{artifact.stage:13}  {artifact.id}  {made}  {in_words(record)}"
        ui.say_output(ui.wrap(ui.escape(line).rstrip(), ui.columns(sys.stdout), indent=4))
    for run in store.unfinished_runs():
        ui.say_note(f"unfinished: {run.stage} {run.key12}, step {run.step:,}")
    total = sum(artifact.size for artifact in artifacts)
    number = ui.count(len(artifacts), "artifact")
    ui.say_note(f"{number}, {ui.size(total)} in `{store.root}`")


def _existing_store(call: Call) -> "Store":
    """The store that this command line means, which must be one."""
    store = call.store()
    store.check_exists()
    return store


def _local_time(artifact: "Artifact") -> str:
    """When an artifact was made, by the clock of who reads it."""
    return f"{datetime.fromisoformat(artifact.created).astimezone():%Y-%m-%d %H:%M}"


@with_options(*SHARED)
def show(call: Call, *, artifact: Id) -> None:
    """Show how an artifact was made and what is in it."""
    from tinygpt.store.artifact import MODEL_FILES
    from tinygpt.store.manifest import MANIFEST
    from tinygpt.store.stage_names import MODEL_STAGE

    found = call.store().resolve(artifact)
    shown = {**artifact_record(found), **found.manifest.model_dump()}
    needed = [name for name in found.names() if name in MODEL_FILES]
    if found.stage == MODEL_STAGE:
        shown |= {"needed": [MANIFEST, *needed], "missing": found.missing()}
    if call.answer(shown):
        return
    if found.stage == MODEL_STAGE:
        total = sum(found.manifest.files[name]["bytes"] for name in needed)
        names = ", ".join(shown["needed"])
        shown["needed"] = f"{names} ({ui.size(total)}): what a copy for `--model FOLDER` takes"
        shown["missing"] = ", ".join(shown["missing"]) or None
    shown["created"] = _local_time(found)
    ui.say_output(ui.table(f"{found.stage} {found.id}", list(_rows(shown))))


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
    ui.say_output(str(call.store().resolve(artifact).folder))


@with_options(*SHARED)
def lineage(call: Call, *, artifact: Id) -> None:
    """Show what an artifact was made from, back to the corpus."""
    store = call.store()
    tree = _ancestors(store, store.resolve(artifact))
    if not call.answer(tree):
        ui.say_output("\n".join(_tree_lines(tree)))


def _ancestors(store: "Store", artifact: "Artifact") -> dict[str, Any]:
    from tinygpt.store.stage_names import IMPORT_STAGE

    inputs: dict[str, Any] = {}
    for name, record in artifact.manifest.inputs.items():
        source = store.find(record["stage"], record["key"])
        if source is not None and source.digest == record["digest"]:
            inputs[name] = _ancestors(store, source)
        elif record["stage"] == IMPORT_STAGE:
            inputs[name] = {**record, "inputs": {}}  # a folder outside of the store
        else:
            inputs[name] = {**record, "gone": True, "inputs": {}}
    return {**artifact_record(artifact), "inputs": inputs}


def _tree_lines(node: Mapping[str, Any], indent: str = "") -> list[str]:
    gone = "  (gone)" if node.get("gone") else ""
    name = f"{node['stage']} {node['key'][:12]}"
    lines = [f"{indent}{name}  digest {node['digest'][:12]}{gone}"]
    for source in node["inputs"].values():
        lines += _tree_lines(source, indent + "  ")
    return lines


@with_options(*SHARED)
def verify(call: Call, *, repair: Repair = False) -> None:
    """Check every byte of every artifact against its hash."""
    from tinygpt.store import upkeep

    store = _existing_store(call)
    if repair:
        found = upkeep.repair(store, timeout=LOCK_TIMEOUT, on_wait=ui.say_note)
        left = upkeep.verify(store) if found else []
    else:
        left = upkeep.verify(store)
        found = [(fault, "") for fault in left]
    whole = len(store.list())
    records = [
        {"kind": fault.kind, "path": str(fault.path), "text": fault.text, "done": done}
        for fault, done in found
    ]
    # What ended processes left harms nothing, and the next stage that runs removes it
    left = [fault for fault in left if fault.kind != "leftover"]
    call.answer({"artifacts": whole, "faults": records, "left": len(left), "repaired": repair})
    for fault, done in found:
        ui.say_note(f"{fault.text}; {done}" if done else fault.text)
    if left:
        raise VerificationError(
            f"{ui.count(len(left), 'fault')} {'left ' if repair else ''}in `{store.root}`",
            hint="`tinygpt artifacts verify --repair` restores files from equal ones in the store "
            "and moves what else is damaged to `.trash/`"
            if any(fault.is_mendable for fault in left)
            else "copy what is missing from a backup, or train again with `tinygpt train --force`",
        )
    ui.say_note(f"{ui.count(whole, 'artifact')} intact")


@with_options(*SHARED)
def gc(call: Call, *, dry_run: DryRun = False) -> None:
    """Remove old results (never models), the trash and leftovers."""
    from tinygpt.store import upkeep

    store = _existing_store(call)
    others: dict[Path, int] = {}
    if dry_run:
        unneeded = upkeep.garbage(store)
    else:
        unneeded, others = upkeep.gc(store, timeout=LOCK_TIMEOUT, on_wait=ui.say_note)
    total = sum(artifact.size for artifact in unneeded) + sum(others.values())
    answer = {
        "artifacts": [artifact_record(artifact) for artifact in unneeded],
        "others": len(others),
        "bytes": total,
        "removed": not dry_run,
    }
    if call.answer(answer):
        return
    for artifact in unneeded:
        ui.say_note(f"{artifact.stage} {artifact.id}  {ui.size(artifact.size)}")
    what = ui.count(len(unneeded), "artifact")
    if others:
        what += f" and {ui.count(len(others), 'leftover')}"
    ui.say_note(f"{'Would remove' if dry_run else 'Removed'} {what}, {ui.size(total)}")


@with_options("store", "debug")
def pin(call: Call, *, artifact: Id, remove: Remove = False) -> None:
    """Make gc keep an artifact and everything it was made from."""
    store = call.store()
    found = store.resolve(artifact)
    store.pin(found, pinned=not remove)
    ui.say_note(f"{found.stage} {found.id} is {'no longer ' if remove else ''}pinned")


for command in (ls, show, path, lineage, verify, gc, pin):
    app.command(cls=Command)(command)
