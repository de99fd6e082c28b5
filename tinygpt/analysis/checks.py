"""Properties of a correct implementation; each function says whether one holds, and by how much.

The tests call them, and `tinygpt doctor` calls them on the user's machine and on the user's
lm/model.py, which may have been changed.
"""

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch.func import functional_call

from tinygpt.config import ModelConfig, TrainConfig
from tinygpt.lm import weights
from tinygpt.lm.dataset import Batches, Tokens, document_spans
from tinygpt.lm.fast.numpy_decoder import NumpyDecoder
from tinygpt.lm.init import init_weights
from tinygpt.lm.model import GPT
from tinygpt.lm.optim import load_optimizer_tensors, optimizer_tensors
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.lm.training import TrainState, plain_loss, train, train_step

SMALL = ModelConfig(d_model=32, n_layers=2, n_heads=4, d_ff=64, context_length=16, dropout=0.1)
VOCAB = 300


class Check(NamedTuple):
    """The result of one check.

    Args:
        name: the property that was checked.
        passed: whether it holds.
        detail: what was measured.
    """

    name: str
    passed: bool
    detail: str


def loss_at_initialization(config: ModelConfig = SMALL, vocab_size: int = VOCAB) -> Check:
    """The loss of an untrained model is that of the uniform distribution, ln V."""
    model = _model(config, vocab_size)
    token_ids = _tokens(8, config.context_length + 1, vocab_size)
    loss = plain_loss(model, token_ids[:, :-1], token_ids[:, 1:]).item()
    expected = math.log(vocab_size)
    passed = abs(loss - expected) < 0.1
    return Check("loss at initialization is ln V", passed, f"{loss:.3f}, ln V = {expected:.3f}")


def one_batch_overfits() -> Check:
    """A model that trains on a single batch memorizes it."""
    recipe = TrainConfig(
        max_steps=150, batch_size=4, grad_accum_steps=1, learning_rate=1e-2, warmup_steps=10
    )
    model = _model(SMALL.model_copy(update={"dropout": 0.0}))
    batches = Batches(_stream(4 * SMALL.context_length + 1, seed=0), SMALL.context_length, 0)
    state = TrainState.start(model, recipe, "fp32")
    losses = [record.loss for record in train(state, batches, recipe)]
    detail = f"loss {losses[0]:.2f} -> {losses[-1]:.3f} in {state.step} steps"
    return Check("one batch can be memorized", losses[-1] < 0.5, detail)


def later_tokens_do_not_change_earlier_logits(config: ModelConfig = SMALL) -> Check:
    """Changing a token does not change the logits at earlier positions."""
    model = _model(config)
    token_ids = _tokens(2, config.context_length)
    half = config.context_length // 2
    changed = token_ids.clone()
    changed[:, half:] = (changed[:, half:] + 1) % VOCAB
    largest = 0.0
    with torch.no_grad():
        for explicit in (False, True):
            logits = model(token_ids, explicit=explicit)  # (2, T, V)
            difference = model(changed, explicit=explicit) - logits
            largest = max(largest, difference[:, :half].abs().max().item())
    return Check(
        "later tokens do not change earlier logits", largest == 0, f"largest change {largest:.1e}"
    )


def logit_paths_agree(config: ModelConfig = SMALL) -> Check:
    """Four ways to compute logits agree.

    They are the explicit model, its fast forms in training and in evaluation, and the decoder.
    """
    model = _model(config, scale=5)
    token_ids = _tokens(2, config.context_length)
    training = model(token_ids).detach()
    with torch.no_grad():
        fused = model(token_ids)
        explicit = model(token_ids, explicit=True)
    cached = _decoder_logits(model, token_ids)
    spread = np.ptp([training.numpy(), fused.numpy(), explicit.numpy(), cached], axis=0)
    largest = float(spread.max())
    detail = f"largest difference {largest:.1e}"
    return Check("explicit = fused = cached logits", largest < 1e-4, detail)


def _decoder_logits(model: GPT, token_ids: torch.Tensor) -> np.ndarray:
    """Logits by the decoder with a KV cache: one token prefilled, the others decoded, (B, T, V)."""
    arrays = weights.read_arrays(weights.dump(weights.model_tensors(model)))
    decoder = NumpyDecoder(model.config, model.vocab_size, arrays, max_sequences=len(token_ids))
    ids = token_ids.numpy()
    logits = [decoder.prefill(ids[:, :1].tolist())]
    for position in range(1, ids.shape[1]):
        logits.append(decoder.decode(ids[:, position : position + 1]))
    return np.stack(logits, axis=1)


