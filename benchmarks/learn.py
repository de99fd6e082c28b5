"""How fast recipes learn: the same documents, tokenizer, machine and minutes of training for each.

    python -m benchmarks.learn [--json] [--data SOURCE] [--heldout SOURCE] [--minutes M]
                               [--recipe NAME]...

20 measured steps show how many steps fit into the time, and `max_steps` of a recipe is set to that
number, so that its schedule ends in time; the published recipe keeps its 10,000 steps. Evaluation
does not count as training.
"""

import copy
import math
import time
import timeit
from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.command import Json, run_command
from tinygpt import ui
from tinygpt.config import Config, DataConfig, TrainConfig, load_config
from tinygpt.corpus import Documents
from tinygpt.errors import UsageError
from tinygpt.lm.dataset import Batches, Tokens, encode_parts
from tinygpt.lm.evaluation import mean_loss
from tinygpt.lm.fast.precision import choose_device, choose_precision, prepare_cpu
from tinygpt.lm.holdout import Part, plan_holdout
from tinygpt.lm.init import init_weights
from tinygpt.lm.model import GPT
from tinygpt.lm.tokenizer import Tokenizer
from tinygpt.lm.training import TrainState, train_step
from tinygpt.progress import Reporter

RECIPES = ("reference", "nanogpt", "laptop")
EVALUATIONS = 24
TRIAL_STEPS = 20
PERPLEXITY_GOAL = 25

DataOption = Annotated[str, typer.Option(metavar="SOURCE", help="Documents to learn from.")]
HeldoutOption = Annotated[
    str | None,
    typer.Option(metavar="SOURCE", help="Evaluate on these instead of the validation split."),
]
MinutesOption = Annotated[
    float, typer.Option(min=0.01, metavar="M", help="Training time of each recipe.")
]
RecipeOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Only reference, nanogpt or laptop; repeatable."),
]


class Data(NamedTuple):
    """What every recipe learns from and is evaluated on."""

    tokenizer: Tokenizer
    train: Tokens
    validation: Tokens
    bytes_per_token: float


class BatchesWithReplacement(Batches):
    """Windows drawn anywhere, with replacement, as nanoGPT draws them."""

    def offsets(self, step: int, sequences: int) -> NDArray[np.int64]:
        """See Batches."""
        chance = np.random.default_rng((self.seed, step))
        return chance.integers(0, len(self.tokens) - self.context_length, sequences)


def recipe_config(name: str) -> Config:
    """A preset, or nanoGPT's choices for a small model.

    nanoGPT: AdamW at 1e-3, batch 12, cosine to a tenth, no dropout.
    """
    if name != "nanogpt":
        return load_config(preset=name, environ={}).config
    train = {
        "batch_size": 12,
        "grad_accum_steps": 1,
        "learning_rate": 1e-3,
        "beta2": 0.99,
        "warmup_steps": None,
        "warmup_fraction": 0.05,
        "final_lr_fraction": 0.1,
    }
    return Config.model_validate({"train": train, "model": {"dropout": 0.0}})


def read_data(source: str, heldout: str | None, reporter: Reporter) -> Data:
    """Read documents and tokenize them as the stages do.

    Args:
        source: what to learn from, as in `data.source`.
        heldout: what to evaluate on; None for the validation split of `source`.
        reporter: receives the progress.
    """
    config = Config()
    documents = _read_all(source, reporter)
    parts = list(plan_holdout(documents, config.dataset).parts(documents))
    train_texts = (part.text for part in parts if part.split == "train")
    tokenizer = Tokenizer.train(train_texts, config.tokenizer)
    train = encode_split(parts, tokenizer, "train")
    if heldout is not None:
        parts = [Part(text, "val", is_end=True) for text in _read_all(heldout, reporter)]
    validation = encode_split(parts, tokenizer, "val")
    bytes_per_token = np.asarray(tokenizer.byte_lengths)[validation].mean()
    return Data(tokenizer, train, validation, float(bytes_per_token))


def _read_all(source: str, reporter: Reporter) -> list[str]:
    return list(Documents(DataConfig(source=source, max_documents=None), reporter))


def encode_split(parts: Iterable[Part], tokenizer: Tokenizer, split: str) -> Tokens:
    """The tokens of one split."""
    encoded = encode_parts(parts, tokenizer)
    return np.concatenate([part.tokens for part in encoded if part.split == split])


