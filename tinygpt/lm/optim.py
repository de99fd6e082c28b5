"""The update: AdamW, Muon, and the learning rate as a function of the step.

Both optimizers are written here, because torch.optim's classes load PyTorch's compiler, a second
and 70 MiB before the first step, and its Muon multiplies in bf16 even where the hardware does not,
which takes longer than the rest of the step. Optimizer state is kept by parameter name, so that a
parameter added or moved can never receive another's moments.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from tinygpt.config import TrainConfig
from tinygpt.errors import CorruptArtifactError
from tinygpt.lm.model import GPT
from tinygpt.lm.weights import Array, load_into

Parameters = Mapping[str, nn.Parameter]

LARGEST = torch.finfo(torch.float32).max


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), in one fused pass.

    `state` holds what later steps need, by `parameter/tensor`, e.g., `norm.bias/exp_avg`.

    Args:
        parameters: by name.
        config: peak learning rate and betas.
        weight_decay: of all these parameters.
    """

    def __init__(self, parameters: Parameters, config: TrainConfig, weight_decay: float) -> None:
        self.learning_rate = config.learning_rate
        self.beta1 = config.beta1
        self.beta2 = config.beta2
        self.weight_decay = weight_decay
        self.parameters: list[Tensor] = []
        self.means: list[Tensor] = []
        self.squares: list[Tensor] = []
        self.steps: list[Tensor] = []
        self.state: dict[str, Tensor] = {}
        for name, parameter in parameters.items():
            mean = torch.zeros_like(parameter)
            square = torch.zeros_like(parameter)
            steps = torch.zeros((), device=parameter.device)
            self.parameters.append(parameter)
            self.means.append(mean)
            self.squares.append(square)
            self.steps.append(steps)
            self.state[f"{name}/exp_avg"] = mean
            self.state[f"{name}/exp_avg_sq"] = square
            self.state[f"{name}/step"] = steps

    def step(self, scale: float) -> None:
        """Change the parameters by their gradients, then drop the gradients.

        Args:
            scale: learning rate as a share of the peak.
        """
        adamw(
            params=self.parameters,
            grads=[p.grad for p in self.parameters if p.grad is not None],
            exp_avgs=self.means,
            exp_avg_sqs=self.squares,
            max_exp_avg_sqs=[],
            state_steps=self.steps,
            fused=True,
            amsgrad=False,
            maximize=False,
            beta1=self.beta1,
            beta2=self.beta2,
            lr=self.learning_rate * scale,
            weight_decay=self.weight_decay,
            eps=1e-8,
        )
        for p in self.parameters:
            p.grad = None


class Muon:
    """Orthogonalized momentum (Jordan et al. 2024) with decoupled weight decay (Liu et al. 2025).

    For matrices. Attention's queries, keys and values are one parameter but three matrices, each
    made orthogonal by itself: together, the one with the largest gradient would leave little of the
    step to the others. `state` is as in AdamW.

    Args:
        parameters: by name; all of them matrices.
        config: peak learning rate and weight decay.
        dtype: of the matrix products; bf16 is precise enough, where the hardware has it.
    """

    MOMENTUM = 0.95

    def __init__(self, parameters: Parameters, config: TrainConfig, dtype: torch.dtype) -> None:
        self.learning_rate = config.muon_learning_rate
        self.weight_decay = config.muon_weight_decay
        self.dtype = dtype
        self.groups: list[tuple[list[nn.Parameter], Tensor]] = []
        self.state: dict[str, Tensor] = {}
        for shape, group in group_by_matrix_shape(parameters).items():
            members = list(group.values())
            momentum = torch.zeros_like(_stack(members, shape))  # (n, rows, columns)
            self.groups.append((members, momentum))
            for name, part in zip(group, _unstack(momentum, members), strict=True):
                self.state[f"{name}/momentum_buffer"] = part

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """Change the parameters by their gradients, then drop the gradients; see AdamW.step."""
        rate = self.learning_rate * scale
        for parameters, momentum in self.groups:
            _, rows, columns = momentum.shape
            gradients = [p.grad for p in parameters if p.grad is not None]
            stacked = _stack(gradients, (rows, columns))
            momentum.lerp_(stacked, 1 - self.MOMENTUM)
            nesterov = stacked.lerp_(momentum, self.MOMENTUM)
            updates = orthogonal(nesterov.to(self.dtype))
            step_size = rate * math.sqrt(max(1, rows / columns))
            step_size = min(step_size, LARGEST)  # add_ refuses more; the weights become infinite
            for p, update in zip(parameters, _unstack(updates, parameters), strict=True):
                p.mul_(1 - rate * self.weight_decay)
                p.add_(update, alpha=-step_size)
                p.grad = None


