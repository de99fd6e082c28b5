"""A grid that is computed in seconds."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.helpers import with_settings
from tinygpt.config import Config
from tinygpt.experiments.experiment import run_experiment
from tinygpt.experiments.grid import make_arms, measured_config
from tinygpt.experiments.plan import Wanted, want
from tinygpt.experiments.values import parse_vary
from tinygpt.progress import NO_LIMITS, Limits
from tinygpt.project import Project
from tinygpt.store import Artifact


class Grid:
    """Experiments in one store, and what they reported.

    Attributes:
        planned: plan and look of each call.
        cells: names of the cells of the last call, with "cached" where they were.
    """

    def __init__(self, config: Config, root: Path) -> None:
        self.config = measured_config(config)
        self.project = Project(self.config, root / "artifacts")
        self.planned = []
        self.cells: list[str] = []

    def load(self, flags: dict[str, tuple[str, object]]) -> Config:
        from tinygpt.config.fields import read_text

        config = self.config
        for name, (_, text) in flags.items():
            table, _, key = name.partition(".")
            config = with_settings(config, **{table: {key: read_text(name, str(text))}})
        return config

    def wanted(self, seeds: Sequence[int], vary: str = "model.norm=pre,post", **facts) -> Wanted:
        arms = make_arms([parse_vary(text) for text in vary.split()], self.load)
        facts = {"budget": None, "min_effect": None, "jobs": 1, **facts}
        return want(arms, list(seeds), **facts)

    def run(
        self,
        wanted: Wanted,
        limits: Limits = NO_LIMITS,
        force: bool = False,
        on_cell: Callable[[], None] = lambda: None,
    ) -> tuple[Artifact, bool]:
        self.cells = []

        def note_cell(place, made):
            self.cells.append(made.cell.name + " cached" * made.cached)
            on_cell()

        return run_experiment(
            self.project,
            wanted,
            limits,
            lambda plan, look: self.planned.append((plan, look)),
            note_cell,
            force=force,
        )


@pytest.fixture(scope="session")
def grid_config(tiny_config: Config) -> Config:
    """Trains in a moment to less than the loss of the unigram model."""
    return with_settings(
        tiny_config,
        data={"source": "builtin", "max_documents": 100},
        dataset={"val_fraction": 0.3},
        model={"n_layers": 1, "context_length": 32},
        train={
            "max_steps": 40,
            "batch_size": 16,
            "learning_rate": 0.03,
            "optimizer": "muon",
            "eval_every": 20,
            "sample_tokens": 0,
            "snapshots": 0,
        },
        runtime={"threads": 1, "checkpoint_every": 10},
    )


@pytest.fixture
def grid(grid_config: Config, tmp_path: Path) -> Grid:
    return Grid(grid_config, tmp_path)
