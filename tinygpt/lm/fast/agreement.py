"""Whether training with the forms in this folder follows the gradient of lm/model.py."""

import torch

from tinygpt.config import ModelConfig
from tinygpt.lm.fast.dropout import DropoutKey
from tinygpt.lm.model import GPT
from tinygpt.lm.training import fused_loss, plain_loss

SMALL = {"d_model": 32, "n_layers": 2, "n_heads": 2, "d_ff": 64, "context_length": 16}
VOCAB = 64
TOLERANCE = 1e-5  # of the largest element; rounding gave 5e-7, another form of GELU 2e-4


def fast_forms_agree(config: ModelConfig) -> bool:
    """Compare both gradients on a small random model of this kind, dropout included."""
    model = GPT(config.model_copy(update={**SMALL, "dropout": 0.1}), VOCAB)
    parameters = list(model.parameters())
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in parameters:
            parameter.normal_(0, 0.3, generator=chance)
    token_ids = torch.randint(0, VOCAB, (2, SMALL["context_length"] + 1), generator=chance)
    batch = (token_ids[:, :-1], token_ids[:, 1:], DropoutKey(0, 1, torch.arange(2)))
    gradients = []
    for loss_function, explicit in ((fused_loss, False), (plain_loss, True)):
        model.explicit = explicit
        parts = torch.autograd.grad(
            loss_function(model, *batch), parameters, allow_unused=True, materialize_grads=True
        )
        gradients.append(torch.cat([part.flatten() for part in parts]))
    fast, spelled_out = gradients
    return bool((fast - spelled_out).abs().max() <= TOLERANCE * spelled_out.abs().max())
