"""What SIGINT (Ctrl-C), SIGTERM and SIGHUP (a closed terminal) do while a command runs."""

import atexit
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RETRY_SECONDS = 0.02  # until a signal that came during an import is looked at again


class Stopped(KeyboardInterrupt):
    """A signal came.

    It is a subclass because once KeyboardInterrupt itself has left an exec(), `python -m` ends by
    SIGINT whatever the exit code is.
    """


class Signals:
    """A signal interrupts at once, with two exceptions.

    During training the first is only noted, because training reads `received` between steps. While
    a module loads it is noted, too, and acted on afterwards: native code that imports swallows an
    exception, or aborts. A second signal does not wait: it interrupts training, and ends the
    process if a module is loading.

    Attributes:
        received: the last signal, or None.
        noted: whether the first signal is only noted.
        interrupted: whether `Stopped` was raised.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.noted = False
        self.interrupted = False
        self._may_raise = False
        self._unraisable_hook = sys.unraisablehook
        self._terminals = [number for number in (1, 2) if os.isatty(number)]

    def catch(self) -> dict[int, object]:
        """Handle signals until the process ends, and return the handlers before.

        They are only noted as long as no block of `caught` runs. SIGHUP that is ignored, as under
        nohup, stays ignored.
        """
        before: dict[int, object] = {}
        for number in HANDLED:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, self._handle)
        before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._retry)
        return before

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Within the block, a signal interrupts; so does one that was noted before it."""
        before = self.catch()
        self._unraisable_hook = sys.unraisablehook
        sys.unraisablehook = self._swallowed
        try:
            self._may_raise = True
            if self.received is not None:
                self._interrupt()
            yield
        finally:
            self._may_raise = False
            sys.unraisablehook = self._unraisable_hook
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)  # type: ignore[arg-type]

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within the block, note the first signal in `received` and do not interrupt."""
        self.noted = True
        try:
            yield
        finally:
            self.noted = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # torchrun passes a signal on to processes that have had it already
        is_alone = os.environ.get("WORLD_SIZE", "") in ("", "1")
        is_second = self.received is not None and is_alone
        self.received = number
        if number == signal.SIGHUP:
            self._leave_terminals()
        if not self._may_raise or _is_importing(frame):
            if is_second:
                self._end(number)
            signal.setitimer(signal.ITIMER_REAL, RETRY_SECONDS)
        elif is_second or not self.noted:
            self._interrupt()

    def _retry(self, _: int, frame: FrameType | None) -> None:
        if _is_importing(frame):
            signal.setitimer(signal.ITIMER_REAL, RETRY_SECONDS)
        elif self._may_raise and not self.noted:
            self._interrupt()

    def _interrupt(self) -> NoReturn:
        self.interrupted = True
        raise Stopped

    def _swallowed(self, error: "sys.UnraisableHookArgs") -> None:
        """A destructor or a weakref callback cannot be interrupted; what follows it can."""
        if issubclass(error.exc_type, Stopped):
            signal.setitimer(signal.ITIMER_REAL, RETRY_SECONDS)
        else:
            self._unraisable_hook(error)

    def _leave_terminals(self) -> None:
        """Print to the null device instead: a closed terminal answers with an error."""
        for number in self._terminals:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)

    def _end(self, number: int) -> None:
        if self._terminals:
            os.write(self._terminals[-1], b"\x1b[?25h\n")  # the cursor, if a progress bar hid it
        os._exit(128 + number)


def ignore_at_exit() -> None:
    """Ignore signals in the last moments, in which no handler runs and the exit code is fixed."""

    def ignore() -> None:
        for number in HANDLED:
            signal.signal(number, signal.SIG_IGN)

    atexit.register(ignore)


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being loaded somewhere below a frame."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False
