"""Errors as the user sees them: one form, one exit code each.

A wrong flag is answered with the nearest right one.
"""

import errno
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tinygpt import ui
from tinygpt.cli import guesses, streams
from tinygpt.cli.signals import Signals
from tinygpt.errors import Interrupted, StoppedEarly, StorageError, TinygptError, UsageError

_NO_MEMORY = re.compile(
    r"(allocate|out of|not enough) memory|bad_alloc|memory allocation|os error 12\b", re.IGNORECASE
)


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
        if code == 130 or signals.received:
            raise KeyboardInterrupt  # Typer has turned it into a number
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except SystemExit as stop:  # Typer's answer to a closed pipe
        error = stop.__context__ or stop
    # Every unforeseen error ends here, also a panic of Rust code
    except BaseException as caught:  # noqa: BLE001
        error = caught
    streams.drop_unwritten()
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        return 128 + signal.SIGPIPE  # the reader of stdout has closed it: end as a shell has it
    if "--debug" in arguments:
        traceback.print_exception(error)
    # Native code, such as pydantic's, may turn an interrupt into an error of its own
    if signals.interrupted and not isinstance(error, TinygptError):
        error = KeyboardInterrupt()
    if isinstance(error, KeyboardInterrupt):
        number = signals.received or signal.SIGINT
        if "--interactive" in arguments:  # the usual way to leave it
            ui.say_note("")
            return 128 + number
        error = _interrupted(number, arguments)
    user_error = as_user_error(error, arguments)
    with suppress(OSError, StorageError):  # standard error itself may be what is full
        _show(user_error, rephrase)
    streams.drop_unwritten()
    return user_error.exit_code


@contextmanager
def writing(path: Path, hint: str) -> Iterator[None]:
    """Write a file outside the store in the block.

    Raises:
        StorageError: the system refuses it.
    """
    try:
        yield
    except OSError as error:
        raise _refused(error, path, hint) from error


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


def as_user_error(error: BaseException, arguments: Sequence[str] = ()) -> TinygptError:
    """Any exception as one with a sentence, a hint and an exit code.

    Args:
        arguments: what was typed after the program's name.
    """
    if isinstance(error, TinygptError):
        return error
    text = " ".join(str(error).split()) or "no message"
    is_memory = isinstance(error, OSError) and error.errno == errno.ENOMEM
    # torch and Rust libraries raise errors of other types
    if is_memory or isinstance(error, MemoryError) or _NO_MEMORY.search(text):
        return TinygptError(
            "the memory is full",
            hint="end other programs; or for the same steps in less memory, use a smaller "
            "`train.batch_size` with more `train.grad_accum_steps`; or use a smaller model, e.g., "
            "`model.d_model` or `model.context_length`",
        )
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        return _refused(error)
    # An error of click, which Typer contains or depends on, depending on its version
    if hasattr(error, "format_message"):
        return _usage_error(error, arguments)
    message = f"unexpected {type(error).__name__}: {text}"
    return TinygptError(message, hint="`--debug` shows the traceback")


def _refused(error: OSError, path: Path | None = None, hint: str | None = None) -> StorageError:
    """The error for a file outside the store, which has errors of its own."""
    reason = error.strerror or str(error)
    file = error.filename or path  # a failed write does not know its file
    what = f"use `{file}`" if file else "read or write"
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    advice = "free some space there" if is_full else "check the path, the disk and the permissions"
    return StorageError(
        f"cannot {what}: {reason[:1].lower()}{reason[1:]}",
        hint=f"{advice}, or {hint or 'send the output elsewhere'}",
    )


def _usage_error(error: Any, arguments: Sequence[str]) -> UsageError:
    """Typer's own complaint in our form."""
    text = error.format_message().rstrip(".?").replace("'", "`")
    message, _, suggestion = text.partition(". Did you mean `")
    context: Any = getattr(error, "ctx", None)
    named = 2 if arguments[:1] in (["artifacts"], ["config"]) else 1
    path = context.command_path if context else " ".join(["tinygpt", *arguments[:named]])
    hint = f"`{path} --help` lists the commands and flags"
    if suggestion:
        hint = f"did you mean `{path} {suggestion}?"
    if hasattr(error, "param") and error.param.metavar in ("ID", "RUN"):
        hint = "`tinygpt artifacts ls` lists the ids"
    if text.startswith("Missing option"):
        meaning = error.param.help.rstrip(".")
        hint = f"add `{error.param.opts[0]} {error.param.metavar}` ({meaning.lower()})"
    words = arguments[len(path.split()) - 1 :]
    if context and hasattr(error, "possibilities"):
        flag = next((word for word in words if word.startswith(error.option_name)), "")
        flag = flag.partition("=")[0] or error.option_name
        message = f"`{flag}` is not a flag of `{path}`"
        hint = guesses.hint_for_flag(context, flag) or hint
    if context and words:
        is_group = hasattr(context.command, "commands")
        guess = guesses.meant_command if is_group else guesses.meant_line
        line = guess(context.command, path, words)
        hint = f"did you mean `{line}`?" if line else hint
    return UsageError(message[:1].lower() + message[1:], hint=hint)
