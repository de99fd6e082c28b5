"""How fast recipes learn: the same stories, the same tokenizer, the same machine, the same minutes of training for each.

`max_steps` of a recipe is rescaled to the budget from 20 measured steps, so that its schedule ends with its time; the published
recipe keeps its 10,000 steps. Evaluation is not counted as training.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygpt.config import Config, DataConfig, TrainConfig, load_config
from tinygpt.corpus import Stories
from tinygpt.lm.dataset import Batches, Tokens, encode_stories, is_validation
from tinygpt.lm.evaluation import mean_loss
from tinygpt.lm.model import GPT, initialise
from tinygpt.lm.precision import choose_device, choose_precision
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.lm.training import TrainState, train_step
from tinygpt.report import SilentReport

EVALUATIONS = 24
RECIPES = ("reference", "nanogpt", "laptop")


@dataclass(frozen=True)
class Data:
    """What every recipe learns from and is judged on."""

    tokenizer: Tokenizer
    train: Tokens
    validation: Tokens
    bytes_per_token: float


class Replacement(Batches):
    """Windows drawn anywhere, with replacement, as nanoGPT draws them."""

    def offsets(self, step: int, sequences: int) -> NDArray[np.int64]:
        """See Batches."""
        chance = np.random.default_rng((self.seed, step))
        return chance.integers(0, len(self.tokens) - self.context_length, sequences)


def recipe(name: str) -> Config:
    """A preset, or nanoGPT's choices for a small model: AdamW at 1e-3, batch 12, cosine to a tenth, no dropout."""
    if name != "nanogpt":
        return load_config(preset=name, environ={}).config
    train = TrainConfig(
        batch_size=12,
        grad_accum_steps=1,
        learning_rate=1e-3,
        beta2=0.99,
        warmup_steps=None,
        warmup_fraction=0.05,
        final_lr_fraction=0.1,
    )
    config = Config(train=train)
    return config.model_copy(update={"model": config.model.model_copy(update={"dropout": 0.0})})


def read_data(source: str, heldout: str | None) -> Data:
    """Stories tokenized by the default path; judged on the validation split or on another text."""

    def texts(name: str) -> list[str]:
        return list(Stories(DataConfig(source=name, max_stories=None), SilentReport()))

    def encode(stories: list[str], fraction: float) -> tuple[Tokens, Tokens, int]:
        batches = list(encode_stories(stories, tokenizer, fraction))
        train, val = (np.concatenate([np.asarray(getattr(b, side).tokens) for b in batches]) for side in ("train", "val"))
        return train, val, sum(b.val.text_bytes for b in batches)

    config = Config()
    stories = texts(source)
    fraction = config.dataset.val_fraction
    tokenizer = Tokenizer.train((text for text in stories if not is_validation(text, fraction)), config.tokenizer)
    train, validation, size = encode(stories, fraction)
    if heldout:
        _, validation, size = encode(texts(heldout), 1.0)
    return Data(tokenizer, train, validation, size / len(validation))


def bench_learn(
    source: str, heldout: str | None, minutes: float, names: tuple[str, ...], note: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """One object per recipe: the curve of validation perplexity against seconds of training."""
    data = read_data(source, heldout)
    results = {}
    for name in names:
        results[name] = learn(name, data, minutes * 60)
        note(f"{name}: perplexity {results[name]['ppl_at_end']:.2f} after {minutes:g} minutes of training")
    return results


def learn(name: str, data: Data, budget: float) -> dict[str, Any]:
    """Train one recipe for `budget` seconds."""
    config, device = recipe(name), choose_device("auto")
    precision = choose_precision(config.train.precision, device).name
    order = Replacement if name == "nanogpt" else Batches
    batches = order(data.train, config.model.context_length, config.train.seed)

    def start(train: TrainConfig) -> TrainState:
        model = initialise(GPT(config.model, data.tokenizer.vocab_size), train.seed).to(device)
        return TrainState.start(model, train, precision)

    train = config.train
    if name != "reference":
        trial = start(train)
        train_step(trial, batches, train)
        began = time.perf_counter()
        for _ in range(20):
            train_step(trial, batches, train)
        train = train.model_copy(update={"max_steps": max(1, round(budget / (time.perf_counter() - began) * 20))})
    state, spent = start(train), 0.0
    curve: list[dict[str, float]] = []
    while state.step < train.max_steps and spent < budget:
        began = time.perf_counter()
        train_step(state, batches, train)
        spent += time.perf_counter() - began
        if spent >= budget * (len(curve) + 1) / EVALUATIONS or state.step == train.max_steps:
            loss = mean_loss(state.model, data.validation)
            curve.append({"seconds": round(spent, 1), "step": state.step, "perplexity": math.exp(loss)})
    last = mean_loss(state.model, data.validation)
    return {
        "seconds_to_ppl_25": next((point["seconds"] for point in curve if point["perplexity"] <= 25), None),
        "ppl_at_end": math.exp(last),
        "bits_per_byte_at_end": last / math.log(2) / data.bytes_per_token,
        "curve": curve,
        "steps": state.step,
        "precision": precision,
    }
