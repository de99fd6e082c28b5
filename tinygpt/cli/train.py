"""`tinygpt train`: start, continue, resume, start afresh; and the stage as `run` needs it too."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from tinygpt.cli.options import Call, with_options
from tinygpt.errors import Interrupted, StoppedEarly, UsageError

if TYPE_CHECKING:
    from tinygpt.cli.session import Session
    from tinygpt.config import Config
    from tinygpt.pipeline import Outcome
    from tinygpt.report import Report
    from tinygpt.store import Artifact, Out


@with_options()
def train(
    call: Call,
    *,
    resume: Annotated[bool, typer.Option("--resume", help="Insist on continuing an unfinished run.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Set an unfinished run aside and start again.")] = False,
    max_steps: Annotated[int | None, typer.Option(metavar="N", help="Optimizer steps, schedule included.")] = None,
    max_minutes: Annotated[float | None, typer.Option(min=0, metavar="M", help="Stop after this time; resumable.")] = None,
    stop_at_step: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after this step; resumable.")] = None,
) -> None:
    """Train the model; an unfinished run continues."""
    from tinygpt.cli.session import Session

    if resume and fresh:
        raise UsageError("`--resume` and `--fresh` contradict each other", hint="give one of them")
    call.flags = {"train.max_steps": ("--max-steps", max_steps)}
    session = Session(call)
    inputs = session.inputs("train")
    if not call.options.force and (done := session.plan("train")["train"].artifact):
        if resume:
            session.report.note(f"run {done.id} is finished")
    else:
        _prepare(session, resume=resume, fresh=fresh)
    outcome = train_stage(
        session, inputs, force=call.options.force, max_seconds=max_minutes and max_minutes * 60, stop_at_step=stop_at_step
    )
    if call.options.json:
        session.print_json(outcome)
    session.next("eval", "sample")


def _prepare(session: "Session", *, resume: bool, fresh: bool) -> None:
    """Apply `--resume` and `--fresh` to what an unfinished run left."""
    from tinygpt.pipeline import STAGES, differences, stage_tables

    key = session.plan("train")["train"].key
    assert key is not None
    checkpoints = session.store.checkpoints("train", key)
    if fresh and checkpoints.folder.exists():
        with session.store.lock("train", key, timeout=session.config.runtime.lock_timeout, waiting=session.report.note):
            session.report.note(f"the unfinished run {key[:12]} is now in `{checkpoints.set_aside('unfinished')}`")
    if not resume or checkpoints.steps():
        return
    others = [run for run in session.store.unfinished() if run.stage == "train"]
    if not others:
        session.report.note("nothing to resume: this run starts")
        return
    tables = stage_tables(STAGES["train"], session.config, session.outside)
    inputs = {name: artifact.digest for name, artifact in session.inputs("train").items()}
    changes = ", ".join(differences(others[0].recipe, tables, inputs, STAGES["train"].version))
    raise UsageError(
        f"no unfinished run has this configuration; run {others[0].key12} (step {others[0].step:,}) differs in {changes}",
        hint="give that run's configuration, or start this one with `tinygpt train`",
    )


def train_stage(
    session: "Session",
    inputs: Mapping[str, "Artifact"],
    *,
    force: bool,
    max_seconds: float | None = None,
    stop_at_step: int | None = None,
) -> "Outcome":
    """Run stage train so that limits and signals end it with everything saved."""

    def runner(config: "Config", inputs: Mapping[str, "Artifact"], out: "Out", report: "Report") -> None:
        with session.call.signals.deferred() as interrupted:
            from tinygpt.stages.train import Limits, run

            if config.train.init_from is not None:
                inputs = {**inputs, "init_from": session.store.resolve(config.train.init_from, "train")}
            run(config, inputs, out, report, limits=Limits(max_seconds, stop_at_step, interrupted))

    try:
        return session.make("train", inputs, force=force, runner=runner)
    except (StoppedEarly, Interrupted) as stopped:
        stopped.hint = f"`tinygpt {'run' if session.call.arguments[0] == 'run' else 'train --resume'}` continues it"
        raise
