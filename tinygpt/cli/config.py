"""`tinygpt config show` and `tinygpt init`."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from tinygpt import ui
from tinygpt.cli import failures
from tinygpt.cli.commands import Command, Commands
from tinygpt.cli.options import Call, program, with_options
from tinygpt.errors import UsageError

app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,
    help="Show the configuration, and where each value came from.",
)

Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="Where to write it; created if needed.")
]
Format = Annotated[Literal["toml", "yaml", "json"], typer.Option(help="How to write it.")]


@app.command(cls=Command)
@with_options("config", "preset", "sets", "source", "debug")
def show(call: Call, *, format: Format = "toml") -> None:
    """Show the whole configuration and where each value came from."""
    from tinygpt.config import render

    loaded = call.load_config()
    for note in loaded.notes + loaded.default_notes:
        ui.say_note(call.rephrase(note))
    ui.say_output(render(loaded.config, format, loaded.origins), end="")


@with_options("preset", "source", "debug")
def init(call: Call, *, folder: Folder = Path()) -> None:
    """Write a commented tinygpt.toml; an existing one is kept."""
    from tinygpt.config import DEFAULT_PRESET, FileSource, parse_source, render_init
    from tinygpt.corpus import files

    path = folder / "tinygpt.toml"
    text = render_init(call.options.preset or DEFAULT_PRESET, call.options.source)
    source = parse_source(call.options.source) if call.options.source else None
    if isinstance(source, FileSource) and source.pattern != "-":
        files.find(source.pattern)
    with failures.writing(path, "name another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("x", encoding="utf-8", newline="\n") as stream:
                stream.write(text)
        except FileExistsError as error:
            raise UsageError(
                f"`{path}` already exists", hint="name another folder, or edit the file"
            ) from error
        except OSError:
            path.unlink(missing_ok=True)
            raise
    ui.say_note(f"wrote {path}")
    if folder.resolve() == Path.cwd():
        ui.say_note(f"next: {program()} run")
    else:
        ui.say_note(f"next: cd {shlex.quote(str(folder))}; {program(elsewhere=True)} run")
