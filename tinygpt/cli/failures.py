"""Errors as the user sees them: one form, one exit code each, and wrong flags answered with the nearest right one."""

import errno
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from typer.core import TyperCommand, TyperGroup

from tinygpt import ui
from tinygpt.cli import ranks
from tinygpt.errors import Interrupted, StoppedEarly, StorageError, TinygptError, UsageError

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)


class Command(TyperCommand):
    """A command whose flags for keys of the configuration are explained in the keys' own words, read when they are shown."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from tinygpt.config.fields import FIELDS, requirement

        params: list[Any] = self.params
        for flag in params:
            if flag.help in FIELDS:
                meaning = FIELDS[flag.help].description or ""
                flag.help = f"{meaning[:1].upper()}{meaning[1:]} ({requirement(flag.help)})."
        super().format_help(ctx, formatter)


class Commands(TyperGroup):
    """A group of commands that shows its help when it is called alone."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])


class Stopped(KeyboardInterrupt):
    """A signal came. After KeyboardInterrupt itself has left an exec(), `python -m` ends by SIGINT whatever the exit code is."""


class Signals:
    """What SIGINT and SIGTERM do: they interrupt at once or, during training, are only noted; a second one interrupts.

    Args:
        noted: True while someone asks `received` between steps.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.noted = False

    def _handle(self, number: int, _: object) -> None:
        again, self.received = self.received is not None and ranks.count() == 1, number  # torchrun passes on what all have had
        if again or not self.noted:
            raise Stopped

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Handle both signals within the block."""
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[Callable[[], int | None]]:
        """Only note the first signal within the block; gives the function that tells which one came."""
        self.noted = True
        try:
            yield lambda: self.received
        finally:
            self.noted = False


def exit_code(call: Callable[[], Any], arguments: list[str], signals: Signals, rephrase: Callable[[str], str]) -> int:
    """Run a command line to its exit code, saying on stderr what went wrong.

    Args:
        call: Typer's main, in the mode that raises.
        rephrase: spells commands in back-ticks as this user has to type them.
    """
    try:
        with signals.caught():
            code = call()
        if code == 130:
            raise KeyboardInterrupt  # which Typer made a number of
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except SystemExit as stop:  # Typer's answer to a closed pipe
        error = stop.__context__ or stop
    except BaseException as caught:  # noqa: BLE001  the one place where everything unforeseen ends, also a panic of Rust code
        error = caught
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        return _closed_pipe()
    if "--debug" in arguments:
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        number = signals.received or signal.SIGINT
        if "--interactive" in arguments:  # the usual way to leave it
            ui.say_note("")
            return 128 + number
        again = f"`tinygpt {shlex.join(arguments)}` starts again from what is finished"
        error = Interrupted(f"stopped by {signal.Signals(number).name}; nothing half-made is kept", hint=again, number=number)
    shown = as_user_error(error)
    kind = "" if isinstance(shown, StoppedEarly | Interrupted) else "error: "
    ui.say_note(kind + rephrase(shown.message) + (f"\n\nhint: {rephrase(shown.hint)}" if shown.hint else ""))
    return shown.exit_code


def _closed_pipe() -> int:
    """Whoever read stdout has gone: end quietly, also in the interpreter's own last flush."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE  # as a shell says it


def as_user_error(error: BaseException) -> TinygptError:
    """Any exception as one with a sentence, a hint and an exit code."""
    if isinstance(error, TinygptError):
        return error
    if isinstance(error, OSError) and (error.errno in FULL_DISK or error.filename is not None):
        return StorageError.refused(error, error.filename or "the disk")
    if isinstance(error, MemoryError):
        return TinygptError("the memory is full", hint="use a smaller `train.batch_size`, `model.d_model` or `vocab_size`")
    if hasattr(error, "format_message"):  # click's, which Typer carries inside or depends on, by version
        return _usage_error(error)
    text = " ".join(str(error).split()) or "no message"
    return TinygptError(f"unexpected {type(error).__name__}: {text}", hint="`--debug` shows the traceback")


def _usage_error(error: Any) -> UsageError:
    """Typer's own complaint in our form."""
    context: Any = getattr(error, "ctx", None)
    command = context.command_path if context else "tinygpt"
    listing = f"`{command} --help` lists what there is"
    if hasattr(error, "possibilities"):
        hint = f"did you mean `{error.possibilities[0]}`?" if error.possibilities else listing
        return UsageError(f"`{error.option_name}` is not a flag of `{command}`", hint=hint)
    message, _, near = error.format_message().rstrip(".?").replace("'", "`").partition(". Did you mean `")
    return UsageError(message[:1].lower() + message[1:], hint=f"did you mean `{command} {near}?" if near else listing)
