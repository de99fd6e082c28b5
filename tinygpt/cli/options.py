"""The flags that commands share, and the command line as its user typed it."""

import functools
import inspect
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygpt.cli.signals import Signals
from tinygpt.errors import StorageError
from tinygpt.ui import say_json

if TYPE_CHECKING:
    from tinygpt.config import LoadedConfig
    from tinygpt.store import Store

RECIPE_TABLES = ("train.", "tokenizer.")  # whose keys have flags of their own
EXAMPLE = 'sample "Once upon a time" --top-p 0.9'

ConfigFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Configuration to use instead of the tinygpt.toml found."),
]
Preset = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Recipe to start from: demo, laptop or reference."),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="TABLE.KEY=VALUE", help="Set a configuration key; repeatable."),
]
Source = Annotated[str | None, typer.Option(metavar="SOURCE", help="data.source")]
StoreFolder = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Artifact store to use instead of artifacts/.")
]
Force = Annotated[bool, typer.Option("--force", help="Recompute even if cached.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print only the output and errors.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@dataclass(frozen=True)
class Options:
    """The flags that commands share; a pipeline command takes all of them."""

    config: ConfigFile = None
    preset: Preset = None
    sets: Sets = None
    source: Source = None
    store: StoreFolder = None
    force: Force = False
    json: Json = False
    quiet: Quiet = False
    debug: Debug = False

    @property
    def names_a_run(self) -> bool:
        """Whether the user said which run is meant, so that no other one may stand in for it."""
        preset = self.preset or os.environ.get("TINYGPT_PRESET")
        return bool(self.config or preset or self.source or self.recipe_sets)

    @property
    def recipe_sets(self) -> list[str]:
        """Each `--set` that changes what a model is or learns from."""
        of_a_view = ("eval.", "plot.", "runtime.", "sample.")
        return [item for item in self.sets or () if not item.startswith(of_a_view)]


@dataclass
class Call:
    """One command line.

    Args:
        arguments: what was typed after the program's name.
        signals: what SIGINT and SIGTERM do meanwhile.
        options: the shared flags.
        flags: keys set by flags of the command's own, {"train.max_steps": ("--max-steps", 50)}.
        model_names_recipe: `--model ID` stands for the recipe of that model, its text included; not
            so for an imported one.
    """

    arguments: list[str]
    signals: Signals = field(default_factory=Signals)
    options: Options = Options()
    flags: dict[str, tuple[str, object]] = field(default_factory=dict)
    model_names_recipe: bool = True

    @property
    def sets_recipe(self) -> bool:
        """Whether flags, other than those that name a file or a preset, made the recipe."""
        recipe_flags = [
            value for key, (_, value) in self.flags.items() if key.startswith(RECIPE_TABLES)
        ]
        return bool(self.options.source or self.options.recipe_sets or any(recipe_flags))

    def rephrase(self, text: str) -> str:
        """Spell every `tinygpt ...` in a text as this user has to type it.

        That is: the same program, the same run, the same store.
        """

        def whole_command(match: re.Match[str]) -> str:
            return f"`{self.command(match[1].strip())}`"

        return re.sub(r"`tinygpt((?: [^`]*)?)`", whole_command, text)

    def command(self, words: str) -> str:
        """A complete command that can be pasted, from the words after `tinygpt`."""
        repeated = [
            f"{flag} {shlex.quote(value)}"
            for flag, value in self._flags_to_repeat(words)
            if not (flag in words and value in words)
        ]
        processes = os.environ.get("LOCAL_WORLD_SIZE", "1") if words.startswith("train") else "1"
        caller = program()
        if processes != "1":
            caller = f"torchrun --nproc-per-node {processes} -m tinygpt"
        return " ".join(filter(None, [caller, words, *repeated]))

    def _flags_to_repeat(self, words: str) -> list[tuple[str, str]]:
        """The flags of this call that name its run and its store, where the command takes them."""
        from tinygpt.pipeline import STAGES

        options = self.options
        command = words.partition(" ")[0]
        is_pipeline = command in (*STAGES, "run", "export")
        pairs: list[tuple[str, object]] = []
        names_its_run = re.search(r"--(preset|config|help)\b", words)
        if (is_pipeline or command == "config") and not names_its_run:
            pairs.append(("--config", options.config))
            pairs.append(("--preset", options.preset))
            recipe_is_known = "--model" in words and self.model_names_recipe
            if not recipe_is_known:
                pairs.append(("--source", options.source))
            for item in options.sets or ():
                replaced = f"--set {item.partition('=')[0]}=" in words  # by another value
                if not replaced and not (recipe_is_known and item in options.recipe_sets):
                    pairs.append(("--set", item))
            for key, (flag, value) in self.flags.items():
                is_recipe = key.startswith(RECIPE_TABLES) and not recipe_is_known
                if is_recipe and value is not None and flag not in words:
                    pairs.append(("--set", f"{key}={value}"))
        if (is_pipeline or command == "artifacts") and "--help" not in words:
            pairs.append(("--store", options.store))
        return [(flag, str(value)) for flag, value in pairs if value]

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

    def load_config(self) -> "LoadedConfig":
        """The configuration that this command line asks for."""
        from tinygpt.config import load_config
        from tinygpt.continuation import tables_of_model

        options = self.options
        return load_config(
            config_file=options.config,
            preset=options.preset,
            sets=options.sets or (),
            flags={"data.source": ("--source", options.source), **self.flags},
            tables_of_model=lambda name: tables_of_model(self.store(), name),
        )


def model_flag(model: str | None) -> str:
    """`--model` as it is typed after a command, or nothing."""
    return f" --model {shlex.quote(model)}" if model else ""


def with_options(
    *names: str, keys: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add flags to a command, which receives its `Call` instead of them.

    Args:
        names: of the fields of Options that the command takes; none for all.
        keys: of the configuration; "sample.top_p" becomes --top-p. commands.Command writes its
            help, and the configuration reads its text.
    """
    fields = inspect.signature(Options, eval_str=True).parameters
    shared = [fields[name] for name in names or fields]
    key_of_flag = {key.partition(".")[2]: key for key in keys}
    settings = [_setting_flag(name, key) for name, key in key_of_flag.items()]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(ctx: typer.Context, **values: Any) -> None:
            _check_working_directory()
            call: Call = ctx.obj
            call.options = Options(**{option.name: values.pop(option.name) for option in shared})
            for name, key in key_of_flag.items():
                call.flags[key] = (f"--{name.replace('_', '-')}", values.pop(name))
            function(call, **values)

        own = dict(inspect.signature(function, eval_str=True).parameters)
        del own["call"]
        context = _keyword("ctx", typer.Context)
        parameters = [context, *map(_keyword_only, own.values()), *settings]
        parameters += map(_keyword_only, shared)
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {item.name: item.annotation for item in parameters}
        return command

    return decorate


def _check_working_directory() -> None:
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise StorageError(
            "the working directory no longer exists", hint="`cd` into one that does"
        ) from error


def _keyword(name: str, annotation: object, **default: object) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, annotation=annotation, **default)


def _keyword_only(parameter: inspect.Parameter) -> inspect.Parameter:
    return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)


def _setting_flag(name: str, key: str) -> inspect.Parameter:
    """The flag of a key of the configuration; its help is the key until it is shown."""
    annotation = Annotated[str | None, typer.Option(metavar="VALUE", help=key)]
    return _keyword(name, annotation, default=None)


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
    """The shortest spelling that the shell finds: a bare name, else relative, else whole."""
    with suppress(FileNotFoundError):  # where the working directory no longer exists
        found = shutil.which(path.name)
        path = path.absolute()
        if found and Path(found).absolute() == path:
            return path.name
        if not elsewhere and path.is_relative_to(Path.cwd()):
            path = path.relative_to(Path.cwd())
    return shlex.quote(str(path))
