"""`tinygpt run`: all stages in their order."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygpt.cli.options import Call, with_options
from tinygpt.cli.train import train_stage
from tinygpt.errors import UsageError

if TYPE_CHECKING:
    from tinygpt.cli.session import Session
    from tinygpt.pipeline import Outcome

SAMPLE_DEFAULTS = {"top_p": 0.9, "seed": 1337}  # so that a first story is a good one, and the same for everybody
EXAMPLE = 'sample "Once upon a time" --top-p 0.9'


@with_options()
def run(
    call: Call,
    *,
    until: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Last stage; with --force only this one is made again.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is cached and what would run, and why.")] = False,
) -> None:
    """Do all stages: corpus, tokenize, build-dataset, train, eval, sample, plot."""
    from tinygpt.cli.session import Session
    from tinygpt.pipeline import STAGES

    last = until or list(STAGES)[-1]
    if last not in STAGES:
        import difflib

        near = difflib.get_close_matches(last, STAGES, 1)
        hint = f"did you mean `{near[0]}`?" if near else f"the stages are {', '.join(STAGES)}"
        raise UsageError(f"`{last}` is not a stage", hint=hint)
    session = Session(call, reads_source=not dry_run, renews_source=call.options.force and until in (None, "corpus"))
    unsaid = {
        f"sample.{key}": (f"--{key.replace('_', '-')}", value)
        for key, value in SAMPLE_DEFAULTS.items()
        if getattr(session.config.sample, key) is None and session.loaded.origins[f"sample.{key}"] != "--set"
    }
    session.reload(unsaid)
    if dry_run:
        _show_plan(session, last)
        return
    made: dict[str, Outcome] = {}
    for name, stage in STAGES.items():
        inputs = {source: made[source].artifact for source in stage.inputs}
        force = call.options.force and until in (None, name)
        made[name] = (train_stage if name == "train" else _stage(name))(session, inputs, force=force)
        if name == last:
            break
    _conclude(session, made)


def _stage(name: str) -> Any:
    return lambda session, inputs, *, force: session.make(name, inputs, force=force)


def _show_plan(session: "Session", until: str) -> None:
    from tinygpt.ui import columns, say_json, say_product, table

    rows = []
    for name, planned in session.plan(until).items():
        why = planned.why
        if planned.artifact is None and planned.key and (steps := session.store.checkpoints(name, planned.key).steps()):
            why = f"an unfinished run continues at step {steps[-1]:,}"
        rows.append((name, f"{planned.artifact.id}  {why}" if planned.artifact else f"run  {why}"))
    if session.call.options.json:
        say_json({name: {"cached": not said.startswith("run  "), "why": said.partition("  ")[2]} for name, said in rows})
    else:
        import sys

        say_product(table(f"plan for `{session.store.root}`", rows, columns(sys.stdout)))


def _conclude(session: "Session", made: dict[str, "Outcome"]) -> None:
    """The story, what training changed, the pictures, and what to type now."""
    from tinygpt.cli.session import pictures, print_samples, put_latest, record, samples
    from tinygpt.ui import say_json

    before, after = perplexities(made) if "eval" in made else (None, None)
    plot = made["plot"].artifact if "plot" in made else None
    if session.call.options.json:
        say_json({
            "stages": [{**record(outcome.artifact), "cached": outcome.cached} for outcome in made.values()],
            "stories": [told["text"] for told in samples(made["sample"].artifact)] if "sample" in made else [],
            "perplexity": {"before": before, "after": after},
            "pictures": [str(plot.path(name)) for name in pictures(plot)] if plot else [],
        })  # fmt: skip
    elif "sample" in made:
        print_samples(made["sample"].artifact, as_json=False)
    if after is not None:
        session.report.note(f"perplexity {before:,.0f} before training, {after:,.2f} after")
    if plot is None:
        later = {"train": ["eval", EXAMPLE], "eval": [EXAMPLE], "sample": ["plot"]}
        last = list(made)[-1]
        session.next(*later.get(last, ["run"]))
        return
    put_latest(session.store, plot, made["sample"].artifact)
    for name in pictures(plot):
        session.report.note(str(plot.path(name)))
    session.next(EXAMPLE, "artifacts ls", "init mine --preset laptop --source my.txt")


def perplexities(made: dict[str, "Outcome"]) -> tuple[float | None, float]:
    """Validation perplexity before and after training."""
    from tinygpt.cli.session import evaluations

    judged = made["eval"].artifact.read_json("eval.json")
    untrained = judged.get("baselines", {}).get("untrained")
    before = untrained["perplexity"] if untrained else evaluations(made["train"].artifact)[0]
    return before, judged["perplexity"]
