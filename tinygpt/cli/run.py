"""`tinygpt run`: all stages in their order."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from tinygpt import ui
from tinygpt.cli.artifacts import record
from tinygpt.cli.failures import did_you_mean
from tinygpt.cli.options import Call, with_options
from tinygpt.errors import UsageError

if TYPE_CHECKING:
    from tinygpt.cli.session import Session
    from tinygpt.pipeline import Outcome

Until = Annotated[str | None, typer.Option(metavar="STAGE", help="Last stage; with --force only this one is made again.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what is cached and what would run, and why.")]
# So that a first story is a good one, and the same for everybody
SAMPLE_DEFAULTS: dict[str, object] = {"top_p": 0.9, "seed": 1337}
EXAMPLE = 'sample "Once upon a time" --top-p 0.9'


@with_options()
def run(call: Call, *, until: Until = None, dry_run: DryRun = False) -> None:
    """Do all stages: corpus, tokenize, build-dataset, train, eval, sample, plot."""
    from tinygpt.cli.session import Session
    from tinygpt.pipeline import STAGES

    last = until or list(STAGES)[-1]
    if last not in STAGES:
        raise UsageError(f"`{last}` is not a stage", hint=did_you_mean(last, STAGES, f"the stages are {', '.join(STAGES)}"))
    session = Session(call, reads=not dry_run, renews=call.options.force and until in (None, "corpus"))
    sampling, origins = session.config.sample, session.loaded.origins
    unset = [key for key in SAMPLE_DEFAULTS if getattr(sampling, key) is None and origins[f"sample.{key}"] != "--set"]
    session.reload({f"sample.{key}": ("`run`", SAMPLE_DEFAULTS[key]) for key in unset})
    if dry_run:
        _show_plan(session, last)
        return
    made: dict[str, Outcome] = {}
    for name, stage in STAGES.items():
        inputs = {source: made[source].artifact for source in stage.inputs}
        made[name] = session.make(name, inputs, force=call.options.force and until in (None, name))
        if name == last:
            break
    _conclude(session, made)


def _show_plan(session: "Session", until: str) -> None:
    said = {}
    for name, planned in session.plan(until).items():
        why = planned.why
        if planned.artifact is None and planned.key and (steps := session.store.checkpoints(name, planned.key).steps()):
            why = f"an unfinished run continues at step {steps[-1]:,}"
        said[name] = {"cached": planned.artifact is not None, "id": planned.artifact and planned.artifact.id, "why": why}
    if not session.call.answer(said):
        rows = [(name, f"{row['id'] or 'run'}  {row['why']}") for name, row in said.items()]
        ui.say_product(ui.table(f"plan for `{session.store.root}`", rows, ui.columns(sys.stdout)))


def _conclude(session: "Session", made: dict[str, "Outcome"]) -> None:
    """The story, what training changed, the pictures, and what to type now."""
    from tinygpt.cli.session import evaluations, pictures, put_latest, stories

    before = after = None
    if "eval" in made:
        judged = made["eval"].artifact.read_json("eval.json")
        after = judged["perplexity"]
        before = judged["baselines"].get("untrained", {"perplexity": evaluations(made["train"].artifact)[0]})["perplexity"]
    plot = made["plot"].artifact if "plot" in made else None
    drawn = [str(plot.path(name)) for name in pictures(plot)] if plot else []
    told = stories(made["sample"].artifact) if "sample" in made else []
    stages = [{**record(outcome.artifact), "cached": outcome.cached} for outcome in made.values()]
    perplexity = {"before": before, "after": after}
    if not session.call.answer({"stages": stages, "stories": told, "perplexity": perplexity, "pictures": drawn}) and told:
        ui.say_product("\n\n".join(told))
    if after is not None:
        session.report.note(f"perplexity {before:,.0f} before training, {after:,.2f} after")
    if plot is None:
        later = {"train": ["eval", EXAMPLE], "eval": [EXAMPLE], "sample": ["plot"]}
        session.next(*later.get(list(made)[-1], ["run"]))
        return
    put_latest(session.store, plot, made["sample"].artifact)
    for path in drawn:
        session.report.note(path)
    session.next(EXAMPLE, "artifacts ls", "init mine --preset laptop --source my.txt")
