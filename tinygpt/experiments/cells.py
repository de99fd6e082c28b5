"""The cells of an experiment: each is an ordinary run, found in the store or computed.

A cached run under other conditions than those of the plan is computed again, because arms could
differ by those conditions. A run that diverges leaves a record of its failure, no model.
"""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import NamedTuple

from tinygpt.errors import DivergedError, Interrupted, TinygptError
from tinygpt.experiments.grid import Arm
from tinygpt.experiments.plan import differing_conditions, publish
from tinygpt.experiments.records import Divergence, Plan
from tinygpt.hashing import Key, hash_json
from tinygpt.progress import Limits, Reporter, SilentReporter
from tinygpt.project import Project
from tinygpt.records import RunState
from tinygpt.store import Artifact, Store
from tinygpt.store.stage_names import FAILURE

FAILURE_FILE = "failure.json"


class Cell(NamedTuple):
    """One run of an experiment.

    Args:
        arm: its recipe.
        precision: of its matrix products, as the plan has it.
        seed: of weights, batches and dropout.
    """

    arm: Arm
    precision: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm.name}, seed {self.seed}"


class Made(NamedTuple):
    """What came of a cell.

    Args:
        cell: which one.
        train, evaluation: its artifacts; None where training failed.
        failure: the record of that, else None.
        cached: nothing was computed.
    """

    cell: Cell
    train: Artifact | None
    evaluation: Artifact | None
    failure: Artifact | None
    cached: bool

    @property
    def artifacts(self) -> dict[str, Artifact]:
        """By the name that they have among the inputs of the experiment."""
        made = {"train": self.train, "eval": self.evaluation, "failure": self.failure}
        name = self.cell.name
        return {f"{kind} {name}": artifact for kind, artifact in made.items() if artifact}


class CellReporter(SilentReporter):
    """Shows the progress of a cell; of its lines, only that it continues."""

    def __init__(self, screen: Reporter, title: str) -> None:
        self.screen = screen
        self.title = title

    def task(self, title: str, total: int | None = None, *, unit: str = "", done: int = 0) -> None:
        self.screen.task(f"{self.title}: {title}", total, unit=unit, done=done)

    def advance(self, amount: int = 1, **figures: float) -> None:
        self.screen.advance(amount, **figures)

    def note(self, text: str) -> None:
        if text.startswith("continuing"):
            self.screen.note(f"{self.title}: {text}")


def cells_of(arms: Sequence[Arm], plan: Plan) -> list[Cell]:
    """Every cell, seed by seed, so that a stop leaves whole pairs."""
    return [
        Cell(arm, record["precision"], seed)
        for seed in plan["seeds"]
        for arm, record in zip(arms, plan["arms"], strict=True)
    ]


def find_cell(project: Project, plan: Plan, cell: Cell) -> tuple[Made | None, str]:
    """What the store has of a cell under the plan's conditions, and why it must run; no changes."""
    ours = project.with_config(cell.arm.with_seed(cell.seed))
    stages = ours.plan("eval")
    train, evaluation = stages["train"], stages["eval"].artifact
    if train.key is None:
        return None, "no dataset yet"
    if failure := project.store.find(FAILURE, failure_key(train.key, plan, cell)):
        return Made(cell, None, None, failure, cached=True), "failed before"
    if train.artifact is None:
        steps = project.store.unfinished_run("train", train.key).steps()
        return None, f"continues at step {steps[-1]:,}" if steps else "to run"
    if differing := differing_conditions(plan, cell.precision, train.artifact.manifest.provenance):
        return None, f"again: {', '.join(differing)}"
    if evaluation is None:
        return None, "to evaluate"
    return Made(cell, train.artifact, evaluation, None, cached=True), "cached"


def make_cell(project: Project, plan: Plan, cell: Cell, limits: Limits, *, force: bool) -> Made:
    """A cell from the store, or computed.

    Args:
        project: with any configuration; its reporter receives the progress.
        force: compute it also if it is cached or has failed before.
    Raises:
        TinygptError: what the stages raise, but for DivergedError.
    """
    ours = project.with_config(cell.arm.with_seed(cell.seed))
    found, _ = find_cell(project, plan, cell)
    if found is not None and not force:
        for artifact in found.artifacts.values():
            artifact.check()
        return found
    cached = ours.plan("train")["train"]
    assert cached.key is not None
    differs = cached.artifact is not None and differing_conditions(
        plan, cell.precision, cached.artifact.manifest.provenance
    )
    _drop_other_checkpoints(project.store, cached.key, plan, cell, force=force)
    try:
        train = ours.make("train", force=force or bool(differs), limits=limits)
        evaluation = ours.make("eval", force=force)
    except DivergedError as error:
        failure = _record_failure(project, cached.key, plan, cell, error)
        return Made(cell, None, None, failure, cached=False)
    is_cached = train.cached and evaluation.cached
    return Made(cell, train.artifact, evaluation.artifact, None, cached=is_cached)


