"""The whole life of a store, at random: runs, kills, damage, pins, repair and gc.

A plain list of what has to be there is compared with the store after each event.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.proofs.figures import RecordFigure, Size
from tests.store.workload import NAMES, KillAt, KilledError, overwrite, run_one, watched
from tinygpt.config.tables import Config, DatasetConfig, TrainConfig
from tinygpt.errors import CorruptArtifactError
from tinygpt.hashing import Key
from tinygpt.pipeline import STAGES
from tinygpt.store import Artifact, Store, upkeep

UNTIL = st.sampled_from(["tokenize", "build-dataset", "train"])
STEPS = st.sampled_from([1, 2])
FRACTION = st.sampled_from([0.1, 0.2, 0.3])


class Life(RuleBasedStateMachine):
    """Remembers each digest by (stage, key) for ever: whatever is found has to have it."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(Path(tempfile.mkdtemp()) / "artifacts")
        self.digests: dict[tuple[str, Key], str] = {}
        self.pinned: set[tuple[str, Key]] = set()
        self.damaged = False
        self.lost: set[Path] = set()  # what no repair could restore; a later run may have it again
        self.fsync = os.fsync
        os.fsync = lambda fd: None

    def teardown(self) -> None:
        os.fsync = self.fsync
        shutil.rmtree(self.store.root.parent)

    def run_until(self, until: str, steps: int, fraction: float) -> None:
        config = Config(
            train=TrainConfig(max_steps=steps), dataset=DatasetConfig(val_fraction=fraction)
        )
        made: dict[str, Artifact] = {}
        for name in NAMES[: NAMES.index(until) + 1]:
            inputs = {source: made[source] for source in STAGES[name].inputs}
            outcome = run_one(self.store, name, inputs, config=config, lock_timeout=1)
            made[name] = outcome.artifact
            known = self.digests.setdefault((name, made[name].key), made[name].digest)
            assert known == made[name].digest
            made[name].check()

    @rule(until=UNTIL, steps=STEPS, fraction=FRACTION)
    def run(self, until: str, steps: int, fraction: float) -> None:
        try:
            self.run_until(until, steps, fraction)
        except CorruptArtifactError:
            assert self.damaged

    @rule(number=st.integers(1, 250), until=UNTIL, steps=STEPS, fraction=FRACTION)
    def run_is_killed(self, number: int, until: str, steps: int, fraction: float) -> None:
        try:
            with watched(KillAt(number)):
                self.run_until(until, steps, fraction)
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
        before = {(artifact.stage, artifact.key): artifact for artifact in self.store.list()}
        try:
            upkeep.gc(self.store, timeout=0)
        except CorruptArtifactError:
            assert self.damaged
            return
        after = {(artifact.stage, artifact.key): artifact for artifact in self.store.list()}
        needed = {place for place in before if place[0] == "train" or place in self.pinned}
        assert needed <= set(after)
        removed = contents(before.values()) - contents(after.values())
        for place in needed:
            for record in after[place].manifest.inputs.values():
                assert (record["stage"], record["digest"]) not in removed

    @rule(pick=st.integers(0, 10), pinned=st.booleans())
    def pin(self, pick: int, pinned: bool) -> None:
        artifacts = self.store.list()
        if not artifacts:
            return
        artifact = artifacts[pick % len(artifacts)]
        self.store.pin(artifact, pinned)
        if pinned:
            self.pinned.add((artifact.stage, artifact.key))
        else:
            self.pinned.discard((artifact.stage, artifact.key))

    @rule(pick=st.integers(0, 10), file=st.integers(0, 31))
    def damage(self, pick: int, file: int) -> None:
        artifacts = self.store.list()
        if not artifacts:
            return
        artifact = artifacts[pick % len(artifacts)]
        names = [name for name in artifact.names() if name not in artifact.missing()]
        path = artifact.path(names[file % len(names)])
        overwrite(path, b"damage" + path.read_bytes())
        self.damaged = True

    @rule()
    def repair(self) -> None:
        # A pin without its artifact is a fault, and a repair takes it away
        self.pinned = {
            (stage, key) for stage, key in self.pinned if self.store.folder(stage, key).exists()
        }
        upkeep.repair(self.store, timeout=0)
        self.damaged = False
        missing = [fault for fault in upkeep.verify(self.store) if fault.kind == "missing"]
        assert not any(fault.is_mendable for fault in missing)
        self.lost.update(fault.path for fault in missing)

    @invariant()
    def nothing_is_wrong_unless_damaged(self) -> None:
        # A kill leaves leftovers; a pin is dangling once a repair took its artifact away; a model
        # lacks the optional files that a repair could not restore
        harmless = ("leftover", "dangling")
        faults = [
            fault
            for fault in upkeep.verify(self.store)
            if fault.kind not in harmless
            and not (fault.kind == "missing" and fault.path in self.lost)
        ]
        assert self.damaged or faults == []


def contents(artifacts: Iterable[Artifact]) -> set[tuple[str, str]]:
    """Stage and digest of each artifact, as manifests name their inputs."""
    return {(artifact.stage, artifact.digest) for artifact in artifacts}


def test_what_a_repair_could_not_restore_is_restored_once_another_run_has_it() -> None:
    life = Life()
    try:
        life.run("train", steps=1, fraction=0.3)
        (model,) = life.store.list("train")
        overwrite(model.path("snapshots/2"), b"damage")
        life.repair()
        assert model.missing() == ["snapshots/2"]
        life.run("train", steps=1, fraction=0.1)
        (fault,) = upkeep.verify(life.store)
        assert fault.is_mendable
        life.repair()
        assert model.missing() == []
    finally:
        life.teardown()  # os.fsync is itself again


Life.TestCase.settings = settings(max_examples=12, stateful_step_count=12, deadline=None)
TestLife = Life.TestCase


@pytest.mark.full
def test_many_long_lives(size: Size, figure: RecordFigure) -> None:
    lives, steps = size((50, 40), (200, 40), (500, 50))
    many = settings(max_examples=lives, stateful_step_count=steps, deadline=None)
    run_state_machine_as_test(Life, settings=many)
    figure("G10", f"random lives of a store, of up to {steps} events each", lives)
