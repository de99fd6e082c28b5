"""Stage `train`: token shards in, a trained model and the record of its training out."""

import copy
import shlex
import signal
import time
from contextlib import suppress

from tinygpt.analysis.costs import costs
from tinygpt.config import Config
from tinygpt.errors import DivergedError, Interrupted, StoppedEarly, TinygptError
from tinygpt.lm.evaluation import perplexity
from tinygpt.lm.fast.distributed import SINGLE_PROCESS, DataParallelGroup
from tinygpt.lm.optim import warmup_steps
from tinygpt.lm.training import TrainState, train, train_step
from tinygpt.progress import NO_LIMITS, Limits, Reporter, duration
from tinygpt.records import EvalRow
from tinygpt.runs.training_run import TrainingRun, is_evaluation_step
from tinygpt.store import Artifact, ArtifactWriter, Inputs

LONG_RUN = 2 * 3600  # seconds


def run(
    config: Config,
    inputs: Inputs,
    out: ArtifactWriter,
    reporter: Reporter,
    *,
    limits: Limits = NO_LIMITS,
    processes: DataParallelGroup = SINGLE_PROCESS,
) -> None:
    """Train, from the newest checkpoint if there is one.

    Args:
        config: [model], [train] and [runtime] are used.
        inputs: "build-dataset", "tokenize", and "init_from" if `train.init_from` is set.
        out: where the artifact and, meanwhile, the checkpoints go.
        reporter: receives costs, progress and evaluations.
        limits: when to stop early.
        processes: those that share the work; the others call `follow`.
    Raises:
        InputError: fewer training tokens than one window.
        DivergedError: a loss or gradient is not finite; the last checkpoint is intact.
        StoppedEarly, Interrupted: a limit or a signal ended the run, and all of it is saved.
    """
    with limits.defer_signals():
        training = TrainingRun(config, inputs, out.unfinished_run.newest(), processes)
        if training.state.step and (stop := stop_reason(training.state.step, 0, limits)):
            raise stop  # one more step is not what was asked for
        announce(training, reporter)
        try:
            seconds, steps = take_steps(training, out, reporter, limits)
        except DivergedError as error:
            raise with_batch(error, training) from None
        training.finish(out, seconds, steps)


def take_steps(
    training: TrainingRun, out: ArtifactWriter, reporter: Reporter, limits: Limits
) -> tuple[float, int]:
    """Take the remaining steps, with evaluations, snapshots and checkpoints in between.

    Returns:
        Seconds of training, and the number of steps.
    """
    config, processes = training.config, training.state.processes
    first_step = training.state.step
    spent = 0.0
    started = resumed = time.monotonic()
    for record in train(training.state, training.batches, config.train):
        spent += time.monotonic() - resumed  # evaluation and checkpoints are not training
        training.record(record)
        speed = training.tokens(record.step - first_step) / spent
        reporter.advance(
            1,
            loss=record.loss,
            perplexity=perplexity(record.loss),
            tokens_per_second=speed,
        )
        if is_evaluation_step(record.step, config.train):
            report_evaluation(training.evaluate(), reporter)
        if record.step in training.snapshot_steps:
            training.take_snapshot(out.unfinished_run)
        if record.step == config.train.max_steps:
            break
        stop = stop_reason(record.step, time.monotonic() - started, limits)
        processes.broadcast_from_rank_0(stop is not None)
        if stop or record.step % config.runtime.checkpoint_every == 0:
            training.save(out.unfinished_run)
        if stop:
            raise stop
        resumed = time.monotonic()
    return spent, training.state.step - first_step


def follow(
    config: Config, inputs: Inputs, checkpoint: Artifact | None, processes: DataParallelGroup
) -> None:
    """Take the steps of `run` in another process than rank 0, which writes and says nothing."""
    training = TrainingRun(config, inputs, checkpoint, processes)
    with suppress(DivergedError):  # which rank 0 meets, too
        for record in train(training.state, training.batches, config.train):
            if is_evaluation_step(record.step, config.train):
                training.validation_loss()
            finished = record.step == config.train.max_steps
            if finished or training.state.processes.broadcast_from_rank_0():
                break


