"""What SIGINT (Ctrl-C) and SIGTERM do while a command runs."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tinygpt.cli import distributed


class Stopped(KeyboardInterrupt):
    """A signal came.

    It is a subclass because once KeyboardInterrupt itself has left an exec(), `python -m` ends by
    SIGINT whatever the exit code is.
    """


class Signals:
    """A signal interrupts at once; during training the first is only noted, the second interrupts.

    Attributes:
        received: the last signal, or None.
        noted: whether signals are only noted, because training reads `received` between steps.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.noted = False

    def _handle(self, number: int, _: object) -> None:
        # torchrun passes a signal on to processes that have had it already
        is_second = self.received is not None and distributed.world_size() == 1
        self.received = number
        if is_second or not self.noted:
            raise Stopped

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Handle both signals within the block."""
        before = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within the block, note the first signal in `received` and do not interrupt."""
        self.noted = True
        try:
            yield
        finally:
            self.noted = False