def gradient_is_the_slope(config: ModelConfig = SMALL) -> Check:
    """Back-propagation agrees with a central finite difference along the gradient, in float64."""
    model = _model(config).double()
    token_ids = _tokens(2, config.context_length + 1)
    parameters = weights.model_tensors(model)

    def loss_at(point: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = functional_call(model, point, token_ids[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), token_ids[:, 1:].flatten())

    gradients = torch.autograd.grad(loss_at(parameters), list(parameters.values()))
    slope = math.sqrt(sum((g * g).sum().item() for g in gradients))  # along the gradient
    distance = 1e-6

    def loss_moved(by: float) -> float:
        pairs = zip(parameters.items(), gradients, strict=True)
        return loss_at({name: p + by / slope * g for (name, p), g in pairs}).item()

    difference = (loss_moved(distance) - loss_moved(-distance)) / (2 * distance)
    error = abs(difference - slope) / slope
    return Check("gradient = finite difference", error < 1e-4, f"relative difference {error:.1e}")


def resume_changes_nothing(optimizer: Literal["adamw", "muon"] = "adamw") -> Check:
    """Saving and loading in the middle gives bitwise the same weights as training in one go.

    Dropout, gradient accumulation and clipping are on.
    """
    recipe = TrainConfig(
        max_steps=8, batch_size=2, grad_accum_steps=2, warmup_steps=2, optimizer=optimizer
    )
    batches = Batches(_stream(20 * SMALL.context_length, seed=1), SMALL.context_length, 0)
    straight = TrainState.start(_model(SMALL), recipe, "fp32")
    for record in train(straight, batches, recipe):
        if record.step == 5:
            saved = weights.dump(weights.model_tensors(straight.model))
            moments = weights.dump(optimizer_tensors(straight.optimizers))

    resumed = TrainState.start(_model(SMALL), recipe, "fp32")
    weights.load_into(weights.model_tensors(resumed.model), weights.read_arrays(saved))
    load_optimizer_tensors(resumed.optimizers, weights.read_arrays(moments))
    resumed.step = 5
    while resumed.step < recipe.max_steps:
        train_step(resumed, batches, recipe)

    differing = [
        name
        for name, parameter in straight.parameters.items()
        if not torch.equal(parameter, resumed.parameters[name])
    ]
    detail = f"{len(differing)} tensors differ"
    return Check(f"resumed = uninterrupted training ({optimizer})", not differing, detail)


def _model(config: ModelConfig, vocab_size: int = VOCAB, scale: float = 1) -> GPT:
    """An untrained model, its weights multiplied by `scale`."""
    model = init_weights(GPT(config, vocab_size), seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def _tokens(rows: int, length: int, vocab_size: int = VOCAB) -> torch.Tensor:
    """Random token ids, (rows, length)."""
    return torch.randint(0, vocab_size, (rows, length), generator=torch.Generator().manual_seed(0))


def _stream(length: int, seed: int) -> Tokens:
    """Random training tokens, (length,)."""
    return np.random.default_rng(seed).integers(0, VOCAB, length).astype(np.uint16)


def _resume_changes_nothing_with_muon() -> Check:
    return resume_changes_nothing("muon")


ALL = (
    loss_at_initialization,
    later_tokens_do_not_change_earlier_logits,
    logit_paths_agree,
    gradient_is_the_slope,
    one_batch_overfits,
    resume_changes_nothing,
    _resume_changes_nothing_with_muon,
)
"""The checks of model and training that `doctor` runs, in this order."""


def tokenizer_gives_text_back(tokenizer: Tokenizer, texts: Iterable[str]) -> Check:
    """decode(encode(text)) == text."""
    changed = [text for text in texts if tokenizer.decode(tokenizer.encode(text)) != text]
    detail = "every text is decoded as it was"
    if changed:
        detail = f"{changed[0][:40]!r} is changed by encoding and decoding"
    return Check("tokenizer round trip", not changed, detail)


def no_document_in_both_splits(train: Tokens, validation: Tokens, end_of_text: int) -> Check:
    """No validation document is, token for token, a training document, if they are not cut."""
    trained_on = {train[a:b].tobytes() for a, b in document_spans(train, end_of_text)}
    spans = document_spans(validation, end_of_text)
    shared = sum(validation[a:b].tobytes() in trained_on for a, b in spans)
    detail = f"{shared} of {len(spans):,} validation documents are training documents"
    return Check("no document in both splits", shared == 0, detail)
