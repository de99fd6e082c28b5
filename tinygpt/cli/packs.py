"""`tinygpt artifacts pack` and `unpack`: artifacts and all they were made from, in one file."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinygpt import ui
from tinygpt.cli.artifacts import LOCK_TIMEOUT, SHARED
from tinygpt.cli.options import Call, with_options
from tinygpt.cli.results import artifact_record
from tinygpt.errors import MissingArtifactError, UsageError

if TYPE_CHECKING:
    from tinygpt.store import Artifact, Store

NewPack = Annotated[
    Path, typer.Argument(metavar="FILE", help="File to write, which must not exist.")
]
Pack = Annotated[Path, typer.Argument(metavar="FILE", help="File that `artifacts pack` wrote.")]
Ids = Annotated[
    list[str],
    typer.Argument(metavar="ID", help="First digits of ids (at least 4), or STAGE/DIGITS."),
]
WithoutText = Annotated[
    bool, typer.Option("--without-text", help="Leave out the training text and all that quotes it.")
]

CONTENT = {
    "corpus": "the training text",
    "build-dataset": "the training text as token ids",
    "eval": "may quote the training text",
    "plot": "shows a text, e.g., of the validation split",
    "sample": "generated text",
}
"""What the artifacts of a stage hold of a text."""

STATES = {
    "new": "",
    "there": "was there",
    "mended": "was damaged here: the old one is in `.trash/`",
}


@with_options(*SHARED)
def pack(call: Call, *, file: NewPack, ids: Ids, without_text: WithoutText = False) -> None:
    """Write artifacts and all they were made from into one file."""
    from tinygpt.pipeline import check_recipe
    from tinygpt.store import pack as packs

    if str(file) == "-":
        raise UsageError("a pack is not written to standard output", hint="name a file")
    store = call.store()
    store.check_exists()
    wanted = [_finished(store, prefix) for prefix in ids]
    artifacts, size = packs.pack(
        store,
        file,
        wanted,
        check_recipe,
        text=not without_text,
        timeout=LOCK_TIMEOUT,
        on_wait=ui.say_note,
    )
    texts = sorted({made.stage for made in artifacts}.intersection(CONTENT))
    records = [artifact_record(made) for made in artifacts]
    answer = {"path": str(file.absolute()), "bytes": size, "artifacts": records, "text_in": texts}
    if call.answer(answer):
        return
    _list((made, CONTENT.get(made.stage, "")) for made in artifacts)
    what = f"{ui.count(len(artifacts), 'artifact')}, {ui.size(size)}"
    if "corpus" in texts:
        what += "; the training text is in it, which `--without-text` leaves out"
    elif without_text:
        what += "; without the training text, the model cannot be trained further"
    ui.say_note(what)
    ui.say_output(str(file))


def _finished(store: "Store", prefix: str) -> "Artifact":
    """The artifact of an id; an unfinished run is refused in its own words."""
    try:
        return store.resolve(prefix)
    except MissingArtifactError:
        stage, _, digits = prefix.rpartition("/")
        for run in store.unfinished_runs():
            if run.recipe.key.startswith(digits) and stage in ("", run.stage):
                raise UsageError(
                    f"run `{run.key12}` is not finished: {ui.count(run.step, 'step')} done",
                    hint="`tinygpt train --resume` finishes it; then it can be packed",
                ) from None
        raise


def _list(lines: Iterable[tuple["Artifact", str]]) -> None:
    """A line for each artifact: id, size, and what is to be said about it."""
    for made, word in lines:
        ui.say_note(f"{made.stage:13}  {made.id}  {ui.size(made.size):>10}  {word}".rstrip())


@with_options(*SHARED)
def unpack(call: Call, *, file: Pack) -> None:
    """Put the artifacts of a pack into the store, every byte checked."""
    from tinygpt.pipeline import check_recipe
    from tinygpt.store.stage_names import MODEL_STAGE
    from tinygpt.store.unpack import unpack as unpack_into

    store = call.store()
    unpacked = unpack_into(store, file, check_recipe, timeout=LOCK_TIMEOUT, on_wait=ui.say_note)
    records = [{**artifact_record(made), "state": state} for made, state in unpacked]
    if call.answer({"store": str(store.root), "artifacts": records}):
        return
    _list((made, STATES[state]) for made, state in unpacked)
    new = ui.count(sum(state == "new" for _, state in unpacked), "new artifact")
    ui.say_note(f"{new} in `{store.root}`")
    for made, _ in unpacked:
        if made.stage == MODEL_STAGE:
            ui.say_note(f"next: {call.command(f'sample --model {made.id}')}")
            break
