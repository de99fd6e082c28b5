"""`tinygpt run --vary` and `tinygpt compare --by`: a grid of runs, its plan and its answer."""

import shlex
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from tinygpt import ui
from tinygpt.cli.options import Call
from tinygpt.cli.results import PAGE, artifact_record
from tinygpt.errors import Interrupted, StoppedEarly, UsageError

if TYPE_CHECKING:
    from tinygpt.cli.session import Session
    from tinygpt.config import Config
    from tinygpt.experiments.cells import Made
    from tinygpt.experiments.experiment import Prospect
    from tinygpt.experiments.grid import Flags
    from tinygpt.experiments.plan import Look, Wanted
    from tinygpt.experiments.records import ArmResult, Plan, Result
    from tinygpt.project import Project
    from tinygpt.store import Artifact, Store

BUDGETS = ("tokens", "steps", "seconds")
MIN_EFFECT = 0.01  # bits per byte
MAX_CELLS = 64
NOT_REPEATED = ("--json", "--quiet", "--debug", "--force", "--dry-run")

Vary = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=A,B", help="Compare values of a key over several seeds; repeatable."),
]
Seeds = Annotated[
    str | None,
    typer.Option(metavar="N|A..B", help="Seeds of each value; as many as a verdict takes."),
]
BudgetName = Annotated[
    str | None,
    typer.Option(metavar="WHAT", help="What all arms have alike: tokens, steps or seconds."),
]
MinEffect = Annotated[
    float | None,
    typer.Option(metavar="X", help="Smallest difference that matters, 0.01 bits per byte."),
]
MaxCells = Annotated[int | None, typer.Option(metavar="N", help="Most runs of a grid: 64.")]
Jobs = Annotated[
    int | None, typer.Option(metavar="N", help="Runs side by side, with the threads divided.")
]
By = Annotated[
    str | None,
    typer.Option(metavar="KEY", help="Compare runs that differ in this key and in seeds."),
]


class GridFlags(NamedTuple):
    """The flags of `run` that describe an experiment; None where they were not given."""

    vary: list[str] | None
    seeds: str | None
    budget: str | None
    min_effect: float | None
    max_cells: int | None
    jobs: int | None

    def check_alone(self) -> None:
        """Refuse flags of an experiment where nothing is varied."""
        for name, value in self._asdict().items():
            if value is not None:
                raise UsageError(
                    f"`--{name.replace('_', '-')}` belongs to an experiment",
                    hint="say what to vary, e.g., `--vary model.norm=pre,post`",
                )


def run_grid(call: Call, flags: GridFlags, until: str | None, *, dry_run: bool) -> None:
    """Run an experiment, or show what it would do."""
    from tinygpt.cli.session import Session

    if until not in (None, "eval"):
        raise UsageError(
            f"`--vary` runs every cell until `eval`, not until `{until}`",
            hint="leave `--until` out; `tinygpt plot --model ID` draws one of the runs",
        )
    wanted = wanted_grid(call, flags)
    session = Session(call, may_read_source=not dry_run)
    project = experiment_project(session, call)
    try:
        if dry_run:
            show_prospect(session, project, wanted)
            return
        _run(session, project, wanted)
    except (StoppedEarly, Interrupted) as stopped:
        again = shlex.join(call.arguments)
        stopped.hint = f"`tinygpt {again}` continues; finished cells are reused"
        raise
    finally:
        session.screen.close()


