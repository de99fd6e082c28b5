"""At which steps a run is evaluated and its weights are kept."""

from tinygpt.config import TrainConfig


def snapshot_file(step: int) -> str:
    """The name of the weight snapshot of a step."""
    return f"step-{step:08d}.safetensors"


def snapshot_steps(max_steps: int, count: int) -> list[int]:
    """Up to `count` steps from 1 to max_steps, evenly spaced in log(step)."""
    if count < 2:
        return [max_steps][:count]
    return sorted({round(max_steps ** (i / (count - 1))) for i in range(count)})


def is_evaluation_step(step: int, config: TrainConfig) -> bool:
    """Whether the validation loss is measured after this step.

    That is after 1, 10, 100, every `eval_every`, and the last.
    """
    return step in (1, 10, 100, config.max_steps) or step % config.eval_every == 0
