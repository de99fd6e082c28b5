"""`tinygpt run`: every stage in order, and a summary of the results."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygpt import ui
from tinygpt.cli.experiment import (
    MAX_CELLS,
    Budget,
    Grid,
    Jobs,
    MaxCells,
    MinEffect,
    Seeds,
    Vary,
    run_grid,
)
from tinygpt.cli.options import EXAMPLE, Call, with_options
from tinygpt.cli.results import PAGE, artifact_record, pictures, put_latest, sample_texts
from tinygpt.errors import PageError

if TYPE_CHECKING:
    from tinygpt.cli.session import Session
    from tinygpt.pipeline import Outcome

# So that a first sample is a good one, and the same for everybody
SAMPLE_DEFAULTS: dict[str, object] = {"top_p": 0.9, "seed": 1337}
NEXT_COMMANDS = {
    "train": ("eval", EXAMPLE),
    "eval": (EXAMPLE,),
    "sample": ("plot",),
    "plot": ("page",),
    "page": (EXAMPLE, "artifacts ls", "init mine --preset laptop --source my.txt"),
}

Until = Annotated[
    str | None,
    typer.Option(
        metavar="STAGE", help="Last stage to run; with --force, only this one is recomputed."
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Show the plan: what is cached, what would run, and why."),
]


@with_options()
def run(
    call: Call,
    *,
    until: Until = None,
    dry_run: DryRun = False,
    vary: Vary = None,
    seeds: Seeds = None,
    budget: Budget = None,
    min_effect: MinEffect = None,
    max_cells: MaxCells = MAX_CELLS,
    jobs: Jobs = 1,
) -> None:
    """Run every stage, or an experiment (--vary); results already computed are reused."""
    grid = Grid(vary, seeds, budget, min_effect, max_cells, jobs)
    if vary:
        return run_grid(call, grid, until, dry_run=dry_run)
    grid.check_alone()
    from tinygpt.cli.session import Session
    from tinygpt.pipeline import LAST_STAGE, STAGES, check_stage

    last = until or LAST_STAGE
    check_stage(last)
    refresh = call.options.force and until in (None, "corpus")
    session = Session(call, may_read_source=not dry_run, refresh_source=refresh)
    _choose_sampling(session)
    if dry_run:
        _show_plan(session, last)
        return
    forced = [until] if until else list(STAGES)
    before_page = "plot" if last == "page" else last
    outcomes = session.run(before_page, force=forced if call.options.force else [])
    if last == "page":
        outcomes |= _page(session, outcomes, until)
    _conclude(session, outcomes, last)


def _page(
    session: "Session", outcomes: "dict[str, Outcome]", until: str | None
) -> "dict[str, Outcome]":
    """The page of the model; a note if it is too large for one and nobody asked for it by name."""
    from tinygpt.pipeline import STAGES

    inputs = {source: outcomes[source].artifact for source in STAGES["page"].inputs}
    try:
        return {"page": session.make("page", inputs)}
    except PageError as error:
        if until is not None:
            raise
        session.screen.note(f"no page: {error.message}")
        return {}


def _choose_sampling(session: "Session") -> None:
    """Apply SAMPLE_DEFAULTS to the sampling keys that the user has not set."""
    sampling, origins = session.config.sample, session.loaded.origins
    for key, value in SAMPLE_DEFAULTS.items():
        name = f"sample.{key}"
        if getattr(sampling, key) is None and origins[name] != "--set":
            session.reload({name: ("`run`", value)})


def _show_plan(session: "Session", until: str) -> None:
    rows: dict[str, dict[str, Any]] = {}
    for name, planned in session.project.plan(until).items():
        cached = planned.artifact
        rows[name] = {
            "cached": cached is not None,
            "id": cached.id if cached else None,
            "why": planned.why,
        }
        if cached is None and planned.key:
            steps = session.project.store.unfinished_run(name, planned.key).steps()
            if steps:
                rows[name]["why"] = f"an unfinished run continues at step {steps[-1]:,}"
    if not session.call.answer(rows):
        lines = [(name, f"{row['id'] or 'to run'}  {row['why']}") for name, row in rows.items()]
        title = f"plan for `{session.project.store.root}`"
        ui.say_output(ui.table(title, lines, ui.columns(sys.stdout)))


def _conclude(session: "Session", outcomes: "dict[str, Outcome]", last: str) -> None:
    """Print the sample, the perplexity, where the results are, and what to type next."""
    store, note = session.project.store, session.screen.note
    texts = sample_texts(outcomes["sample"].artifact) if "sample" in outcomes else []
    plot = outcomes["plot"].artifact if "plot" in outcomes else None
    page = outcomes["page"].artifact if "page" in outcomes else None
    drawn = [str(plot.path(name)) for name in pictures(plot)] if plot else []
    before, after = _perplexities(outcomes)
    answer = {
        "stages": [
            {**artifact_record(outcome.artifact), "cached": outcome.cached}
            for outcome in outcomes.values()
        ],
        "samples": texts,
        "perplexity": {"before": before, "after": after},
        "pictures": drawn,
        "page": str(page.path(PAGE)) if page else None,
    }
    if not session.call.answer(answer) and texts:
        ui.say_output("\n\n".join(texts))
    if after is not None:
        note(f"perplexity {before:,.0f} before training, {after:,.2f} after")
    train = outcomes["train"].artifact if "train" in outcomes else None
    if plot and train:
        latest = put_latest(store, plot, outcomes["sample"].artifact, note)
        note(f"report    {latest / 'report.html'}")
        note(f"model     {train.folder}")
        note(f"pictures  {latest}")
    if page:
        note(f"page      {page.path(PAGE)}")
    session.suggest(*NEXT_COMMANDS.get(last, ("run",)), model=train)


def _perplexities(outcomes: "dict[str, Outcome]") -> tuple[float | None, float | None]:
    """Before and after training; None where nothing was evaluated."""
    from tinygpt.records import EvalRecord
    from tinygpt.trained_models import validation_perplexities

    if "eval" not in outcomes:
        return None, None
    evaluation = outcomes["eval"].artifact.read_json("eval.json", EvalRecord)
    after = evaluation["perplexity"]
    if "untrained" in evaluation["baselines"]:
        return evaluation["baselines"]["untrained"]["perplexity"], after
    return validation_perplexities(outcomes["train"].artifact)[0], after
