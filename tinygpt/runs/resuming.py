"""From which checkpoint a run continues: the newest that it can use."""

from tinygpt.config import Config
from tinygpt.errors import CorruptArtifactError
from tinygpt.lm.fast.distributed import SINGLE_PROCESS, DataParallelGroup
from tinygpt.runs.trained_weights import Note, ignore
from tinygpt.runs.training_run import CheckpointError, TrainingRun
from tinygpt.store import Inputs, UnfinishedRun


def open_run(
    config: Config,
    inputs: Inputs,
    unfinished: UnfinishedRun,
    processes: DataParallelGroup = SINGLE_PROCESS,
    note: Note = ignore,
) -> TrainingRun:
    """A run as it was at its newest checkpoint that can be used; at step 0 if it has none.

    Args:
        config, inputs, processes: see TrainingRun.
        unfinished: the checkpoints.
        note: receives a line for each checkpoint that cannot be used.
    Raises:
        CorruptArtifactError: no checkpoint can be used, or an input.
    """
    problem = None
    for checkpoint in unfinished.intact():
        try:
            return TrainingRun(config, inputs, checkpoint, processes)
        except CheckpointError as error:
            problem = error
            note(f"checkpoint `{checkpoint.folder.name}` cannot be used: {error.message}")
    if problem is not None:
        raise CorruptArtifactError(
            "no checkpoint of this run can be used", hint="`tinygpt train --fresh` starts it again"
        ) from problem
    return TrainingRun(config, inputs, None, processes)
