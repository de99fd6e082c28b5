"""The stages as commands, and `tinygpt run`: all of them in their order."""

import difflib
import secrets
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygpt import ui
from tinygpt.cli import ranks
from tinygpt.cli.artifacts import evaluations, pictures, put_latest, record, stories
from tinygpt.cli.options import Call, of_model, with_options
from tinygpt.errors import InputError, UsageError

if TYPE_CHECKING:
    from tinygpt.cli.session import Artifact, Inputs, Outcome, Session

MAX_PROMPT_BYTES = 1 << 20
# So that a first story is a good one, and the same for everybody
SAMPLE_DEFAULTS: dict[str, object] = {"top_p": 0.9, "seed": 1337}
EXAMPLE = 'sample "Once upon a time" --top-p 0.9'
SAMPLE_KEYS = ("temperature", "top_k", "top_p", "min_p", "max_new_tokens", "num_samples", "seed", "overflow")

Model = Annotated[str | None, typer.Option(metavar="ID|FOLDER", help="Trained model: its folder, or how its id begins.")]

Prompt = Annotated[str | None, typer.Argument(help="sample.prompt")]
File = Annotated[Path | None, typer.Option(metavar="FILE", help='File that holds the prompt; "-" for standard input.')]
Stop = Annotated[list[str] | None, typer.Option(metavar="TEXT", help="Text that ends a story; repeatable.")]
Interactive = Annotated[bool, typer.Option("--interactive", help="Tell a story for each line that is typed.")]
XRay = Annotated[bool, typer.Option("--xray", help="Show also how sure the model was of each token.")]
Stream = Annotated[bool, typer.Option("--stream/--no-stream", help="Show the story while it is told.")]

Until = Annotated[str | None, typer.Option(metavar="STAGE", help="Last stage; with --force only this one is made again.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what is cached and what would run, and why.")]

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
    session = call.session(reads=True)
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
    if ranks.follows():
        return ranks.follow(call)
    if resume and fresh:
        raise UsageError("`--resume` and `--fresh` contradict each other", hint="give one of them")
    call.flags["train.init_from"] = ("--from", from_)
    session = call.session(max_seconds=max_minutes and max_minutes * 60, stop_at_step=stop_at_step)
    inputs = session.inputs("train")
    done = None if call.options.force else session.plan("train")["train"].artifact
    if done is None:
        session.prepare_training(resume=resume, fresh=fresh)
    elif resume:
        session.report.note(f"run {done.id} is finished")
    session.finish(session.make("train", inputs, force=call.options.force), "eval", "sample")


@with_options(keys=["eval.text"])
def evaluate(call: Call, *, model: Model = None) -> None:
    """Measure loss, perplexity and bits per byte beside baselines."""
    session = call.session()
    inputs = session.inputs_around("eval", session.trained(model), model)
    outcome = session.make("eval", inputs, force=call.options.force)
    call.answer(outcome.artifact.read_json("eval.json"))
    session.next(f"sample{of_model(model)}", f"plot{of_model(model)}")


@with_options(keys=[f"sample.{key}" for key in SAMPLE_KEYS])
def sample(
    call: Call, *, prompt: Prompt = None, file: File = None, stop: Stop = None, model: Model = None,
    interactive: Interactive = False, xray: XRay = False, stream: Stream = True,
) -> None:  # fmt: skip
    """Tell a story."""
    if file is not None:
        if prompt is not None or interactive:
            raise UsageError("there are two prompts: `--file`, and another one beside it", hint="give one of them")
        prompt = _read_prompt(file)
    call.flags["sample.stop"] = ("--stop", stop or None)
    session = call.session(stream=stream and not call.options.json)
    session.report.quiet |= interactive
    inputs, seed = session.inputs_around("sample", session.trained(model), model), call.flags["sample.seed"]
    for text in _typed(prompt) if interactive else [prompt]:
        session.reload({"sample.prompt": ("PROMPT" if file is None else "--file", text), "sample.seed": seed})
        _tell(session, inputs, xray=xray)


def _tell(session: "Session", inputs: "Inputs", *, xray: bool) -> None:
    """A story by the configuration as it is now, and what else is to be seen of it."""
    if session.config.sample.seed is None:
        drawn = secrets.randbelow(2**31)
        session.reload({"sample.seed": ("--seed", drawn)})
        session.report.note(f"seed {drawn} (repeat with --seed {drawn})")
    options = session.call.options
    outcome = session.make("sample", inputs, force=options.force)
    if not options.json and (outcome.cached or not session.report.stream):
        ui.say_product("\n\n".join(stories(outcome.artifact)))
    told: Iterable[dict[str, Any]] = outcome.artifact.read_rows("samples.jsonl") if options.json else ()
    if xray:
        from tinygpt.stages.sample import look_into

        told = look_into(outcome.artifact, session.config, inputs)
    say = partial(ui.say_json, indent=None) if options.json else ui.say_xray
    for story in told:
        say(story)


