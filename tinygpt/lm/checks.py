"""Properties that hold for a correct implementation, each a function that says whether and by how much.

The tests call them, and `tinygpt doctor` calls them again on the machine, and on the lm/model.py, that the user has.
"""

import copy
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch.func import functional_call

from tinygpt.config import ModelConfig, TrainConfig
from tinygpt.lm import weights
from tinygpt.lm.dataset import Batches, Tokens, story_spans
from tinygpt.lm.decoder import NumpyDecoder
from tinygpt.lm.loss import plain_loss
from tinygpt.lm.model import GPT, initialise
from tinygpt.lm.optim import load_optimizer_tensors, optimizer_tensors
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.lm.training import TrainState, train, train_step

SMALL = ModelConfig(d_model=32, n_layers=2, n_heads=4, d_ff=64, context_length=16, dropout=0.1)
VOCAB = 300


class Check(NamedTuple):
    """One property: what was expected, what was seen."""

    name: str
    passed: bool
    detail: str


def loss_at_initialisation(config: ModelConfig = SMALL, vocab_size: int = VOCAB) -> Check:
    """An untrained model knows nothing: its loss is that of the uniform distribution, ln V."""
    model, token_ids = _model(config, vocab_size), _tokens(8, config.context_length + 1, vocab_size)
    loss = plain_loss(model, token_ids[:, :-1], token_ids[:, 1:]).item()
    expected = math.log(vocab_size)
    return Check("loss at initialisation is ln V", abs(loss - expected) < 0.1, f"{loss:.3f}, ln V = {expected:.3f}")


def one_batch_overfits() -> Check:
    """A model that sees nothing but one batch learns it by heart."""
    recipe = TrainConfig(max_steps=150, batch_size=4, grad_accum_steps=1, learning_rate=1e-2, warmup_steps=10)
    tokens = np.random.default_rng(0).integers(0, VOCAB, 4 * SMALL.context_length + 1).astype(np.uint16)
    batches = Batches(tokens, SMALL.context_length, 0)
    state = TrainState.start(_model(SMALL.model_copy(update={"dropout": 0.0})), recipe, "fp32")
    first, *_, last = (record.loss for record in train(state, batches, recipe))
    return Check("one batch can be learned by heart", last < 0.5, f"loss {first:.2f} -> {last:.3f} in {state.step} steps")


def future_moves_no_past(config: ModelConfig = SMALL) -> Check:
    """Changing a token changes no logit before it."""
    model, token_ids = _model(config), _tokens(2, config.context_length)
    half = config.context_length // 2
    changed = torch.cat((token_ids[:, :half], (token_ids[:, half:] + 1) % VOCAB), dim=1)
    with torch.no_grad():
        differences = [model(token_ids, explicit=path) - model(changed, explicit=path) for path in (False, True)]
    worst = torch.stack(differences)[:, :, :half].abs().max().item()
    return Check("a future token moves no past logit", worst == 0, f"largest change {worst:.1e}")


def three_paths_agree(config: ModelConfig = SMALL) -> Check:
    """What the model spells out, the fast forms of training and of evaluation, and the cached decoder give the same logits."""
    model, token_ids = _model(config, scale=5), _tokens(2, config.context_length)
    training = model(token_ids).detach()
    with torch.no_grad():
        fused, explicit = model(token_ids), model(token_ids, explicit=True)
    decoder = NumpyDecoder(config, VOCAB, weights.read_arrays(weights.dump(weights.model_tensors(model))), max_sequences=2)
    ids = token_ids.numpy()
    cached = [decoder.start(ids[:, :1].tolist()), *(decoder.read(ids[:, t : t + 1]) for t in range(1, ids.shape[1]))]
    worst = float(np.ptp([training, fused, explicit, np.stack(cached, axis=1)], axis=0).max())
    return Check("explicit = fused = cached logits", worst < 1e-4, f"largest difference {worst:.1e}")


