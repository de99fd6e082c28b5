"""The stages as commands."""

import secrets
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygpt import ui
from tinygpt.cli import distributed, failures, prompts
from tinygpt.cli.options import Call, model_flag, with_options
from tinygpt.cli.results import PAGE, pictures, put_latest, sample_texts
from tinygpt.errors import UsageError

if TYPE_CHECKING:
    from tinygpt.cli.session import Session
    from tinygpt.store import Artifact, Inputs

SAMPLE_KEYS = (
    "sample.temperature",
    "sample.top_k",
    "sample.top_p",
    "sample.min_p",
    "sample.max_new_tokens",
    "sample.num_samples",
    "sample.seed",
    "sample.overflow",
    "sample.weights",
)

Model = Annotated[
    str | None, typer.Option(metavar="ID|FOLDER", help="Trained model: an id prefix or a folder.")
]

Resume = Annotated[
    bool,
    typer.Option("--resume", help="Continue an unfinished run, and refuse another configuration."),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Move an unfinished run to the trash and start over.")
]
From = Annotated[str | None, typer.Option("--from", metavar="ID", help="train.init_from")]
ReuseTokenizer = Annotated[
    bool,
    typer.Option("--reuse-tokenizer", help="Use the tokenizer of the model of --from on new text."),
]
MaxMinutes = Annotated[
    float | None, typer.Option(min=0, metavar="M", help="Stop after M minutes and save; resumable.")
]
StopAtStep = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Stop after step N and save; resumable.")
]
TensorBoard = Annotated[
    Path | None,
    typer.Option(
        "--tensorboard", metavar="DIR", help="Folder to write events to, for TensorBoard."
    ),
]

Prompt = Annotated[str | None, typer.Argument(metavar="PROMPT", help="sample.prompt")]
PromptFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help='File that holds the prompt; "-" for standard input.'),
]
Stop = Annotated[
    list[str] | None, typer.Option(metavar="TEXT", help="Text that ends a sample; repeatable.")
]
Interactive = Annotated[
    bool, typer.Option("--interactive", help="Continue each line of standard input.")
]
IgnoreEos = Annotated[bool, typer.Option("--ignore-eos", help="sample.ignore_eos")]
XRay = Annotated[
    bool, typer.Option("--xray", help="Also show how sure the model was of each token.")
]
Stream = Annotated[
    bool, typer.Option("--stream/--no-stream", help="Print the text as it is generated.")
]

TextFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="File whose first document's attention is drawn."),
]
MOST_CHARACTERS = 4_000  # of a document whose attention is drawn, which is far fewer tokens
OutFolder = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder to copy the pictures to.")
]
Open = Annotated[bool, typer.Option("--open", help="Open it in a browser.")]
OutFile = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Where to copy the page.")
]


@with_options()
def tokenize(call: Call) -> None:
    """Learn a vocabulary from the text (byte-level BPE)."""
    _make(call, "tokenize", "build-dataset")


@with_options()
def build_dataset(call: Call) -> None:
    """Split the documents and store them as token ids."""
    _make(call, "build-dataset", "train")


def _make(call: Call, stage: str, following: str) -> None:
    from tinygpt.cli.session import Session

    session = Session(call, may_read_source=True)
    session.finish(session.make(stage), following)


