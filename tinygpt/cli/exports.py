"""`tinygpt export`: a trained model in the format of another program."""

from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tinygpt import ui
from tinygpt.cli.options import Call, with_options
from tinygpt.cli.stages import Model
from tinygpt.errors import ArtifactError, UsageError

if TYPE_CHECKING:
    from tinygpt.store import Artifact, Store

Target = Annotated[
    Path, typer.Argument(metavar="TARGET", help="Folder to write, which must not exist yet.")
]
To = Annotated[
    str, typer.Option("--to", metavar="FORMAT", help="Format: hf, gguf, csv or tensorboard.")
]
WhichWeights = Annotated[
    Literal["auto", "best", "last"] | None,
    typer.Option("--weights", help="Weights; auto takes the best where the last are worse."),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        metavar="VALUE", help="Number format: f32, f16, bf16 (hf alone) or q8_0 (gguf alone)."
    ),
]
License = Annotated[
    str | None,
    typer.Option("--data-license", metavar="TEXT", help="License of the training text, to state."),
]
Replace = Annotated[
    bool, typer.Option("--force", help="Replace an earlier export that nobody has changed.")
]


@with_options("config", "preset", "sets", "source", "store", "json", "quiet", "debug")
def export(
    call: Call,
    *,
    target: Target,
    to: To,
    model: Model = None,
    weights: WhichWeights = None,
    dtype: Dtype = None,
    data_license: License = None,
    force: Replace = False,
) -> None:
    """Write a model as a folder that other programs read."""
    from tinygpt.cli.session import Session
    from tinygpt.exports import formats
    from tinygpt.exports.model import open_model
    from tinygpt.exports.target import check_target
    from tinygpt.store.stage_names import CHECKPOINT

    if not formats.check_format(to, dtype) and weights is not None:
        raise UsageError(f"`--weights {weights}`: {to} holds no weights", hint="leave it out")
    check_target(target, force)
    session = Session(call, reads_model=True)
    with closing(session.screen):
        train = session.find_model(model)
        if model is not None and train.stage == CHECKPOINT:
            step = train.manifest.provenance["step"]
            session.screen.note(f"`{model}` is a checkpoint, of step {step:,}")
        lineage = _lineage(session.project.store, train)
        opened = open_model(train, weights or "auto", lineage=lineage, data_license=data_license)
        if opened.weights.note is not None and formats.FORMATS[to]:
            session.screen.note(opened.weights.note)
        checked = formats.export(opened, target, to, dtype, force, session.screen.note)
        session.screen.note(checked)
    answer = {"path": str(target.absolute()), "format": to, "model": train.key, "checked": checked}
    if not call.answer(answer):
        ui.say_output(str(target))


def _lineage(store: "Store", train: "Artifact") -> "dict[str, Artifact]":
    """What a model was made from and what was measured of it, as far as it is in the store."""
    from tinygpt.trained_models import newest_of_model, source_of_model

    found = {}
    for stage in ("build-dataset", "tokenize"):
        with suppress(ArtifactError, KeyError):  # of a model that was imported
            found[stage] = source_of_model(store, stage, train)
    with suppress(ArtifactError, KeyError):
        found["corpus"] = source_of_model(store, "corpus", found["build-dataset"])
    for stage in ("eval", "plot"):
        newest = newest_of_model(store, stage, train)
        if newest is not None:
            found[stage] = newest
    return found
