"""Continue a run: what a new one takes from a finished model, and which ones cannot go on."""

from collections.abc import Mapping
from typing import Any

from tinygpt.config import ModelConfig
from tinygpt.config.fields import spell
from tinygpt.errors import ConfigError, MissingArtifactError, UsageError
from tinygpt.hashing import Digest
from tinygpt.pipeline import STAGES, differences
from tinygpt.progress import Reporter
from tinygpt.store import Artifact, Store
from tinygpt.store.manifest import RunTable, Tables

FREE = ("dropout", "weight_init")
"""Keys of [model] that may change, because they are no part of what the weights compute."""


def tables_of_model(store: Store, name: str) -> Mapping[str, Mapping[str, object]]:
    """The configuration with which a model and its data were made, as far as it is in the store.

    Of an imported model, that is its shape and its tokenizer.

    Args:
        name: the beginning of the model's id.
    Raises:
        MissingArtifactError, UsageError: see Store.resolve.
    """
    train = store.resolve(name, "train")
    if train.is_imported:
        return {"model": train.table("model"), "tokenizer": {"from": train.id}}
    tables: dict[str, Any] = {"model": train.table("model"), "train": train.table("train")}
    tokenize = _input_of(store, train, "tokenize")
    if tokenize is None:
        return tables
    tables |= {table: dict(values) for table, values in tokenize.manifest.tables.items()}
    tables["tokenizer"] = tokenize.table("tokenizer")
    if tables["tokenizer"].get("from") is not None:
        tables["tokenizer"]["from"] = train.id  # which has the tokenizer of that digest, too
    corpus = _input_of(store, tokenize, "corpus")
    source = corpus and corpus.manifest.provenance.get("source")
    if corpus is not None and source is not None:
        tables["data"] = {**corpus.table("data"), "source": source}
    return tables


def _input_of(store: Store, artifact: Artifact, stage: str) -> Artifact | None:
    record = artifact.manifest.inputs.get(stage)
    return record and store.find(record["stage"], record["key"])


def find_tokenizer(store: Store, name: str) -> Artifact:
    """The artifact of `tokenizer.from`: a model or a tokenize artifact.

    Raises:
        MissingArtifactError, UsageError: see Store.resolve; or it is of another stage.
    """
    try:
        artifact = store.resolve(name, "train")
    except MissingArtifactError:
        artifact = store.resolve(name)
    if artifact.stage not in ("train", "tokenize"):
        raise UsageError(
            f"`tokenizer.from` = `{name}` is a `{artifact.stage}` artifact",
            hint="name a model or a tokenize artifact, see `tinygpt artifacts ls`",
        )
    return artifact


def tokenizer_digest(artifact: Artifact) -> str:
    """The hash of the tokenizer that a model or a tokenize artifact holds."""
    return f"sha256:{artifact.manifest.files['tokenizer.json']['sha256']}"


def check_shape(config: ModelConfig, model: Artifact) -> None:
    """Refuse to continue a model of another shape.

    Raises:
        ConfigError: with both values of the first key that differs.
    """
    here = config.model_dump(mode="json")
    for key, value in model.table("model", dict[str, object]).items():
        if key not in FREE and here.get(key) != value:
            raise ConfigError(
                f"`model.{key}` = {spell(here.get(key))} cannot continue model `{model.id}`, "
                f"which has {spell(value)}",
                hint=f"set `model.{key}` = {spell(value)}, or leave it out",
            )


def check_tokenizer(tokenize: Artifact, model: Artifact) -> None:
    """Refuse to continue a model with another tokenizer, even one of as many entries.

    Raises:
        ConfigError: with the hashes of both.
    """
    ours = tokenizer_digest(tokenize)
    theirs = tokenizer_digest(model)
    if ours != theirs:
        raise ConfigError(
            f"the tokenizer of this run ({ours[:19]}) cannot continue model `{model.id}`, "
            f"which was trained with another one ({theirs[:19]})",
            hint=f"`tinygpt run --until train --set tokenizer.from={model.id}` uses the model's",
        )


def refuse_to_resume_another(
    store: Store, tables: Tables, inputs: Mapping[str, Digest], reporter: Reporter
) -> None:
    """Refuse to resume, naming the run that was probably meant; a note if there is none.

    Args:
        store: has no unfinished run of this configuration.
        tables, inputs: what enters the key of the run that was asked for.
        reporter: receives the note.
    Raises:
        UsageError: a run with another configuration is there.
    """
    version = STAGES["train"].version
    for run in store.list("train"):
        if run.is_imported:
            continue
        done = run.table("train", RunTable)["max_steps"]
        more = int(str(tables["train"]["max_steps"])) - done
        changes = differences(run.manifest, tables, inputs, version)
        if [change.split()[0] for change in changes] == ["train.max_steps"] and more > 0:
            command = f"`tinygpt train --from {run.id} --max-steps {more}`"
            raise UsageError(
                f"run {run.id} is finished after {done:,} steps",
                hint=f"{command} continues it as a new run with a fresh learning-rate schedule",
            )
    others = [run for run in store.unfinished_runs() if run.stage == "train"]
    if not others:
        reporter.note("nothing to resume: starting a new run")
        return
    other = others[0]
    changes = differences(other.recipe, tables, inputs, version)
    name = f"run {other.key12} (step {other.step:,})"
    raise UsageError(
        f"no unfinished run has this configuration; {name} differs in {', '.join(changes)}",
        hint="use that run's configuration, or start a new run with `tinygpt train`",
    )