@with_options(keys=["train.max_steps"])
def train(
    call: Call,
    *,
    resume: Resume = False,
    fresh: Fresh = False,
    from_: From = None,
    reuse_tokenizer: ReuseTokenizer = False,
    max_minutes: MaxMinutes = None,
    stop_at_step: StopAtStep = None,
    tensorboard: TensorBoard = None,
) -> None:
    """Train the model; an unfinished run continues."""
    from tinygpt.cli.session import Session

    if distributed.is_follower():
        return distributed.follow(call.store())
    if resume and fresh:
        raise UsageError(
            "`--resume` cannot be combined with `--fresh`", hint="use only one of them"
        )
    if reuse_tokenizer and from_ is None:
        raise UsageError(
            "`--reuse-tokenizer` needs a model", hint="name it with `--from ID` or `tokenizer.from`"
        )
    call.flags["train.init_from"] = ("--from", from_)
    call.flags["tokenizer.from"] = ("--reuse-tokenizer", from_ if reuse_tokenizer else None)
    max_seconds = None if max_minutes is None else max_minutes * 60
    session = Session(call, max_seconds=max_seconds, stop_at_step=stop_at_step)
    inputs = session.project.inputs("train")
    cached = None if call.options.force else session.project.plan("train")["train"].artifact
    if cached is None:
        session.project.prepare_training(resume=resume, fresh=fresh)
    elif resume:
        session.screen.note(f"run {cached.id} is finished")
    with _watched(session, cached, tensorboard):
        outcome = session.make("train", inputs)
    session.finish(outcome, "eval", "sample")


@contextmanager
def _watched(session: "Session", cached: "Artifact | None", folder: Path | None) -> Iterator[None]:
    """Write the steps of the training in the block to a folder, if one was named."""
    if folder is None:
        yield
        return
    if cached is not None:
        target = shlex.quote(str(folder / cached.id if folder.exists() else folder))
        command = f"`tinygpt export {target} --to tensorboard --model {cached.id}`"
        session.screen.note(
            f"run {cached.id} is finished; {command} writes the events of its steps"
        )
        yield
        return
    from tinygpt.exports.tensorboard import LiveEvents

    key = session.project.plan("train")["train"].key
    assert key is not None
    with closing(LiveEvents(folder, key[:12], session.screen.note)) as events:
        session.screen.on_metrics = events.write
        yield


@with_options(keys=["eval.text", "eval.split", "eval.weights"])
def evaluate(call: Call, *, model: Model = None) -> None:
    """Measure loss, bits per byte and generation quality."""
    from tinygpt.cli.session import Session
    from tinygpt.records import EvalRecord

    session = Session(call, reads_model=True)
    inputs = _inputs_of_model(session, "eval", model)
    outcome = session.make("eval", inputs)
    call.answer(outcome.artifact.read_json("eval.json", EvalRecord))
    following = ("sample", "plot") if "build-dataset" in inputs else ("sample",)
    words = [f"{command}{model_flag(model)}" for command in following]
    session.suggest(*words, model=None if model else inputs["train"])


def _inputs_of_model(session: "Session", stage: str, model: str | None) -> "Inputs":
    return session.project.inputs_of_model(stage, session.find_model(model), model)


@with_options(keys=SAMPLE_KEYS)
def sample(
    call: Call,
    *,
    prompt: Prompt = None,
    file: PromptFile = None,
    stop: Stop = None,
    ignore_eos: IgnoreEos = False,
    model: Model = None,
    interactive: Interactive = False,
    xray: XRay = False,
    stream: Stream = True,
) -> None:
    """Generate text."""
    from tinygpt.cli.session import Session

    if file is not None and (prompt is not None or interactive):
        raise UsageError(
            "`--file` cannot be combined with a prompt or `--interactive`",
            hint="use only one of them",
        )
    call.flags["sample.stop"] = ("--stop", stop or None)
    call.flags["sample.ignore_eos"] = ("--ignore-eos", ignore_eos or None)
    session = Session(call, reads_model=True, stream=stream and not call.options.json)
    if interactive:
        session.screen.quiet = True
    if file is not None:
        prompt = prompts.read_prompt(file, session.config.data, session.screen)
    inputs = _inputs_of_model(session, "sample", model)
    seed = call.flags["sample.seed"]
    for text in prompts.typed_prompts(prompt) if interactive else [prompt]:
        flag = "PROMPT" if file is None else "--file"
        session.reload({"sample.prompt": (flag, text), "sample.seed": seed})
        _generate(session, inputs, xray=xray)


