"""One command's configuration, store and screen, and how it finds or makes the artifacts it needs."""

import difflib
import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path

from tinygpt.cli import ranks
from tinygpt.cli.artifacts import evaluations, record
from tinygpt.cli.options import Call, of_model
from tinygpt.config import Config, HubSource, parse_source
from tinygpt.errors import CorruptArtifactError, InputError, Interrupted, MissingArtifactError, StoppedEarly, UsageError
from tinygpt.hashing import hash_file
from tinygpt.pipeline import STAGES, Outcome, Planned, differences, execute, find_inputs, plan, stage_key, stage_tables
from tinygpt.report import Report, duration
from tinygpt.store import Artifact, Inputs, Out
from tinygpt.ui import Screen, number


class Session:
    """What a pipeline command works with.

    Args:
        stream: generated text goes to stdout as it is made.
        reads: the command may read the stories themselves, from the hub, too.
        renews: and asks the hub for its newest ones although there is a corpus.
        ends: what ends training early, as stages.train.Limits has it.
    """

    def __init__(
        self, call: Call, *, stream: bool = False, reads: bool = False, renews: bool = False, **ends: float | None
    ) -> None:
        self.call, self.reads, self.renews, self.limits = call, reads, renews, ends
        self.loaded = call.load_config()
        ranks.check(call.arguments[0], self.config.train)
        self.store = call.store()
        self.report = Screen(self.config.runtime.progress, quiet=call.options.quiet, stream=stream, rephrase=call.rephrase)
        for note in self.loaded.notes:
            self.report.note(note)

    def reload(self, flags: Mapping[str, tuple[str, object]]) -> None:
        """Read the configuration, with further flags."""
        self.call.flags |= flags
        self.loaded = self.call.load_config()

    @property
    def config(self) -> Config:
        return self.loaded.config

    @cached_property
    def outside(self) -> dict[str, str]:
        """What stands in keys instead of a spelling."""
        config = self.config
        held = {"data.source": self._fingerprint()}
        if config.eval.text is not None:
            try:
                held["eval.text"] = f"sha256:{hash_file(Path(config.eval.text))}"
            except OSError as error:
                why = f"cannot read `eval.text` = `{config.eval.text}`: {(error.strerror or str(error)).lower()}"
                raise InputError(why, hint="name a text file") from error
        if config.train.init_from is not None:
            held["train.init_from"] = self.store.resolve(config.train.init_from, "train").digest
        return held

    def _fingerprint(self) -> str:
        """What `data.source` holds; the hub is asked before a corpus is made of it, and a source that is gone is what it was."""
        from tinygpt.corpus import fingerprint

        data = self.config.data
        made = (corpus.manifest.provenance for corpus in self.store.list("corpus"))
        known = next((str(facts["fingerprint"]) for facts in made if facts.get("source") == data.source), None)
        asks = self.reads and (known is None or self.renews)
        if isinstance(parse_source(data.source), HubSource) and not asks:
            return known or data.source  # a spelling is no fingerprint: nothing is found by it
        try:
            return fingerprint(data)
        except InputError as gone:
            if known is None:
                raise
            self.report.note(f"{gone.message}; using the stories read from it before")
            return known

    def plan(self, until: str) -> dict[str, Planned]:
        """What `run --until` would do, by stage."""
        return {planned.stage.name: planned for planned in plan(self.config, self.store, self.outside, until)}

    def inputs(self, name: str) -> Inputs:
        """What a stage reads, as the configuration makes it; the corpus is made here by the first stage that needs it."""
        if "corpus" in STAGES[name].inputs and self.plan("corpus")["corpus"].artifact is None:
            self.make("corpus", {})
        return find_inputs(STAGES[name], self.config, self.store, self.outside)

    def make(self, name: str, inputs: Inputs, *, force: bool = False) -> Outcome:
        """Run a stage, or find that it has run, and show its table.

        Args:
            force: run also if there is a result.
        """
        try:
            outcome = execute(
                STAGES[name], self.config, inputs, store=self.store, outside=self.outside, runner=partial(self._run, name),
                report=self.report, force=force, lock_timeout=self.config.runtime.lock_timeout,
            )  # fmt: skip
        except (StoppedEarly, Interrupted) as stopped:
            stopped.hint = f"`tinygpt {'run' if self.call.arguments[0] == 'run' else 'train --resume'}` continues it"
            raise
        finally:
            self.report.close()
        artifact = outcome.artifact
        if outcome.cached and ranks.count() > 1:
            with ranks.joined("null"):
                pass
        said = "  cached" if outcome.cached else "  reproduced" if outcome.reproduced else ""
        self.report.result(f"{artifact.stage} {artifact.id}{said}", artifact.read_json("summary.json")["rows"])
        if self.call.signals.received is not None:  # came during the last step, which was finished and kept
            raise KeyboardInterrupt
        return outcome

    def _run(self, name: str, config: Config, inputs: Inputs, out: Out, report: Report) -> None:
        """The stage's own function; limits and signals end training with everything saved."""
        out.provenance(preset=self.loaded.preset, command=self.call.arguments)
        stage = import_module(f"tinygpt.stages.{name.replace('-', '_')}")
        if name != "train":
            stage.run(config, inputs, out, report)
            return
        if config.train.init_from is not None:
            inputs = {**inputs, "init_from": self.store.resolve(config.train.init_from, "train")}
        made = {name: f"{artifact.stage}/{artifact.key}" for name, artifact in inputs.items()}
        job = {"config": config.model_dump_json(), "inputs": made, "key": out.checkpoints.recipe.key}
        with ranks.joined(json.dumps(job)) as (all_ranks, _), self.call.signals.deferred() as interrupted:
            stage.run(config, inputs, out, report, limits=stage.Limits(interrupted=interrupted, **self.limits), ranks=all_ranks)

    def prepare_training(self, *, resume: bool, fresh: bool) -> None:
        """Apply `--resume` and `--fresh` to what an unfinished run left."""
        key = self.plan("train")["train"].key
        assert key is not None
        checkpoints = self.store.checkpoints("train", key)
        if fresh and checkpoints.folder.exists():
            with self.store.lock("train", key, timeout=self.config.runtime.lock_timeout, waiting=self.report.note):
                self.report.note(f"the unfinished run {key[:12]} is now in `{checkpoints.set_aside('unfinished')}`")
        if not resume or checkpoints.steps():
            return
        tables = stage_tables(STAGES["train"], self.config, self.outside)
        inputs = {name: artifact.digest for name, artifact in self.inputs("train").items()}
        for made in self.store.list("train"):
            done = int(str(made.manifest.tables["train"]["max_steps"]))
            more = self.config.train.max_steps - done
            differing = differences(made.manifest, tables, inputs, STAGES["train"].version)
            if [change.split()[0] for change in differing] == ["train.max_steps"] and more > 0:
                self.call.flags["train.max_steps"] = ("--max-steps", None)
                hint = f"`tinygpt train --from {made.id} --max-steps {more}` makes a new model of it, with its own schedule"
                raise UsageError(f"run {made.id} is finished after {done:,} steps", hint=hint)
        if not (others := [run for run in self.store.unfinished() if run.stage == "train"]):
            self.report.note("nothing to resume: this run starts")
            return
        changes = ", ".join(differences(others[0].recipe, tables, inputs, STAGES["train"].version))
        wrong = f"no unfinished run has this configuration; run {others[0].key12} (step {others[0].step:,}) differs in {changes}"
        raise UsageError(wrong, hint="give that run's configuration, or start this one with `tinygpt train`")

    def finish(self, outcome: Outcome, *following: str) -> None:
        """End a command: its artifact as the one JSON object of `--json`, and the commands to type now."""
        self.call.answer({**record(outcome.artifact), "cached": outcome.cached})
        self.next(*following)

    def next(self, *commands: str) -> None:
        """Say what to type now, whole."""
        for command in commands:
            self.report.note(f"next: {self.call.command(command)}")

    def trained(self, model: str | None) -> Artifact:
        """The trained model to look at: the one named, the configured one (finished or not), else the newest in the store.

        Raises:
            MissingArtifactError: there is none.
        """
        if model is not None:
            return self._named(model)
        try:
            return find_inputs(STAGES["sample"], self.config, self.store, self.outside)["train"]
        except (MissingArtifactError, InputError) as missing:
            with suppress(InputError):
                if (key := self.plan("train")["train"].key) and (checkpoint := self.store.checkpoints("train", key).newest()):
                    step = checkpoint.manifest.provenance["step"]
                    self.report.note(f"run {key[:12]} is not finished: this is its checkpoint of step {step:,}")
                    return checkpoint
            runs = [] if self.call.options.named_a_run else self.store.list("train")
            if not runs:
                raise missing
        self.report.note(f"using run {describe_run(runs[0])}, the newest in `{self.store.root}`")
        return runs[0]

    def _named(self, model: str) -> Artifact:
        """A train artifact by the beginning of its id, or by its folder, every byte of which is checked."""
        if Path(model).is_dir():
            try:
                artifact = Artifact.load(Path(model).absolute())
                artifact.check()
            except CorruptArtifactError as error:
                raise CorruptArtifactError(error.message, hint="copy the whole folder of a train artifact again") from error
            if artifact.stage not in ("train", "checkpoint"):
                raise UsageError(f"`{model}` holds a `{artifact.stage}` artifact", hint="name the folder of a train artifact")
            return artifact
        try:
            return self.store.resolve(model, "train")
        except MissingArtifactError as error:
            near = difflib.get_close_matches(model, [run.id for run in self.store.list("train")], 3, 0.0)
            hint = f"trained models here: {', '.join(f'`{id_}`' for id_ in near)}" if near else "train one with `tinygpt run`"
            raise MissingArtifactError(f"no trained model `{model}` in `{self.store.root}`", hint=hint) from error

    def inputs_around(self, name: str, train: Artifact, model: str | None) -> Inputs:
        """What a stage reads beside a given trained model: what that model was made from, and its evaluation."""
        found = {"train": train}
        for made in (train.manifest.inputs[source] for source in STAGES[name].inputs if source not in ("train", "eval")):
            artifact = self.store.find(made["stage"], made["key"])
            if artifact is None and made["stage"] == "tokenize":
                artifact = train  # a model brought from elsewhere has its tokenizer with it
            elif artifact is None or artifact.digest != made["digest"]:
                gone = f"`{made['stage']}/{made['key'][:12]}`, from which model `{train.id}` was made, is gone"
                raise MissingArtifactError(gone, hint=f"make it again with `tinygpt run --until {made['stage']}`")
            found[made["stage"]] = artifact
        if "eval" in STAGES[name].inputs:
            stage = STAGES["eval"]
            key = stage_key(stage, self.config, {source: found[source].digest for source in stage.inputs}, self.outside)
            if (evaluation := self.store.find("eval", key)) is None:
                hint = f"run `tinygpt eval{of_model(model)}`"
                raise MissingArtifactError(f"`{name}` reads the result of `eval`, which is not in `{self.store.root}`", hint=hint)
            found["eval"] = evaluation
        return {source: found[source] for source in STAGES[name].inputs}


def describe_run(train: Artifact) -> str:
    """A trained model as its owner remembers it: id, preset, age, perplexity."""
    preset = train.manifest.provenance.get("preset")
    age = duration((datetime.now(UTC) - datetime.fromisoformat(train.created)).total_seconds())
    facts = [f"preset {preset}" if preset else "", f"{age} old", f"perplexity {number(evaluations(train)[-1])}"]
    return f"{train.id} ({', '.join(filter(None, facts))})"
