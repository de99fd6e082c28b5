"""Stage `train`: token shards in, a trained model and the record of its training out."""

import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

from tinygpt.analysis.costs import costs, useful_passes
from tinygpt.config import Config
from tinygpt.errors import DivergedError, Interrupted, StoppedEarly, TinygptError
from tinygpt.lm.evaluation import perplexity
from tinygpt.lm.fast.distributed import SINGLE_PROCESS, DataParallelGroup
from tinygpt.lm.optim import warmup_steps
from tinygpt.lm.training import StepRecord, train
from tinygpt.progress import NO_LIMITS, Limits, Reporter, duration
from tinygpt.records import DatasetMeta, EvalRow
from tinygpt.runs.memory import check_memory
from tinygpt.runs.pace import Pace, Seconds, measure_seconds
from tinygpt.runs.resuming import open_run
from tinygpt.runs.schedule import is_evaluation_step
from tinygpt.runs.training_run import TrainingRun
from tinygpt.store import ArtifactWriter, Inputs, UnfinishedRun

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
        ConfigError: the run needs more memory than there is.
        InputError: fewer training tokens than one window.
        DivergedError: a loss or gradient is not finite; the checkpoints are intact.
        StoppedEarly, Interrupted: a limit or a signal ended the run, and all of it is saved.
    """
    meta = inputs["build-dataset"].read_json("meta.json", DatasetMeta)
    check_memory(config, meta["vocab_size"], processes.world_size, reporter)
    with limits.defer_signals():
        training = open_run(config, inputs, out.unfinished_run, processes, reporter.note)
        if training.state.step and (stop := stop_reason(training.state.step, 0, limits)):
            raise stop  # one more step is not what was asked for
        announce(training, reporter)
        if training.state.step == 0 and "init_from" in inputs and inputs["init_from"].is_imported:
            reporter.note(
                f"model {inputs['init_from'].id} was imported: its weights go on with a fresh "
                "optimizer state"
            )
        try:
            seconds, steps = take_steps(training, out, reporter, limits)
            training.finish(out, seconds, steps)
        except DivergedError as error:
            error.step, error.last_loss = last_step(training)
            raise


def last_step(training: TrainingRun) -> tuple[int, float | None]:
    """The last whole step and its training loss; (0, None) before the first."""
    losses = [row["loss"] for row in training.metrics if row["kind"] == "step"]
    return (training.state.step, losses[-1]) if losses else (0, None)


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
    pace = Pace()
    started = resumed = time.monotonic()
    for record in steps_of(training):
        spent += time.monotonic() - resumed  # evaluation and checkpoints are not training
        pace.stepped()
        reporter.metrics(training.record(record))
        speed = training.tokens(record.step - first_step) / spent
        reporter.advance(
            1,
            loss=record.loss,
            perplexity=perplexity(record.loss),
            tokens_per_second=speed,
            seconds_left=pace.left(record.step, config.train),
        )
        if is_evaluation_step(record.step, config.train):
            report_evaluation(training.evaluate(), reporter)
            pace.evaluated()
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


def steps_of(training: TrainingRun) -> Iterator[StepRecord]:
    """The remaining steps; the error of one that fails shows the beginning of its batch."""
    try:
        yield from train(training.state, training.batches, training.config.train)
    except DivergedError as error:
        raise with_batch(error, training) from None


def follow(
    config: Config, inputs: Inputs, unfinished: UnfinishedRun, processes: DataParallelGroup
) -> None:
    """Take the steps of `run` in another process than rank 0, which writes and says nothing."""
    training = open_run(config, inputs, unfinished, processes)
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
    if state.model.explicit:
        reporter.note(
            "lm/model.py computes something else than the faster forms of it in lm/fast; training "
            "does what lm/model.py says, and takes longer"
        )
    if training.checkpoint is not None:
        reporter.note(f"continuing at step {state.step:,} of {config.train.max_steps:,}")
        if changed := ", ".join(training.changed):
            consequence = "the run cannot be repeated to the bit (exact: false)"
            reporter.note(f"continuing under other conditions: {changed}; {consequence}")
    else:
        precision = training.precision
        reporter.note(f"{precision.name} matrix products: {precision.reason}")
        report_costs(training, measure_seconds(training), reporter)
    reporter.task("train", config.train.max_steps, unit="steps", done=state.step)


def report_costs(training: TrainingRun, seconds: Seconds, reporter: Reporter) -> None:
    """Parameters, arithmetic, passes and time; advice where one of them is too much."""
    config = training.config
    cost = costs(config.model, config.train, training.state.model.vocab_size)
    steps = config.train.max_steps
    parts = f"{cost.embedding_parameters:,} in embeddings, {cost.block_parameters:,} in blocks"
    flops = f"{cost.flops_per_token / 1e6:.1f} MFLOP per token"
    reporter.note(f"parameters  {cost.parameters:,} ({parts})")
    reporter.note(f"arithmetic  {flops}, {cost.tokens_per_step:,} tokens per step")
    report_passes(training.tokens(1), len(training.batches.tokens), steps, reporter)
    total = seconds.left(0, config.train)
    pace = f"{seconds.step:.2f} s per step, {duration(seconds.evaluation)} per evaluation"
    reporter.note(f"time        about {duration(total)} here ({pace})")
    if total > LONG_RUN and config.train.optimizer == "adamw":
        warmup = warmup_steps(config.train)
        command = f"tinygpt run --preset laptop --source {shlex.quote(config.data.source)}"
        reporter.note(f"this run takes about {total / 3600:.0f} hours on this machine")
        reporter.note(
            f"its warm-up alone ({warmup:,} steps) takes {duration(warmup * seconds.step)}, "
            "and the model learns little before it ends"
        )
        reporter.note(f"`{command}` learns as much in less time")


def report_passes(tokens_per_step: int, text: int, max_steps: int, reporter: Reporter) -> None:
    """How often training reads a text of `text` tokens; a warning where it learns it by heart."""
    tokens = max_steps * tokens_per_step
    data = f"{max_steps:,} steps are {tokens / 1e6:,.1f} M tokens"
    reporter.note(f"data        {data}, {tokens / text:.1f} passes over the training text")
    useful = useful_passes(text)
    if tokens > useful * text:
        fits = max(1, useful * text // tokens_per_step)
        reporter.note(
            f"warning: with more than about {useful} passes over a text of this size, validation "
            f"got worse in our measurements (docs/notebook.md); `--max-steps {fits}` ends there"
        )


def report_evaluation(row: EvalRow, reporter: Reporter) -> None:
    """Report an evaluation: a line of its own, and a figure in the progress bar."""
    reporter.metrics(row)
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
