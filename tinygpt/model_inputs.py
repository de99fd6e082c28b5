"""What a stage that reads a model reads beside it: what it was made from, or what replaces that."""

import shlex
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, Self

from tinygpt.config import Config
from tinygpt.errors import MissingArtifactError, TinygptError
from tinygpt.pipeline import STAGES, Outcome, Planned, Stage, digests, stage_key
from tinygpt.progress import Reporter
from tinygpt.store import Artifact, Inputs, Store
from tinygpt.trained_models import newest_of_model, source_of_model


class Pipeline(Protocol):
    """What is needed of a Project."""

    config: Config
    store: Store
    reporter: Reporter
    on_outcome: Callable[[Outcome], None] | None
    may_read_source: bool

    def plan(self, until: str = ...) -> dict[str, Planned]: ...
    def run(self, until: str = ...) -> dict[str, Outcome]: ...
    def with_config(self, config: Config) -> Self: ...
    def external_digests_of(self, *stages: str) -> dict[str, str]: ...


def stage_that_reads(stage: str, inputs: Inputs) -> Stage:
    """The stage; where it reads an imported model, what is not known of one is optional."""
    if "train" in inputs and inputs["train"].is_imported:
        return STAGES[stage]._replace(optional=("eval", "build-dataset", "plot"))
    return STAGES[stage]


def inputs_of_model(project: Pipeline, stage: str, train: Artifact, model: str | None) -> Inputs:
    """See Project.inputs_of_model."""
    if train.is_imported:
        return _inputs_of_import(project, stage, train, model)
    names = STAGES[stage].inputs
    found = {"train": train}
    for name in names:
        if name in ("train", "eval", "plot"):
            continue
        try:
            found[name] = source_of_model(project.store, name, train)
        except MissingArtifactError as missing:
            _compare_with_model(project, name, train, missing)
            if name not in STAGES[stage].optional:
                raise
            if project.config.eval.text is None:
                command = f"`tinygpt eval{_model_flag(model)} --text my.txt`"
                missing.hint = f"{missing.hint}, or evaluate it on a text: {command}"
                raise
            project.reporter.note(f"{missing.message}: no baselines, no generation quality")
    if "eval" in names:
        found["eval"] = _evaluation_of_model(project, found, model)
    if "plot" in names and (plot := _plot_of_model(project, train)):
        found["plot"] = plot
    return {name: found[name] for name in names if name in found}


def _inputs_of_import(project: Pipeline, stage: str, train: Artifact, model: str | None) -> Inputs:
    """The inputs of a stage that reads an imported model, whose training is not known.

    eval and plot read a text that they are given, else the configured one in the model's tokens.
    """
    found = {"train": train, "tokenize": source_of_model(project.store, "tokenize", train)}
    given = {"eval": project.config.eval.text, "plot": project.config.plot.text}
    if stage in given and given[stage] is None:
        found["build-dataset"] = _configured_text(project, train, stage)
    if stage == "plot" and "build-dataset" in found:
        found["eval"] = _evaluation_of_model(project, found, model)
    if stage == "page" and (plot := _plot_of_model(project, train)):
        found["plot"] = plot
    return found


def _configured_text(project: Pipeline, train: Artifact, stage: str) -> Artifact:
    """The text of [data] in the tokens of an imported model, a build-dataset artifact."""
    config, store = project.config, project.store
    example = {"eval": "my.txt", "plot": '"Once upon a time"'}[stage]
    text = f"`tinygpt {stage} --model {train.id} --text {example}` reads another one"
    if store.find("train", train.key) is None:
        raise MissingArtifactError(
            f"the imported model `{train.folder}` is not in `{store.root}`, so the configured text "
            "cannot be encoded with its tokenizer",
            hint=f"import its folder into this store; {text}",
        )
    source = config.data.source
    project.reporter.note(f"model {train.id} was imported: the text is that of {source}; {text}")
    tables = {
        "tokenizer": config.tokenizer.model_copy(update={"from_": train.id}),
        "train": config.train.model_copy(update={"init_from": None}),
    }
    encoding = project.with_config(config.model_copy(update=tables))
    encoding.may_read_source = True
    encoding.on_outcome = None
    return encoding.run("build-dataset")["build-dataset"].artifact


def _plot_of_model(project: Pipeline, train: Artifact) -> Artifact | None:
    """The configured plot of a model, else its newest one."""
    with suppress(TinygptError):
        plot = project.plan("plot")["plot"].artifact
        if plot and plot.input("train")["digest"] == train.digest:
            return plot
    return newest_of_model(project.store, "plot", train)


def _compare_with_model(
    project: Pipeline, stage: str, train: Artifact, missing: TinygptError
) -> None:
    """Say that the configuration is not the one that a model was made with, if it is not."""
    with suppress(TinygptError):
        here = project.plan(stage)[stage].artifact
        if here is not None:
            missing.message += f"; this configuration makes `{stage}/{here.id}`"
            missing.hint = "give its configuration with `--config`, `--preset` or `--set`"
            command = train.manifest.provenance.get("command")
            if isinstance(command, list) and len(command) > 1:
                missing.hint += f"; it was trained by `{shlex.join(command)}`"


def _evaluation_of_model(project: Pipeline, found: Inputs, model: str | None) -> Artifact:
    stage = STAGES["eval"]
    inputs = {name: found[name] for name in stage.inputs if name in found}
    external = project.external_digests_of("eval")
    key = stage_key(stage, project.config, digests(inputs), external)
    evaluation = project.store.find("eval", key)
    if evaluation is None:
        raise MissingArtifactError(
            f"there is no result of `eval` for this model in `{project.store.root}`",
            hint=f"run `tinygpt eval{_model_flag(model)}`",
        )
    return evaluation


def _model_flag(model: str | None) -> str:
    return f" --model {shlex.quote(model)}" if model else ""
