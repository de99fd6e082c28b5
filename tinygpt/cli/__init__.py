"""The command line. Only the standard library and typer are imported before a command runs."""

import os
import sys
from functools import partial
from typing import Annotated

import typer

from tinygpt import __version__
from tinygpt.cli import artifacts, bench, compare, config, doctor, pipeline, replay
from tinygpt.cli.failures import Command, Commands, exit_code
from tinygpt.cli.options import Call

app = typer.Typer(cls=Commands, rich_markup_mode=None, pretty_exceptions_enable=False)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"tinygpt {__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")]


@app.callback()
def _root(version: Version = False) -> None:
    """Train a real GPT from nothing on your own machine, and understand what happened."""


STAGES = (pipeline.tokenize, pipeline.build_dataset, pipeline.train, pipeline.evaluate, pipeline.sample, pipeline.plot)
for command in (pipeline.run, config.init, *STAGES, compare.compare, replay.replay, doctor.doctor):
    app.command("eval" if command is pipeline.evaluate else None, cls=Command)(command)  # else by the function's name
for name, group in (("config", config.app), ("artifacts", artifacts.app), ("bench", bench.app)):
    app.add_typer(group, name=name)


def invoke(arguments: list[str]) -> int:
    """Run one command line; its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show a character gets its number, not an error
            stream.reconfigure(errors="backslashreplace")
    call = Call(arguments)
    run_command = partial(typer.main.get_command(app).main, arguments, prog_name="tinygpt", standalone_mode=False, obj=call)
    return exit_code(run_command, arguments, call.signals, call.rephrase)


def main() -> None:
    """The console script."""
    # GNU OpenMP's threads spin for milliseconds while they wait, and a step takes several times as long when another program
    # uses the cores. A thousand turns cost nothing on a free machine and little on a busy one. Read when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if os.name == "nt":
        sys.exit("error: tinygpt needs the file locks of Linux and macOS\n\nhint: on Windows, install and run it inside WSL")
    sys.exit(invoke(sys.argv[1:]))
