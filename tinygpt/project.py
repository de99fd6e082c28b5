"""A configuration and a store: which artifacts exist, which are missing, and how to make them."""

import copy
import json
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path

from tinygpt.config import Config, load_config, store_root
from tinygpt.continuation import check_tokenizer, find_tokenizer, refuse_to_resume_another
from tinygpt.errors import InputError, MissingArtifactError, NetworkError
from tinygpt.external_digests import external_digests, external_names
from tinygpt.model_inputs import inputs_of_model, stage_that_reads
from tinygpt.pipeline import (
    LAST_STAGE,
    STAGES,
    Outcome,
    Planned,
    check_stage,
    digests,
    execute,
    find_inputs,
    plan,
    stage_tables,
)
from tinygpt.progress import NO_LIMITS, Limits, Reporter, SilentReporter
from tinygpt.store import Artifact, ArtifactWriter, Inputs, Store
from tinygpt.trained_models import describe_run, find_model


class Project:
    """The pipeline of one configuration in one store.

    Source files are hashed once, when their hash is first needed. After they have changed, create
    another Project.

    Args:
        config: None for what `tinygpt` would use in the working directory.
        store: a store or its folder; None for the one that `tinygpt` would use there.
        reporter: receives progress and notes; None for silence.
        on_outcome: called after each stage that was run, or found to have run.
        may_read_source: whether the source may be read, also from the hub, to make a corpus that
            an input needs.
        refresh_source: ask the hub for its newest version although there is a corpus.
        provenance: facts that each artifact made here records beside its own, e.g., the command.
    """

    def __init__(
        self,
        config: Config | None = None,
        store: Store | Path | str | None = None,
        *,
        reporter: Reporter | None = None,
        on_outcome: Callable[[Outcome], None] | None = None,
        may_read_source: bool = True,
        refresh_source: bool = False,
        provenance: Mapping[str, object] | None = None,
    ) -> None:
        self.config = load_config().config if config is None else config
        self.store = open_store(store)
        self.reporter = SilentReporter() if reporter is None else reporter
        self.on_outcome = on_outcome
        self.may_read_source = may_read_source
        self.refresh_source = refresh_source
        self.provenance = {} if provenance is None else provenance
        self._planned: dict[str, Planned] = {}

    @cached_property
    def external_digests(self) -> dict[str, str]:
        """Content hashes that replace names in cache keys, e.g., of the files of `data.source`.

        Raises:
            InputError: a file cannot be read.
            NetworkError: the hub is needed and not there.
        """
        return self.external_digests_of(*STAGES)

    def external_digests_of(self, *stages: str) -> dict[str, str]:
        """The digests that the keys of some stages contain."""
        return external_digests(
            self.config,
            self.store,
            [name for stage in stages for name in STAGES[stage].external],
            may_read_source=self.may_read_source,
            refresh_source=self.refresh_source,
            reporter=self.reporter,
        )

    def with_config(self, config: Config) -> "Project":
        """The same project with another configuration."""
        other = copy.copy(self)
        other.config = config
        other._planned = {}
        if external_names(config) != external_names(self.config):
            vars(other).pop("external_digests", None)
        return other

    def plan(self, until: str = LAST_STAGE) -> dict[str, Planned]:
        """What `run` would do, by stage up to `until`; planned once, updated by `make`.

        Raises:
            UsageError: there is no stage of that name.
            InputError, NetworkError: see external_digests.
        """
        check_stage(until)
        planned = plan(self.config, self.store, self.external_digests, until, self._planned)
        self._planned |= planned
        return planned

    def inputs(self, stage: str) -> Inputs:
        """What a stage reads, as the configuration makes it.

        The corpus is made by the first stage that needs it, if the source may be read.

        Raises:
            MissingArtifactError: an input has not been made.
            CorruptArtifactError: an input is damaged.
        """
        names = STAGES[stage].inputs
        if not names:
            return {}
        makes_corpus = "corpus" in names and self.may_read_source
        if makes_corpus and self.plan("corpus")["corpus"].artifact is None:
            self.make("corpus")
        last = max(names, key=list(STAGES).index)
        return find_inputs(STAGES[stage], self.plan(last), self.store)

    def make(
        self,
        stage: str,
        inputs: Inputs | None = None,
        *,
        force: bool = False,
        limits: Limits = NO_LIMITS,
    ) -> Outcome:
        """Run a stage, or find that it has run.

        Args:
            stage: its name.
            inputs: what it reads; None for what the configuration makes.
            force: run also if there is a result.
            limits: what may end training early.
        Raises:
            UsageError: there is no stage of that name.
            ConfigError: the model of `train.init_from` has another shape or tokenizer.
            TinygptError: what the stage raises, see tinygpt.stages.
        """
        check_stage(stage)
        if inputs is None:
            inputs = self.inputs(stage)
        if stage == "corpus" and self.plan("corpus")["corpus"].artifact is None:
            self._refresh_fingerprint()
        # A model that was copied here can be read although the source of its text is elsewhere
        reads_model = "train" in STAGES[stage].inputs
        external = self.external_digests_of(stage) if reads_model else self.external_digests
        outcome = execute(
            stage_that_reads(stage, inputs),
            self.config,
            inputs,
            store=self.store,
            external_digests=external,
            runner=partial(self._run_stage, stage, limits),
            reporter=self.reporter,
            force=force,
            lock_timeout=self.config.runtime.lock_timeout,
        )
        self._remember(stage, outcome.artifact)
        if stage == "tokenize":
            self._continued_model(outcome.artifact)
        if self.on_outcome is not None:
            self.on_outcome(outcome)
        return outcome

    def _refresh_fingerprint(self) -> None:
        """Hash the source again before it is read: it may have changed since the plan was made."""
        from tinygpt.corpus import fingerprint

        current = fingerprint(self.config.data)
        if current != self.external_digests["data.source"]:
            self.external_digests = {**self.external_digests, "data.source": current}
            self._planned.clear()

    def _remember(self, stage: str, artifact: Artifact) -> None:
        """Update the plan: later stages may read another artifact now."""
        planned = self._planned.get(stage)
        if planned is None or planned.artifact == artifact:
            return
        if planned.key is not None and planned.key != artifact.key:
            return  # made from other inputs than the configured ones
        after = list(STAGES)[list(STAGES).index(stage) :]
        for name in after:
            self._planned.pop(name, None)
        if planned.key is not None:
            self._planned[stage] = planned._replace(artifact=artifact, why="cached")

    def _run_stage(
        self,
        name: str,
        limits: Limits,
        config: Config,
        inputs: Inputs,
        out: ArtifactWriter,
        reporter: Reporter,
    ) -> None:
        """The stage's own function; training is shared with the other processes of torchrun."""
        out.provenance(**self.provenance)
        stage = import_module(f"tinygpt.stages.{name.replace('-', '_')}")
        if name == "tokenize" and config.tokenizer.from_ is not None:
            inputs = {**inputs, "from": find_tokenizer(self.store, config.tokenizer.from_)}
        if name != "train":
            stage.run(config, inputs, out, reporter)
            return
        from tinygpt.lm.fast.distributed import join_torchrun

        model = self._continued_model(inputs["tokenize"])
        if model is not None:
            inputs = {**inputs, "init_from": model}
        job = {
            "config": config.model_dump_json(),
            "inputs": {source: f"{made.stage}/{made.key}" for source, made in inputs.items()},
            "key": out.unfinished_run.recipe.key,
        }
        with join_torchrun(json.dumps(job)) as (processes, _):
            stage.run(config, inputs, out, reporter, limits=limits, processes=processes)

    def _continued_model(self, tokenize: Artifact) -> Artifact | None:
        """The model of `train.init_from`, which must have this tokenizer; None without one."""
        if self.config.train.init_from is None:
            return None
        model = self.store.resolve(self.config.train.init_from, "train")
        check_tokenizer(tokenize, model)
        return model

    def run(
        self,
        until: str = LAST_STAGE,
        *,
        force: Collection[str] = (),
        limits: Limits = NO_LIMITS,
    ) -> dict[str, Outcome]:
        """Run every stage in order; what was already computed comes from the cache.

        Args:
            until: the last stage.
            force: stages to recompute even if cached.
            limits: what may end training early.
        Returns:
            The outcome of each stage, by name.
        Raises:
            UsageError: there is no stage `until`.
            TinygptError: see `make`.
        """
        check_stage(until)
        outcomes: dict[str, Outcome] = {}
        for name, stage in STAGES.items():
            inputs = {source: outcomes[source].artifact for source in stage.inputs}
            outcomes[name] = self.make(name, inputs, force=name in force, limits=limits)
            if name == until:
                break
        return outcomes

    def artifacts(self, stage: str | None = None) -> list[Artifact]:
        """What is in the store, newest first; of one stage, if it is named."""
        return self.store.list(stage)

    def prepare_training(self, *, resume: bool, fresh: bool) -> None:
        """Apply `train --resume` and `train --fresh` to what an unfinished run left.

        Raises:
            MissingArtifactError: what training reads has not been made.
            UsageError: `resume`, and only a run with another configuration is there.
        """
        self.inputs("train")
        key = self.plan("train")["train"].key
        assert key is not None
        unfinished = self.store.unfinished_run("train", key)
        if fresh and unfinished.folder.exists():
            timeout = self.config.runtime.lock_timeout
            with self.store.lock("train", key, timeout=timeout, on_wait=self.reporter.note):
                trash = unfinished.set_aside("unfinished")
            self.reporter.note(f"the unfinished run {key[:12]} is now in `{trash}`")
        if resume and not unfinished.steps():
            tables = stage_tables(STAGES["train"], self.config, self.external_digests)
            made_from = digests(self.inputs("train"))
            refuse_to_resume_another(self.store, tables, made_from, self.reporter)

    def find_model(self, model: str | None = None, *, or_newest: bool = True) -> Artifact:
        """A trained model.

        Args:
            model: the beginning of its id, or its folder; None for the configured one, finished or
                not, else the newest in the store.
            or_newest: whether the newest may stand in for the configured one.
        Raises:
            MissingArtifactError: there is none.
            CorruptArtifactError: a file of the folder is damaged.
        """
        if model is not None:
            return find_model(self.store, model)
        try:
            return self.inputs("sample")["train"]
        except (MissingArtifactError, InputError, NetworkError) as missing:
            checkpoint = self._newest_checkpoint()
            if checkpoint is not None:
                return checkpoint
            runs = self.store.list("train") if or_newest else []
            if not runs:
                raise missing
        kind = "imported model" if runs[0].is_imported else "run"
        described = f"{kind} {describe_run(runs[0])}"
        self.reporter.note(f"using {described}, the newest in `{self.store.root}`")
        return runs[0]

    def _newest_checkpoint(self) -> Artifact | None:
        """The newest checkpoint of the configured run, if that is unfinished; adds a note."""
        with suppress(InputError, NetworkError):
            key = self.plan("train")["train"].key
            checkpoint = self.store.unfinished_run("train", key).newest() if key else None
            if key and checkpoint:
                step = checkpoint.manifest.provenance["step"]
                where = f"using its checkpoint of step {step:,}"
                self.reporter.note(f"run {key[:12]} is not finished: {where}")
            return checkpoint
        return None

    def inputs_of_model(self, stage: str, train: Artifact, model: str | None = None) -> Inputs:
        """The inputs of a stage that reads a model: it, what made it, what was found out about it.

        Args:
            stage: eval, sample, plot or page.
            train: the model's artifact, or a checkpoint.
            model: how the user named it, for the hint.
        Raises:
            MissingArtifactError: an artifact it was trained from, or its evaluation, is missing.
        """
        return inputs_of_model(self, stage, train, model)


def open_store(store: Store | Path | str | None) -> Store:
    """A store, given itself or its folder; None for the one that `tinygpt` would use here."""
    if isinstance(store, Store):
        return store
    return Store(store_root(None if store is None else Path(store)))
