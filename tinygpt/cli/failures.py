"""Errors as the user sees them: one form, one exit code each, and wrong flags answered with the nearest right one."""

import difflib
import errno
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import typer
from typer.core import TyperGroup

from tinygpt.errors import Interrupted, StoppedEarly, StorageError, TinygptError, UsageError

# Typer carries click inside or depends on it, by version; both ways these are its classes.
WrongUsage: type[Exception] = typer.BadParameter.__mro__[1]
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)
CLOSED_PIPE = 141


class Commands(TyperGroup):
    """A group of commands that shows its help when it is called alone and names the nearest command for an unknown one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None:
            near = difflib.get_close_matches(args[0], list(self.commands), 1)
            hint = f"did you mean `{ctx.command_path} {near[0]}`?" if near else f"`{ctx.command_path} --help` lists the commands"
            raise UsageError(f"`{args[0]}` is not a command", hint=hint)
        return super().resolve_command(ctx, args)


class Signals:
    """What SIGINT and SIGTERM do: they interrupt at once or, during training, are only noted; a second one interrupts.

    Args:
        noted: True while someone asks `received` between steps.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.noted = False

    def _handle(self, number: int, _: FrameType | None) -> None:
        again, self.received = self.received is not None, number
        if again or not self.noted:
            raise KeyboardInterrupt

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Handle both signals within the block; does nothing outside the main thread, where Python allows no handlers."""
        try:
            before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:
            before = {}
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
    from tinygpt.ui import failure

    try:
        with signals.caught():
            code = call()
        if not isinstance(code, int) or code != 130:  # what Typer makes of KeyboardInterrupt
            sys.stdout.flush()
            return code if isinstance(code, int) else 0
        error: BaseException = _interrupted(arguments, signals)
    except KeyboardInterrupt:
        error = _interrupted(arguments, signals)
    except SystemExit as stop:  # Typer's answer to a closed pipe
        if not isinstance(stop.__context__, OSError):
            raise
        error = stop.__context__
    except BaseException as caught:  # noqa: BLE001  the one place where everything unforeseen ends, also a panic of Rust code
        error = caught
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        return _closed_pipe()
    if "--debug" in arguments:
        traceback.print_exception(error)
    shown = as_user_error(error)
    is_mistake = not isinstance(shown, StoppedEarly | Interrupted)
    print(failure(rephrase(shown.message), shown.hint and rephrase(shown.hint), is_mistake=is_mistake), file=sys.stderr)  # noqa: T201
    return shown.exit_code


def _interrupted(arguments: list[str], signals: Signals) -> Interrupted:
    number = signals.received or signal.SIGINT
    again = f"`tinygpt {shlex.join(arguments)}` starts again from what is finished"
    return Interrupted(f"stopped by {signal.Signals(number).name}; nothing half-made is kept", hint=again, number=number)


def _closed_pipe() -> int:
    """Whoever read stdout has gone: end quietly, also in the interpreter's own last flush."""
    import os

    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return CLOSED_PIPE


def as_user_error(error: BaseException) -> TinygptError:
    """Any exception as one with a sentence, a hint and an exit code."""
    match error:
        case TinygptError():
            return error
        case OSError() if error.errno in FULL_DISK:
            return StorageError(f"cannot use `{error.filename or 'the disk'}`: {(error.strerror or str(error)).lower()}",
                                hint="free some space or choose another store with `--store DIR`")  # fmt: skip
        case OSError() if error.filename is not None:
            return StorageError(f"cannot use `{error.filename}`: {(error.strerror or str(error)).lower()}",
                                hint="check the path and its permissions")  # fmt: skip
        case MemoryError():
            return TinygptError("the memory is full", hint="use a smaller `train.batch_size`, `model.d_model` or `vocab_size`")
    if isinstance(error, WrongUsage.__base__ or WrongUsage):
        return _usage_error(error)
    text = " ".join(str(error).split()) or "no message"
    return TinygptError(f"unexpected {type(error).__name__}: {text}", hint="`--debug` shows the traceback")


def _usage_error(error: Any) -> UsageError:
    """Typer's own complaint in our form."""
    context: Any = getattr(error, "ctx", None)
    command = context.command_path if context else "tinygpt"
    listing = f"`{command} --help` lists the flags"
    if flag := getattr(error, "option_name", None) if hasattr(error, "possibilities") else None:
        known = [name for parameter in context.command.params for name in (*parameter.opts, *parameter.secondary_opts)]
        near = difflib.get_close_matches(flag, [name for name in known if name.startswith("--")], 1)
        return UsageError(f"`{flag}` is not a flag of `{command}`", hint=f"did you mean `{near[0]}`?" if near else listing)
    message = error.format_message().rstrip(".").replace("'", "`")
    return UsageError(message[:1].lower() + message[1:], hint=listing)