def failure_key(train: Key, plan: Plan, cell: Cell) -> Key:
    """The key of the record that a run diverges under the conditions of a plan."""
    conditions = {**plan["conditions"], "precision": cell.precision}
    return Key(hash_json("tinygpt.failure", train, conditions, plan["code"]))


def _record_failure(
    project: Project, train: Key, plan: Plan, cell: Cell, error: DivergedError
) -> Artifact:
    """Note how a cell failed, and set its checkpoints aside, from which it would fail again."""
    store = project.store
    unfinished = store.unfinished_run("train", train)
    if unfinished.folder.exists():
        unfinished.set_aside("failed")
    record: Divergence = {
        "step": error.step,
        "last_loss": error.last_loss,
        "message": error.message,
    }
    key = failure_key(train, plan, cell)
    tables = {"failure": {"train": train, "cell": cell.name}}
    inputs = project.with_config(cell.arm.with_seed(cell.seed)).inputs("train")
    with store.lock(FAILURE, key, timeout=project.config.runtime.lock_timeout):
        return publish(store, FAILURE, key, {FAILURE_FILE: record}, inputs, tables)


def _drop_other_checkpoints(
    store: Store, train: Key, plan: Plan, cell: Cell, *, force: bool
) -> None:
    """Set aside an unfinished run that other conditions began: it could not end as one of ours."""
    unfinished = store.unfinished_run("train", train)
    checkpoint = unfinished.newest()
    if checkpoint is None:
        return
    state = checkpoint.read_json("state.json", RunState)
    recorded = {**state["environment"], "code": state["code"], "exact": state["exact"]}
    if force or differing_conditions(plan, cell.precision, recorded):
        unfinished.set_aside("unfinished")


def make_cells(
    project: Project,
    plan: Plan,
    cells: Sequence[Cell],
    limits: Limits,
    on_cell: Callable[[int, Made], None],
    *,
    force: bool,
) -> list[Made]:
    """All cells, in their order; see make_cell.

    Args:
        on_cell: called with the place of each cell and what came of it.
    """
    made: dict[int, Made] = {}
    left = dict(enumerate(cells))

    def finish(place: int, one: Made) -> None:
        made[place] = one
        on_cell(place, one)
        _stop_if_asked(limits)

    for place, cell in enumerate(cells):
        if not force and find_cell(project, plan, cell)[0] is not None:
            finish(place, make_cell(project, plan, left.pop(place), limits, force=False))
    if plan["jobs"] > 1 and len(left) > 1:
        _side_by_side(project, plan, left, finish, force=force)
        left = {}
    ours = project.with_config(project.config)
    for place, cell in left.items():
        ours.reporter = CellReporter(project.reporter, f"cell {place + 1}/{len(cells)}")
        finish(place, make_cell(ours, plan, cell, limits, force=force))
    return [made[place] for place in sorted(made)]


def _stop_if_asked(limits: Limits) -> None:
    if number := limits.interrupted():
        name = signal.Signals(number).name
        raise Interrupted(f"stopped by {name}; finished cells are kept", number=number)


def _side_by_side(
    project: Project,
    plan: Plan,
    cells: dict[int, Cell],
    finish: Callable[[int, Made], None],
    *,
    force: bool,
) -> None:
    """Compute cells in as many processes as the plan has jobs; a stop reaches all of them."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    project.reporter.task("cells", len(cells), unit="cells")
    with ProcessPoolExecutor(plan["jobs"], context, _follow, (stop,)) as pool:
        try:
            # Ctrl-C reaches every process; those that start must leave it to this one
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            store, facts = project.store.root, dict(project.provenance)
            futures = {
                pool.submit(_work, store, facts, plan, cell, force): place
                for place, cell in cells.items()
            }
            signal.signal(signal.SIGINT, before)
            for future in as_completed(futures):
                project.reporter.advance()
                finish(futures[future], future.result())
        except BrokenProcessPool as error:
            hint = "use fewer `--jobs` if memory ran out; finished cells are kept"
            raise TinygptError("the process of a cell ended", hint=hint) from error
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


_limits = Limits()
"""Of a process that computes cells."""


def _follow(stop: Event) -> None:
    """Leave signals to the process that began this one, which sets `stop`."""
    global _limits
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _limits = Limits(interrupted=lambda: signal.SIGINT if stop.is_set() else None)


def _work(store: Path, facts: dict[str, object], plan: Plan, cell: Cell, force: bool) -> Made:
    """Compute a cell in this process, unless the experiment was stopped before it began."""
    _stop_if_asked(_limits)
    project = Project(cell.arm.config, store, provenance=facts)
    return make_cell(project, plan, cell, _limits, force=force)
