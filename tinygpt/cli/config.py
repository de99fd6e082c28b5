"""`tinygpt config show` and `tinygpt init`."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from tinygpt import ui
from tinygpt.cli.failures import Command, Commands
from tinygpt.cli.options import Call, program, with_options
from tinygpt.errors import UsageError

app = typer.Typer(cls=Commands, rich_markup_mode=None, help="The configuration and where each value came from.")

Folder = Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to write it; made if need be.")]
Format = Annotated[Literal["toml", "yaml", "json"], typer.Option(help="How to write it.")]


@app.command(cls=Command)
@with_options("config", "preset", "sets", "source", "debug")
def show(call: Call, *, format: Format = "toml") -> None:
    """Show the whole configuration and where each value came from."""
    from tinygpt.config import render

    loaded = call.load_config()
    for note in loaded.notes:
        ui.say_note(call.rephrase(note))
    ui.say_product(render(loaded.config, format, loaded.origins), end="")


@with_options("preset", "source", "debug")
def init(call: Call, *, folder: Folder = Path()) -> None:
    """Write a tinygpt.toml that explains itself, never over an existing one."""
    from tinygpt.config import render_init

    path = folder / "tinygpt.toml"
    text = render_init(call.options.preset or "laptop", call.options.source)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise UsageError(f"`{path}` is already there", hint="name another folder, or edit the file") from error
    ui.say_note(f"wrote {path}")
    there = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(str(folder))}; "
    ui.say_note(f"next: {there}{program(elsewhere=bool(there))} run")
