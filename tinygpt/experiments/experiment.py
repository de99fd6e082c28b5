"""An experiment from its plan to its published answer."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from tinygpt.errors import MissingArtifactError
from tinygpt.experiments.answer import Answer, Measured
from tinygpt.experiments.cells import (
    FAILURE_FILE,
    Cell,
    Made,
    cells_of,
    find_cell,
    make_cells,
)
from tinygpt.experiments.grid import Arm, fit_budget
from tinygpt.experiments.plan import (
    VERSION,
    NthLook,
    Wanted,
    draft,
    find_experiment,
    look_at,
    plan_tables,
    publish,
    write_plan,
)
from tinygpt.experiments.records import Divergence, Plan
from tinygpt.experiments.verdict import table
from tinygpt.hashing import Key, hash_json
from tinygpt.html_experiment import render
from tinygpt.lm.evaluation import Parts
from tinygpt.pipeline import digests
from tinygpt.progress import Limits
from tinygpt.project import Project
from tinygpt.records import DatasetMeta, DocumentRow, EvalRecord, ModelFile, Summary
from tinygpt.runs.pace import measure_seconds
from tinygpt.runs.training_run import TrainingRun
from tinygpt.store import Artifact, Store
from tinygpt.store.metrics import evaluations, read_metrics
from tinygpt.store.stage_names import EXPERIMENT

DATA = "build-dataset"  # the last stage before the cells
MOST = 2**53  # nats, tokens or bytes of an evaluated text
ROUNDS = 3  # in which the step times of all arms are measured in turn


class Prospect(NamedTuple):
    """What running an experiment would do.

    Args:
        plan: as it is or would be written.
        look: which one this would be.
        cells: with what the store has of each, None for nothing, and why it must run.
        experiment: the finished one, if there is one.
    """

    plan: Plan
    look: NthLook
    cells: list[tuple[Cell, Made | None, str]]
    experiment: Artifact | None


def make_datasets(project: Project, arms: Sequence[Arm]) -> None:
    """Make what all cells of an arm share, once."""
    for arm in arms:
        project.with_config(arm.config).run(DATA)


def look_ahead(project: Project, wanted: Wanted) -> Prospect:
    """What `run_experiment` would do; nothing is written.

    Args:
        project: see run_experiment.
        wanted: what is asked for.
    """
    has_data = all(project.with_config(arm.config).plan(DATA)[DATA].artifact for arm in wanted.arms)
    seconds = None
    if wanted.budget == "seconds":
        if not has_data:
            raise MissingArtifactError(
                "step times are measured on the dataset, which is not made yet",
                hint="run `tinygpt run --until build-dataset`",
            )
        seconds = measure_arms(project, wanted.arms)
    arms = fit_budget(wanted.arms, wanted.budget, seconds or [])
    plan = draft(project, wanted, arms, seconds)
    cells = [(cell, *find_cell(project, plan, cell)) for cell in cells_of(arms, plan)]
    return Prospect(plan, look_at(project.store, plan), cells, find_experiment(project.store, plan))


def measure_arms(project: Project, arms: Sequence[Arm]) -> list[float]:
    """Seconds that a step of each arm takes: they take turns, so that all meet the same load."""
    runs = [training_run(project, arm) for arm in arms]
    times: list[list[float]] = [[] for _ in arms]
    project.reporter.task("measure steps", ROUNDS * len(arms), unit="measurements")
    for _ in range(ROUNDS):
        for run, spent in zip(runs, times, strict=True):
            spent.append(measure_seconds(run).step)
            project.reporter.advance()
    return [statistics.median(spent) for spent in times]


def training_run(project: Project, arm: Arm) -> TrainingRun:
    """A run of an arm before its first step."""
    return TrainingRun(arm.config, project.with_config(arm.config).inputs("train"))


def run_experiment(
    project: Project,
    wanted: Wanted,
    limits: Limits,
    on_plan: Callable[[Plan, NthLook], None],
    on_cell: Callable[[int, Made], None],
    *,
    command: str = "",
    force: bool = False,
) -> tuple[Artifact, bool]:
    """Plan, compute every cell that is not cached, and publish the answer.

    Args:
        project: its configuration is that of the grid without the varied keys.
        wanted: what is asked for.
        limits: what may stop it; what is finished is reused by the next call.
        on_plan: called before the first cell.
        on_cell: called with the place of each cell and what came of it.
        command: that repeats the experiment.
        force: compute every cell again.
    Returns:
        The artifact of the experiment, and whether it was there.
    """
    make_datasets(project, wanted.arms)
    of_arms = partial(measure_arms, project)
    plan, arms, written = write_plan(project, wanted, of_arms, force=force)
    look = look_at(project.store, plan)
    on_plan(plan, look)
    finished = None if force else find_experiment(project.store, plan)
    if finished is not None:
        return finished, True
    made = make_cells(project, plan, cells_of(arms, plan), limits, on_cell, force=force)
    inputs = {"plan": written}
    for one in made:
        inputs |= one.artifacts
    places = {arm["name"]: place for place, arm in enumerate(plan["arms"])}
    measured = [measure(project.store, one, places[one.cell.arm.name]) for one in made]
    answer = Answer(plan, look_at(project.store, plan, cells_hash(measured)), measured)
    return publish_answer(project, answer, inputs, [one.train for one in made], command), False


def publish_answer(
    project: Project,
    answer: Answer,
    inputs: Mapping[str, Artifact],
    runs: Sequence[Artifact | None],
    command: str,
) -> Artifact:
    """The artifact of an experiment: plan.json, result.json, page.html and a table.

    Args:
        project: whose store it goes to.
        answer: of the experiment.
        inputs: the plan and all artifacts of the cells.
        runs: the models, whose curves the page shows.
        command: that repeats it.
    """
    plan, result = answer.plan, answer.result()
    tables = plan_tables(plan)
    tables["experiment"] |= {
        "judged": result["judged"],
        "cells": cells_hash(list(answer.cells.values())),
    }
    key = Key(hash_json("tinygpt.experiment", VERSION, tables, digests(inputs)))
    page = render(
        {
            "plan": plan,
            "result": result,
            "curves": [curve(run, answer) for run in runs if run is not None],
            "lineage": sorted(digests(inputs).items()),
            "command": command,
        }
    )
    files = {
        "plan.json": plan,
        "result.json": result,
        "page.html": page,
        "summary.json": {"rows": table(plan, result)},
    }
    timeout = project.config.runtime.lock_timeout
    with project.store.lock(EXPERIMENT, key, timeout=timeout):
        return publish(project.store, EXPERIMENT, key, files, inputs, tables, **project.provenance)


def cells_hash(cells: Sequence[Measured]) -> str:
    """Which cells were looked at: to look at the same ones again is no further look."""
    return hash_json("tinygpt.cells", sorted((cell.train or "", cell.seed) for cell in cells))


def curve(run: Artifact, answer: Answer) -> dict[str, Any]:
    """Validation loss of a run by training tokens [bits per byte]."""
    evaluated = evaluations(read_metrics(run))
    (cell,) = [cell for cell in answer.cells.values() if cell.train == run.id]
    scale = cell.bits_per_byte / cell.loss
    return {
        "arm": cell.arm,
        "seed": cell.seed,
        "tokens": [row["tokens"] for row in evaluated],
        "bits": [row["val_loss"] * scale for row in evaluated],
    }


def measure(store: Store, made: Made, arm: int) -> Measured:
    """What came of a cell, read from its artifacts."""
    if made.failure is not None:
        record = made.failure.read_json(FAILURE_FILE, Divergence)
        return Measured(arm, made.cell.seed, record["step"], record["last_loss"])
    assert made.train is not None
    assert made.evaluation is not None
    return measure_run(store, made.train, made.evaluation, arm, made.cell.seed)


def measure_run(
    store: Store, train: Artifact, evaluation: Artifact, arm: int, seed: int
) -> Measured:
    """What a run reached on its validation split, with the last weights."""
    record = evaluation.read_json("eval.json", EvalRecord)
    dataset = store.find("build-dataset", train.input("build-dataset")["key"])
    return Measured(
        arm,
        seed,
        step=train.read_json("config.json", ModelFile)["step"],
        last_loss=None,
        train=train.id,
        seconds=training_seconds(train),
        parts=read_parts(evaluation),
        unigram=record["baselines"].get("unigram", {"loss": math.inf})["loss"],
        unit=None if dataset is None else dataset.read_json("meta.json", DatasetMeta).get("unit"),
        tokenizer=train.input("tokenize")["digest"],
    )


def read_parts(evaluation: Artifact) -> Parts:
    """The totals of each document of an evaluation.

    Raises:
        CorruptArtifactError: they are damaged, or do not fit together.
    """
    rows = evaluation.read_rows("documents.jsonl", list[DocumentRow])
    columns = ([row[name] for row in rows] for name in Parts._fields)  # type: ignore[literal-required]
    document, nats, tokens, text_bytes = columns
    totals = (sum(nats), sum(tokens), sum(text_bytes))
    in_order = all(after - before in (0, 1) for before, after in pairwise([-1, *document]))
    if not in_order or not all(0 < total < MOST for total in totals):
        raise evaluation.malformed("documents.jsonl", "its lines do not fit together")
    return Parts(*map(np.array, (document, nats, tokens, text_bytes)))


def training_seconds(train: Artifact) -> float | None:
    """Of all steps of a run, at the speed of the process that ended it; None if unknown."""
    speed = train.manifest.provenance.get("tokens_per_second")
    numbers = train.read_json("summary.json", Summary).get("numbers")
    if not isinstance(speed, int | float) or not speed or numbers is None:
        return None
    return float(numbers["tokens"] / speed)
