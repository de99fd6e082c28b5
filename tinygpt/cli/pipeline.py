"""The stages as commands."""

import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinygpt import ui
from tinygpt.cli import ranks
from tinygpt.cli.options import Call, with_options
from tinygpt.errors import InputError, UsageError

if TYPE_CHECKING:
    from tinygpt.store import Artifact

MAX_PROMPT_BYTES = 1 << 20
SAMPLE_KEYS = ("temperature", "top_k", "top_p", "min_p", "max_new_tokens", "num_samples", "seed", "overflow")

Model = Annotated[str | None, typer.Option(metavar="ID", help="Trained model, by the first digits of its id.")]

Folder = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder to copy the pictures to.")]
Open = Annotated[bool, typer.Option("--open", help="Show report.html in a browser.")]


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
    session.finish(session.make(name, session.inputs(name), force=call.options.force), following)


@with_options(keys=["train.max_steps"])
def train(
    call: Call,
    *,
    resume: Annotated[bool, typer.Option("--resume", help="Insist on continuing an unfinished run.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Set an unfinished run aside and start again.")] = False,
    from_: Annotated[str | None, typer.Option("--from", metavar="ID", help="train.init_from")] = None,
    max_minutes: Annotated[float | None, typer.Option(min=0, metavar="M", help="Stop after this time; resumable.")] = None,
    stop_at_step: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after this step; resumable.")] = None,
) -> None:
    """Train the model; an unfinished run continues."""
    from tinygpt.cli.session import Session, prepare_training

    if ranks.follows():
        return ranks.follow(call)
    if resume and fresh:
        raise UsageError("`--resume` and `--fresh` contradict each other", hint="give one of them")
    call.flags["train.init_from"] = ("--from", from_)
    session = Session(call, max_seconds=max_minutes and max_minutes * 60, stop_at_step=stop_at_step)
    inputs = session.inputs("train")
    done = None if call.options.force else session.plan("train")["train"].artifact
    if done is None:
        prepare_training(session, resume=resume, fresh=fresh)
    elif resume:
        session.report.note(f"run {done.id} is finished")
    session.finish(session.make("train", inputs, force=call.options.force), "eval", "sample")


@with_options(keys=["eval.text"])
def evaluate(call: Call, *, model: Model = None) -> None:
    """Measure loss, perplexity and bits per byte beside baselines."""
    from tinygpt.cli.session import Session

    session = Session(call)
    inputs = session.inputs_around("eval", session.trained(model), model)
    outcome = session.make("eval", inputs, force=call.options.force)
    call.answer(outcome.artifact.read_json("eval.json"))
    suffix = f" --model {model}" if model else ""
    session.next(f"sample{suffix}", f"plot{suffix}")


@with_options(keys=[f"sample.{key}" for key in SAMPLE_KEYS])
def sample(
    call: Call,
    *,
    prompt: Annotated[str | None, typer.Argument(help="sample.prompt")] = None,
    file: Annotated[Path | None, typer.Option(metavar="FILE", help='File that holds the prompt; "-" for standard input.')] = None,
    stop: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="Text that ends a story; repeatable.")] = None,
    model: Model = None,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Show the story while it is told.")] = True,
) -> None:
    """Tell a story."""
    from tinygpt.cli.session import Session, print_samples

    if file is not None:
        if prompt is not None:
            raise UsageError("there are two prompts, one as argument and one in `--file`", hint="give one of them")
        prompt = _read_prompt(file)
    call.flags["sample.prompt"] = ("PROMPT" if file is None else "--file", prompt)
    call.flags["sample.stop"] = ("--stop", stop or None)
    streams = stream and not call.options.json
    session = Session(call, stream=streams)
    inputs = session.inputs_around("sample", session.trained(model), model)
    if session.config.sample.seed is None:
        drawn = secrets.randbelow(2**31)
        session.reload({"sample.seed": ("--seed", drawn)})
        session.report.note(f"seed {drawn} (repeat with --seed {drawn})")
    outcome = session.make("sample", inputs, force=call.options.force)
    if outcome.cached or not streams:
        print_samples(outcome.artifact, as_json=call.options.json)


def _read_prompt(path: Path) -> str:
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


@with_options(keys=["plot.text", "plot.format"])
def plot(call: Call, *, model: Model = None, out: Folder = None, opens: Open = False) -> None:
    """Draw training curves, attention and weights."""
    import webbrowser

    from tinygpt.cli.session import Session, pictures, put_latest

    session = Session(call)
    inputs = session.inputs_around("plot", session.trained(model), model)
    outcome = session.make("plot", inputs, force=call.options.force)
    told = (story for story in session.store.list("sample") if story.manifest.inputs["train"]["digest"] == inputs["train"].digest)
    put_latest(session.store, outcome.artifact, next(told, None))
    paths = _copy(outcome.artifact, out) if out else [outcome.artifact.path(name) for name in pictures(outcome.artifact)]
    if not call.options.json:
        ui.say_product("\n".join(map(str, paths)))
    page = next(path for path in paths if path.suffix == ".html")
    if opens and not webbrowser.open(page.as_uri()):
        session.report.note(f"there is no display or no browser to open `{page}` with")
    session.finish(outcome)


def _copy(plot: "Artifact", folder: Path) -> list[Path]:
    """Copy a plot artifact's pictures and values out of the store."""
    from tinygpt.cli.session import pictures

    for name in plot.names():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(plot.read(name))
    return [(folder / name).absolute() for name in pictures(plot)]
