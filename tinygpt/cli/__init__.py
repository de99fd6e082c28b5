"""The command line. Only the standard library and typer are imported before a command runs."""

import os
import sys
from functools import partial
from typing import Annotated

import typer

from tinygpt import __version__
from tinygpt.cli import artifacts, compare, config, doctor, replay, run, stages
from tinygpt.cli.commands import Command, Commands
from tinygpt.cli.failures import exit_code
from tinygpt.cli.options import Call

app = typer.Typer(cls=Commands, rich_markup_mode=None, pretty_exceptions_enable=False)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"tinygpt {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
]


@app.callback()
def _root(version: Version = False) -> None:
    """Train a small GPT from scratch on your own machine, and see what it learned."""


COMMANDS = {
    "run": run.run,
    "init": config.init,
    "tokenize": stages.tokenize,
    "build-dataset": stages.build_dataset,
    "train": stages.train,
    "eval": stages.evaluate,
    "sample": stages.sample,
    "plot": stages.plot,
    "compare": compare.compare,
    "replay": replay.replay,
    "doctor": doctor.doctor,
}
for name, command in COMMANDS.items():
    app.command(name, cls=Command)(command)
app.add_typer(config.app, name="config")
app.add_typer(artifacts.app, name="artifacts")


def invoke(arguments: list[str]) -> int:
    """Run one command line; its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that cannot show a character gets its number, not an error
            stream.reconfigure(errors="backslashreplace")
    call = Call(arguments)
    typer_main = typer.main.get_command(app).main
    run_command = partial(
        typer_main, arguments, prog_name="tinygpt", standalone_mode=False, obj=call
    )
    return exit_code(run_command, arguments, call.signals, call.rephrase)


def main() -> None:
    """The console script."""
    # GNU OpenMP's threads spin for milliseconds while they wait, and a step takes several times as
    # long when another program uses the cores. A thousand turns cost nothing on a free machine and
    # little on a busy one. Read when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if os.name == "nt":
        message = "error: tinygpt needs the file locks of Linux and macOS"
        sys.exit(f"{message}\n\nhint: on Windows, install and run it inside WSL")
    sys.exit(invoke(sys.argv[1:]))
