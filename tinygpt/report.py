"""The one door from a stage to the screen."""

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