def group_by_matrix_shape(parameters: Parameters) -> dict[tuple[int, int], Parameters]:
    """The parameters by (rows, columns) of their matrices, whose products are taken together."""
    groups: dict[tuple[int, int], dict[str, nn.Parameter]] = {}
    for name, parameter in parameters.items():
        rows, columns = parameter.shape
        matrices = 3 if name.endswith("qkv.weight") else 1
        group = groups.setdefault((rows // matrices, columns), {})
        group[name] = parameter
    return dict(groups)


def _stack(tensors: Sequence[Tensor], shape: tuple[int, int]) -> Tensor:
    """A copy of the matrices of all tensors, (n, rows, columns)."""
    return torch.cat([tensor.view(-1, *shape) for tensor in tensors])


def _unstack(matrices: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Undo _stack: (n, rows, columns) in the shapes of the parameters, as views."""
    rows = [len(parameter) for parameter in parameters]
    parts: tuple[Tensor, ...] = torch.split(matrices.flatten(0, 1), rows)
    return parts


Optimizer = AdamW | Muon


def orthogonal(x: Tensor) -> Tensor:
    """Matrices with the singular vectors of `x` and singular values near 1, (n, rows, columns).

    Five steps of a Newton-Schulz iteration, whose polynomial takes values from (0, 1] to about 0.7
    to 1.2 (Jordan et al. 2024).
    """
    a, b, c = 3.4445, -4.775, 2.0315
    wide = x if x.shape[1] <= x.shape[2] else x.mT  # x x^T then is the smaller product
    wide = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = wide @ wide.mT
        wide = torch.baddbmm(wide, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if x.shape[1] <= x.shape[2] else wide.mT


def build_optimizers(model: GPT, config: TrainConfig, precision: str) -> list[Optimizer]:
    """The optimizers of `config.optimizer`; every parameter belongs to exactly one.

    AdamW decays matrices only. With "muon", the matrices of the blocks go to Muon; embeddings,
    biases and LayerNorms go to AdamW.

    Args:
        model: whose parameters they change.
        config: the recipe.
        precision: "bf16", or "fp32" for Muon's products in fp32.
    """
    muon: dict[str, nn.Parameter] = {}
    matrices: dict[str, nn.Parameter] = {}
    vectors: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            vectors[name] = parameter
        elif config.optimizer == "muon" and name.startswith("blocks."):
            muon[name] = parameter
        else:
            matrices[name] = parameter
    optimizers: list[Optimizer] = [
        AdamW(matrices, config, config.weight_decay),
        AdamW(vectors, config, weight_decay=0.0),
    ]
    if muon:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        optimizers.append(Muon(muon, config, dtype))
    return optimizers


def lr_scale(step: int, config: TrainConfig) -> float:
    """Learning rate of a step as a share of the peak.

    It rises linearly during the warm-up and stays at the peak. Over the last `decay_fraction` of
    the remaining steps it falls, by a cosine (Loshchilov & Hutter 2017, SGDR, without restarts) or
    linearly, to `final_lr_fraction`, which it would reach one step after the last.

    Args:
        step: the step about to be taken, from 1 to max_steps.
        config: warm-up and schedule.
    """
    warmup = warmup_steps(config)
    if step <= warmup:
        return step / warmup
    decay_steps = (config.max_steps - warmup) * config.decay_fraction
    # From 0 at the start of the decay towards 1
    progress = max(0.0, 1 - (config.max_steps - step + 1) / (decay_steps + 1))
    heights = {
        "cosine": (1 + math.cos(math.pi * progress)) / 2,
        "linear": 1 - progress,
        "constant": 1.0,
    }
    final = config.final_lr_fraction
    return final + (1 - final) * heights[config.schedule]


def warmup_steps(config: TrainConfig) -> int:
    """Steps of warm-up; 0 for none."""
    return config.warmup_steps or round((config.warmup_fraction or 0) * config.max_steps)


def optimizer_tensors(optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """All optimizer state by name; see AdamW and Muon."""
    return {name: tensor for optimizer in optimizers for name, tensor in optimizer.state.items()}


def load_optimizer_tensors(optimizers: list[Optimizer], arrays: Mapping[str, Array]) -> None:
    """Restore the state that optimizer_tensors returned.

    Raises:
        CorruptArtifactError: it is that of other parameters, or a number in it is not finite or,
            where only a sum of squares or of steps can stand, negative.
    """
    load_into(optimizer_tensors(optimizers), arrays)
    for name, array in arrays.items():
        if name.endswith(("/exp_avg_sq", "/step")) and array.min() < 0:
            raise CorruptArtifactError(f"`{name}` contains a negative number")
