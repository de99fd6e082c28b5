"""The plan of an experiment: written and hashed before its first cell, and how often it was asked.

A plan is an artifact whose key is what was asked for, and under which conditions. Times that had to
be measured to make it are only in its content, so that who asks again gets the same plan.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch

from tinygpt.config import Config
from tinygpt.errors import CorruptArtifactError, UsageError
from tinygpt.experiments.grid import STEPS, Arm, Recipe, fit_budget, question_id, recipe
from tinygpt.experiments.records import MEASURE, ArmRecord, ExperimentTable, Plan
from tinygpt.experiments.statistics import LEVELS, seeds_needed
from tinygpt.hashing import Key, hash_json
from tinygpt.lm.fast.precision import choose_device, choose_precision, prepare_cpu
from tinygpt.pipeline import STAGES
from tinygpt.project import Project
from tinygpt.runs.code import current_code
from tinygpt.runs.environment import environment
from tinygpt.store import Artifact, Inputs, Store
from tinygpt.store.stage_names import EXPERIMENT, PLAN

VERSION = 1
BUDGETS = ("tokens", "steps", "seconds")
MIN_EFFECT = 0.01  # bits per byte


class Wanted(NamedTuple):
    """What is asked for.

    Args:
        arms: as configured; the budget is not yet applied.
        seeds: of every arm.
        budget: what the arms have alike: "tokens", "steps" or "seconds"; "varied" for nothing.
        min_effect: the smallest difference that matters [bits per byte].
        jobs: cells that run side by side.
    """

    arms: list[Arm]
    seeds: list[int]
    budget: str
    min_effect: float
    jobs: int


def want(
    arms: list[Arm], seeds: list[int], budget: str | None, min_effect: float | None, jobs: int
) -> Wanted:
    """What is asked for, with defaults filled in and the threads divided among the jobs.

    Raises:
        UsageError: a value is not possible.
    """
    if budget not in (None, *BUDGETS):
        hint = f"use {', '.join(BUDGETS)}"
        raise UsageError(f"`--budget {budget}` is not known", hint=hint)
    steps_are_varied = STEPS[0] in arms[0].settings
    if steps_are_varied and budget is not None:
        problem = f"`--budget` sets `{STEPS[0]}`, which is varied"
        raise UsageError(problem, hint="leave one of them out")
    if jobs > 1 and budget == "seconds":
        problem = "`--budget seconds` cannot be combined with `--jobs`"
        raise UsageError(f"{problem}: runs side by side slow each other", hint="use one job")
    threads = arms[0].config.runtime.threads or torch.get_num_threads()
    if jobs > threads:
        problem = f"`--jobs {jobs}` needs as many threads; there are {threads}"
        raise UsageError(problem, hint=f"use `--jobs {threads}`")
    if jobs > 1:
        arms = [arm.with_keys("runtime", threads=threads // jobs) for arm in arms]
    kind = "varied" if steps_are_varied else budget or BUDGETS[0]
    return Wanted(arms, seeds, kind, checked_effect(min_effect), jobs)


def checked_effect(effect: float | None) -> float:
    """The smallest difference that matters.

    Raises:
        UsageError: no interval can lie within it.
    """
    if effect is not None and not 0 < effect < math.inf:
        raise UsageError(
            f"`--min-effect {effect:g}` is not a difference in bits per byte",
            hint="give a number above 0, e.g., `--min-effect 0.01`",
        )
    return MIN_EFFECT if effect is None else effect


class NthLook(NamedTuple):
    """How often a question has been answered, this time included, and what follows.

    Args:
        number: 1 for the first time.
    """

    number: int

    @property
    def level(self) -> float | None:
        """Of the tests of this look; None if there is none left."""
        return LEVELS[self.number - 1] if self.number <= len(LEVELS) else None

    def seeds_needed(self, comparisons: int) -> int | None:
        """The fewest seeds with which this look can say "better"; None if it can say nothing."""
        return None if self.level is None else seeds_needed(comparisons, self.level)


def conditions(config: Config) -> dict[str, str]:
    """What the last bits of a run depend on besides its recipe, precision included."""
    prepare_cpu(config.runtime.threads)
    device = choose_device(config.runtime.device)
    precision = choose_precision(config.train.precision, device)
    return environment(device, precision, 1, compiled=config.runtime.compile)


def write_plan(
    project: Project,
    wanted: Wanted,
    measure: Callable[[list[Arm]], list[float]],
    *,
    force: bool = False,
) -> tuple[Plan, list[Arm], Artifact]:
    """The plan of what is asked for, as it was written before or is written now.

    Args:
        project: whose store has the datasets of all arms.
        wanted: what is asked for.
        measure: the seconds that a step of each arm takes, for budget "seconds".
        force: write it again if what is there is something else.
    Returns:
        The plan, the arms with the steps of their budget, and the artifact of the plan.
    Raises:
        CorruptArtifactError: what is there is something else.
    """
    request = draft(project, wanted, wanted.arms, None)
    key = Key(hash_json("tinygpt.plan", VERSION, request))
    with project.store.lock(PLAN, key, timeout=project.config.runtime.lock_timeout):
        with suppress(*([CorruptArtifactError] if force else [])):
            artifact = project.store.find(PLAN, key)
            if artifact is not None:
                return *_read_plan(project, wanted, artifact), artifact
        seconds = measure(wanted.arms) if wanted.budget == "seconds" else None
        arms = fit_budget(wanted.arms, wanted.budget, seconds or [])
        plan = draft(project, wanted, arms, seconds)
        artifact = publish(project.store, PLAN, key, {"plan.json": plan}, {}, plan_tables(plan))
    return *_read_plan(project, wanted, artifact), artifact


def _read_plan(project: Project, wanted: Wanted, artifact: Artifact) -> tuple[Plan, list[Arm]]:
    """A plan that was written, and its arms with the steps of their budget.

    Raises:
        CorruptArtifactError: it is not a plan of what is asked for.
    """
    plan = artifact.read_json("plan.json", Plan)
    measured = [arm["step_seconds"] or 0.0 for arm in plan["arms"]]
    seconds = measured if wanted.budget == "seconds" else None
    if len(measured) == len(wanted.arms) and (seconds is None or min(seconds) > 0):
        arms = fit_budget(wanted.arms, wanted.budget, measured)
        if plan_hash(draft(project, wanted, arms, seconds)) == plan_hash(plan):
            return plan, arms
    raise artifact.malformed("plan.json", "it is the plan of something else")


def draft(
    project: Project, wanted: Wanted, arms: Sequence[Arm], seconds: Sequence[float] | None
) -> Plan:
    """A plan; nothing is written."""
    code = current_code()
    here = [conditions(arm.config) for arm in arms]
    recipes = [recipe_of(project, arm) for arm in arms]
    records: list[ArmRecord] = []
    for place, arm in enumerate(arms):
        max_steps = arm.config.train.max_steps
        records.append(
            {
                "name": arm.name,
                "settings": dict(arm.settings),
                "max_steps": max_steps,
                "tokens": max_steps * arm.tokens_per_step,
                "precision": here[place]["precision"],
                "step_seconds": None if seconds is None else round(seconds[place], 6),
                "recipe": {name: recipes[place][name] for name in sorted(recipes[place])},
            }
        )
    return {
        "question": question(arms),
        "question_id": question_id(recipes, list(arms[0].settings)),
        "varied": list(arms[0].settings),
        "arms": records,
        "seeds": wanted.seeds,
        "measure": MEASURE,
        "budget": wanted.budget,
        "min_effect": wanted.min_effect,
        "conditions": {name: value for name, value in here[0].items() if name != "precision"},
        "code": code["modules"],
        "versions": {
            "tinygpt": code["tinygpt"],
            "python": code["python"],
            "train": str(STAGES["train"].version),
            "eval": str(STAGES["eval"].version),
        },
        "jobs": wanted.jobs,
        "planned": True,
    }


def recipe_of(project: Project, arm: Arm) -> Recipe:
    """All that enters the keys of an arm's measured stages, but for the seed."""
    found = recipe(arm.config, project.with_config(arm.config).external_digests)
    del found["train.seed"]
    return found