def gradient_is_the_slope(config: ModelConfig = SMALL) -> Check:
    """Back-propagation agrees with a central finite difference along the gradient, in float64."""
    model, token_ids = _model(config).double(), _tokens(2, config.context_length + 1)
    start = weights.model_tensors(model)

    def loss(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = functional_call(model, parameters, token_ids[:, :-1])
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), token_ids[:, 1:].flatten())

    gradients = dict(zip(start, torch.autograd.grad(loss(start), list(start.values())), strict=True))
    slope = math.sqrt(sum((g * g).sum().item() for g in gradients.values()))
    steps = (sign * 1e-6 / slope for sign in (1, -1))
    ahead, behind = (loss({name: p + step * gradients[name] for name, p in start.items()}).item() for step in steps)
    error = abs((ahead - behind) / 2e-6 - slope) / slope
    return Check("gradient = finite difference", error < 1e-4, f"relative difference {error:.1e}")


def resume_changes_nothing(optimizer: str = "adamw") -> Check:
    """Saving and loading in the middle leads to the same weights, bit for bit, with dropout, accumulation and clipping on."""
    recipe = TrainConfig(max_steps=8, batch_size=2, grad_accum_steps=2, warmup_steps=2, optimizer=optimizer)  # type: ignore[arg-type]
    tokens = np.random.default_rng(1).integers(0, VOCAB, 20 * SMALL.context_length).astype(np.uint16)
    batches = Batches(tokens, SMALL.context_length, 0)
    straight = TrainState.start(_model(SMALL), recipe, "fp32")
    for record in train(straight, batches, recipe):
        if record.step == 5:
            saved = weights.dump(weights.model_tensors(straight.model))
            moments = copy.deepcopy(optimizer_tensors(straight.optimizers))
    resumed = TrainState.start(_model(SMALL), recipe, "fp32")
    weights.load_into(weights.model_tensors(resumed.model), weights.read_arrays(saved))
    load_optimizer_tensors(resumed.optimizers, moments)
    for resumed.step in range(5, recipe.max_steps):
        train_step(resumed, batches, recipe)
    differing = [name for name, p in straight.parameters.items() if not torch.equal(p, resumed.parameters[name])]
    return Check(f"resume = no resume ({optimizer})", not differing, f"{len(differing)} tensors differ")


def _model(config: ModelConfig, vocab_size: int = VOCAB, scale: float = 1) -> GPT:
    model = initialise(GPT(config, vocab_size), seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def _tokens(rows: int, length: int, vocab_size: int = VOCAB) -> torch.Tensor:
    return torch.randint(0, vocab_size, (rows, length), generator=torch.Generator().manual_seed(0))


_OF_THE_MODEL = (loss_at_initialisation, future_moves_no_past, three_paths_agree, gradient_is_the_slope)
_OF_TRAINING = (one_batch_overfits, resume_changes_nothing, lambda: resume_changes_nothing("muon"))
ALL = (*_OF_THE_MODEL, *_OF_TRAINING)
"""What `doctor` runs on the model itself."""


def tokenizer_gives_text_back(tokenizer: Tokenizer, texts: Iterable[str]) -> Check:
    """decode(encode(text)) == text."""
    wrong = [text for text in texts if tokenizer.decode(tokenizer.encode(text)) != text]
    detail = f"{wrong[0][:40]!r} came back changed" if wrong else "every text came back as it was"
    return Check("tokenizer round trip", not wrong, detail)


def no_story_in_both_splits(train: Tokens, validation: Tokens, end_of_story: int) -> Check:
    """No validation story stands, token for token, in the train split."""
    seen = {train[a:b].tobytes() for a, b in story_spans(train, end_of_story)}
    spans = story_spans(validation, end_of_story)
    shared = sum(validation[a:b].tobytes() in seen for a, b in spans)
    return Check("no story in both splits", shared == 0, f"{shared} of {len(spans):,} validation stories are train stories too")
