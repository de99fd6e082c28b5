"""The update: AdamW, Muon, and the learning rate as a function of the step.

Both are written here rather than taken as classes of torch.optim: those load torch's compiler, a second and 70 MiB before the
first step, and its Muon multiplies in bf16 where no hardware does, which takes longer than the rest of the step.
Optimizer state is kept by parameter name, so that a parameter added or moved can never receive another's moments.
"""

import math
from collections.abc import Iterable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from tinygpt.config import TrainConfig
from tinygpt.lm.model import GPT

Parameters = Mapping[str, nn.Parameter]


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), all parameters in one fused pass.

    `state` is all that a step remembers, named `parameter/what`, e.g. `norm.bias/exp_avg`.
    """

    def __init__(self, parameters: Parameters, config: TrainConfig, weight_decay: float) -> None:
        self.parameters, self.learning_rate = list(parameters.values()), config.learning_rate
        self.means, self.squares = ([torch.zeros_like(p) for p in self.parameters] for _ in range(2))
        self.steps = [torch.zeros((), device=p.device) for p in self.parameters]
        named = {"exp_avg": self.means, "exp_avg_sq": self.squares, "step": self.steps}
        self.state = {f"{name}/{key}": t for key, ts in named.items() for name, t in zip(parameters, ts, strict=True)}
        how = partial(adamw, fused=True, amsgrad=False, maximize=False, eps=1e-8, weight_decay=weight_decay)
        self.update = partial(how, beta1=config.beta1, beta2=config.beta2)

    def step(self, scale: float) -> None:
        """Change the parameters by their gradients, and drop them; at `scale` times the peak rate."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        self.update([*self.parameters], gradients, self.means, self.squares, [], self.steps, lr=self.learning_rate * scale)
        for p in self.parameters:
            p.grad = None


class Muon:
    """Momentum made orthogonal (Jordan et al. 2024), with decoupled weight decay (Liu et al. 2025); for matrices. Else as AdamW.

    Attention's queries, keys and values are one parameter but three matrices, each made orthogonal by itself: together, the one
    with the largest gradient would leave little of the step to the others.

    Args:
        dtype: of the products; bf16 is enough, where the hardware has it.
    """

    MOMENTUM = 0.95

    def __init__(self, parameters: Parameters, config: TrainConfig, dtype: torch.dtype) -> None:
        self.learning_rate, self.weight_decay, self.dtype = config.muon_learning_rate, config.muon_weight_decay, dtype
        self.alike: list[tuple[list[nn.Parameter], Tensor]] = []  # matrices of one shape, whose products are taken together
        self.state: dict[str, Tensor] = {}
        shapes = {name: (len(p) // (3 if name.endswith("qkv.weight") else 1), p.shape[1]) for name, p in parameters.items()}
        for shape in dict.fromkeys(shapes.values()):
            named = {name: p for name, p in parameters.items() if shapes[name] == shape}
            momentum = torch.zeros_like(_matrices(named.values(), shape))
            self.alike.append(([*named.values()], momentum))
            self.state |= zip((f"{name}/momentum_buffer" for name in named), _parts(momentum, named.values()), strict=True)

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """See AdamW.step."""
        rate = self.learning_rate * scale
        for parameters, momentum in self.alike:
            rows, columns = momentum.shape[1:]
            gradients = _matrices((p.grad for p in parameters if p.grad is not None), (rows, columns))
            momentum.lerp_(gradients, 1 - self.MOMENTUM)
            updates = orthogonal(gradients.lerp_(momentum, self.MOMENTUM).to(self.dtype))  # Nesterov's momentum
            for p, update in zip(parameters, _parts(updates, parameters), strict=True):
                p.mul_(1 - rate * self.weight_decay).add_(update, alpha=-rate * math.sqrt(max(1, rows / columns)))
                p.grad = None


def _matrices(tensors: Iterable[Tensor], shape: tuple[int, int]) -> Tensor:
    """A copy of all, (n, rows, columns)."""
    return torch.cat([tensor.view(-1, *shape) for tensor in tensors])


def _parts(matrices: Tensor, parameters: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """The matrices, (n, rows, columns), in the shapes of the parameters that they were copied from; views."""
    parts: tuple[Tensor, ...] = torch.split(matrices.flatten(0, 1), [len(p) for p in parameters])
    return parts


Optimizer = AdamW | Muon


def orthogonal(x: Tensor) -> Tensor:
    """Matrices with the singular vectors of `x` and singular values near 1, (n, rows, columns).

    Five steps of a Newton-Schulz iteration, whose polynomial takes values from (0, 1] to about 0.7 to 1.2 (Jordan et al. 2024).
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

    AdamW decays matrices only. With "muon", the matrices of the blocks go to Muon, embeddings, biases and LayerNorms to AdamW.
    """
    muon, matrices, vectors = {}, {}, {}
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            vectors[name] = parameter
        elif config.optimizer == "muon" and name.startswith("blocks."):
            muon[name] = parameter
        else:
            matrices[name] = parameter
    optimizers: list[Optimizer] = [AdamW(matrices, config, config.weight_decay), AdamW(vectors, config, 0.0)]
    if muon:
        optimizers.append(Muon(muon, config, torch.bfloat16 if precision == "bf16" else torch.float32))
    return optimizers


def lr_scale(step: int, config: TrainConfig) -> float:
    """Learning rate of a step as a share of the peak.

    Linear warm-up to the peak, the peak, then over the last `decay_fraction` of the remaining steps a cosine (Loshchilov &
    Hutter 2017, SGDR, without restarts) or a line down to `final_lr_fraction`, which would be reached one step after the last.

    Args:
        step: the step about to be taken, from 1 to max_steps.
        config: warm-up and schedule.
    """
    warmup = warmup_steps(config)
    if step <= warmup:
        return step / warmup
    decay_steps = (config.max_steps - warmup) * config.decay_fraction
    progress = max(0.0, 1 - (config.max_steps - step + 1) / (decay_steps + 1))  # from 0 at the start of the decay towards 1
    shape = {"cosine": (1 + math.cos(math.pi * progress)) / 2, "linear": 1 - progress, "constant": 1.0}[config.schedule]
    return config.final_lr_fraction + (1 - config.final_lr_fraction) * shape


def warmup_steps(config: TrainConfig) -> int:
    """Steps of warm-up; 0 for none."""
    return config.warmup_steps or round((config.warmup_fraction or 0) * config.max_steps)


def optimizer_tensors(optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """All optimizer state by name; see Optimizer.state."""
    return {name: tensor for optimizer in optimizers for name, tensor in optimizer.state.items()}


def load_optimizer_tensors(optimizers: list[Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """Put back what optimizer_tensors gave.

    Raises:
        ValueError: a parameter has no state in `tensors`, or one of another shape.
    """
    for name, tensor in optimizer_tensors(optimizers).items():
        if name not in tensors or tensors[name].shape != tensor.shape:
            raise ValueError(f"no optimizer state that fits `{name.rpartition('/')[0]}`")
        tensor.copy_(tensors[name])
