"""One pipeline command: its configuration, its project and its screen."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from tinygpt.cli import distributed
from tinygpt.cli.options import Call, model_flag
from tinygpt.cli.results import artifact_record
from tinygpt.config import Config
from tinygpt.errors import Interrupted, StoppedEarly
from tinygpt.pipeline import Outcome
from tinygpt.progress import Limits
from tinygpt.project import Project
from tinygpt.records import Summary
from tinygpt.runs.code import other_code
from tinygpt.store import Artifact, Inputs
from tinygpt.ui import Screen


class Session:
    """What a pipeline command works with.

    Args:
        call: the command line.
        stream: print generated text to stdout while it is generated.
        makes: the command runs stages from the configuration; False if it reads a trained model.
        may_read_source, refresh_source: see Project.
        max_seconds, stop_at_step: see Limits.
    """

    def __init__(
        self,
        call: Call,
        *,
        stream: bool = False,
        reads_model: bool = False,
        may_read_source: bool = False,
        refresh_source: bool = False,
        max_seconds: float | None = None,
        stop_at_step: int | None = None,
    ) -> None:
        self.call = call
        self.loaded = call.load_config()
        distributed.check(call.arguments[0], self.config.train)
        self.screen = Screen(
            self.config.runtime.progress,
            quiet=call.options.quiet,
            stream=stream,
            rephrase=call.rephrase,
        )
        notes = self.loaded.notes + (() if reads_model else self.loaded.default_notes)
        for note in notes:
            self.screen.note(note)
        self.project = Project(
            self.config,
            call.store(),
            reporter=self.screen,
            on_outcome=self.show,
            may_read_source=may_read_source,
            refresh_source=refresh_source,
            provenance={"preset": self.loaded.preset, "command": call.arguments},
        )
        signals = call.signals
        self.limits = Limits(
            max_seconds, stop_at_step, lambda: signals.received, defer_signals=signals.deferred
        )

    @property
    def config(self) -> Config:
        """The configuration as it is now."""
        return self.loaded.config

    def reload(self, flags: Mapping[str, tuple[str, object]]) -> None:
        """Read the configuration again, with further flags."""
        self.call.flags |= flags
        self.loaded = self.call.load_config()
        self.project = self.project.with_config(self.config)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """After the block remove the progress bar; a stop in it gets the hint how to continue."""
        try:
            yield
        except (StoppedEarly, Interrupted) as stopped:
            again = "run" if self.call.arguments[0] == "run" else "train --resume"
            stopped.hint = f"`tinygpt {again}` continues it"
            raise
        finally:
            self.screen.close()

    def make(self, stage: str, inputs: Inputs | None = None) -> Outcome:
        """Run a stage, or find that it has run, and show its table."""
        with self._running():
            force = self.call.options.force
            return self.project.make(stage, inputs, force=force, limits=self.limits)

    def run(self, until: str, force: Collection[str]) -> dict[str, Outcome]:
        """Run every stage in order, and show the table of each."""
        with self._running():
            return self.project.run(until, force=force, limits=self.limits)

    def show(self, outcome: Outcome) -> None:
        """The result table of a stage."""
        artifact = outcome.artifact
        if outcome.cached:
            distributed.dismiss_followers()
        how = "  cached" if outcome.cached else "  reproduced" if outcome.reproduced else ""
        rows = [(label, value) for label, value in _summary(artifact)["rows"]]
        self.screen.result(f"{artifact.stage} {artifact.id}{how}", rows)
        if outcome.cached:
            self._note_other_code(artifact)
        if self.call.signals.received is not None:
            # It came during the last step, which was finished and kept
            raise KeyboardInterrupt

    def finish(self, outcome: Outcome, *following: str) -> None:
        """End a command: print the JSON object of `--json`, and suggest commands to type next."""
        answer = {**artifact_record(outcome.artifact), "cached": outcome.cached}
        summary = _summary(outcome.artifact)
        if "numbers" in summary:
            answer["numbers"] = summary["numbers"]
        self.call.answer(answer)
        self.suggest(*following, model=outcome.artifact)

    def suggest(self, *commands: str, model: Artifact | None = None) -> None:
        """Suggest commands to type next, each complete.

        Args:
            model: which those that read a model name if the flags of this call made it, because its
                id is shorter than they are.
        """
        by_id = ""
        if model is not None and model.stage == "train" and self.call.sets_recipe:
            by_id = model_flag(model.id)
        for command in commands:
            reads_model = command.startswith(("eval", "sample", "plot", "page"))
            words = command + by_id if reads_model else command
            self.screen.note(f"next: {self.call.command(words)}")

    def find_model(self, model: str | None) -> Artifact:
        """The trained model that the command looks at; see Project.find_model."""
        found = self.project.find_model(model, or_newest=not self.call.options.names_a_run)
        self._note_other_code(found)
        self.call.model_names_recipe = not found.is_imported
        return found

    def _note_other_code(self, artifact: Artifact) -> None:
        """Say where a model was trained by code that has changed since."""
        if note := other_code(artifact):
            self.screen.note(note)


def _summary(artifact: Artifact) -> Summary:
    """The result table of a stage; for a model that lacks files, a row names them."""
    missing = artifact.missing()
    summary: Summary = {"rows": []}
    if "summary.json" not in missing:
        summary = artifact.read_json("summary.json", Summary)
    if missing:
        summary["rows"].append(["missing", ", ".join(missing)])
    return summary
