"""How fast recipes learn: the same stories, the same tokenizer, the same machine, the same minutes of training for each.

`max_steps` of a recipe is rescaled to the budget from 20 measured steps, so that its schedule ends with its time; the published
recipe keeps its 10,000 steps. Evaluation is not counted as training.
"""

import copy
import math
import time
import timeit
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinygpt.config import Config, DataConfig, load_config
from tinygpt.corpus import Stories
from tinygpt.lm.dataset import Batches, Tokens, encode_stories, is_validation
from tinygpt.lm.evaluation import mean_loss
from tinygpt.lm.model import GPT, initialise
from tinygpt.lm.precision import choose_device, choose_precision, prepare_cpu
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.lm.training import TrainState, train_step
from tinygpt.report import Report

EVALUATIONS, TRIAL_STEPS = 24, 20
RECIPES = ("reference", "nanogpt", "laptop")


class Data(NamedTuple):
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
    train: dict[str, Any] = {"batch_size": 12, "grad_accum_steps": 1, "learning_rate": 1e-3, "beta2": 0.99}
    train |= {"warmup_steps": None, "warmup_fraction": 0.05, "final_lr_fraction": 0.1}
    return Config.model_validate({"train": train, "model": {"dropout": 0.0}})


def read_data(source: str, heldout: str | None, report: Report) -> Data:
    """Stories tokenized by the default path; judged on the validation split or on another text."""
    config = Config()
    stories = list(Stories(DataConfig(source=source, max_stories=None), report))
    fraction = config.dataset.val_fraction
    tokenizer = Tokenizer.train((text for text in stories if not is_validation(text, fraction)), config.tokenizer)
    train, validation = (encode(stories, tokenizer, fraction, split) for split in ("train", "val"))
    if heldout:
        validation = encode(Stories(DataConfig(source=heldout, max_stories=None), report), tokenizer, 1.0, "val")
    return Data(tokenizer, train, validation, np.asarray(tokenizer.byte_lengths)[validation].mean())


def encode(stories: Iterable[str], tokenizer: Tokenizer, val_fraction: float, split: str) -> Tokens:
    """The tokens of one split."""
    return np.concatenate([story.tokens for story in encode_stories(stories, tokenizer, val_fraction) if story.split == split])


def bench_learn(source: str, heldout: str | None, minutes: float, names: Iterable[str], report: Report) -> dict[str, Any]:
    """One object per recipe: the curve of validation perplexity against seconds of training.

    Args:
        source, heldout: as `data.source`; every recipe learns from the first and is judged on its validation split or the second.
        minutes: of training for each recipe; None of them counts evaluation.
        names: of RECIPES.
        report: told the progress.
    """
    data = read_data(source, heldout, report)
    return {name: learn(name, data, minutes * 60, report) for name in names}


def learn(name: str, data: Data, budget: float, report: Report) -> dict[str, Any]:
    """Train one recipe for `budget` seconds."""
    prepare_cpu(None)
    config, device = recipe(name), choose_device("auto")
    precision = choose_precision(config.train.precision, device).name
    order = Replacement if name == "nanogpt" else Batches
    batches = order(data.train, config.model.context_length, config.train.seed, config.train.story_starts)
    model = initialise(GPT(config.model, data.tokenizer.vocab_size), config.train.seed).to(device)
    train = config.train
    if name != "reference":
        trial = TrainState.start(copy.deepcopy(model), train, precision)
        trials = timeit.repeat(lambda: train_step(trial, batches, train), number=TRIAL_STEPS, repeat=2)  # the first warms up
        seconds = min(trials) / TRIAL_STEPS
        train = train.model_copy(update={"max_steps": max(1, round(budget / seconds))})
    state, spent = TrainState.start(model, train, precision), 0.0
    curve: list[dict[str, float]] = []
    report.task(name, train.max_steps, unit="steps")
    while state.step < train.max_steps and spent < budget:
        began = time.perf_counter()
        record = train_step(state, batches, train)
        spent += time.perf_counter() - began
        report.advance(1, loss=record.loss, seconds=spent)
        if spent >= budget * (len(curve) + 1) / EVALUATIONS or state.step == train.max_steps:
            loss = mean_loss(state.model, data.validation)
            curve.append({"seconds": round(spent, 1), "step": state.step, "perplexity": math.exp(loss)})
    passed = next((point["seconds"] for point in curve if point["perplexity"] <= 25), None)
    end = curve[-1]["perplexity"]
    result = {"seconds_to_ppl_25": passed, "ppl_at_end": end, "bits_per_byte_at_end": math.log2(end) / data.bytes_per_token}
    return {**result, "curve": curve, "precision": precision}
