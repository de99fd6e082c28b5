"""A store's whole life, at random: runs, crashes, damage, pins, repair and gc, against a plain list of what must be there."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.store.workload import OUTSIDE, KillAt, KilledError, run_stage, run_train, watched
from tinygpt.config.tables import Config, DatasetConfig, TrainConfig
from tinygpt.errors import CorruptArtifactError
from tinygpt.pipeline import STAGES, execute
from tinygpt.report import SilentReport
from tinygpt.store import Artifact, Store, upkeep


class Life(RuleBasedStateMachine):
    """Digests by (stage, key) are remembered for ever: whatever is found must have them."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(Path(tempfile.mkdtemp()) / "artifacts")
        self.digests: dict[tuple[str, str], str] = {}
        self.pinned: set[tuple[str, str]] = set()
        self.damaged = False
        self.fsync, os.fsync = os.fsync, lambda fd: None

    def teardown(self) -> None:
        os.fsync = self.fsync
        shutil.rmtree(self.store.root.parent)

    def run(self, upto: str, steps: int, fraction: float) -> None:
        config = Config(train=TrainConfig(max_steps=steps), dataset=DatasetConfig(val_fraction=fraction))
        made: dict[str, Artifact] = {}
        for name in ("corpus", "tokenize", "build-dataset", "train"):
            inputs = {source: made[source] for source in STAGES[name].inputs}
            runner: Callable[..., None] = run_train if name == "train" else run_stage
            made[name] = execute(
                STAGES[name],
                config,
                inputs,
                store=self.store,
                outside=OUTSIDE,
                runner=runner,
                report=SilentReport(),
                lock_timeout=1,
            ).artifact
            known = self.digests.setdefault((name, made[name].key), made[name].digest)
            assert known == made[name].digest
            made[name].check()
            if name == upto:
                return

    choices = {"upto": st.sampled_from(["tokenize", "build-dataset", "train"]), "steps": st.sampled_from([1, 2])}  # noqa: RUF012
    choices["fraction"] = st.sampled_from([0.1, 0.2, 0.3])  # type: ignore[assignment]

    @rule(**choices)
    def runs(self, upto: str, steps: int, fraction: float) -> None:
        try:
            self.run(upto, steps, fraction)
        except CorruptArtifactError:
            assert self.damaged

    @rule(number=st.integers(1, 250), **choices)
    def is_killed(self, number: int, upto: str, steps: int, fraction: float) -> None:
        try:
            with watched(KillAt(number)):
                self.run(upto, steps, fraction)
        except KilledError:
            return
        except CorruptArtifactError:
            assert self.damaged

    @rule(number=st.integers(1, 40))
    def gc_is_killed(self, number: int) -> None:
        try:
            with watched(KillAt(number)):
                self.gc()
        except KilledError:
            return

    @rule()
    def gc(self) -> None:
        before = {(artifact.stage, artifact.key): artifact.digest for artifact in self.store.list()}
        try:
            upkeep.gc(self.store, timeout=0)
        except CorruptArtifactError:
            assert self.damaged
            return
        after = {(artifact.stage, artifact.key): artifact for artifact in self.store.list()}
        kept = {key for key in before if key[0] == "train" or key in self.pinned}
        assert kept <= set(after)
        lost = {(stage, digest) for (stage, _), digest in before.items()}
        lost -= {(artifact.stage, artifact.digest) for artifact in after.values()}
        for key in kept:
            assert not lost & {(record["stage"], record["digest"]) for record in after[key].manifest.inputs.values()}

    @rule(pick=st.integers(0, 10), pinned=st.booleans())
    def pin(self, pick: int, pinned: bool) -> None:
        everything = self.store.list()
        if everything:
            artifact = everything[pick % len(everything)]
            self.store.pin(artifact, pinned)
            (self.pinned.add if pinned else self.pinned.discard)((artifact.stage, artifact.key))

    @rule(pick=st.integers(0, 10), place=st.integers(0, 31))
    def is_damaged(self, pick: int, place: int) -> None:
        everything = self.store.list()
        if everything:
            artifact = everything[pick % len(everything)]
            path = artifact.path(artifact.names()[place % len(artifact.names())])
            path.chmod(0o644)
            path.write_bytes(b"damage" + path.read_bytes())
            self.damaged = True

    @rule()
    def repair(self) -> None:
        gone = {(stage, key) for stage, key in self.pinned if not self.store.folder(stage, key).exists()}
        self.pinned -= gone  # a pin that holds nothing is told as a fault, and a repair takes it away
        upkeep.repair(self.store, timeout=0)
        self.damaged = False

    @invariant()
    def nothing_is_wrong_unless_damaged(self) -> None:
        harmless = ("leftover", "dangling")  # what a kill leaves; a pin whose artifact a repair took away
        assert self.damaged or [fault for fault in upkeep.verify(self.store) if fault.kind not in harmless] == []


Life.TestCase.settings = settings(max_examples=12, stateful_step_count=12, deadline=None)
TestLife = Life.TestCase


@pytest.mark.parametrize(
    ("lives", "steps"), [pytest.param(200, 40, marks=pytest.mark.full), pytest.param(1000, 50, marks=pytest.mark.proof)]
)
def test_longer_lives(lives: int, steps: int) -> None:
    run_state_machine_as_test(Life, settings=settings(max_examples=lives, stateful_step_count=steps, deadline=None))
