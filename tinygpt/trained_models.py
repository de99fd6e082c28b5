"""Trained models in a store, or in a folder that was copied from one.

Of a copy, only `manifest.json` and MODEL_FILES have to be there.
"""

import difflib
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from tinygpt.errors import CorruptArtifactError, MissingArtifactError, UsageError
from tinygpt.progress import duration
from tinygpt.store import Artifact, Store
from tinygpt.store.artifact import MODEL_FILES
from tinygpt.store.manifest import MANIFEST
from tinygpt.store.metrics import evaluations, read_metrics
from tinygpt.store.stage_names import CHECKPOINT, MODEL_STAGE


def find_model(store: Store, model: str) -> Artifact:
    """A train artifact by the beginning of its id, or by its folder, whose MODEL_FILES are hashed.

    Raises:
        MissingArtifactError: there is none.
        CorruptArtifactError: one of these files is missing in the folder, or damaged.
        UsageError: it is another kind of artifact, or several ids begin like that.
    """
    if Path(model).is_dir():
        return _model_in_folder(Path(model))
    try:
        return store.resolve(model, "train")
    except MissingArtifactError as error:
        ids = [run.id for run in store.list("train")]
        near = ", ".join(f"`{id_}`" for id_ in difflib.get_close_matches(model, ids, 3, 0.0))
        hint = f"trained models here: {near}" if near else "train one with `tinygpt run`"
        raise MissingArtifactError(
            f"no trained model `{model}` in `{store.root}`", hint=hint
        ) from error


def _model_in_folder(folder: Path) -> Artifact:
    needed = ", ".join(f"`{name}`" for name in (MANIFEST, *MODEL_FILES))
    hint = f"a copy of a model takes these files from its store: {needed}"
    if not (folder / MANIFEST).exists():
        raise MissingArtifactError(f"there is no model in `{folder}`: no `{MANIFEST}`", hint=hint)
    try:
        artifact = Artifact.load(folder.absolute())
        if artifact.stage in (MODEL_STAGE, CHECKPOINT):
            artifact.check_model_files()
            return artifact
    except CorruptArtifactError as error:
        raise CorruptArtifactError(error.message, hint=hint) from error
    raise UsageError(
        f"`{folder}` holds a `{artifact.stage}` artifact",
        hint="name the folder of a train artifact",
    )


def validation_perplexities(train: Artifact) -> list[float]:
    """Validation perplexity at each evaluation during training, in the order of the steps."""
    return [row["val_perplexity"] for row in evaluations(read_metrics(train))]


def describe_run(train: Artifact) -> str:
    """A model in words by which its owner knows it: id, preset or origin, age, perplexity."""
    age = datetime.now(UTC) - datetime.fromisoformat(train.created)
    facts = [f"{duration(age.total_seconds())} old"]
    if train.is_imported:
        origin = train.manifest.provenance.get("imported")
        return f"{train.id} (from {origin}, {facts[0]})"
    with suppress(CorruptArtifactError):
        perplexity = validation_perplexities(train)[-1]
        shown = f"{perplexity:,.0f}" if perplexity > 999 else f"{perplexity:.3g}"
        facts.append(f"perplexity {shown}")
    preset = train.manifest.provenance.get("preset")
    if preset:
        facts.insert(0, f"preset {preset}")
    return f"{train.id} ({', '.join(facts)})"


def source_of_model(store: Store, stage: str, train: Artifact) -> Artifact:
    """The artifact of a stage from which a model was made.

    Raises:
        MissingArtifactError: it is not in the store.
    """
    record = train.input(stage)
    source = store.find(record["stage"], record["key"])
    if source is not None and source.digest == record["digest"]:
        return source
    if stage == "tokenize":
        return train  # which contains its tokenizer
    name = f"`{record['stage']}/{record['key'][:12]}`"
    raise MissingArtifactError(
        f"model `{train.id}` was made from {name}, which is not in `{store.root}`",
        hint=f"make it again with `tinygpt run --until {stage}`",
    )


def newest_of_model(store: Store, stage: str, train: Artifact) -> Artifact | None:
    """The newest result of a stage that read a model; None if there is none."""
    for artifact in store.list(stage):
        if artifact.input("train")["digest"] == train.digest:
            return artifact
    return None
