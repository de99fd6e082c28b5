"""The one door from a stage to the screen, and durations as both say them."""

from typing import Protocol


class Report(Protocol):
    """What a stage may tell while it works. `ui` draws it; tests and benches use SilentReport."""

    def task(self, title: str, total: int | None = None, *, unit: str = "", done: int = 0) -> None:
        """Begin a progress bar; the one before it is finished.

        Args:
            title: what is being done, e.g., "train".
            total: how many units there are; None if unknown.
            unit: what is counted, e.g., "steps", "stories".
            done: units finished before (a resumed run).
        """

    def advance(self, amount: int = 1, **figures: float) -> None:
        """Move the current bar by `amount` units and show figures (loss=..., perplexity=..., tokens_per_second=...)."""

    def note(self, text: str) -> None:
        """Say one line; untrusted text in it is escaped by the receiver."""

    def product(self, text: str) -> None:
        """Pass on a piece of the product itself (generated text) as it is made."""


class SilentReport(Report):
    """A Report that says nothing."""


def duration(seconds: float) -> str:
    """0.4 s · 20 s · 1 min 20 s · 2 h 5 min · 3 days 4 h."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    amounts = (whole // 86_400, whole // 3_600 % 24, whole // 60 % 60, whole % 60)
    said = [f"{amount} {unit}" for amount, unit in zip(amounts, ("days", "h", "min", "s"), strict=True)]
    first = next(index for index, amount in enumerate(amounts) if amount)
    return " ".join(said[index] for index in range(first, min(first + 2, 4)) if amounts[index]).replace("1 days", "1 day")
