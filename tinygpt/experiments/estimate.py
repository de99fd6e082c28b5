"""How long the rest of an experiment takes and how much disk, from runs like its own."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tinygpt.analysis.costs import costs
from tinygpt.experiments.cells import Cell, Made
from tinygpt.experiments.experiment import training_run, training_seconds
from tinygpt.experiments.grid import RECORDED, Arm
from tinygpt.project import Project
from tinygpt.records import DatasetMeta
from tinygpt.runs.pace import measure_seconds
from tinygpt.store import Artifact
from tinygpt.store.manifest import RunTable

SHORT = {key.partition(".")[2] for key in ("train.seed", "train.max_steps", *RECORDED)} | {
    "warmup_steps",
    "warmup_fraction",
    "schedule",
    "learning_rate",
    "muon_learning_rate",
}
"""Keys of [train] that hardly change what a step takes."""


class Estimate(NamedTuple):
    """What is left to do.

    Args:
        cells: how many must run.
        seconds: they take one after the other; None if nothing is known.
        bytes: of their artifacts; None if nothing is known.
        source: where the numbers come from.
    """

    cells: int
    seconds: float | None
    bytes: int | None
    source: str


def estimate(project: Project, cells: Sequence[tuple[Cell, Made | None, str]]) -> Estimate:
    """The time and the disk that the cells take which are not in the store.

    Args:
        project: whose store is asked for runs like them; if there are none, steps are measured.
        cells: as a Prospect has them.
    """
    left = [cell for cell, made, _ in cells if made is None]
    seconds, size = 0.0, 0
    sources = set()
    known: dict[str, tuple[float, int, str] | None] = {}
    for cell in left:
        if cell.arm.name not in known:
            known[cell.arm.name] = of_cell(project, cell.arm)
        found = known[cell.arm.name]
        if found is None:
            return Estimate(len(left), None, None, "the dataset is not made yet")
        seconds += found[0]
        size += found[1]
        sources.add(found[2])
    return Estimate(len(left), seconds, size, " and ".join(sorted(sources)))


def of_cell(project: Project, arm: Arm) -> tuple[float, int, str] | None:
    """Seconds, bytes and their source for one cell of an arm; None without a dataset."""
    ours = project.with_config(arm.config)
    train = arm.config.train
    dataset = ours.plan("build-dataset")["build-dataset"].artifact
    for run in project.store.list("train"):
        if run.is_imported:
            continue
        made_from = run.input("build-dataset")["digest"]
        same_data = dataset is None or made_from == dataset.digest
        if same_data and is_alike(run, arm) and (spent := training_seconds(run)):
            steps = run.table("train", RunTable)["max_steps"]
            whole = run.manifest.provenance.get("seconds")
            if isinstance(whole, int | float):
                spent = max(spent, whole)  # evaluations included
            return spent / steps * train.max_steps, run.size, "runs in this store"
    if dataset is None:
        return None
    seconds = measure_seconds(training_run(project, arm)).left(0, train)
    vocab_size = dataset.read_json("meta.json", DatasetMeta)["vocab_size"]
    parameters = costs(arm.config.model, train, vocab_size).parameters
    copies = 4 + train.snapshots  # last and best weights, two of the optimizer
    return seconds, 4 * parameters * copies, "measured steps"


def is_alike(run: Artifact, arm: Arm) -> bool:
    """Whether a step of a run takes what one of the arm takes."""
    wanted = arm.config.model_dump(mode="json", by_alias=True)
    same_model = run.table("model") == wanted["model"]
    return same_model and _of_a_step(run.table("train")) == _of_a_step(wanted["train"])


def _of_a_step(table: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in table.items() if key not in SHORT}
