"""Stage `train`: token shards in, a trained model and the story of its training out."""

import copy
import math
import shlex
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from tinygpt.config import Config
from tinygpt.errors import DivergedError, Interrupted, StoppedEarly, TinygptError
from tinygpt.lm.costs import costs
from tinygpt.lm.optim import warmup_steps
from tinygpt.lm.ranks import ALONE, Ranks
from tinygpt.lm.training import TrainState, train, train_step
from tinygpt.report import Report, duration
from tinygpt.stages.train_run import Run, is_evaluation_step
from tinygpt.store import Artifact, Inputs, Out

LONG_RUN = 2 * 3600  # seconds
LAPTOP_REACHES = "perplexity 10.2 on 7,000 stories after 45 minutes on 2 cores without bf16 (docs/results.md)"


@dataclass(frozen=True)
class Limits:
    """What may end a run before its last step; nothing here enters a key.

    Args:
        max_seconds: of training in this call; None for no limit.
        stop_at_step: stop after this step; None for no limit.
        interrupted: tells the signal that asked for a stop, or None.
    """

    max_seconds: float | None = None
    stop_at_step: int | None = None
    interrupted: Callable[[], int | None] = lambda: None


def run(config: Config, inputs: Inputs, out: Out, report: Report, *, limits: Limits = Limits(), ranks: Ranks = ALONE) -> None:
    """Train, from the newest checkpoint if there is one.

    Args:
        config: [model], [train] and [runtime] are used.
        inputs: "build-dataset", "tokenize", and "init_from" if `train.init_from` is set.
        out: where the artifact and, meanwhile, the checkpoints go.
        report: told costs, progress and evaluations.
        limits: when to stop early.
        ranks: the processes that share the work; the others call `follow`.
    Raises:
        InputError: fewer training tokens than one window.
        DivergedError: a loss or gradient is not finite; the last checkpoint is intact.
        StoppedEarly, Interrupted: a limit or a signal ended the run, and all of it is saved.
    """
    session = Run(config, inputs, out.checkpoints.newest(), ranks)
    if session.state.step and (stop := stop_reason(session.state.step, 0, limits)):  # a step more is not what was asked for
        raise stop
    begin(session, report)
    first_step, spent, started = session.state.step, 0.0, time.monotonic()
    resumed = started
    try:
        for record in train(session.state, session.batches, config.train):
            spent += time.monotonic() - resumed  # evaluation and checkpoints are not training
            session.record(record)
            speed = session.tokens(record.step - first_step) / spent
            report.advance(1, loss=record.loss, perplexity=math.exp(min(record.loss, 50)), tokens_per_second=speed)
            if is_evaluation_step(record.step, config.train):
                session.evaluate()
            if record.step in session.snapshot_steps:
                session.snapshot(out.checkpoints)
            if record.step == config.train.max_steps:
                break
            stop = stop_reason(record.step, time.monotonic() - started, limits)
            ranks.led(stop is not None)
            if stop or record.step % config.runtime.checkpoint_every == 0:
                session.save(out.checkpoints)
            if stop:
                raise stop
            resumed = time.monotonic()
    except DivergedError as error:
        raise with_batch(error, session) from None
    session.finish(out, spent, session.state.step - first_step)


def follow(config: Config, inputs: Inputs, checkpoint: Artifact | None, ranks: Ranks) -> None:
    """Take the steps that rank 0 takes in `run`, in another process, which writes nothing and says nothing."""
    session = Run(config, inputs, checkpoint, ranks)
    with suppress(DivergedError):  # which rank 0 meets, too
        for record in train(session.state, session.batches, config.train):
            if is_evaluation_step(record.step, config.train):
                session.validation_loss()
            if record.step == config.train.max_steps or ranks.led():
                break


