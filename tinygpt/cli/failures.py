"""Errors as the user sees them: one form, one exit code each.

A wrong flag is answered with the nearest right one.
"""

import errno
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from tinygpt import ui
from tinygpt.cli.signals import Signals
from tinygpt.errors import Interrupted, StoppedEarly, StorageError, TinygptError, UsageError

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)


def exit_code(
    call: Callable[[], Any],
    arguments: Sequence[str],
    signals: Signals,
    rephrase: Callable[[str], str],
) -> int:
    """Run a command line to its exit code, saying on stderr what went wrong.

    Args:
        call: Typer's main, in the mode that raises.
        arguments: what was typed after the program's name.
        signals: caught meanwhile.
        rephrase: spells commands in backticks as this user has to type them.
    """
    try:
        with signals.caught():
            code = call()
        if code == 130:
            raise KeyboardInterrupt  # Typer has turned it into a number
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except SystemExit as stop:  # Typer's answer to a closed pipe
        error = stop.__context__ or stop
    # Every unforeseen error ends here, also a panic of Rust code
    except BaseException as caught:  # noqa: BLE001
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
        error = _interrupted(number, arguments)
    user_error = as_user_error(error)
    _show(user_error, rephrase)
    return user_error.exit_code


def _closed_pipe() -> int:
    """The reader of stdout has closed it: end quietly, also in the interpreter's last flush."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE  # as a shell has it


def _interrupted(number: int, arguments: Sequence[str]) -> Interrupted:
    name = signal.Signals(number).name
    hint = f"`tinygpt {shlex.join(arguments)}` continues; finished stages come from the cache"
    return Interrupted(f"stopped by {name}; unfinished files were removed", hint, number=number)


def _show(error: TinygptError, rephrase: Callable[[str], str]) -> None:
    is_failure = not isinstance(error, StoppedEarly | Interrupted)
    text = f"{'error: ' if is_failure else ''}{rephrase(error.message)}"
    if error.hint:
        text += f"\n\nhint: {rephrase(error.hint)}"
    ui.say_note(text)


def as_user_error(error: BaseException) -> TinygptError:
    """Any exception as one with a sentence, a hint and an exit code."""
    if isinstance(error, TinygptError):
        return error
    if isinstance(error, OSError) and (error.errno in FULL_DISK or error.filename is not None):
        return StorageError.refused(error, error.filename or "the disk")
    if isinstance(error, MemoryError):
        hint = "use a smaller `train.batch_size`, `model.d_model` or `tokenizer.vocab_size`"
        return TinygptError("out of memory", hint=hint)
    # An error of click, which Typer contains or depends on, depending on its version
    if hasattr(error, "format_message"):
        return _usage_error(error)
    text = " ".join(str(error).split()) or "no message"
    message = f"unexpected {type(error).__name__}: {text}"
    return TinygptError(message, hint="`--debug` shows the traceback")


def _usage_error(error: Any) -> UsageError:
    """Typer's own complaint in our form."""
    context: Any = getattr(error, "ctx", None)
    command = context.command_path if context else "tinygpt"
    listing = f"`{command} --help` lists the commands and flags"
    if hasattr(error, "possibilities"):
        near = error.possibilities
        hint = f"did you mean `{near[0]}`?" if near else listing
        return UsageError(f"`{error.option_name}` is not a flag of `{command}`", hint=hint)
    text = error.format_message().rstrip(".?").replace("'", "`")
    message, _, suggestion = text.partition(". Did you mean `")
    hint = f"did you mean `{command} {suggestion}?" if suggestion else listing
    return UsageError(message[:1].lower() + message[1:], hint=hint)
