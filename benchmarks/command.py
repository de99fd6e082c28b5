"""What the benches share as commands: options, the form of errors, rows of tables."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from tinygpt import ui
from tinygpt.errors import TinygptError

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Rounds = Annotated[int, typer.Option(min=1, metavar="N", help="Timed turns of each contender.")]
Threads = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="CPU threads for every contender.")
]


def run_command(main: Callable[..., None], arguments: Sequence[str] | None = None) -> None:
    """Run a bench as a command; an error has the form and the exit code that `tinygpt` gives it.

    Args:
        main: the bench; its docstring and its annotations are the help.
        arguments: what was typed; None for the command line of this process.
    Raises:
        SystemExit: always.
    """
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app(arguments)
    except TinygptError as error:
        ui.say_note(f"error: {error.message}\n\nhint: {error.hint}")
        sys.exit(error.exit_code)


def rate_rows(rates: Mapping[str, float], contenders: Mapping[str, str]) -> list[tuple[str, str]]:
    """A row for each contender: its rate, and how many times as fast tinygpt is.

    Args:
        rates: tokens per second, by name; those that could not be measured are missing.
        contenders: the label of each, by name.
    """
    rows = []
    for name, label in contenders.items():
        value = "not measured"
        if name in rates:
            ratio = rates["tinygpt"] / rates[name]
            value = f"{ui.number(rates[name])} tokens/s  {ratio:.2f} x"
        rows.append((label, value))
    return rows


def condition_rows(result: Mapping[str, Any], *more: str) -> list[tuple[str, str]]:
    """Under which conditions a result was measured: threads, `more`, versions of libraries."""
    versions = [
        f"{package} {version or 'not installed'}" for package, version in result["versions"].items()
    ]
    conditions = [f"{result['threads']} threads", *more]
    return [("conditions", ", ".join(conditions)), ("versions", ", ".join(versions))]
