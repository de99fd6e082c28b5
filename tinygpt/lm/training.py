"""Training: take a batch, measure the loss, follow the gradient, again.

What a step does is a function of (seed, step) and the weights alone: its batch, its learning rate and its dropout masks
are computed from the step's number. So there is no loader position, no scheduler object and no random state to save, and
a run that was stopped anywhere continues exactly.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from tinygpt.config import TrainConfig
from tinygpt.errors import DivergedError
from tinygpt.lm.dataset import Batches
from tinygpt.lm.loss import LOSSES
from tinygpt.lm.model import GPT
from tinygpt.lm.noise import Noise
from tinygpt.lm.optim import Optimizer, build_optimizers, lr_scale
from tinygpt.lm.ranks import ALONE, Ranks


@dataclass(frozen=True)
class StepRecord:
    """What one step did.

    Args:
        step: optimizer steps taken, this one included.
        loss: mean cross-entropy of the global batch before the update, nats per token.
        grad_norm: 2-norm of the whole gradient before clipping.
        learning_rate: of the first parameter group.
    """

    step: int
    loss: float
    grad_norm: float
    learning_rate: float


@dataclass
class TrainState:
    """Everything that a step changes.

    Args:
        model: on the device where it trains, weights in fp32.
        optimizers: see build_optimizers.
        step: optimizer steps taken so far.
        precision: "fp32", or "bf16" for matrix products in bf16 (Micikevicius et al. 2018; Kalamkar et al. 2019).
        ranks: the processes that share each step; usually this one alone.
    """

    model: GPT
    optimizers: list[Optimizer]
    step: int = 0
    precision: str = "fp32"
    ranks: Ranks = ALONE

    @classmethod
    def start(cls, model: GPT, config: TrainConfig, precision: str) -> "TrainState":
        """The state before the first step."""
        return cls(model, build_optimizers(model, config, precision), precision=precision)

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """The parameters by name, tied ones once."""
        return dict(self.model.named_parameters())

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.token_embedding.weight.device

    def autocast(self) -> AbstractContextManager[object]:
        """The region in which matrix products have `precision`."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()


def train(state: TrainState, batches: Batches, config: TrainConfig) -> Iterator[StepRecord]:
    """Take the steps that are left, one for each record.

    The caller may stop between two records, save `state` and come back later.

    Args:
        state: changed in place.
        batches: what the sequences of each step are.
        config: the recipe.
    Raises:
        DivergedError: the loss or the gradient is not finite; raised before the weights change.
    """
    while state.step < config.max_steps:
        yield train_step(state, batches, config)


def train_step(state: TrainState, batches: Batches, config: TrainConfig) -> StepRecord:
    """Take one optimizer step over batch_size x grad_accum_steps sequences; see train."""
    step = state.step + 1
    offsets = batches.offsets(state.step, config.batch_size * config.grad_accum_steps)
    loss = torch.zeros((), device=state.device)
    for part in state.ranks.micro_batches(len(offsets), config.batch_size):
        inputs, targets = (torch.from_numpy(a).to(state.device) for a in batches.windows(offsets[part.start : part.stop]))
        noise = Noise(config.seed, step, torch.arange(part.start, part.stop, device=state.device))
        with state.autocast():
            micro_loss = state.ranks.loss(LOSSES[config.loss], state.model, inputs, targets, noise)
            micro_loss = micro_loss / (len(offsets) / state.ranks.count / len(part))
        micro_loss.backward()  # type: ignore[no-untyped-call]
        loss += micro_loss.detach()

    loss = state.ranks.sum(loss) / state.ranks.count
    norm = torch.nn.utils.get_total_norm([p.grad for p in state.parameters.values() if p.grad is not None])
    record = StepRecord(step, loss.item(), norm.item(), config.learning_rate * lr_scale(step, config))
    if not (math.isfinite(record.loss) and math.isfinite(record.grad_norm)):
        raise diverged(record, state.parameters)
    if config.grad_clip is not None:
        torch.nn.utils.clip_grads_with_norm_(state.parameters.values(), config.grad_clip, norm)
    for optimizer in state.optimizers:
        optimizer.step(lr_scale(step, config))
    state.step = step
    return record


def diverged(record: StepRecord, parameters: dict[str, torch.nn.Parameter]) -> DivergedError:
    """The error of a step whose loss or gradient is not finite, naming the first tensor concerned."""
    bad = [name for name, p in parameters.items() if p.grad is not None and not p.grad.isfinite().all()]
    what = "loss" if not math.isfinite(record.loss) else "gradient"
    where = f", first in the gradient of `{bad[0]}`" if bad else ""
    seen = f"the {what} is not finite (loss {record.loss}, norm {record.grad_norm}){where}"
    hint = "lower `train.learning_rate`, lengthen the warm-up, or set `train.grad_clip` = 1.0; the last checkpoint is intact"
    return DivergedError(f"training diverged at step {record.step}: {seen}", hint=hint)
