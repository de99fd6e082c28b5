"""The flags that every pipeline command takes, and the command line as its user typed it."""

import functools
import inspect
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygpt.cli.failures import Signals
from tinygpt.ui import say_json

if TYPE_CHECKING:
    from tinygpt.cli.session import Session
    from tinygpt.config import LoadedConfig
    from tinygpt.store import Store


@dataclass(frozen=True)
class Options:
    """The flags that commands share; a pipeline command takes all of them."""

    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Configuration instead of the tinygpt.toml found.")] = None
    preset: Annotated[str | None, typer.Option(metavar="NAME", help="Recipe to start from: demo, laptop or reference.")] = None
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="TABLE.KEY=VALUE", help="Set one key; repeatable.")] = None
    source: Annotated[str | None, typer.Option(metavar="SOURCE", help="data.source")] = None
    store: Annotated[Path | None, typer.Option(metavar="DIR", help="Store of artifacts instead of artifacts/.")] = None
    force: Annotated[bool, typer.Option("--force", help="Make it again, also where it is in the store.")] = False
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", help="Show the product and errors, nothing else.")] = False
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False

    @property
    def named_a_run(self) -> bool:
        """Whether the user said which run is meant, so that no other one may stand in for it."""
        told = any(not item.startswith(("eval.", "plot.", "runtime.", "sample.")) for item in self.sets or ())
        return bool(self.config or self.preset or told or self.source or os.environ.get("TINYGPT_PRESET"))


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
        options, first = self.options, words.partition(" ")[0]
        pairs: list[tuple[str, object]] = []
        if first in (*PIPELINE, "config") and not re.search(r"--(preset|config|help)\b", words):
            pairs += [("--config", options.config), ("--preset", options.preset), ("--source", options.source)]
            trained = [(key, value) for key, (_, value) in self.flags.items() if key.startswith("train.") and value is not None]
            pairs += [("--set", item) for item in [*(options.sets or []), *(f"{key}={value}" for key, value in trained)]]
        if first in (*PIPELINE, "artifacts") and "--help" not in words:
            pairs.append(("--store", options.store))
        given = [(flag, str(value)) for flag, value in pairs if value]
        missing = [f"{flag} {shlex.quote(value)}" for flag, value in given if not (flag in words and value in words)]
        processes = os.environ.get("LOCAL_WORLD_SIZE", "1") if first == "train" else "1"
        caller = program() if processes == "1" else f"torchrun --nproc-per-node {processes} -m tinygpt"
        return " ".join(filter(None, [caller, words, *missing]))

    def answer(self, value: object) -> bool:
        """Print what `--json` asks for; whether it was asked for."""
        if self.options.json:
            say_json(value)
        return self.options.json

    def store(self) -> "Store":
        """The store that this command line means."""
        from tinygpt.config import store_root
        from tinygpt.store import Store

        return Store(store_root(self.options.store))

    def session(self, **settings: Any) -> "Session":
        """What a pipeline command works with; the settings are explained there."""
        from tinygpt.cli.session import Session

        return Session(self, **settings)

    def load_config(self) -> "LoadedConfig":
        """The configuration that this command line asks for."""
        from tinygpt.config import load_config

        options = self.options
        flags = {"data.source": ("--source", options.source), **self.flags}
        return load_config(config_file=options.config, preset=options.preset, sets=options.sets or (), flags=flags)


def of_model(model: str | None) -> str:
    """`--model` as it is typed behind a command, or nothing."""
    return f" --model {shlex.quote(model)}" if model else ""


PIPELINE = ("tokenize", "build-dataset", "train", "eval", "sample", "plot", "run")


def with_options(*names: str, keys: Sequence[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add flags to a command, which receives its `Call` instead of them.

    Args:
        names: of the fields of Options that the command takes; none for all.
        keys: of the configuration; "sample.top_p" becomes --top-p. Command writes its help, and the configuration reads its text.
    """
    fields = inspect.signature(Options, eval_str=True).parameters
    common = [fields[name] for name in names or fields]
    by_flag = {key.partition(".")[2]: key for key in keys}
    kind = inspect.Parameter.KEYWORD_ONLY
    texts = {name: Annotated[str | None, typer.Option(metavar="VALUE", help=key)] for name, key in by_flag.items()}
    setting = [inspect.Parameter(name, kind, default=None, annotation=text) for name, text in texts.items()]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = [parameter for name, parameter in inspect.signature(function, eval_str=True).parameters.items() if name != "call"]

        @functools.wraps(function)
        def command(ctx: typer.Context, **values: Any) -> None:
            call: Call = ctx.obj
            call.options = Options(**{option.name: values.pop(option.name) for option in common})
            call.flags = {key: (f"--{name.replace('_', '-')}", values.pop(name)) for name, key in by_flag.items()}
            function(call, **values)

        context = inspect.Parameter("ctx", kind, annotation=typer.Context)
        parameters = [parameter.replace(kind=kind) for parameter in [context, *own, *setting, *common]]
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
    if (found := shutil.which(path.name)) and Path(found).absolute() == path.absolute():
        return path.name
    path = path.absolute()
    if not elsewhere and path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return shlex.quote(str(path))
