"""Training: take a batch, measure the loss, follow the gradient, again.

What a step does is a function of (seed, step) and the weights alone: its batch, its learning rate
and its dropout masks are computed from the step's number. So there is no loader position, no
scheduler object and no random state to save, and a run that was stopped anywhere continues exactly.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tinygpt.config import TrainConfig
from tinygpt.errors import DivergedError
from tinygpt.lm.dataset import Batches
from tinygpt.lm.fast.cross_entropy import linear_cross_entropy
from tinygpt.lm.fast.distributed import SINGLE_PROCESS, DataParallelGroup
from tinygpt.lm.fast.dropout import DropoutKey
from tinygpt.lm.model import GPT, ForwardOptions
from tinygpt.lm.optim import Optimizer, build_optimizers, lr_scale


def plain_loss(
    model: GPT, token_ids: Tensor, targets: Tensor, dropout_key: DropoutKey | None = None
) -> Tensor:
    """Mean cross-entropy in nats per token, as one would write it on a blackboard.

    Args:
        model: predicts the next token.
        token_ids: (B, T).
        targets: the token that follows each, (B, T).
        dropout_key: where dropout masks come from; None for no dropout.
    Returns:
        A scalar.
    """
    logits = model(token_ids, dropout_key)  # (B, T, V)
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def fused_loss(
    model: GPT, token_ids: Tensor, targets: Tensor, dropout_key: DropoutKey | None = None
) -> Tensor:
    """The same number as plain_loss, in less time and memory."""
    hidden = model.hidden(token_ids, ForwardOptions(dropout_key))  # (B, T, C)
    return linear_cross_entropy(hidden.flatten(0, 1), model.lm_head.weight, targets.flatten())


LARGEST_LOSS = 700.0
"""exp of little more is beyond floats; a model that has learned nothing has about 9 nats."""

DIVERGED_HINT = (
    "lower `train.learning_rate` or the weight decay, lengthen the warm-up, or set "
    "`train.grad_clip` = 1.0; the checkpoints are intact"
)

LossFunction = Callable[[GPT, Tensor, Tensor, DropoutKey | None], Tensor]
LOSSES: dict[str, LossFunction] = {"plain": plain_loss, "fused": fused_loss}


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
        precision: "fp32", or "bf16" for matrix products in bf16 (Micikevicius et al. 2018;
            Kalamkar et al. 2019).
        processes: those that share each step; usually this one alone.
    """

    model: GPT
    optimizers: list[Optimizer]
    step: int = 0
    precision: str = "fp32"
    processes: DataParallelGroup = SINGLE_PROCESS

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
        if self.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()


def train(state: TrainState, batches: Batches, config: TrainConfig) -> Iterator[StepRecord]:
    """Take the remaining steps and yield a record after each.

    The caller may stop between two records, save `state` and continue later.

    Args:
        state: changed in place.
        batches: the sequences that each step trains on.
        config: the recipe.
    Raises:
        DivergedError: the gradient is not finite, or the loss is above LARGEST_LOSS; raised before
            the weights change.
    """
    while state.step < config.max_steps:
        yield train_step(state, batches, config)


def train_step(state: TrainState, batches: Batches, config: TrainConfig) -> StepRecord:
    """Take one optimizer step over batch_size x grad_accum_steps sequences; see train."""
    step = state.step + 1
    loss = accumulate_gradients(state, batches, config)
    gradients = [p.grad for p in state.parameters.values() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    scale = lr_scale(step, config)
    record = StepRecord(step, loss.item(), norm.item(), config.learning_rate * scale)
    if not (record.loss < LARGEST_LOSS and math.isfinite(record.grad_norm)):
        raise diverged(record, state.parameters)
    if config.grad_clip is not None:
        torch.nn.utils.clip_grads_with_norm_(state.parameters.values(), config.grad_clip, norm)
    for optimizer in state.optimizers:
        optimizer.step(scale)
    state.step = step
    return record


def accumulate_gradients(state: TrainState, batches: Batches, config: TrainConfig) -> Tensor:
    """Add up the gradients of the next step's micro-batches; returns the mean loss, a scalar."""
    processes, device = state.processes, state.device
    loss_function = LOSSES["plain" if state.model.explicit else config.loss]
    offsets = batches.offsets(state.step, config.batch_size * config.grad_accum_steps)
    share = len(offsets) / processes.world_size  # sequences of the global batch that are ours
    loss = torch.zeros((), device=device)
    for part in processes.micro_batches(len(offsets), config.batch_size):
        windows = batches.windows(offsets[part.start : part.stop])
        token_ids, targets = (torch.from_numpy(ids).to(device) for ids in windows)  # each (B, T)
        sequences = torch.arange(part.start, part.stop, device=device)
        dropout_key = DropoutKey(config.seed, state.step + 1, sequences)
        with state.autocast():
            batch = (token_ids, targets, dropout_key)
            micro_loss = processes.loss(loss_function, state.model, *batch) / (share / len(part))
        micro_loss.backward()  # type: ignore[no-untyped-call]
        loss += micro_loss.detach()
    return processes.sum(loss) / processes.world_size


def diverged(record: StepRecord, parameters: dict[str, torch.nn.Parameter]) -> DivergedError:
    """The error of a step whose loss or gradient cannot be used, naming the first such tensor."""
    bad = [
        name
        for name, parameter in parameters.items()
        if parameter.grad is not None and not parameter.grad.isfinite().all()
    ]
    is_finite = math.isfinite(record.loss)
    what = "the gradient is not finite" if is_finite else "the loss is not finite"
    if LARGEST_LOSS <= record.loss < math.inf:
        what = "the loss is beyond all use"
    where = f", first in the gradient of `{bad[0]}`" if bad else ""
    numbers = f"loss {record.loss}, gradient norm {record.grad_norm}"
    return DivergedError(
        f"training diverged at step {record.step}: {what} ({numbers}){where}",
        hint=DIVERGED_HINT,
    )


def check_validation_loss(loss: float, step: int) -> None:
    """Refuse to go on with weights that predict nothing any more.

    Raises:
        DivergedError: the validation loss after this step is not finite, or its perplexity is not.
    """
    if not loss < LARGEST_LOSS:
        raise DivergedError(
            f"training diverged at step {step}: the validation loss is {loss:.4g}",
            hint=DIVERGED_HINT,
        )


def check_finite(tensors: Mapping[str, Tensor], step: int) -> None:
    """Refuse weights or optimizer state that must not be saved.

    Args:
        tensors: by name.
        step: after which they are what they are.
    Raises:
        DivergedError: one is not finite, or so large that its sum of squares is not.
    """
    for name, tensor in tensors.items():
        if not tensor.norm().isfinite():
            raise DivergedError(
                f"training diverged at step {step}: `{name}` is not finite", hint=DIVERGED_HINT
            )
