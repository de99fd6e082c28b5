"""`tinygpt import`: a GPT-2 folder of Hugging Face becomes a model of the store."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from tinygpt.cli.options import Call, with_options

Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder with a GPT-2 model of Hugging Face.")
]
TanhGelu = Annotated[
    bool,
    typer.Option("--tanh-gelu", help="Import a model with the exact GELU as one with tanh GELU."),
]


@with_options("store", "json", "quiet", "debug")
def import_(call: Call, *, folder: Folder, tanh_gelu: TanhGelu = False) -> None:
    """Turn a GPT-2 folder of Hugging Face into a model."""
    from tinygpt.cli.session import Session
    from tinygpt.imports.model import import_model

    session = Session(call, reads_model=True)
    with closing(session.screen):
        imported = import_model(
            folder,
            call.store(),
            tanh_gelu=tanh_gelu,
            reporter=session.screen,
            lock_timeout=session.config.runtime.lock_timeout,
        )
    session.show(imported.tokenize)
    session.show(imported.train)
    model = f"--model {imported.train.artifact.id}"
    session.finish(imported.train, f"sample {model}", f"eval {model} --text my.txt")
