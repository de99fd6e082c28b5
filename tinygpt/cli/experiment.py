"""`tinygpt run --vary` and `tinygpt compare --by`: a grid of runs, its plan and its answer."""

import math
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from tinygpt import ui
from tinygpt.cli.options import Call
from tinygpt.cli.results import PAGE, artifact_record
from tinygpt.errors import Interrupted, StoppedEarly, UsageError

if TYPE_CHECKING:
    from tinygpt.cli.session import Session
    from tinygpt.experiments.cells import Made
    from tinygpt.experiments.plan import NthLook, Wanted
    from tinygpt.experiments.records import Plan
    from tinygpt.project import Project
    from tinygpt.store import Artifact, Store

MAX_CELLS = 64
NOT_REPEATED = ("--json", "--quiet", "--debug", "--force", "--dry-run")

Vary = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=A,B", help="Compare values of a key over several seeds; repeatable."),
]
Seeds = Annotated[
    str | None,
    typer.Option(
        metavar="N|A..B", help="Seeds of each value; default: as many as a verdict takes."
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(metavar="WHAT", help="What all values get alike: tokens, steps or seconds."),
]
MinEffect = Annotated[
    float | None,
    typer.Option(metavar="X", help="Smallest difference that matters, in bits per byte: 0.01."),
]
MaxCells = Annotated[int, typer.Option(metavar="N", help="Most runs of an experiment.")]
Jobs = Annotated[
    int, typer.Option(min=1, metavar="N", help="Runs side by side, with the threads divided.")
]
By = Annotated[
    str | None,
    typer.Option(metavar="KEY", help="Test the difference between runs of several seeds."),
]


class Grid(NamedTuple):
    """The flags of `run` that describe an experiment."""

    vary: list[str] | None
    seeds: str | None
    budget: str | None
    min_effect: float | None
    max_cells: int
    jobs: int

    def check_alone(self) -> None:
        """Refuse flags of an experiment where nothing is varied."""
        given = [name for name in ("seeds", "budget", "min_effect") if getattr(self, name)]
        given += ["jobs"] * (self.jobs > 1) + ["max_cells"] * (self.max_cells != MAX_CELLS)
        if given:
            raise UsageError(
                f"`--{given[0].replace('_', '-')}` belongs to an experiment",
                hint="say what to vary, e.g., `--vary model.norm=pre,post`",
            )

    def wanted(self, call: Call) -> "Wanted":
        """What the flags ask for; nothing has run yet.

        Raises:
            UsageError, ConfigError: a flag, a key or a value is wrong.
        """
        from tinygpt.experiments.grid import make_arms
        from tinygpt.experiments.plan import NthLook, want
        from tinygpt.experiments.values import parse_seeds, parse_vary

        choices = [parse_vary(text) for text in self.vary or ()]
        arm_count = math.prod(len(named) for named in choices)
        needed = NthLook(1).seeds_needed(arm_count - 1)
        seeds = parse_seeds(str(needed) if self.seeds is None else self.seeds)
        cells = arm_count * len(seeds)
        if cells > self.max_cells:
            raise UsageError(
                f"{arm_count} arms with {ui.count(len(seeds), 'seed')} are {cells} cells, "
                f"more than {self.max_cells}",
                hint=f"vary less, or allow them with `--max-cells {cells}`",
            )
        arms = make_arms(
            choices, lambda flags: replace(call, flags=call.flags | flags).load_config().config
        )
        return want(arms, seeds, self.budget, self.min_effect, self.jobs)


def run_grid(call: Call, grid: Grid, until: str | None, *, dry_run: bool) -> None:
    """Run an experiment, or show what it would do."""
    from tinygpt.cli.session import Session
    from tinygpt.experiments.experiment import run_experiment
    from tinygpt.experiments.grid import measured_config

    if until not in (None, "eval"):
        raise UsageError(
            f"`--vary` runs every cell until `eval`, not until `{until}`",
            hint="leave `--until` out; `tinygpt plot --model ID` draws one of the runs",
        )
    wanted = grid.wanted(call)
    session = Session(call, may_read_source=not dry_run)
    project = session.project.with_config(measured_config(session.config))
    project.on_outcome = None
    note = session.screen.note
    try:
        if dry_run:
            _show_prospect(session, project, wanted)
            return
        experiment, cached = run_experiment(
            project,
            wanted,
            session.limits,
            lambda plan, look: note("\n".join(plan_lines(plan, look))),
            lambda place, made: note(_cell_line(place, made, wanted)),
            command=repeated(call),
            force=call.options.force,
        )
    except (StoppedEarly, Interrupted) as stopped:
        again = shlex.join(call.arguments)
        stopped.hint = f"`tinygpt {again}` continues; finished cells are reused"
        raise
    finally:
        session.screen.close()
    show_answer(call, experiment, note, cached=cached)


def repeated(call: Call) -> str:
    """The command that repeats this one, without a folder of this machine."""
    words = [word for word in call.arguments if word not in NOT_REPEATED]
    if "--store" in words:
        place = words.index("--store")
        del words[place : place + 2]
    return shlex.join(["tinygpt", *(word for word in words if not word.startswith("--store="))])


def _cell_line(place: int, made: "Made", wanted: "Wanted") -> str:
    from tinygpt.records import EvalRecord

    total = len(wanted.arms) * len(wanted.seeds)
    came = "failed"
    if made.evaluation is not None:
        bits = made.evaluation.read_json("eval.json", EvalRecord)["bits_per_byte"]
        came = f"{bits:.4f} bits per byte"
    return f"cell {place + 1}/{total}  {made.cell.name}: {came}{'  cached' * made.cached}"


def plan_lines(plan: "Plan", look: "NthLook") -> list[str]:
    """What is said before the first cell."""
    comparisons, seeds = len(plan["arms"]) - 1, len(plan["seeds"])
    needed = look.seeds_needed(comparisons)
    rows = [("question", plan["question"]), ("budget", f"equal {plan['budget']}")]
    if plan["budget"] == "varied":
        rows[1] = ("budget", "none: the steps are varied")
    for arm in plan["arms"]:
        time = arm["step_seconds"]
        pace = "" if time is None else f" of {time:.3f} s"
        size = f"{ui.count(arm['max_steps'], 'step')}{pace}, {ui.count(arm['tokens'], 'token')}"
        rows.append((arm["name"], size))
    if needed is None:
        rows.append(("look", "this question has been answered three times: no further verdict"))
    else:
        rows.append(("look", f"{look.number} of 3 at this question, level {look.level:.4g}"))
        enough = "" if seeds >= needed else f"; with {seeds} there will be no verdict"
        said = f"{ui.count(comparisons, 'comparison')} at this level: {needed} needed{enough}"
        rows.append(("seeds", said))
    return ui.table("plan", rows).splitlines()


def _show_prospect(session: "Session", project: "Project", wanted: "Wanted") -> None:
    """Print the cells, what is cached, and what the rest will take."""
    from tinygpt.experiments.estimate import estimate
    from tinygpt.experiments.experiment import look_ahead
    from tinygpt.progress import duration

    ahead = look_ahead(project, wanted)
    left = estimate(project, [] if ahead.experiment else ahead.cells)
    session.screen.close()
    record = {
        "plan": ahead.plan,
        "look": ahead.look.number,
        "level": ahead.look.level,
        "seeds_needed": ahead.look.seeds_needed(len(wanted.arms) - 1),
        "cells": [
            {"arm": cell.arm.name, "seed": cell.seed, "cached": made is not None, "why": why}
            for cell, made, why in ahead.cells
        ],
        "experiment": ahead.experiment.id if ahead.experiment else None,
        "left": left._asdict(),
    }
    if session.call.answer(record):
        return
    rows = [(cell.name, why) for cell, _, why in ahead.cells]
    said = f"{ui.count(left.cells, 'cell')} to run"
    if ahead.experiment is not None:
        said = f"finished: {ahead.experiment.id}"
    elif left.seconds is None or left.bytes is None:
        said += f"; time unknown: {left.source}"
    elif left.cells:
        takes = f"about {duration(left.seconds / wanted.jobs)} and {ui.size(left.bytes)} of disk"
        said += f": {takes} (from {left.source})"
    lines = [*plan_lines(ahead.plan, ahead.look), ui.table("cells", rows), said]
    ui.say_output("\n".join(lines))


def show_answer(
    call: Call, experiment: "Artifact", note: Callable[[str], None], *, cached: bool
) -> None:
    """Print the answer: its table, or JSON."""
    from tinygpt.experiments.records import Plan, Result
    from tinygpt.records import Summary

    page = str(experiment.path(PAGE))
    record = {
        **artifact_record(experiment),
        "cached": cached,
        "page": page,
        "plan": experiment.read_json("plan.json", Plan),
        "result": experiment.read_json("result.json", Result),
    }
    if not call.answer(record):
        summary = experiment.read_json("summary.json", Summary)
        rows = [(label, text) for label, text in summary["rows"]]
        how = "  cached" * cached
        title = f"experiment {experiment.id}{how}"
        ui.say_output(ui.table(title, rows, ui.columns(sys.stdout)))
    note(f"page  {page}")


def compare_by(
    call: Call, store: "Store", key: str, runs: Sequence["Artifact"], min_effect: float | None
) -> None:
    """Answer a question about runs that are there."""
    from tinygpt.config import Config
    from tinygpt.experiments.comparison import compare_runs
    from tinygpt.experiments.plan import checked_effect
    from tinygpt.project import Project

    project = Project(Config(), store, provenance={"command": call.arguments})
    effect = checked_effect(min_effect)
    experiment = compare_runs(project, key, runs, effect, repeated(call))
    show_answer(call, experiment, ui.say_note, cached=False)