def question(arms: Sequence[Arm]) -> str:
    """What is asked, in words: "model.norm: pre or post"."""
    values: dict[str, dict[str, None]] = {}
    for arm in arms:
        for key, value in arm.settings.items():
            values.setdefault(key, {})[value] = None
    return "; ".join(f"{key}: {' or '.join(named)}" for key, named in values.items())


def plan_hash(plan: Plan) -> str:
    """What a plan says, as a hash."""
    return hash_json("tinygpt.plan.content", plan)


def plan_tables(plan: Plan) -> dict[str, dict[str, object]]:
    """What the manifest of a plan or an experiment says, so that looks are counted quickly."""
    return {"experiment": {"question": plan["question_id"], "plan": plan_hash(plan)}}


def find_experiment(store: Store, plan: Plan) -> Artifact | None:
    """The finished experiment of a plan, checked; None if there is none."""
    for artifact in store.list(EXPERIMENT):
        if artifact.table("experiment", ExperimentTable)["plan"] == plan_hash(plan):
            artifact.check()
            return artifact
    return None


def look_at(store: Store, plan: Plan, cells: str = "") -> NthLook:
    """Which look at its question an experiment is; one that is made again keeps its number.

    Args:
        cells: hash of those that are looked at, where they are known.
    """
    earlier = set()
    for artifact in reversed(store.list(EXPERIMENT)):
        facts = artifact.table("experiment", ExperimentTable)
        if facts["plan"] == plan_hash(plan) or facts["cells"] == cells:
            break
        if facts["question"] == plan["question_id"] and facts["judged"]:
            earlier.add(facts["plan"])
    return NthLook(len(earlier) + 1)


def publish(
    store: Store,
    stage: str,
    key: Key,
    files: Mapping[str, object],
    inputs: Inputs,
    tables: Mapping[str, Mapping[str, object]],
    **provenance: object,
) -> Artifact:
    """Write an artifact; the caller holds the lock of its key.

    Args:
        files: values to write as JSON, or bytes.
        provenance: facts that enter neither key nor digest.
    """
    out = store.begin(stage, key, version=VERSION, tables=tables, inputs=inputs)
    try:
        for name, content in files.items():
            if isinstance(content, bytes):
                out.bytes(name, content)
            else:
                out.json(name, content)
        out.provenance(**provenance)
        return store.publish(out)
    finally:
        out.discard()


def differing_conditions(plan: Plan, precision: str, recorded: Mapping[str, Any]) -> list[str]:
    """How the conditions and the code of a run differ from those of a plan, e.g., "threads 1 -> 2".

    Args:
        precision: of the run's arm.
        recorded: the provenance of the run, or the state of a checkpoint with its environment.
    """
    wanted = {**plan["conditions"], "precision": precision}
    found = [
        f"{name} {recorded.get(name, 'unknown')} -> {value}"
        for name, value in wanted.items()
        if recorded.get(name) != value
    ]
    if (recorded.get("code") or {}).get("modules") != plan["code"]:
        found.append("code")
    if not recorded.get("exact"):
        found.append("exact: false")
    return found
