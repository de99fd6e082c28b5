"""`tinygpt replay`: does a training run give the same weights again?"""

import re
from collections.abc import Collection
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from tinygpt.cli.options import Call, with_options
from tinygpt.errors import MissingArtifactError, UsageError

if TYPE_CHECKING:
    from tinygpt.config import Config
    from tinygpt.project import Project
    from tinygpt.records import ModelFile
    from tinygpt.store import Artifact, Inputs, UnfinishedRun

Run = Annotated[
    str, typer.Argument(metavar="RUN", help="Training run, finished or not: an id prefix.")
]
Steps = Annotated[
    str | None,
    typer.Option(
        metavar="A..B", help="From step A (0 or a checkpoint) to step B (with stored weights)."
    ),
]


@with_options("config", "preset", "sets", "store", "json", "quiet", "debug")
def replay(call: Call, *, run: Run, steps: Steps = None) -> None:
    """Re-run training steps and compare the weights bit for bit."""
    from tinygpt.cli.session import Session
    from tinygpt.records import ModelFile
    from tinygpt.runs.replay import replay as repeat
    from tinygpt.runs.trained_weights import FILES, snapshot_files

    session = Session(call, reads_model=True)
    project = session.project
    unfinished = _unfinished_run(project, run)
    checkpoint = unfinished.newest() if unfinished else None
    recorded = checkpoint or session.find_model(run)
    if recorded.is_imported:
        raise UsageError(
            f"model {recorded.id} was imported: the steps of its training are not known, so there "
            "is nothing to replay",
            hint="name a model that was trained here; `tinygpt artifacts ls train` lists them",
        )
    model_file = recorded.read_json("config.json", ModelFile)
    end = model_file["step"]
    stored = snapshot_files(recorded, end) | {end: FILES["last"]}
    starts = [0, *(unfinished.steps() if unfinished else [])]
    first, last = _span(steps, end, starts, stored)
    stored = {step: name for step, name in stored.items() if first < step <= last}

    config = _config_of_run(session.config, recorded, model_file)
    inputs = _inputs_of_run(project, config, recorded, run)
    start = unfinished.load(first) if unfinished and first else None
    with closing(session.screen):
        sha256 = repeat(config, inputs, recorded, stored, start, session.screen)
    compared = ", ".join(map(str, sorted(stored)))
    session.screen.note(
        f"weights are identical, bit for bit, at step {compared}; SHA-256 of the last: {sha256}"
    )
    call.answer({"run": recorded.key, "steps": sorted(stored), "sha256": sha256})


def _unfinished_run(project: "Project", run: str) -> "UnfinishedRun | None":
    for unfinished in project.store.unfinished_runs():
        if unfinished.stage == "train" and unfinished.key12.startswith(run):
            return unfinished
    return None


def _span(
    steps: str | None, end: int, starts: Collection[int], stored: Collection[int]
) -> tuple[int, int]:
    """The steps A and B of `--steps A..B`: replay from the weights after A to those after B."""
    match = re.fullmatch(r"(\d+)\.\.(\d+)", steps or f"0..{end}")
    first, last = (int(match[1]), int(match[2])) if match else (-1, -1)
    if first not in starts or last not in stored or first >= last:
        known_starts = ", ".join(map(str, starts))
        known_ends = ", ".join(map(str, sorted(stored)))
        message = (
            f"`--steps {steps}` cannot be replayed; this run has stored weights "
            f"to start from ({known_starts}) and to compare with ({known_ends})"
        )
        raise UsageError(message, hint="name one of each")
    return first, last


def _config_of_run(config: "Config", recorded: "Artifact", model_file: "ModelFile") -> "Config":
    """The configuration of a run, with [runtime] as it is here."""
    from pydantic import ValidationError

    train = {**recorded.table("train"), "precision": model_file["precision"]}
    tables = {"model": recorded.table("model"), "train": train, "runtime": config.runtime}
    try:
        return type(config).model_validate(tables)
    except ValidationError as error:
        first = ".".join(map(str, error.errors(include_url=False)[0]["loc"]))
        raise recorded.malformed("manifest.json", f"`{first}` is not as it was") from error


def _inputs_of_run(
    project: "Project", config: "Config", recorded: "Artifact", run: str
) -> "Inputs":
    inputs = dict(project.inputs_of_model("train", recorded, run))
    digest = config.train.init_from
    if digest is not None:
        origins = [model for model in project.artifacts("train") if model.digest == digest]
        if not origins:
            raise MissingArtifactError(
                "the model from which this run continued is no longer in the store",
                hint="train it again",
            )
        inputs["init_from"] = origins[0]
    return inputs
