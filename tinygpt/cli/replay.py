"""`tinygpt replay`: does a training run give the same weights again?"""

import re
from contextlib import closing
from typing import Annotated

import typer

from tinygpt.cli.options import Call, with_options
from tinygpt.errors import MissingArtifactError, UsageError

Run = Annotated[str, typer.Argument(metavar="RUN", help="Training run, finished or not, by the first digits of its id.")]
Steps = Annotated[str | None, typer.Option(metavar="A..B", help="From 0 or a stored checkpoint to stored weights.")]


@with_options("config", "preset", "sets", "store", "json", "quiet", "debug")
def replay(call: Call, *, run: Run, steps: Steps = None) -> None:
    """Take a training run's steps again and compare the weights bit for bit."""
    from tinygpt.config import Config
    from tinygpt.stages.replay import replay as repeat

    session = call.session()
    unfinished = next((one for one in session.store.unfinished() if one.stage == "train" and one.key12.startswith(run)), None)
    made = (unfinished and unfinished.newest()) or session.trained(run)
    card, tables = made.read_json("config.json"), made.manifest.tables
    stored = {int(name[15:-12]): name for name in made.names() if name.startswith("snapshots/step-")}
    stored[card["step"]] = "model.safetensors"
    starts = [0, *(unfinished.steps() if unfinished else [])]
    span = re.fullmatch(r"(\d+)\.\.(\d+)", steps or f"0..{card['step']}")
    first, last = map(int, span.groups()) if span else (-1, -1)
    if first not in starts or last not in stored or first >= last:
        known = f"from {', '.join(map(str, starts))} to {', '.join(map(str, sorted(stored)))}"
        raise UsageError(f"`--steps {steps}` cannot be replayed; of this run is stored: {known}", hint="name one of each")
    stored = {step: name for step, name in stored.items() if first < step <= last}

    train = {**tables["train"], "precision": card["precision"]}
    config = Config.model_validate({"model": tables["model"], "train": train, "runtime": session.config.runtime})
    inputs = dict(session.inputs_around("train", made, run))
    if (digest := config.train.init_from) is not None:
        if not (before := [artifact for artifact in session.store.list("train") if artifact.digest == digest]):
            raise MissingArtifactError("the model that this run went on from is gone", hint="make it again")
        inputs["init_from"] = before[0]
    with closing(session.report):
        sha256 = repeat(config, inputs, made, stored, unfinished.load(first) if unfinished and first else None, session.report)
    session.report.note(f"the same to the bit at step {', '.join(map(str, sorted(stored)))}; SHA-256 of the last: {sha256}")
    call.answer({"run": made.key, "steps": sorted(stored), "sha256": sha256})