def begin(session: Run, report: Report) -> None:
    """Say what is about to happen: a new run with its costs, or one that continues."""
    config, state = session.config, session.state
    if session.not_compiled:
        report.note(f"torch.compile cannot be used here, and training goes on without it: {session.not_compiled}")
    if session.checkpoint is not None:
        report.note(f"continuing at step {state.step:,} of {config.train.max_steps:,}")
        if changed := ", ".join(session.changed):
            report.note(f"continuing under other conditions: {changed}; the last bits may differ (exact: false)")
    else:
        report.note(f"{session.precision.name} matrix products: {session.precision.reason}")
        tell_costs(session, measured_seconds_per_step(session), report.note)
    report.task("train", config.train.max_steps, unit="steps", done=state.step)


def measured_seconds_per_step(session: Run, micro_batches: int = 3) -> float:
    """Time of a step on this machine, from a few micro-batches on a throw-away copy (the first one only warms up)."""
    accumulation = session.config.train.grad_accum_steps
    config = session.config.train.model_copy(update={"grad_accum_steps": 1})
    state = TrainState.start(copy.deepcopy(session.state.model), config, session.precision.name)
    for count in range(micro_batches):
        if count == 1:
            started = time.monotonic()
        train_step(state, session.batches, config)
    return (time.monotonic() - started) / (micro_batches - 1) * accumulation / session.state.ranks.count


def tell_costs(session: Run, seconds_per_step: float, note: Callable[[str], None]) -> None:
    """The table of parameters, arithmetic, memory and time; three lines of advice where it takes more than two hours."""
    config = session.config
    cost = costs(config.model, config.train, session.state.model.vocab_size)
    steps, epochs = config.train.max_steps, session.tokens(config.train.max_steps) / len(session.batches.tokens)
    note(f"parameters  {cost.parameters:,} ({cost.embedding_parameters:,} in embeddings, {cost.block_parameters:,} in blocks)")
    note(f"arithmetic  {cost.flops_per_token / 1e6:.1f} MFLOP a token, {cost.tokens_per_step:,} tokens a step")
    note(f"memory      about {cost.memory_bytes / 2**20:,.0f} MiB for weights, gradients, optimizer and activations")
    note(f"data        {steps:,} steps are {session.tokens(steps) / 1e6:,.1f} M tokens, {epochs:.1f} passes over the stories")
    note(f"time        about {duration(steps * seconds_per_step)} here ({seconds_per_step:.2f} s a step)")
    if steps * seconds_per_step > LONG_RUN and config.train.optimizer == "adamw":
        warmup = warmup_steps(config.train)
        note(f"this run takes about {steps * seconds_per_step / 3600:.0f} hours on this machine")
        note(f"its warm-up alone ({warmup:,} steps) takes {duration(warmup * seconds_per_step)}; until then little is learned")
        note(f"`tinygpt run --preset laptop --source {shlex.quote(config.data.source)}` ends sooner; {LAPTOP_REACHES}")


def stop_reason(step: int, seconds: float, limits: Limits) -> TinygptError | None:
    """The error that ends the run after this step, or None to go on."""
    if number := limits.interrupted():
        return Interrupted(f"stopped by {signal.Signals(number).name} after step {step:,}; all of it is saved", number=number)
    if limits.stop_at_step is not None and step >= limits.stop_at_step:
        return StoppedEarly(f"stopped after step {step:,} as asked; all of it is saved")
    if limits.max_seconds is not None and seconds >= limits.max_seconds:
        return StoppedEarly(f"stopped after step {step:,}: {duration(limits.max_seconds)} are over; all of it is saved")
    return None


def with_batch(error: DivergedError, session: Run) -> DivergedError:
    """The same error with the beginning of the batch that the failing step read."""
    train = session.config.train
    offsets = session.batches.offsets(session.state.step, train.batch_size * train.grad_accum_steps)
    text = session.tokenizer.decode(session.batches.windows(offsets[:1])[0][0].tolist())
    return DivergedError(f"{error.message}; its batch begins with {text[:80]!r}", error.hint)
