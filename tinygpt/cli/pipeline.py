"""The stages as commands, but `train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinygpt.cli.options import Call, with_options
from tinygpt.errors import InputError, UsageError

if TYPE_CHECKING:
    from tinygpt.cli.session import Session
    from tinygpt.pipeline import Outcome
    from tinygpt.store import Artifact

MAX_PROMPT_BYTES = 1 << 20

Model = Annotated[str | None, typer.Option(metavar="ID", help="Trained model, by the first digits of its id.")]


@with_options()
def tokenize(call: Call) -> None:
    """Learn a vocabulary from the stories (byte-level BPE)."""
    _simple(call, "tokenize", "build-dataset")


@with_options()
def build_dataset(call: Call) -> None:
    """Split the stories and store them as token ids."""
    _simple(call, "build-dataset", "train")


def _simple(call: Call, name: str, following: str) -> None:
    from tinygpt.cli.session import Session

    session = Session(call, reads_source=True)
    _finish(session, session.make(name, session.inputs(name), force=call.options.force), following)


def _finish(session: "Session", outcome: "Outcome", *following: str) -> None:
    if session.call.options.json:
        session.print_json(outcome)
    session.next(*following)


@with_options()
def evaluate(
    call: Call,
    *,
    text: Annotated[Path | None, typer.Option(metavar="FILE", help="Text to judge instead of the validation stories.")] = None,
    model: Model = None,
) -> None:
    """Measure loss, perplexity and bits per byte beside baselines."""
    from tinygpt.cli.session import Session
    from tinygpt.ui import say_json

    call.flags = {"eval.text": ("--text", text)}
    session = Session(call)
    inputs = session.inputs_around("eval", session.trained(model), model)
    outcome = session.make("eval", inputs, force=call.options.force)
    if call.options.json:
        say_json(outcome.artifact.read_json("eval.json"))
    suffix = f" --model {model}" if model else ""
    session.next(f"sample{suffix}", f"plot{suffix}")


@with_options()
def sample(
    call: Call,
    *,
    prompt: Annotated[str | None, typer.Argument(help="Beginning of the story.")] = None,
    file: Annotated[Path | None, typer.Option(metavar="FILE", help='File that holds the prompt; "-" for standard input.')] = None,
    temperature: Annotated[float | None, typer.Option(metavar="T", help="Divides the logits; 0 takes the likeliest.")] = None,
    top_k: Annotated[int | None, typer.Option(metavar="K", help="Keep the K likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(metavar="P", help="Keep the likeliest tokens up to this mass.")] = None,
    min_p: Annotated[float | None, typer.Option(metavar="P", help="Keep tokens this share as likely as the likeliest.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(metavar="N", help="Longest continuation.")] = None,
    num_samples: Annotated[int | None, typer.Option(metavar="N", help="Stories to tell.")] = None,
    stop: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="Text that ends a story; repeatable.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Of the random numbers; repeats a story.")] = None,
    overflow: Annotated[str | None, typer.Option(metavar="POLICY", help="Where the context is full: stop or slide.")] = None,
    model: Model = None,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Show the story while it is told.")] = True,
) -> None:
    """Tell a story."""
    from tinygpt.cli.session import Session, print_samples

    if file is not None:
        if prompt is not None:
            raise UsageError("there are two prompts, one as argument and one in `--file`", hint="give one of them")
        prompt = _read_prompt(file)
    values = {
        "prompt": prompt, "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "stop": stop or None,
        "max_new_tokens": max_new_tokens, "num_samples": num_samples, "seed": seed, "overflow": overflow,
    }  # fmt: skip
    call.flags = {f"sample.{name}": (f"--{name.replace('_', '-')}", value) for name, value in values.items()}
    call.flags["sample.prompt"] = ("PROMPT" if file is None else "--file", prompt)
    streams = stream and not call.options.json
    session = Session(call, stream=streams)
    inputs = session.inputs_around("sample", session.trained(model), model)
    if session.config.sample.seed is None:
        drawn = _draw_seed(session)
        session.report.note(f"seed {drawn} (repeat with --seed {drawn})")
    outcome = session.make("sample", inputs, force=call.options.force)
    if outcome.cached or not streams:
        print_samples(outcome.artifact, as_json=call.options.json)


def _read_prompt(path: Path) -> str:
    import sys

    try:
        with sys.stdin.buffer if str(path) == "-" else path.open("rb") as stream:
            data = stream.read(MAX_PROMPT_BYTES + 1)
        if len(data) > MAX_PROMPT_BYTES:
            raise InputError(f"the prompt in `{path}` is longer than {MAX_PROMPT_BYTES:,} bytes", hint="shorten it")
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"the prompt in `{path}` is not UTF-8 (byte {error.start:,})", hint="convert it to UTF-8") from error
    except OSError as error:
        raise InputError(f"cannot read the prompt in `{path}`: {error.strerror}", hint="check the path") from error


def _draw_seed(session: "Session") -> int:
    """Draw a seed and make it part of the configuration."""
    import secrets

    drawn = secrets.randbelow(2**31)
    session.reload({"sample.seed": ("--seed", drawn)})
    return drawn


@with_options()
def plot(
    call: Call,
    *,
    text: Annotated[str | None, typer.Option(metavar="TEXT", help="Text whose attention is drawn.")] = None,
    format: Annotated[str | None, typer.Option(metavar="FORMAT", help="Of the pictures: png or svg.")] = None,
    model: Model = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder to copy the pictures to.")] = None,
) -> None:
    """Draw training curves, attention and weights."""
    from tinygpt.cli.session import Session, pictures, put_latest
    from tinygpt.ui import say_product

    call.flags = {"plot.text": ("--text", text), "plot.format": ("--format", format)}
    session = Session(call)
    inputs = session.inputs_around("plot", session.trained(model), model)
    outcome = session.make("plot", inputs, force=call.options.force)
    told = (story for story in session.store.list("sample") if story.manifest.inputs["train"]["digest"] == inputs["train"].digest)
    put_latest(session.store, outcome.artifact, next(told, None))
    paths = _copy(outcome.artifact, out) if out else [outcome.artifact.path(name) for name in pictures(outcome.artifact)]
    if call.options.json:
        session.print_json(outcome)
    else:
        for path in paths:
            say_product(str(path))


def _copy(plot: "Artifact", folder: Path) -> list[Path]:
    """Copy a plot artifact's pictures and values out of the store."""
    from tinygpt.cli.session import pictures

    for name in plot.names():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(plot.read(name))
    return [(folder / name).absolute() for name in pictures(plot)]
