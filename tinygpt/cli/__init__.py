"""The command line. Importing it takes no time; signals are caught before the commands load."""

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinygpt.cli.signals import Signals


def invoke(arguments: list[str], signals: "Signals | None" = None) -> int:
    """Run one command line; its exit code.

    Args:
        arguments: what was typed after the program's name.
        signals: what a signal does meanwhile.
    """
    from tinygpt.cli.failures import exit_code
    from tinygpt.cli.signals import Signals

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that cannot show a character gets its number, not an error
            stream.reconfigure(errors="backslashreplace")
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    signals = Signals() if signals is None else signals
    call: Any = None

    def run() -> object:
        import typer.main

        from tinygpt.cli.app import app
        from tinygpt.cli.options import Call

        nonlocal call
        call = Call(arguments, signals)
        command = typer.main.get_command(app)
        return command.main(arguments, prog_name="tinygpt", standalone_mode=False, obj=call)

    def rephrase(text: str) -> str:
        return text if call is None else call.rephrase(text)

    return exit_code(run, arguments, signals, rephrase)


def main() -> None:
    """The console script."""
    if os.name == "nt":
        message = "error: tinygpt needs the file locks of Linux and macOS"
        sys.exit(f"{message}\n\nhint: on Windows, install and run it inside WSL")
    from tinygpt.cli.signals import Signals, ignore_at_exit

    signals = Signals()
    signals.catch()
    ignore_at_exit()
    from tinygpt.cli import streams

    streams.replace_missing()
    # GNU OpenMP's threads spin for milliseconds while they wait, and a step takes several times as
    # long when another program uses the cores. A thousand turns cost nothing on a free machine and
    # little on a busy one. Read when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    sys.exit(invoke(sys.argv[1:], signals))
