"""What a stage reports to its caller, and what may stop it; durations as text."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tinygpt.records import MetricsRow


class Reporter(Protocol):
    """Receives what a stage reports; `ui.Screen` shows it, SilentReporter drops it."""

    def task(self, title: str, total: int | None = None, *, unit: str = "", done: int = 0) -> None:
        """Begin a progress bar; the one before it is finished.

        Args:
            title: what is being done, e.g., "train".
            total: how many units there are; None if unknown.
            unit: what is counted, e.g., "steps", "documents".
            done: units finished before (a resumed run).
        """

    def advance(self, amount: int = 1, **figures: float) -> None:
        """Move the current bar by `amount` units and show figures.

        Args:
            figures: loss=..., perplexity=..., tokens_per_second=... . `seconds_left` is not shown
                as such: it is the time to the end of the task, in place of one from the speed of
                the bar; 0 if it is not known yet.
        """

    def note(self, text: str) -> None:
        """Say one line; untrusted text in it is escaped by the receiver."""

    def output(self, text: str) -> None:
        """Pass on a piece of generated text as soon as it is there."""

    def metrics(self, row: "MetricsRow") -> None:
        """Receive a step or an evaluation of a run that trains."""


class SilentReporter(Reporter):
    """A Reporter that says nothing."""

    def task(self, title: str, total: int | None = None, *, unit: str = "", done: int = 0) -> None:
        pass

    def advance(self, amount: int = 1, **figures: float) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def output(self, text: str) -> None:
        pass

    def metrics(self, row: "MetricsRow") -> None:
        pass


@dataclass(frozen=True)
class Limits:
    """What may end training before its last step; nothing here enters a key.

    Args:
        max_seconds: of training in this call; None for no limit.
        stop_at_step: stop after this step; None for no limit.
        interrupted: returns the signal that asked for a stop, or None.
        defer_signals: while its context is open, a signal does not interrupt but is noted, and
            `interrupted` returns it.
    """

    max_seconds: float | None = None
    stop_at_step: int | None = None
    interrupted: Callable[[], int | None] = lambda: None
    defer_signals: Callable[[], AbstractContextManager[object]] = nullcontext


NO_LIMITS = Limits()


def duration(seconds: float) -> str:
    """0.4 s · 20 s · 1 min 20 s · 2 h 5 min · 3 days 4 h."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    amounts = {
        "days": whole // 86_400,
        "h": whole // 3_600 % 24,
        "min": whole // 60 % 60,
        "s": whole % 60,
    }
    units = list(amounts)
    first = next(index for index, unit in enumerate(units) if amounts[unit])
    two_units = units[first : first + 2]
    text = " ".join(f"{amounts[unit]} {unit}" for unit in two_units if amounts[unit])
    return text.replace("1 days", "1 day")