def _generate(session: "Session", inputs: "Inputs", *, xray: bool) -> None:
    """Generate with the current configuration, and print the text, its JSON or its x-ray."""
    if session.config.sample.seed is None:
        drawn = secrets.randbelow(2**31)
        session.reload({"sample.seed": ("--seed", drawn)})
        session.screen.note(f"seed {drawn} (repeat with --seed {drawn})")
    as_json = session.call.options.json
    prompts.note_last_space(session.config.sample.prompt, session.screen)
    outcome = session.make("sample", inputs)
    if not as_json and (outcome.cached or not session.screen.stream):
        ui.say_output("\n\n".join(sample_texts(outcome.artifact)))
    records: Iterable[Mapping[str, Any]] = ()
    if xray:
        from tinygpt.stages.sample import add_xray

        records = add_xray(outcome.artifact, session.config, inputs)
    elif as_json:
        from tinygpt.records import SampleRecord

        records = outcome.artifact.read_rows("samples.jsonl", list[SampleRecord])
    say = partial(ui.say_json, indent=None) if as_json else ui.say_xray
    for record in records:
        say(record)


@with_options(keys=["plot.text", "plot.weights", "plot.format"])
def plot(
    call: Call,
    *,
    text_file: TextFile = None,
    model: Model = None,
    out: OutFolder = None,
    opens: Open = False,
) -> None:
    """Draw training curves, attention and weights; write report.html."""
    from tinygpt.cli.session import Session
    from tinygpt.records import DatasetMeta
    from tinygpt.trained_models import newest_of_model

    if text_file is not None and call.flags["plot.text"][1] is not None:
        raise UsageError(
            "`--text-file` cannot be combined with `--text`", hint="use only one of them"
        )
    session = Session(call, reads_model=True)
    train = session.find_model(model)
    if text_file is not None:
        trained_on = None
        if not train.is_imported:
            dataset = session.project.inputs_of_model("plot", train, model)["build-dataset"]
            trained_on = dataset.read_json("meta.json", DatasetMeta)
        data, screen = session.config.data, session.screen
        text = prompts.first_document(text_file, data, screen, trained_on)[:MOST_CHARACTERS]
        session.reload({"plot.text": ("--text-file", text)})
    inputs = session.project.inputs_of_model("plot", train, model)
    outcome = session.make("plot", inputs)
    artifact, store = outcome.artifact, session.project.store
    newest_sample = newest_of_model(store, "sample", inputs["train"])
    latest = put_latest(store, artifact, newest_sample, session.screen.note)
    paths = [artifact.path(name) for name in pictures(artifact)]
    if out is not None:
        copies = {name: _copy(artifact, name, out / name) for name in artifact.names()}
        paths = [copies[name] for name in pictures(artifact)]
    if not call.options.json:
        ui.say_output("\n".join(map(str, paths)))
    report = next(path for path in paths if path.suffix == ".html")
    if opens:
        _open(session, report)
    session.screen.note(f"report    {latest / report.name}")
    session.finish(outcome)


@with_options(keys=["page.weights", "page.dtype", "page.snapshots"])
def page(call: Call, *, model: Model = None, out: OutFile = None, opens: Open = False) -> None:
    """Write one HTML file with the model itself, to type into and to look inside."""
    from tinygpt.cli.session import Session

    session = Session(call, reads_model=True)
    outcome = session.make("page", _inputs_of_model(session, "page", model))
    path = outcome.artifact.path(PAGE)
    if out is not None:
        path = _copy(outcome.artifact, PAGE, out)
    if not call.options.json:
        ui.say_output(str(path))
    if opens:
        _open(session, path)
    session.finish(outcome)


def _copy(artifact: "Artifact", name: str, target: Path) -> Path:
    """Copy a file of an artifact out of the store."""
    content = artifact.read(name)
    with failures.writing(target, "choose another place with `--out`"):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return target.absolute()


def _open(session: "Session", page: Path) -> None:
    """Show an HTML file in a browser."""
    import webbrowser

    if not webbrowser.open(page.as_uri()):
        session.screen.note(f"cannot open `{page}`: no browser is available")
