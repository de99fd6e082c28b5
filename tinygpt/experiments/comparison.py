"""The answer of an experiment about runs that are there already."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tinygpt.errors import MissingArtifactError, UsageError
from tinygpt.experiments.answer import Answer, Measured
from tinygpt.experiments.experiment import cells_hash, measure_run, publish_answer
from tinygpt.experiments.grid import RECORDED, Recipe, question_id
from tinygpt.experiments.plan import differing_conditions, look_at
from tinygpt.experiments.records import MEASURE, ArmRecord, Plan
from tinygpt.project import Project
from tinygpt.store import Artifact, Store
from tinygpt.store.manifest import ModelTable, RunTable

CONDITIONS = ("torch", "device", "threads", "cpu_capability", "precision", "compiled")


def compare_runs(
    project: Project, key: str, runs: Sequence[Artifact], min_effect: float, command: str
) -> Artifact:
    """The answer of an experiment about runs that are there.

    Args:
        project: whose store has the runs.
        key: that the arms differ in.
        runs: the models; the arm of the first is the one that others are compared with.
        min_effect: see Plan.
        command: that repeats the comparison.
    Raises:
        UsageError: the runs do not differ in the key, or two have the same value and seed.
        MissingArtifactError: a run has no evaluation on its validation split.
        CorruptArtifactError: a manifest lacks what is read of it.
    """
    store = project.store
    for run in runs:
        if run.is_imported:
            raise UsageError(
                f"nothing is known of the training of model {run.id}, which was imported",
                hint="leave it out; `tinygpt compare ID ID` shows it beside others",
            )
    recipes = [recipe_of_run(store, run) for run in runs]
    values: list[str] = []
    cells: list[Measured] = []
    inputs: dict[str, Artifact] = {}
    for run, found in zip(runs, recipes, strict=True):
        if key not in found:
            raise UsageError(
                f"`{key}` is no key of these runs' recipes",
                hint="name a key of data, tokenizer, dataset, model or train",
            )
        value = spelled(found[key])
        if value not in values:
            values.append(value)
        seed = run.table("train", RunTable)["seed"]
        if any(cell.arm == values.index(value) and cell.seed == seed for cell in cells):
            raise UsageError(
                f"two runs have `{key}` = {value} and seed {seed}", hint="leave one of them out"
            )
        evaluation = evaluation_of(store, run)
        cells.append(measure_run(store, run, evaluation, values.index(value), seed))
        inputs |= {f"train {run.id}": run, f"eval {run.id}": evaluation}
    if len(values) < 2:
        raise UsageError(
            f"all these runs have `{key}` = {values[0]}",
            hint="name runs that differ in it; `tinygpt compare ID ID` shows what differs",
        )
    plan = plan_of_runs(key, runs, recipes, min_effect)
    refusals = refusals_of_runs(key, plan, runs, recipes)
    answer = Answer(plan, look_at(store, plan, cells_hash(cells)), cells, refusals)
    return publish_answer(project, answer, inputs, runs, command)


def plan_of_runs(
    key: str, runs: Sequence[Artifact], recipes: Sequence[Recipe], min_effect: float
) -> Plan:
    """The plan that runs would have had.

    Args:
        key, runs, min_effect: see compare_runs.
        recipes: of the runs.
    """
    by_value: dict[str, Recipe] = {}
    arms: list[ArmRecord] = []
    for run, found in zip(runs, recipes, strict=True):
        value = spelled(found[key])
        if value in by_value:
            continue
        by_value[value] = found
        arms.append(
            {
                "name": f"{key.partition('.')[2]}={value}",
                "settings": {key: value},
                "max_steps": run.table("train", RunTable)["max_steps"],
                "tokens": tokens(run),
                "precision": str(run.manifest.provenance.get("precision")),
                "step_seconds": None,
                "recipe": {name: found[name] for name in sorted(found) if name != "train.seed"},
            }
        )
    facts: Mapping[str, Any] = runs[0].manifest.provenance
    code = facts.get("code") or {}
    return {
        "question": f"{key}: {' or '.join(by_value)}",
        "question_id": question_id(list(by_value.values()), [key]),
        "varied": [key],
        "arms": arms,
        "seeds": sorted({run.table("train", RunTable)["seed"] for run in runs}),
        "measure": MEASURE,
        "budget": "varied",
        "min_effect": min_effect,
        "conditions": {name: str(facts.get(name)) for name in CONDITIONS if name != "precision"},
        "code": code.get("modules", {}),
        "versions": {"tinygpt": str(code.get("tinygpt", "unknown"))},
        "jobs": 1,
        "planned": False,
    }


def refusals_of_runs(
    key: str, plan: Plan, runs: Sequence[Artifact], recipes: Sequence[Recipe]
) -> list[str]:
    """Why runs bear no verdict: they differ in more than the key, or have different seeds."""
    free = {key, "train.seed", *RECORDED}
    names = dict.fromkeys(name for found in recipes for name in found if name not in free)
    differing = [name for name in names if len({str(found.get(name)) for found in recipes}) > 1]
    refusals = [f"the runs also differ in {', '.join(differing)}"] if differing else []
    conditions: dict[str, None] = {}
    seeds: dict[str, set[object]] = {}
    for run, found in zip(runs, recipes, strict=True):
        precision = plan["arms"][0]["precision"]
        if key == "train.precision":
            precision = str(run.manifest.provenance.get("precision"))
        different = differing_conditions(plan, precision, run.manifest.provenance)
        conditions |= dict.fromkeys(different)
        seeds.setdefault(spelled(found[key]), set()).add(found["train.seed"])
    if conditions:
        refusals.append(f"the runs were made under different conditions: {', '.join(conditions)}")
    if any(of_value != next(iter(seeds.values())) for of_value in seeds.values()):
        refusals.append("the arms have different seeds")
    return refusals


def spelled(value: object) -> str:
    """A value of a key as it is typed."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False).strip('"')


def tokens(run: Artifact) -> int:
    """Training tokens of a run."""
    train = run.table("train", RunTable)
    sequences = train["max_steps"] * train["batch_size"] * train["grad_accum_steps"]
    return sequences * run.table("model", ModelTable)["context_length"]


def recipe_of_run(store: Store, run: Artifact) -> Recipe:
    """All keys that a run and what it was made from were made with."""
    found: Recipe = {}
    for record in run.manifest.inputs.values():
        source = store.find(record["stage"], record["key"])
        if source is not None:
            found |= recipe_of_run(store, source)
    for table, keys in run.manifest.tables.items():
        found |= {f"{table}.{key}": value for key, value in keys.items()}
    return found


def evaluation_of(store: Store, run: Artifact) -> Artifact:
    """The newest evaluation of a run on its validation split, by document."""
    for artifact in store.list("eval"):
        is_of_run = artifact.input("train")["digest"] == run.digest
        table = artifact.table("eval", dict[str, object])
        on_validation = table.get("text") is None and table.get("split") == "val"
        if is_of_run and on_validation and "documents.jsonl" in artifact.names():
            return artifact
    raise MissingArtifactError(
        f"run {run.id} has no evaluation by document on its validation split",
        hint=f"run `tinygpt eval --model {run.id}`",
    )
