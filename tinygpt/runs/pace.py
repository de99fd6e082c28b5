"""How long steps and evaluations take, and so how long a run takes and how much of it is left."""

import copy
import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from tinygpt.config import TrainConfig
from tinygpt.lm.evaluation import window_losses
from tinygpt.lm.optim import build_optimizers
from tinygpt.lm.training import TrainState, accumulate_gradients
from tinygpt.runs.training_run import TrainingRun

WARM_UP = 5  # steps that take longer: memory, threads and caches are new
RECENT = 200  # steps whose mean is the pace; checkpoints come more often
MEASURED_SECONDS = 2.0


class Seconds(NamedTuple):
    """What a step and an evaluation take, in seconds."""

    step: float
    evaluation: float

    def left(self, done: int, config: TrainConfig) -> float:
        """The time from step `done` to the end of the run."""
        steps = config.max_steps - done
        return self.step * steps + self.evaluation * evaluations_left(done, config)


class Pace:
    """The clock of a run: steps, with the checkpoints between them, and evaluations apart."""

    def __init__(self) -> None:
        self._steps: deque[float] = deque(maxlen=RECENT)
        self._evaluation = 0.0
        self._since = time.monotonic()

    def stepped(self) -> None:
        """A step has ended."""
        self._steps.append(self._lap())

    def evaluated(self) -> None:
        """An evaluation has ended; it began when the last step ended."""
        self._evaluation = self._lap()

    def _lap(self) -> float:
        last, self._since = self._since, time.monotonic()
        return self._since - last

    def left(self, done: int, config: TrainConfig) -> float:
        """Seconds from step `done` to the end; 0 as long as only warm-up steps were taken."""
        warm = list(self._steps)[WARM_UP:]
        if not warm:
            return 0.0
        return Seconds(statistics.fmean(warm), self._evaluation).left(done, config)


def evaluations_left(done: int, config: TrainConfig) -> int:
    """How many evaluations come after step `done`, see is_evaluation_step."""
    every, last = config.eval_every, config.max_steps
    others = [step for step in {1, 10, 100, last} if done < step <= last and step % every]
    return last // every - done // every + len(others)


def measure_seconds(training: TrainingRun) -> Seconds:
    """What this machine needs, measured before the first step on a throw-away copy of the model."""
    config = training.config.train.model_copy(update={"grad_accum_steps": 1})
    model = copy.deepcopy(training.state.model)
    state = TrainState(model, [], precision=training.precision.name)
    spent: list[float] = []
    while len(spent) < 3 or (sum(spent) < MEASURED_SECONDS and len(spent) < 20):
        spent.append(_seconds(lambda: accumulate_gradients(state, training.batches, config)))
    micro_batch = statistics.median(spent[1:])
    optimizers = build_optimizers(model, config, training.precision.name)
    update = _seconds(lambda: [optimizer.step(0.0) for optimizer in optimizers])

    for _ in range(2):  # the first only warms up
        began = time.monotonic()
        losses = next(window_losses(model, training.validation))
        per_token = (time.monotonic() - began) / len(losses)
    processes = training.state.processes.world_size
    step = micro_batch * training.config.train.grad_accum_steps / processes + update
    return Seconds(step, per_token * len(training.validation) / processes)


def _seconds(compute: Callable[[], object]) -> float:
    started = time.monotonic()
    compute()
    return time.monotonic() - started
