"""The update: parameter groups, AdamW, Muon, and the learning rate as a function of the step.

Optimizer state is kept by parameter name, so that a parameter added or moved can never receive another's moments.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim import Optimizer

from tinygpt.config import TrainConfig
from tinygpt.lm.model import GPT


def build_optimizers(model: GPT, config: TrainConfig) -> list[Optimizer]:
    """The optimizers of `config.optimizer`; every parameter belongs to exactly one.

    AdamW (Loshchilov & Hutter 2019) decays matrices only. With "muon", the matrices of the blocks go to Muon (Jordan et al. 2024;
    weight decay and scaling as in Liu et al. 2025), embeddings, biases and LayerNorms to AdamW.
    """
    muon, matrices, vectors = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            vectors.append(parameter)
        elif config.optimizer == "muon" and name.startswith("blocks."):
            muon.append(parameter)
        else:
            matrices.append(parameter)
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True)
    optimizers: list[Optimizer] = [adamw]
    if muon:
        optimizers.append(torch.optim.Muon(muon, lr=config.muon_learning_rate, weight_decay=config.weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = float(group["lr"])
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


def set_learning_rate(optimizers: list[Optimizer], scale: float) -> None:
    """Give every parameter group `scale` times its peak rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * scale


def optimizer_tensors(model: GPT, optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """All optimizer state as tensors named `parameter/state`, e.g. `norm.bias/exp_avg`; empty before the first step."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    states = [(names[parameter], state) for optimizer in optimizers for parameter, state in optimizer.state.items()]
    return {f"{name}/{key}": torch.as_tensor(value) for name, state in states for key, value in state.items()}


def load_optimizer_tensors(model: GPT, optimizers: list[Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """Put back what optimizer_tensors gave.

    Raises:
        ValueError: a parameter has no state in `tensors`, or one of another shape.
    """
    names = {parameter: f"{name}/" for name, parameter in model.named_parameters()}
    for optimizer in optimizers:
        for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
            name = names[parameter]
            state = {key.removeprefix(name): tensor for key, tensor in tensors.items() if key.startswith(name)}
            if not state or any(t.dim() and t.shape != parameter.shape for t in state.values()):
                raise ValueError(f"no optimizer state that fits `{name[:-1]}`")
            # Adam's step counter stays where fused AdamW keeps it, too: beside the parameter, in fp32
            optimizer.state[parameter] = {key: tensor.to(parameter.device, torch.float32) for key, tensor in state.items()}