def announce(training: TrainingRun, reporter: Reporter) -> None:
    """Say what is about to happen: a new run with its costs, or one that continues."""
    config, state = training.config, training.state
    if training.not_compiled:
        reporter.note(f"torch.compile is not available, training without: {training.not_compiled}")
    if training.checkpoint is not None:
        reporter.note(f"continuing at step {state.step:,} of {config.train.max_steps:,}")
        if changed := ", ".join(training.changed):
            consequence = "the last bits may differ (exact: false)"
            reporter.note(f"continuing under other conditions: {changed}; {consequence}")
    else:
        precision = training.precision
        reporter.note(f"{precision.name} matrix products: {precision.reason}")
        report_costs(training, measured_seconds_per_step(training), reporter)
    reporter.task("train", config.train.max_steps, unit="steps", done=state.step)


def measured_seconds_per_step(training: TrainingRun, micro_batches: int = 3) -> float:
    """Time of a step on this machine, from a few micro-batches on a throw-away copy.

    The first one only warms up.
    """
    accumulation = training.config.train.grad_accum_steps
    config = training.config.train.model_copy(update={"grad_accum_steps": 1})
    model = copy.deepcopy(training.state.model)
    state = TrainState.start(model, config, training.precision.name)
    for count in range(micro_batches):
        if count == 1:
            started = time.monotonic()
        train_step(state, training.batches, config)
    seconds = (time.monotonic() - started) / (micro_batches - 1)
    return seconds * accumulation / training.state.processes.world_size


def report_costs(training: TrainingRun, seconds_per_step: float, reporter: Reporter) -> None:
    """Parameters, arithmetic, memory and time; advice where it takes more than two hours."""
    config = training.config
    cost = costs(config.model, config.train, training.state.model.vocab_size)
    steps = config.train.max_steps
    tokens = training.tokens(steps)
    passes = tokens / len(training.batches.tokens)
    total = steps * seconds_per_step
    parts = f"{cost.embedding_parameters:,} in embeddings, {cost.block_parameters:,} in blocks"
    flops = f"{cost.flops_per_token / 1e6:.1f} MFLOP per token"
    memory = f"{cost.memory_bytes / 2**20:,.0f} MiB"
    reporter.note(f"parameters  {cost.parameters:,} ({parts})")
    reporter.note(f"arithmetic  {flops}, {cost.tokens_per_step:,} tokens per step")
    reporter.note(f"memory      about {memory} for weights, gradients, optimizer and activations")
    data = f"{steps:,} steps are {tokens / 1e6:,.1f} M tokens"
    reporter.note(f"data        {data}, {passes:.1f} passes over the training text")
    reporter.note(f"time        about {duration(total)} here ({seconds_per_step:.2f} s per step)")
    if total > LONG_RUN and config.train.optimizer == "adamw":
        warmup = warmup_steps(config.train)
        command = f"tinygpt run --preset laptop --source {shlex.quote(config.data.source)}"
        reporter.note(f"this run takes about {total / 3600:.0f} hours on this machine")
        reporter.note(
            f"its warm-up alone ({warmup:,} steps) takes {duration(warmup * seconds_per_step)}, "
            "and the model learns little before it ends"
        )
        reporter.note(f"`{command}` learns as much in less time")


def report_evaluation(row: EvalRow, reporter: Reporter) -> None:
    """Report an evaluation: a line of its own, and a figure in the progress bar."""
    reporter.advance(0, val_perplexity=row["val_perplexity"])
    scores = f"validation loss {row['val_loss']:.4f}, perplexity {row['val_perplexity']:,.2f}"
    reporter.note(f"step {row['step']:,}: {scores}{', best so far' if row['best'] else ''}")


def stop_reason(step: int, seconds: float, limits: Limits) -> TinygptError | None:
    """The error that ends the run after this step, or None to go on."""
    if number := limits.interrupted():
        name = signal.Signals(number).name
        return Interrupted(
            f"stopped by {name} after step {step:,}; checkpoint saved", number=number
        )
    if limits.stop_at_step is not None and step >= limits.stop_at_step:
        return StoppedEarly(f"stopped after step {step:,} (`--stop-at-step`); checkpoint saved")
    if limits.max_seconds is not None and seconds >= limits.max_seconds:
        limit = duration(limits.max_seconds)
        return StoppedEarly(f"time limit of {limit} reached at step {step:,}; checkpoint saved")
    return None


def with_batch(error: DivergedError, training: TrainingRun) -> DivergedError:
    """The same error, with the beginning of the batch on which the step failed."""
    train = training.config.train
    sequences = train.batch_size * train.grad_accum_steps
    offsets = training.batches.offsets(training.state.step, sequences)
    token_ids, _ = training.batches.windows(offsets[:1])
    text = training.tokenizer.decode(token_ids[0].tolist())
    return DivergedError(f"{error.message}; its batch begins with {text[:80]!r}", error.hint)
