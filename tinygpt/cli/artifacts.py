"""`tinygpt artifacts`: what is in the store, how it was made, whether it is whole."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygpt.cli.failures import Commands
from tinygpt.cli.options import Call, with_options

if TYPE_CHECKING:
    from tinygpt.store import Artifact, Store

app = typer.Typer(cls=Commands, rich_markup_mode=None, help="List, show, check and remove what the stages made.")
LOCK_TIMEOUT = 60.0  # seconds that `verify --repair` and `gc` wait for running stages
COMMON = ("store", "json", "debug")

Id = Annotated[str, typer.Argument(metavar="ID", help="The first digits of an artifact's id, also written STAGE/DIGITS.")]


def _store(call: Call) -> "Store":
    from tinygpt.config import store_root
    from tinygpt.store import Store

    return Store(store_root(call.options.store))


@app.command()
@with_options(*COMMON)
def ls(call: Call, *, stage: Annotated[str | None, typer.Argument(metavar="[STAGE]", help="Only of this stage.")] = None) -> None:
    """List all artifacts, newest first."""
    from tinygpt.cli.session import record
    from tinygpt.ui import count, say_json, say_note, say_product, size

    store = _store(call)
    found = store.list(stage)
    if call.options.json:
        say_json([{**record(artifact), "pinned": store.is_pinned(artifact)} for artifact in found])
        return
    for artifact in found:
        pinned = "  pinned" if store.is_pinned(artifact) else ""
        created = artifact.created[:16].replace("T", " ")
        say_product(f"{artifact.stage:13}  {artifact.id}  {created}  {size(artifact.size):>8}{pinned}")
    for run in store.unfinished():
        say_note(f"unfinished: {run.stage} {run.key12}, step {run.step:,}")
    if not found:
        say_note(f"nothing in `{store.root}`")
    else:
        say_note(f"{count(len(found), 'artifact')}, {size(sum(artifact.size for artifact in found))}")


@app.command()
@with_options(*COMMON)
def show(call: Call, *, artifact: Id) -> None:
    """Show how an artifact was made and what is in it."""
    from tinygpt.cli.session import record
    from tinygpt.ui import say_json, say_product, size, table

    found = _store(call).resolve(artifact)
    manifest = found.manifest
    if call.options.json:
        inputs = {name: dict(made) for name, made in manifest.inputs.items()}
        files = {name: dict(file) for name, file in manifest.files.items()}
        more = {"tables": manifest.tables, "inputs": inputs, "files": files, "provenance": manifest.provenance}
        say_json({**record(found), "version": manifest.version, **more})
        return
    rows = [(name, str(value)) for name, value in record(found).items()]
    rows += [(f"input {name}", f"{made['key'][:12]} (digest {made['digest'][:12]})") for name, made in manifest.inputs.items()]
    rows += [(f"{name}.{key}", _plain(value)) for name, values in manifest.tables.items() for key, value in values.items()]
    rows += [(name, _plain(value)) for name, value in manifest.provenance.items() if name != "created"]
    rows += [(f"file {name}", size(file["bytes"])) for name, file in manifest.files.items()]
    say_product(table(f"{found.stage} {found.id}", rows, None))


def _plain(value: object) -> str:
    return "none" if value is None else str(value)


@app.command()
@with_options("store", "debug")
def path(call: Call, *, artifact: Id) -> None:
    """Print the folder of an artifact."""
    from tinygpt.ui import say_product

    say_product(str(_store(call).resolve(artifact).folder))


@app.command()
@with_options(*COMMON)
def lineage(call: Call, *, artifact: Id) -> None:
    """Show what an artifact was made from, back to the stories."""
    from tinygpt.ui import say_json, say_product

    store = _store(call)
    tree = _ancestors(store, store.resolve(artifact))
    if call.options.json:
        say_json(tree)
    else:
        say_product("\n".join(_branches(tree)))


def _ancestors(store: "Store", artifact: "Artifact") -> dict[str, Any]:
    from tinygpt.cli.session import record

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


@app.command()
@with_options(*COMMON)
def verify(
    call: Call,
    *,
    repair: Annotated[bool, typer.Option("--repair", help="Move what is damaged to the trash.")] = False,
) -> None:
    """Hash every file of every artifact and compare with what was written."""
    from tinygpt.errors import VerificationError
    from tinygpt.ui import count, say_json, say_note

    store = _store(call)
    faults = store.repair(timeout=LOCK_TIMEOUT, waiting=say_note) if repair else store.verify()
    whole = len(store.list())
    if call.options.json:
        found = [{"kind": fault.kind, "path": str(fault.path), "text": fault.text} for fault in faults]
        say_json({"artifacts": whole, "faults": found, "repaired": repair})
    for fault in faults:
        say_note(fault.text)
    remaining = [fault for fault in faults if not (repair and fault.culprit)]
    if remaining:
        hint = None if repair else "`tinygpt artifacts verify --repair` moves what is damaged to the trash"
        raise VerificationError(f"{count(len(remaining), 'fault')} in `{store.root}`", hint=hint)
    repaired = f"; {count(len(faults), 'fault')} repaired, the damaged parts are in `.trash/`" if faults else ""
    say_note(f"{count(whole, 'artifact')} whole{repaired}")


@app.command()
@with_options(*COMMON)
def gc(
    call: Call, *, dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False
) -> None:
    """Remove what nothing needs: old results but models, the trash, leftovers."""
    from tinygpt.cli.session import record
    from tinygpt.store import garbage
    from tinygpt.ui import count, say_json, say_note, size

    store = _store(call)
    if dry_run:
        unneeded = garbage(store)
        others, total = 0, sum(artifact.size for artifact in unneeded)
    else:
        removed = store.gc(timeout=LOCK_TIMEOUT, waiting=say_note)
        unneeded, others, total = list(removed.artifacts), removed.others, removed.bytes
    if call.options.json:
        records = [record(artifact) for artifact in unneeded]
        say_json({"artifacts": records, "others": others, "bytes": total, "removed": not dry_run})
        return
    for artifact in unneeded:
        say_note(f"{artifact.stage} {artifact.id}  {size(artifact.size)}")
    leftovers = f" and {count(others, 'leftover')}" if others else ""
    say_note(f"{'Would remove' if dry_run else 'Removed'} {count(len(unneeded), 'artifact')}{leftovers}, {size(total)}")


@app.command()
@with_options("store", "debug")
def pin(
    call: Call,
    *,
    artifact: Id,
    remove: Annotated[bool, typer.Option("--remove", help="Take the pin away.")] = False,
) -> None:
    """Make gc keep an artifact and all it was made from."""
    from tinygpt.ui import say_note

    store = _store(call)
    found = store.resolve(artifact)
    store.pin(found, pinned=not remove)
    say_note(f"{found.stage} {found.id} is {'no longer ' if remove else ''}pinned")
