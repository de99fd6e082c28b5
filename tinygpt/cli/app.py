"""Every command, and how it is called. Of libraries, only typer is imported before one runs."""

from typing import Annotated

import typer

from tinygpt import __version__, ui
from tinygpt.cli import (
    artifacts,
    compare,
    config,
    doctor,
    exports,
    imports,
    packs,
    replay,
    run,
    stages,
)
from tinygpt.cli.commands import Command, Commands

app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _version(asked: bool) -> None:
    if asked:
        ui.say_output(f"tinygpt {__version__}")
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
    "page": stages.page,
    "export": exports.export,
    "import": imports.import_,
    "compare": compare.compare,
    "replay": replay.replay,
    "doctor": doctor.doctor,
}
for name, command in COMMANDS.items():
    app.command(name, cls=Command)(command)
app.add_typer(config.app, name="config")
for command in (packs.pack, packs.unpack):
    artifacts.app.command(cls=Command)(command)
app.add_typer(artifacts.app, name="artifacts")
