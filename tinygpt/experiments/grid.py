"""The arms of an experiment, its question, and how many steps each arm may take."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tinygpt.config import Config
from tinygpt.config.fields import TABLES
from tinygpt.errors import UsageError
from tinygpt.hashing import hash_json
from tinygpt.pipeline import STAGES, stage_tables

MEASURED = ("corpus", "tokenize", "build-dataset", "train")
"""The stages whose configuration can change what is measured."""

RECORDED = {
    "train.eval_every": 0,
    "train.snapshots": 0,
    "train.sample_prompt": "",
    "train.sample_tokens": 0,
}
"""Keys of these stages that only say what a run writes down; the weights are the same."""

STEPS = ("train.max_steps", "train.warmup_steps")
"""Keys that the budget sets."""

Flags = dict[str, tuple[str, object]]
Recipe = dict[str, object]


class Arm(NamedTuple):
    """One of the recipes that are compared.

    Args:
        name: as tables show it, e.g., "norm=pre".
        settings: the varied keys and their values, as typed.
        config: the whole recipe, but for the seed.
    """

    name: str
    settings: dict[str, str]
    config: Config

    def with_seed(self, seed: int) -> Config:
        """The configuration of the cell of this arm and a seed."""
        return with_keys(self.config, "train", seed=seed)

    def with_keys(self, table: str, **keys: object) -> "Arm":
        """The same arm with other values of some keys, which are known to be valid."""
        return self._replace(config=with_keys(self.config, table, **keys))

    @property
    def tokens_per_step(self) -> int:
        """Training tokens that one step reads."""
        train = self.config.train
        sequences = train.batch_size * train.grad_accum_steps
        return sequences * self.config.model.context_length


def with_keys(config: Config, table: str, **keys: object) -> Config:
    """The same configuration with other values of some keys, which are known to be valid."""
    changed = getattr(config, table).model_copy(update=keys)
    return config.model_copy(update={table: changed})


def make_arms(
    choices: Sequence[Sequence[dict[str, str]]], load: Callable[[Flags], Config]
) -> list[Arm]:
    """The arms of a grid: every combination of the choices; the first one is the baseline.

    Args:
        choices: for each `--vary`, the settings to choose from; see parse_vary.
        load: the configuration with further flags.
    Raises:
        ConfigError: a key does not exist, or a value is not of its type.
        UsageError: a key is varied twice, cannot change what is measured, or two arms are equal.
    """
    keys = [key for named in choices for key in named[0]]
    for key in keys:
        if keys.count(key) > 1:
            hint = f"name all values at once: `--vary {key}=a,b,c`"
            raise UsageError(f"`{key}` is varied twice", hint=hint)
    arms = []
    for chosen in itertools.product(*choices):
        settings = {key: value for one in chosen for key, value in one.items()}
        config = load({key: ("--vary", value) for key, value in settings.items()})
        name = ", ".join(f"{key.partition('.')[2]}={value}" for key, value in settings.items())
        arms.append(Arm(name, settings, measured_config(config)))
    for key in keys:
        _check_is_measured(key)
    _check_differ(arms)
    return arms


def measured_config(config: Config) -> Config:
    """The configuration whose evaluation an experiment reads: last weights, validation split."""
    return with_keys(
        config,
        "eval",
        text=None,
        split="val",
        weights="last",
        baselines=True,
        num_samples=None,
    )


def _check_is_measured(key: str) -> None:
    if key == "train.seed":
        raise UsageError(
            "`train.seed` is not a difference between arms: every arm has the same seeds",
            hint="set them with `--seeds`, e.g., `--seeds 1..6`",
        )
    measured = {name.partition(".")[0] for stage in MEASURED for name in STAGES[stage].tables}
    if key.partition(".")[0] not in measured or key in RECORDED:
        tables = ", ".join(f"[{table}]" for table in TABLES if table in measured)
        raise UsageError(
            f"`{key}` changes nothing in the measured stages: all arms would be the same models",
            hint=f"vary a key of {tables}",
        )


def _check_differ(arms: Sequence[Arm]) -> None:
    for one, other in itertools.combinations(arms, 2):
        if one.config == other.config:
            raise UsageError(
                f"two arms have the same key: `{one.name}` and `{other.name}` are one recipe",
                hint="name each value once; `--seeds` repeats an arm",
            )


def recipe(config: Config, external_digests: Mapping[str, str]) -> Recipe:
    """All that enters the keys of the measured stages, by key, e.g., "train.max_steps"."""
    found: Recipe = {}
    for stage in MEASURED:
        tables = stage_tables(STAGES[stage], config, external_digests)
        for table, values in tables.items():
            found |= {f"{table}.{key}": value for key, value in values.items()}
    return found


def question_id(recipes: Sequence[Recipe], keys: Sequence[str]) -> str:
    """What is asked, whoever asks it, in whatever order, and for as many seeds and steps.

    It is a hash of the varied keys with their values and of the rest of the recipe, without the
    seed, what the budget sets and what is only written down.

    Args:
        recipes: of the arms; they differ in `keys`, and in what follows from them.
        keys: those that are varied.
    """
    free = {"train.seed", *STEPS, *RECORDED} - set(keys)
    shared = {name: value for name, value in recipes[0].items() if name not in {*keys, *free}}
    asked = sorted(keys)
    arms = sorted(hash_json("arm", [one.get(key) for key in asked]) for one in recipes)
    return hash_json("tinygpt.question", asked, arms, shared)[:12]


def fit_budget(arms: Sequence[Arm], budget: str, step_seconds: Sequence[float]) -> list[Arm]:
    """The arms with as many steps as the budget allows, and a warm-up that is the same share.

    The budget is what the first arm takes as configured.

    Args:
        budget: what all arms have alike; "varied" leaves the steps as they are.
        step_seconds: of each arm, for budget "seconds".
    """
    price = {
        "tokens": [arm.tokens_per_step for arm in arms],
        "steps": [1] * len(arms),
        "seconds": step_seconds,
    }
    if budget == "varied":
        return list(arms)
    total = arms[0].config.train.max_steps * price[budget][0]
    fitted = []
    for arm, cost in zip(arms, price[budget], strict=True):
        train = arm.config.train
        keys: dict[str, object] = {"max_steps": max(1, round(total / cost))}
        if train.warmup_steps is not None:
            share = train.warmup_steps / train.max_steps
            keys["warmup_steps"] = max(1, round(share * max(1, round(total / cost))))
        fitted.append(arm.with_keys("train", **keys))
    return fitted
