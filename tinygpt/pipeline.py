"""The stages as records, the key of each, and the one way to run one: lock, find, begin, run, publish.

Never imports the stages themselves: the caller hands in the function to run, which may import torch.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from tinygpt import __version__
from tinygpt.config.tables import Config
from tinygpt.errors import ArtifactError, CorruptArtifactError, MissingArtifactError
from tinygpt.hashing import Digest, Key, hash_json
from tinygpt.report import Report
from tinygpt.store import Artifact, Inputs, Manifest, Out, Store
from tinygpt.store.artifact import Tables


class Stage(NamedTuple):
    """One step of the pipeline.

    Args:
        version: raised when equal inputs should give different bytes.
        tables: what of the configuration enters the key: whole tables ("train") or single keys ("dataset.val_fraction").
        inputs: the stages whose artifacts it reads.
        outside: keys that name something outside the configuration; what it holds stands in the key instead of its name.
    """

    name: str
    version: int
    tables: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()


_IN_ORDER = (
    Stage("corpus", 1, ("data",), (), outside=("data.source",)),
    Stage("tokenize", 2, ("tokenizer", "dataset.val_fraction"), ("corpus",)),
    Stage("build-dataset", 1, ("dataset",), ("corpus", "tokenize")),
    Stage("train", 4, ("model", "train"), ("build-dataset", "tokenize"), outside=("train.init_from",)),
    Stage("eval", 2, ("eval",), ("train", "build-dataset", "tokenize"), outside=("eval.text",)),
    Stage("sample", 1, ("sample",), ("train", "tokenize")),
    Stage("plot", 2, ("plot",), ("train", "eval", "build-dataset", "tokenize")),
)
STAGES = {stage.name: stage for stage in _IN_ORDER}

Outside = Mapping[str, str]
"""What stands in the keys instead of a spelling: {"data.source": fingerprint, "eval.text": hash}."""

Runner = Callable[[Config, Inputs, Out, Report], None]


def stage_tables(stage: Stage, config: Config, outside: Outside) -> dict[str, dict[str, object]]:
    """The configuration that enters a stage's key.

    Raises:
        ValueError: `outside` lacks a value for a key that names something outside the configuration.
    """
    wanted: dict[str, Any] = {table: {key} if key else True for table, _, key in (name.partition(".") for name in stage.tables)}
    tables = config.model_dump(mode="json", include=wanted)
    for name in stage.outside:
        table, _, key = name.partition(".")
        if tables[table][key] is not None:
            if name not in outside:
                raise ValueError(f"the key of stage {stage.name} needs to know what {name} holds")
            tables[table][key] = outside[name]
    return tables


def stage_key(stage: Stage, config: Config, inputs: Mapping[str, Digest], outside: Outside) -> Key:
    """How an artifact is made, as a hash.

    Args:
        inputs: the digest of each of the stage's inputs, by stage name.
    """
    if set(inputs) != set(stage.inputs):
        raise ValueError(f"stage {stage.name} reads {stage.inputs}, got {tuple(inputs)}")
    return Key(hash_json("tinygpt.key", stage.name, stage.version, stage_tables(stage, config, outside), dict(inputs)))


class Planned(NamedTuple):
    """What running a stage would do.

    Args:
        key: None while an input is still to be made, because its digest is part of the key.
        artifact: the cached result, if there is one.
        why: "cached", or the reason why the stage has to run.
    """

    stage: Stage
    key: Key | None
    artifact: Artifact | None
    why: str


def plan(config: Config, store: Store, outside: Outside, until: str = "plot") -> list[Planned]:
    """What running all stages up to `until` would do, in their order; changes nothing."""
    planned: dict[str, Planned] = {}
    for name, stage in STAGES.items():
        inputs = {source: made for source in stage.inputs if (made := planned[source].artifact)}
        if waiting := [source for source in stage.inputs if source not in inputs]:
            planned[name] = Planned(stage, None, None, f"runs after `{waiting[-1]}`")
        else:
            planned[name] = _plan_one(stage, config, inputs, store, outside)
        if name == until:
            break
    return list(planned.values())


def _plan_one(stage: Stage, config: Config, inputs: Inputs, store: Store, outside: Outside) -> Planned:
    key = stage_key(stage, config, _digests(inputs), outside)
    try:
        artifact = store.find(stage.name, key)
    except CorruptArtifactError as error:
        return Planned(stage, key, None, error.message)
    return Planned(stage, key, artifact, "cached" if artifact else why(stage, config, inputs, store, outside))


def _digests(inputs: Inputs) -> dict[str, Digest]:
    return {name: artifact.digest for name, artifact in inputs.items()}


def why(stage: Stage, config: Config, inputs: Inputs, store: Store, outside: Outside) -> str:
    """Why no cached result fits: what differs from the newest one, e.g., "train.max_steps 300 -> 600"."""
    if not (made := store.list(stage.name)):
        return "not made yet"
    changes = differences(made[0].manifest, stage_tables(stage, config, outside), _digests(inputs), stage.version)
    return ", ".join(changes) or "its artifact is gone"


def differences(old: Manifest, tables: Tables, inputs: Mapping[str, Digest], version: int) -> list[str]:
    """The configuration keys, inputs and version that differ from a recorded manifest, old -> new."""
    before = _facts(old.tables, {name: made["digest"] for name, made in old.inputs.items()}, old.version)
    after = _facts(tables, inputs, version)
    names = [name for name in before | after if before.get(name, "") != after.get(name, "")]
    return [f"{name} {_short(before.get(name))} -> {_short(after.get(name))}" for name in names]


def _facts(tables: Tables, inputs: Mapping[str, Digest], version: int) -> dict[str, object]:
    facts: dict[str, object] = {f"{table}.{key}": values[key] for table, values in tables.items() for key in sorted(values)}
    return facts | {f"input {name}": digest[:12] for name, digest in inputs.items()} | {"stage version": version}


def _short(value: object) -> str:
    text = "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def find_inputs(stage: Stage, config: Config, store: Store, outside: Outside) -> dict[str, Artifact]:
    """The artifacts a stage reads, as this configuration makes them.

    Raises:
        MissingArtifactError: one is not there; the hint is the one command that makes all of them.
        CorruptArtifactError: one is damaged.
    """
    planned = plan(config, store, outside, until=max(stage.inputs, key=list(STAGES).index, default="corpus"))
    for one in planned:
        if one.key and not one.artifact:
            store.find(one.stage.name, one.key)  # raises if it is damaged
    found = {one.stage.name: one.artifact for one in planned if one.artifact}
    if missing := [name for name in STAGES if name in stage.inputs and name not in found]:
        wrong = f"there is no result of `{missing[-1]}` for this configuration in `{store.root}`"
        raise MissingArtifactError(wrong, hint=f"run `tinygpt run --until {missing[-1]}`")
    return {name: found[name] for name in stage.inputs}


class Outcome(NamedTuple):
    """What running a stage did.

    Args:
        cached: the artifact was there and nothing ran.
        reproduced: it was there, was forced to run again, and gave the same bytes.
    """

    artifact: Artifact
    cached: bool
    reproduced: bool = False


def execute(
    stage: Stage, config: Config, inputs: Inputs, *, store: Store, outside: Outside, runner: Runner, report: Report,
    force: bool = False, lock_timeout: float | None = None,
) -> Outcome:  # fmt: skip
    """The artifact of a stage: the cached one, or a new one made by `runner`.

    Args:
        inputs: by stage name; their digests enter the key.
        force: run even if there is one; equal bytes keep the old artifact, others replace it with a warning.
        lock_timeout: seconds to wait for another process that makes the same; None for ever.
    Raises:
        CorruptArtifactError: the cached one is damaged and `force` is not given.
        BusyError: the other process did not finish in time.
    """
    tables, key = stage_tables(stage, config, outside), stage_key(stage, config, _digests(inputs), outside)
    if not force and (artifact := _cached(store, stage, key)):
        return Outcome(artifact, cached=True)
    with store.lock(stage.name, key, timeout=lock_timeout, waiting=report.note):
        if not force and (artifact := _cached(store, stage, key)):
            return Outcome(artifact, cached=True)
        old = None
        with suppress(ArtifactError):
            old = store.find(stage.name, key)
        began = time.monotonic()
        out = store.begin(stage.name, key, version=stage.version, tables=tables, inputs=inputs)
        try:
            runner(config, inputs, out, report)
            out.provenance(seconds=round(time.monotonic() - began, 3), tinygpt=__version__)
            new = store.publish(out)
        finally:
            out.discard()
    if old and old.digest != new.digest:
        before, after = old.manifest.files, new.manifest.files
        file = next(name for name in sorted({*before, *after}) if before.get(name) != after.get(name))
        report.note(f"`{stage.name}` gave other bytes than before: `{file}` differs; the old artifact is in `.trash/`")
    return Outcome(new, cached=False, reproduced=old is not None and old.digest == new.digest)


def _cached(store: Store, stage: Stage, key: Key) -> Artifact | None:
    if artifact := store.find(stage.name, key):
        artifact.check()
    return artifact
