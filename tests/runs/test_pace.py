"""How long a run takes, with a clock that the tests set."""

import pytest

from tinygpt.config import TrainConfig
from tinygpt.runs import pace
from tinygpt.runs.pace import RECENT, WARM_UP, Pace, Seconds, evaluations_left
from tinygpt.runs.schedule import is_evaluation_step


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(pace, "time", found)
    return found


@pytest.mark.parametrize("max_steps", [1, 2, 10, 11, 100, 137, 1000])
@pytest.mark.parametrize("eval_every", [1, 3, 10, 50, 100, 5000])
def test_the_evaluations_left_are_those_that_come(max_steps: int, eval_every: int) -> None:
    config = TrainConfig(max_steps=max_steps, eval_every=eval_every)
    for done in range(0, max_steps + 1, 7):
        later = range(done + 1, max_steps + 1)
        expected = sum(is_evaluation_step(step, config) for step in later)
        assert evaluations_left(done, config) == expected


def test_the_time_of_a_run_is_that_of_its_steps_and_its_evaluations() -> None:
    config = TrainConfig(max_steps=1_000, eval_every=500)
    assert Seconds(0.25, 4.0).left(0, config) == 1_000 * 0.25 + 5 * 4
    assert Seconds(0.25, 4.0).left(900, config) == 100 * 0.25 + 4
    assert Seconds(0.25, 4.0).left(1_000, config) == 0


def test_steps_that_only_warm_up_and_evaluations_do_not_count_as_the_pace_of_steps(
    clock: Clock,
) -> None:
    config = TrainConfig(max_steps=1_000, eval_every=500)
    timer = Pace()
    for step in range(1, WARM_UP + 1):
        clock.now += 50
        timer.stepped()
        assert timer.left(step, config) == 0
    clock.now += 3
    timer.evaluated()
    clock.now += 0.5
    timer.stepped()
    done = WARM_UP + 1
    assert timer.left(done, config) == pytest.approx((1_000 - done) * 0.5 + 4 * 3)


def test_the_pace_follows_the_last_steps(clock: Clock) -> None:
    config = TrainConfig(max_steps=10_000, eval_every=10_000)
    timer = Pace()
    for step in range(2 * RECENT):
        clock.now += 1 if step < RECENT else 2
        timer.stepped()
    assert timer.left(9_000, config) == pytest.approx(1_000 * 2)


def test_the_time_between_two_steps_counts_as_that_of_a_step(clock: Clock) -> None:
    """Checkpoints and snapshots are written there."""
    config = TrainConfig(max_steps=100, eval_every=1_000)
    timer = Pace()
    for _ in range(WARM_UP + 1):
        clock.now += 1
        timer.stepped()
    clock.now += 3  # a checkpoint
    clock.now += 1
    timer.stepped()
    assert timer.left(90, config) == pytest.approx(10 * (1 + 4) / 2)