def _typed(prompt: str | None) -> Iterator[str | None]:
    """The prompt already given, then one line of standard input after the other; an empty one lets the model begin."""
    if prompt is not None:
        yield prompt
    with suppress(ImportError):
        import readline  # noqa: F401  lets `input` edit, and remember
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="surrogateescape")  # what is not UTF-8 is told apart below
    mark = "> " if sys.stdin.isatty() and sys.stdout.isatty() else ""
    with suppress(EOFError):
        while True:
            yield _checked_prompt(input(mark).encode(errors="surrogateescape"), "standard input") or None


def _read_prompt(path: Path) -> str:
    try:
        with sys.stdin.buffer if str(path) == "-" else path.open("rb") as stream:
            return _checked_prompt(stream.read(MAX_PROMPT_BYTES + 1), str(path))
    except OSError as error:
        raise InputError(f"cannot read the prompt in `{path}`: {error.strerror}", hint="check the path") from error


def _checked_prompt(data: bytes, source: str) -> str:
    if len(data) > MAX_PROMPT_BYTES:
        raise InputError(f"the prompt in `{source}` is longer than {MAX_PROMPT_BYTES:,} bytes", hint="shorten it")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"the prompt in `{source}` is not UTF-8 (byte {error.start:,})", hint="convert it to UTF-8") from error


@with_options(keys=["plot.text", "plot.format"])
def plot(call: Call, *, model: Model = None, out: Folder = None, opens: Open = False) -> None:
    """Draw training curves, attention and weights."""
    import webbrowser

    session = call.session()
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
    for name in plot.names():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(plot.read(name))
    return [(folder / name).absolute() for name in pictures(plot)]


@with_options()
def run(call: Call, *, until: Until = None, dry_run: DryRun = False) -> None:
    """Do all stages: corpus, tokenize, build-dataset, train, eval, sample, plot."""
    from tinygpt.pipeline import STAGES

    last = until or list(STAGES)[-1]
    if last not in STAGES:
        near = difflib.get_close_matches(last, STAGES, 1)
        hint = f"did you mean `{near[0]}`?" if near else f"the stages are {', '.join(STAGES)}"
        raise UsageError(f"`{last}` is not a stage", hint=hint)
    session = call.session(reads=not dry_run, renews=call.options.force and until in (None, "corpus"))
    sampling, origins = session.config.sample, session.loaded.origins
    unset = [key for key in SAMPLE_DEFAULTS if getattr(sampling, key) is None and origins[f"sample.{key}"] != "--set"]
    session.reload({f"sample.{key}": ("`run`", SAMPLE_DEFAULTS[key]) for key in unset})
    if dry_run:
        _show_plan(session, last)
        return
    made: dict[str, Outcome] = {}
    for name, stage in STAGES.items():
        inputs = {source: made[source].artifact for source in stage.inputs}
        made[name] = session.make(name, inputs, force=call.options.force and until in (None, name))
        if name == last:
            break
    _conclude(session, made)


def _show_plan(session: "Session", until: str) -> None:
    said = {}
    for name, planned in session.plan(until).items():
        why = planned.why
        if planned.artifact is None and planned.key and (steps := session.store.checkpoints(name, planned.key).steps()):
            why = f"an unfinished run continues at step {steps[-1]:,}"
        said[name] = {"cached": planned.artifact is not None, "id": planned.artifact and planned.artifact.id, "why": why}
    if not session.call.answer(said):
        rows = [(name, f"{row['id'] or 'run'}  {row['why']}") for name, row in said.items()]
        ui.say_product(ui.table(f"plan for `{session.store.root}`", rows, ui.columns(sys.stdout)))


def _conclude(session: "Session", made: dict[str, "Outcome"]) -> None:
    """The story, what training changed, the pictures, and what to type now."""
    before = after = None
    if "eval" in made:
        judged = made["eval"].artifact.read_json("eval.json")
        after = judged["perplexity"]
        before = judged["baselines"].get("untrained", {"perplexity": evaluations(made["train"].artifact)[0]})["perplexity"]
    plot = made["plot"].artifact if "plot" in made else None
    drawn = [str(plot.path(name)) for name in pictures(plot)] if plot else []
    told = stories(made["sample"].artifact) if "sample" in made else []
    stages = [{**record(outcome.artifact), "cached": outcome.cached} for outcome in made.values()]
    perplexity = {"before": before, "after": after}
    if not session.call.answer({"stages": stages, "stories": told, "perplexity": perplexity, "pictures": drawn}) and told:
        ui.say_product("\n\n".join(told))
    if after is not None:
        session.report.note(f"perplexity {before:,.0f} before training, {after:,.2f} after")
    if plot:
        put_latest(session.store, plot, made["sample"].artifact)
    for path in drawn:
        session.report.note(path)
    later = {"train": ["eval", EXAMPLE], "eval": [EXAMPLE], "sample": ["plot"]}
    later["plot"] = [EXAMPLE, "artifacts ls", "init mine --preset laptop --source my.txt"]
    session.next(*later.get(list(made)[-1], ["run"]))
