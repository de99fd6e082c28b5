"""The flags that every pipeline command takes, and the command line as its user typed it."""

import functools
import inspect
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from tinygpt.cli.failures import Signals


@dataclass(frozen=True)
class Options:
    """The flags that commands share; a pipeline command takes all of them."""

    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Configuration instead of the tinygpt.toml found.")] = None
    preset: Annotated[str | None, typer.Option(metavar="NAME", help="Recipe to start from: demo, laptop or reference.")] = None
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="TABLE.KEY=VALUE", help="Set one key of the configuration; repeatable.")
    ] = None
    source: Annotated[str | None, typer.Option(metavar="SOURCE", help="Where the stories come from (`data.source`).")] = None
    store: Annotated[Path | None, typer.Option(metavar="DIR", help="Store of artifacts instead of artifacts/.")] = None
    force: Annotated[bool, typer.Option("--force", help="Make it again, also where it is in the store.")] = False
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", help="Show the product and errors, nothing else.")] = False
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False

    @property
    def named_a_run(self) -> bool:
        """Whether the user said which run is meant, so that no other one may stand in for it."""
        return bool(self.config or self.preset or self.sets or self.source or os.environ.get("TINYGPT_PRESET"))


@dataclass
class Call:
    """One command line.

    Args:
        arguments: what was typed behind the program's name.
        flags: keys set by flags of the command's own: {"train.max_steps": ("--max-steps", 50)}.
    """

    arguments: list[str]
    signals: Signals = field(default_factory=Signals)
    options: Options = Options()
    flags: dict[str, tuple[str, object]] = field(default_factory=dict)

    def rephrase(self, text: str) -> str:
        """Spell every `tinygpt ...` in a text as this user has to type it: the same program, the same run, the same store."""
        return re.sub(r"`tinygpt((?: [^`]*)?)`", lambda match: f"`{self.command(match[1].strip())}`", text)

    def command(self, words: str) -> str:
        """A whole command that can be pasted, for the words behind `tinygpt`."""
        first = words.partition(" ")[0]
        pairs = []
        if first in PIPELINE and not re.search(r"--(preset|config|help)\b", words):
            pairs += self._run_flags()
        if self.options.store and (first in PIPELINE or first == "artifacts") and "--help" not in words:
            pairs.append(("--store", str(self.options.store)))
        missing = [f"{flag} {shlex.quote(value)}" for flag, value in pairs if not (flag in words and value in words)]
        return " ".join(filter(None, [program(), words, *missing]))

    def _run_flags(self) -> list[tuple[str, str]]:
        options = self.options
        pairs = [("--config", str(options.config or "")), ("--preset", options.preset or ""), ("--source", options.source or "")]
        pairs += [("--set", item) for item in options.sets or []]
        trained = {key: value for key, (_, value) in self.flags.items() if value is not None and key.startswith("train.")}
        pairs += [("--set", f"{key}={value}") for key, value in trained.items()]
        return [(flag, value) for flag, value in pairs if value]


PIPELINE = ("tokenize", "build-dataset", "train", "eval", "sample", "plot", "run", "config")


def with_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add common flags to a command, which receives its `Call` instead of them.

    Args:
        names: of the fields of Options that the command takes; none for all.
    """
    fields = inspect.signature(Options, eval_str=True).parameters
    common = {name: fields[name] for name in names or fields}

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = [parameter for name, parameter in inspect.signature(function, eval_str=True).parameters.items() if name != "call"]

        @functools.wraps(function)
        def command(ctx: typer.Context, **values: Any) -> None:
            call: Call = ctx.obj
            call.options = Options(**{name: values.pop(name) for name in common})
            function(call, **values)

        context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in [context, *own, *common.values()]]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


def program(*, elsewhere: bool = False) -> str:
    """How the user called us: `tinygpt`, `.venv/bin/tinygpt` or `python -m tinygpt`.

    Args:
        elsewhere: spell it so that it works in every folder.
    """
    called = Path(sys.argv[0])
    if called.name == "__main__.py" and called.parent.name == "tinygpt":
        return f"{_as_typed(Path(sys.executable), elsewhere)} -m tinygpt"
    return _as_typed(called, elsewhere) if called.stem == "tinygpt" else "tinygpt"


def _as_typed(path: Path, elsewhere: bool) -> str:
    """The shortest spelling that the shell finds: a bare name on the PATH, else relative, else whole."""
    found = shutil.which(path.name)
    if found and Path(found).absolute() == path.absolute():
        return path.stem if os.name == "nt" else path.name
    path = path.absolute()
    if not elsewhere and path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return shlex.quote(str(path))