def bench_learn(
    source: str, heldout: str | None, minutes: float, recipes: Iterable[str], reporter: Reporter
) -> dict[str, Any]:
    """One object for each recipe: its curve of validation perplexity against seconds of training.

    Args:
        source, heldout, reporter: see read_data.
        minutes: of training for each recipe.
        recipes: their names.
    """
    data = read_data(source, heldout, reporter)
    return {name: learn(name, data, minutes * 60, reporter) for name in recipes}


def learn(name: str, data: Data, budget: float, reporter: Reporter) -> dict[str, Any]:
    """Train one recipe for `budget` seconds."""
    prepare_cpu(None)
    config = recipe_config(name)
    train = config.train
    device = choose_device("auto")
    precision = choose_precision(train.precision, device).name
    batches_class = BatchesWithReplacement if name == "nanogpt" else Batches
    batches = batches_class(
        data.train, config.model.context_length, train.seed, train.document_starts
    )
    model = init_weights(GPT(config.model, data.tokenizer.vocab_size), train.seed).to(device)
    if name != "reference":
        trial = TrainState.start(copy.deepcopy(model), train, precision)
        max_steps = max(1, round(budget / step_seconds(trial, batches, train)))
        train = train.model_copy(update={"max_steps": max_steps})
    state = TrainState.start(model, train, precision)
    reporter.task(name, train.max_steps, unit="steps")
    curve = train_for(budget, state, batches, train, data.validation, reporter)

    passed = [point["seconds"] for point in curve if point["perplexity"] <= PERPLEXITY_GOAL]
    perplexity = curve[-1]["perplexity"]
    return {
        f"seconds_to_ppl_{PERPLEXITY_GOAL}": passed[0] if passed else None,
        "ppl_at_end": perplexity,
        "bits_per_byte_at_end": math.log2(perplexity) / data.bytes_per_token,
        "curve": curve,
        "precision": precision,
    }


def step_seconds(trial: TrainState, batches: Batches, config: TrainConfig) -> float:
    """How long a step takes; `trial` is trained meanwhile."""
    turns = timeit.repeat(
        lambda: train_step(trial, batches, config), number=TRIAL_STEPS, repeat=2
    )  # the first warms up
    return min(turns) / TRIAL_STEPS


def train_for(
    budget: float,
    state: TrainState,
    batches: Batches,
    config: TrainConfig,
    validation: Tokens,
    reporter: Reporter,
) -> list[dict[str, float]]:
    """Train until `budget` seconds or all steps are over.

    Returns:
        Seconds of training, step and validation perplexity of each evaluation.
    """
    curve: list[dict[str, float]] = []
    spent = 0.0
    while state.step < config.max_steps and spent < budget:
        began = time.perf_counter()
        record = train_step(state, batches, config)
        spent += time.perf_counter() - began
        reporter.advance(1, loss=record.loss, seconds=spent)
        next_evaluation = budget * (len(curve) + 1) / EVALUATIONS
        if spent >= next_evaluation or state.step == config.max_steps:
            perplexity = math.exp(mean_loss(state.model, validation))
            point = {"seconds": round(spent, 1), "step": state.step, "perplexity": perplexity}
            curve.append(point)
    return curve


def curve_table(name: str, result: dict[str, Any]) -> str:
    """The curve of one recipe, for people."""
    rows = []
    for point in result["curve"]:
        rows.append((f"{point['seconds']:.0f} s", f"perplexity {point['perplexity']:,.2f}"))
    steps = f"{result['curve'][-1]['step']:,} steps"
    bits = f"{result['bits_per_byte_at_end']:.4f} bits per byte"
    rows.append(("end", f"{steps}, {bits}, {result['precision']}"))
    return ui.table(name, rows)


def main(
    *,
    data: DataOption = "builtin",
    heldout: HeldoutOption = None,
    minutes: MinutesOption = 4,
    recipe: RecipeOption = None,
    json: Json = False,
) -> None:
    """Measure how fast recipes learn, in minutes of training."""
    unknown = sorted(set(recipe or ()) - set(RECIPES))
    if unknown:
        hint = f"recipes: {', '.join(RECIPES)}"
        raise UsageError(f"there is no recipe `{unknown[0]}`", hint=hint)
    screen = ui.Screen("auto", quiet=False)
    results = bench_learn(data, heldout, minutes, recipe or RECIPES, screen)
    screen.close()
    if json:
        ui.say_json(results)
    for name, result in results.items():
        ui.say_note(curve_table(name, result))


if __name__ == "__main__":
    run_command(main)