def wanted_grid(call: Call, flags: GridFlags) -> "Wanted":
    """What the flags ask for.

    Raises:
        UsageError, ConfigError: a flag, a key or a value is wrong; nothing has run.
    """
    from tinygpt.experiments.grid import make_arms
    from tinygpt.experiments.plan import Look, Wanted
    from tinygpt.experiments.values import parse_seeds, parse_vary

    assert flags.vary
    vary = [parse_vary(text) for text in flags.vary]
    cells = 1
    for _, values in vary:
        cells *= len(values)
    most = MAX_CELLS if flags.max_cells is None else flags.max_cells
    needed = Look(1, []).seeds_needed(cells - 1)
    seeds = parse_seeds(flags.seeds or str(needed))
    if cells * len(seeds) > most:
        raise UsageError(
            f"{cells} arms with {len(seeds)} seeds are {cells * len(seeds)} cells, more than {most}",
            hint=f"vary less, or allow them with `--max-cells {cells * len(seeds)}`",
        )
    arms = make_arms(vary, partial(_load, call))
    budget = _budget(flags, [key for key, _ in vary])
    effect = MIN_EFFECT if flags.min_effect is None else flags.min_effect
    check_min_effect(effect)
    jobs = _divide_threads(flags.jobs or 1, arms[0].config, budget)
    if jobs > 1:
        threads = max(1, _threads(arms[0].config) // jobs)
        arms = [arm._replace(config=_with_threads(arm.config, threads)) for arm in arms]
    return Wanted(arms, seeds, budget, effect, jobs)  # type: ignore[arg-type]


def _load(call: Call, flags: "Flags") -> "Config":
    """The configuration of this command line with further flags."""
    import dataclasses

    with_flags = dataclasses.replace(call, flags={**call.flags, **flags})
    return with_flags.load_config().config


def _budget(flags: GridFlags, keys: Sequence[str]) -> str:
    from tinygpt.experiments.grid import STEPS

    if flags.budget is not None and flags.budget not in BUDGETS:
        raise UsageError(
            f"`--budget {flags.budget}` is not known", hint="use tokens, steps or seconds"
        )
    if STEPS[0] in keys:
        if flags.budget is not None:
            raise UsageError(
                f"`--budget` sets `{STEPS[0]}`, which is varied", hint="leave one of them out"
            )
        return "varied"
    return flags.budget or BUDGETS[0]


def check_min_effect(effect: float) -> None:
    """Refuse a smallest difference that no interval can lie within."""
    if not 0 < effect < 100:
        raise UsageError(
            f"`--min-effect {effect:g}` is not a difference in bits per byte",
            hint="give a number above 0, e.g., `--min-effect 0.01`",
        )


def _divide_threads(jobs: int, config: "Config", budget: str) -> int:
    """The number of jobs, if they are possible."""
    if jobs < 1:
        raise UsageError(f"`--jobs {jobs}` runs nothing", hint="give 1 or more")
    if jobs > 1 and budget == "seconds":
        raise UsageError(
            "`--budget seconds` cannot be combined with `--jobs`: cells side by side slow each other",
            hint="leave `--jobs` out",
        )
    if jobs > _threads(config):
        raise UsageError(
            f"`--jobs {jobs}` needs {jobs} threads; there are {_threads(config)}",
            hint=f"use `--jobs {_threads(config)}` or fewer",
        )
    return jobs


def _threads(config: "Config") -> int:
    """The threads that all jobs share."""
    import torch

    return config.runtime.threads or torch.get_num_threads()


def _with_threads(config: "Config", threads: int) -> "Config":
    from tinygpt.experiments.grid import with_keys

    return with_keys(config, "runtime", threads=threads)


def experiment_project(session: "Session", call: Call) -> "Project":
    """The project of a session for the cells of an experiment, which show no tables."""
    from tinygpt.experiments.grid import measured_config

    project = session.project.with_config(measured_config(session.config))
    project.on_outcome = None
    words = [word for word in _without_store(call.arguments) if word not in NOT_REPEATED]
    project.provenance = {**project.provenance, "repeat": shlex.join(["tinygpt", *words])}
    return project


def _without_store(arguments: Sequence[str]) -> list[str]:
    """The words of a command but for `--store DIR`: a page names no folder of a machine."""
    words = list(arguments)
    if "--store" in words:
        place = words.index("--store")
        del words[place : place + 2]
    return [word for word in words if not word.startswith("--store=")]


def _run(session: "Session", project: "Project", wanted: "Wanted") -> None:
    from tinygpt.experiments.experiment import run_experiment

    screen = session.screen
    total = len(wanted.arms) * len(wanted.seeds)

    def on_plan(plan: "Plan", look: "Look") -> None:
        for line in plan_lines(plan, look):
            screen.note(line)

    def on_cell(place: int, made: "Made") -> None:
        how = "  cached" if made.cached else ""
        came = "failed" if made.evaluation is None else _score(made.evaluation)
        screen.note(f"cell {place + 1}/{total}  {made.cell.name}: {came}{how}")

    experiment, cached = run_experiment(
        project, wanted, session.limits, on_plan, on_cell, force=session.call.options.force
    )
    screen.close()
    show_answer(session.call, experiment, screen.note, cached=cached)


def _score(evaluation: "Artifact") -> str:
    record = evaluation.read_json("eval.json")
    return f"{record['bits_per_byte']:.4f} bits per byte"


def plan_lines(plan: "Plan", look: "Look") -> list[str]:
    """What is said before the first cell."""
    comparisons = len(plan["arms"]) - 1
    needed = look.seeds_needed(comparisons)
    seeds = len(plan["seeds"])
    lines = [
        f"question    {plan['question']} ({ui.count(len(plan['arms']), 'arm')}, "
        f"{ui.count(seeds, 'seed')}, budget: {plan['budget']})"
    ]
    for arm in plan["arms"]:
        time = arm["step_seconds"]
        pace = "" if time is None else f" of {time:.3f} s"
        size = f"{ui.count(arm['max_steps'], 'step')}{pace}, {ui.count(arm['tokens'], 'token')}"
        lines.append(f"arm         {arm['name']}: {size}")
    if needed is None:
        lines.append("look        this question has been answered three times: no further verdict")
        return lines
    lines.append(f"look        {look.number} of 3 at this question, level {look.level:.4g}")
    takes = f"{ui.count(comparisons, 'comparison')} at this level: {needed} seeds are needed"
    if seeds < needed:
        takes += f"; with {seeds} there will be no verdict"
    lines.append(f"seeds       {takes}")
    return lines


def show_prospect(session: "Session", project: "Project", wanted: "Wanted") -> None:
    """Print the cells, what is cached, and what the rest will take."""
    from tinygpt.experiments.estimate import estimate
    from tinygpt.experiments.experiment import look_ahead
    from tinygpt.progress import duration

    prospect = look_ahead(project, wanted)
    session.screen.close()
    left = estimate(project, [] if prospect.experiment else prospect.cells)
    if session.call.answer(_prospect_record(prospect, wanted, left)):
        return
    rows = [(cell.name, why) for cell, _, why in prospect.cells]
    lines = [*plan_lines(prospect.plan, prospect.look), ui.table("cells", rows)]
    if prospect.experiment is not None:
        lines.append(f"the experiment is finished: {prospect.experiment.id}")
    elif left.seconds is None or left.bytes is None:
        lines.append(f"{ui.count(left.cells, 'cell')} to run; time unknown: {left.source}")
    elif left.cells:
        takes = f"about {duration(left.seconds / wanted.jobs)} and {ui.size(left.bytes)} of disk"
        lines.append(f"{ui.count(left.cells, 'cell')} to run: {takes} (from {left.source})")
    ui.say_output("\n".join(lines))


def _prospect_record(prospect: "Prospect", wanted: "Wanted", left: Any) -> dict[str, Any]:
    comparisons = len(wanted.arms) - 1
    return {
        "plan": prospect.plan,
        "look": prospect.look.number,
        "level": prospect.look.level,
        "seeds_needed": prospect.look.seeds_needed(comparisons),
        "cells": [
            {"arm": cell.arm.name, "seed": cell.seed, "cached": made is not None, "why": why}
            for cell, made, why in prospect.cells
        ],
        "experiment": None if prospect.experiment is None else prospect.experiment.id,
        "left": left._asdict(),
    }


def show_answer(call: Call, experiment: "Artifact", note: Any, *, cached: bool = False) -> None:
    """Print the answer: a table and the verdicts, or JSON."""
    plan: Plan = experiment.read_json("plan.json")
    result: Result = experiment.read_json("result.json")
    page = str(experiment.path(PAGE))
    record = {**artifact_record(experiment), "cached": cached, "page": page}
    if not call.answer({**record, "plan": plan, "result": result}):
        ui.say_output("\n".join(answer_lines(plan, result)))
    note(f"page        {page}")


def answer_lines(plan: "Plan", result: "Result") -> list[str]:
    """The answer as it is printed."""
    titles = ("arm", "bits per byte", "loss [nats]", "training [s]", "failed")
    table = [titles, *map(_arm_row, result["arms"])]
    widths = [max(len(row[column]) for row in table) for column in range(len(titles))]
    lines = [plan["question"]]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append(f"  {'  '.join(cells)}".rstrip())
    for one in result["comparisons"]:
        lines.append("")
        rows = [
            ("difference", _signed(one["difference"])),
            ("95 % over seeds", _interval(one["seed_interval"])),
            (
                "95 % over documents",
                f"{_interval(one['document_interval'])} ({result['documents']})",
            ),
            ("adjusted p", _number(one["adjusted_p"])),
            ("correlation of arms", _number(one["correlation"], 2)),
            ("spread of differences", _number(one["deviation"])),
            ("spread of the first arm", _number(one["baseline_deviation"])),
        ]
        if one["failure_p"] is not None:
            rows = [("p of failures", _number(one["failure_p"]))]
        title = f"{one['arm']} against {one['baseline']}"
        lines.append(ui.table(title, rows, ui.columns(sys.stdout)))
    for failure in result["failures"]:
        where = f"{failure['arm']}, seed {failure['seed']}, step {failure['step']:,}"
        lines.append(
            f"failed: {where}: {failure['kind']}, last loss {_number(failure['last_loss'])}"
        )
    for of_key in result["failures_by_value"]:
        counts = [f"{value} {a} of {b}" for value, (a, b) in of_key["failures"].items()]
        lines.append(f"failures by {of_key['key']}: {', '.join(counts)}")
    lines.append("")
    lines += [*result["notes"], *(one["words"] for one in result["comparisons"])]
    return lines


def _arm_row(arm: "ArmResult") -> tuple[str, ...]:
    seconds = arm["seconds"]
    score = _spread(arm["bits_per_byte"])
    if arm["failures"]:
        score = f"median {_number(arm['median'])}" if arm["median"] is not None else "median failed"
    return (
        arm["name"],
        score,
        _spread(arm["loss"]),
        "-" if seconds is None else f"{seconds:.1f}",
        f"{arm['failures']} of {arm['cells']}",
    )


def _spread(value: Any) -> str:
    if value is None:
        return "-"
    deviation = value["deviation"]
    return _number(value["mean"]) + ("" if deviation is None else f" ± {deviation:.4f}")


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f} bits per byte"


def _interval(pair: Sequence[float] | None) -> str:
    return "-" if pair is None else f"{pair[0]:+.4f} to {pair[1]:+.4f}"


def compare_by(
    call: Call, store: "Store", key: str, runs: Sequence["Artifact"], min_effect: float | None
) -> None:
    """Answer a question about runs that are there."""
    from tinygpt.config import Config
    from tinygpt.experiments.comparison import compare_runs
    from tinygpt.project import Project

    effect = MIN_EFFECT if min_effect is None else min_effect
    check_min_effect(effect)
    words = [word for word in _without_store(call.arguments) if word not in NOT_REPEATED]
    facts = {"command": call.arguments, "repeat": shlex.join(["tinygpt", *words])}
    project = Project(Config(), store, provenance=facts)
    show_answer(call, compare_runs(project, key, runs, effect), ui.say_note)
