"""The values of `--vary` and the seeds of `--seeds`, as they are typed."""

import math

from tinygpt.errors import UsageError

MOST = 1_000  # values of one list
EXAMPLE = "`--vary model.norm=pre,post`"
FORMS = "a list `a,b`, a range of integers `1..6`, or `log:1e-4..1e-2:5`"


def parse_vary(text: str) -> list[dict[str, str]]:
    """The values of one `--vary KEY=VALUES`, each as the keys that it sets.

    Several keys change together where they are joined by `+`, and so are their values:
    `model.norm+train.learning_rate=pre+1e-2,post+3e-3` has two arms.

    Raises:
        UsageError: it has another form, fewer than two values, or one of them twice.
    """
    name, equals, listed = text.partition("=")
    keys = [key.strip() for key in name.split("+")]
    if not equals or "" in keys:
        lacks = "names no key" if equals else "has no values"
        raise UsageError(f"`--vary {text}` {lacks}", hint=f"write {EXAMPLE}; values are {FORMS}")
    values = parse_values(listed)
    if len(values) < 2:
        raise UsageError(
            f"`--vary {text}` names one value, which has nothing to be compared with",
            hint=f"name two or more: {FORMS}",
        )
    if len(set(values)) < len(values):
        raise UsageError(
            f"two arms have the same key: a value stands twice in `--vary {text}`",
            hint="name each value once; `--seeds` repeats an arm",
        )
    choices = []
    for value in values:
        parts = value.split("+") if len(keys) > 1 else [value]
        if len(parts) != len(keys):
            raise UsageError(
                f"`{value}` is not a value for each of {len(keys)} keys in `--vary {text}`",
                hint="join the values of keys that change together, too: `a.b+c.d=1+2,3+4`",
            )
        choices.append(dict(zip(keys, parts, strict=True)))
    return choices


def parse_values(text: str) -> list[str]:
    """The values that a list, a range of integers or a logarithmic range stands for.

    Raises:
        UsageError: it is none of them.
    """
    first, dots, last = text.partition("..")
    if text.startswith("log:"):
        return _log_range(text)
    if dots and "," not in text:
        try:
            low, high = int(first), int(last)
        except ValueError:
            low, high = 1, 0
        if not 0 <= high - low < MOST:
            raise UsageError(
                f"`{text}` is not a range of integers",
                hint="write `1..6`, or `log:1e-4..1e-2:5` for numbers",
            )
        return [str(number) for number in range(low, high + 1)]
    values = [value.strip() for value in text.split(",")]
    if "" in values:
        raise UsageError(f"an empty value stands in `{text}`", hint=f"values are {FORMS}")
    return values


def _log_range(text: str) -> list[str]:
    """log:LO..HI:N as N numbers from LO to HI whose ratios are equal."""
    bounds, _, count = text.removeprefix("log:").partition(":")
    first, _, last = bounds.partition("..")
    try:
        low, high, number = float(first), float(last), int(count)
    except ValueError:
        low, high, number = 0.0, 0.0, 0
    if not (0 < low < high < math.inf and 2 <= number <= MOST):
        raise UsageError(
            f"`{text}` is not a logarithmic range",
            hint="write `log:LOWEST..HIGHEST:COUNT`, e.g., `log:1e-4..1e-2:5`",
        )
    ratio = (high / low) ** (1 / (number - 1))
    return [f"{low * ratio**place:.4g}" for place in range(number)]


def parse_seeds(text: str) -> list[int]:
    """The seeds that `--seeds` names: a number of them from 1 on, a range or a list.

    Raises:
        UsageError: they are not integers from 0 on, or one stands twice.
    """
    try:
        named = [int(value) for value in parse_values(text)]
    except (ValueError, UsageError):
        named = []
    seeds = list(range(1, min(named[0], MOST + 1) + 1)) if text.strip().isdigit() else named
    if (
        not 0 < len(seeds) <= MOST
        or min(seeds) < 0
        or max(seeds) >= 2**63
        or len(set(seeds)) < len(seeds)
    ):
        raise UsageError(
            f"`--seeds {text}` does not name seeds",
            hint="write their number, `6`, a range, `1..6`, or a list, `3,5,8`",
        )
    return seeds
