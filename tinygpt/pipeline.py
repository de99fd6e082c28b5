"""The stages, the cache key of each, and how one is run: lock, find, begin, run, publish.

The stages themselves are not imported here: the caller passes the function to run, which may import
torch.
"""

import difflib
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from pydantic import ValidationError

from tinygpt import __version__
from tinygpt.config.fields import FIELDS
from tinygpt.config.tables import Config
from tinygpt.errors import ArtifactError, CorruptArtifactError, MissingArtifactError, UsageError
from tinygpt.hashing import Digest, Key, canonical_json
from tinygpt.progress import Reporter
from tinygpt.store import IMPORT_STAGE, Artifact, ArtifactWriter, Inputs, Manifest, Store
from tinygpt.store.manifest import Tables, recipe_key


class Stage(NamedTuple):
    """One step of the pipeline.

    Args:
        name: as it is typed.
        version: increased when the stage changes what it writes for equal inputs.
        tables: what of the configuration enters the key: whole tables ("train") or single keys
            ("dataset.val_fraction").
        inputs: the stages whose artifacts it reads.
        external: configuration keys whose values name something outside the configuration; the
            cache key contains a digest of its content in place of the name.
        optional: those of the inputs that it can do without where they are not there.
    """

    name: str
    version: int
    tables: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    external: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


_IN_ORDER = (
    Stage("corpus", 3, ("data",), (), external=("data.source",)),
    Stage("tokenize", 4, ("tokenizer", "dataset"), ("corpus",), external=("tokenizer.from",)),
    Stage("build-dataset", 3, ("dataset",), ("corpus", "tokenize")),
    Stage(
        "train",
        6,
        ("model", "train"),
        ("build-dataset", "tokenize"),
        external=("train.init_from",),
    ),
    Stage(
        "eval",
        5,
        ("eval",),
        ("train", "build-dataset", "tokenize"),
        external=("eval.text",),
        optional=("build-dataset",),
    ),
    Stage("sample", 3, ("sample",), ("train", "tokenize")),
    Stage("plot", 5, ("plot",), ("train", "eval", "build-dataset", "tokenize")),
    Stage("page", 2, ("page",), ("train", "tokenize", "plot"), optional=("plot",)),
)
STAGES = {stage.name: stage for stage in _IN_ORDER}
LAST_STAGE = _IN_ORDER[-1].name


def check_stage(name: str) -> None:
    """Refuse a name that no stage has.

    Raises:
        UsageError: with the nearest stage, if one is near.
    """
    if name not in STAGES:
        near = difflib.get_close_matches(name, STAGES, 1)
        listing = f"the stages are {', '.join(STAGES)}; `train` makes the models"
        hint = f"did you mean `{near[0]}`?" if near else listing
        raise UsageError(f"`{name}` is not a stage", hint=hint)


ExternalDigests = Mapping[str, str]
"""Content hashes that replace names in cache keys: {"data.source": ..., "eval.text": ...}."""

Runner = Callable[[Config, Inputs, ArtifactWriter, Reporter], None]


def stage_tables(
    stage: Stage, config: Config, external_digests: ExternalDigests
) -> dict[str, dict[str, object]]:
    """The configuration that enters a stage's key.

    Raises:
        ValueError: `external_digests` lacks a value for a key of `stage.external` that is set.
    """
    tables = _tables_as_read(stage, config)
    for name in stage.external:
        table, _, key = name.partition(".")
        if tables[table][key] is None:
            continue
        if name not in external_digests:
            raise ValueError(f"the key of stage {stage.name} needs to know what {name} holds")
        tables[table][key] = external_digests[name]
    return tables


def _tables_as_read(stage: Stage, config: Config) -> dict[str, dict[str, object]]:
    """What a stage reads of a configuration."""
    include: dict[str, Any] = {}
    for name in stage.tables:
        table, _, key = name.partition(".")
        include[table] = {key} if key else True
    tables: dict[str, dict[str, object]] = config.model_dump(
        mode="json", include=include, by_alias=True
    )
    return tables


def stage_key(
    stage: Stage,
    config: Config,
    inputs: Mapping[str, Digest],
    external_digests: ExternalDigests,
) -> Key:
    """How an artifact is made, as a hash.

    Args:
        inputs: the digest of each of the stage's inputs, by stage name.
    """
    if not set(stage.inputs) ^ set(inputs) <= set(stage.optional):
        raise ValueError(f"stage {stage.name} reads {stage.inputs}, got {tuple(inputs)}")
    tables = stage_tables(stage, config, external_digests)
    return recipe_key(stage.name, stage.version, tables, inputs)


def check_recipe(manifest: Manifest) -> None:
    """Refuse a manifest from elsewhere that no stage of this version could have.

    Its tables, and its inputs if they are of the store, have to be those of its stage.

    Raises:
        ValueError: with what is wrong.
    """
    stage = STAGES.get(manifest.stage)
    if stage is None:
        raise ValueError("is of a stage that this version of tinygpt does not have")
    inputs = {name: record["stage"] for name, record in manifest.inputs.items()}
    is_imported = IMPORT_STAGE in inputs.values()
    needed = set(stage.inputs) - set(stage.optional) - {"build-dataset", "eval"}
    if stage.name == "train":
        needed = set(stage.inputs)
    ours = {name for name, source in inputs.items() if source != IMPORT_STAGE}
    if not ours <= set(stage.inputs) or not (is_imported or needed <= ours):
        raise ValueError("was made from other inputs than its stage reads")
    # Other versions had other keys, which this one does not read
    known = {
        table: {key: value for key, value in values.items() if f"{table}.{key}" in FIELDS}
        for table, values in manifest.tables.items()
    }
    try:
        config = Config.model_validate(known)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"][:2]))
        raise ValueError(f"has a value of `{place}` that it cannot have") from error
    for table, values in _tables_as_read(stage, config).items():
        given = manifest.tables.get(table)
        if given is None and is_imported:
            continue
        if given is None or (manifest.version == stage.version and set(given) != set(values)):
            raise ValueError(f"does not have the keys of `{table}`")
        for key in set(given).intersection(values):
            if canonical_json(given[key]) != canonical_json(values[key]):
                raise ValueError(f"has a value of `{table}.{key}` that it cannot have")


class Planned(NamedTuple):
    """What running a stage would do.

    Args:
        stage: which one.
        key: None while an input is still to be made, because its digest is part of the key.
        artifact: the cached result, if there is one.
        why: "cached", or the reason why the stage has to run.
    """

    stage: Stage
    key: Key | None
    artifact: Artifact | None
    why: str


def plan(
    config: Config,
    store: Store,
    external_digests: ExternalDigests,
    until: str = LAST_STAGE,
    known: Mapping[str, Planned] | None = None,
) -> dict[str, Planned]:
    """What running all stages up to `until` would do, by stage, in their order; changes nothing.

    Args:
        known: stages that are planned already.
    """
    planned: dict[str, Planned] = {}
    for name, stage in STAGES.items():
        if known and name in known:
            planned[name] = known[name]
        else:
            planned[name] = _plan_stage(stage, config, planned, store, external_digests)
        if name == until:
            break
    return planned


def _plan_stage(
    stage: Stage,
    config: Config,
    planned: Mapping[str, Planned],
    store: Store,
    external_digests: ExternalDigests,
) -> Planned:
    inputs = _inputs_made(stage, planned)
    missing = _last_missing(stage.inputs, inputs)
    if missing:
        return Planned(stage, None, None, f"runs after `{missing}`")
    key = stage_key(stage, config, digests(inputs), external_digests)
    try:
        cached = store.find(stage.name, key)
    except CorruptArtifactError as error:
        return Planned(stage, key, None, error.message)
    why = "cached" if cached else why_not_cached(stage, config, inputs, store, external_digests)
    return Planned(stage, key, cached, why)


def _inputs_made(stage: Stage, planned: Mapping[str, Planned]) -> dict[str, Artifact]:
    """Of the artifacts that a stage reads, those that are there."""
    inputs: dict[str, Artifact] = {}
    for name in stage.inputs:
        artifact = planned[name].artifact
        if artifact is not None:
            inputs[name] = artifact
    return inputs


def _last_missing(names: Collection[str], inputs: Inputs) -> str | None:
    """Of the stages of these names, the last whose artifact is still to be made."""
    missing = set(names) - set(inputs)
    return max(missing, key=list(STAGES).index, default=None)


def digests(inputs: Inputs) -> dict[str, Digest]:
    """What of each input enters the key of a stage that reads it."""
    return {name: artifact.present_digest for name, artifact in inputs.items()}


def why_not_cached(
    stage: Stage, config: Config, inputs: Inputs, store: Store, external_digests: ExternalDigests
) -> str:
    """What differs from the newest result of a stage, e.g., "train.max_steps 300 -> 600"."""
    results = [made for made in store.list(stage.name) if not made.is_imported]
    if not results:
        return "not made yet"
    tables = stage_tables(stage, config, external_digests)
    changes = differences(results[0].manifest, tables, digests(inputs), stage.version)
    return ", ".join(changes) or "its artifact was removed"


def differences(
    old: Manifest, tables: Tables, inputs: Mapping[str, Digest], version: int
) -> list[str]:
    """The configuration keys, inputs and version that differ from a manifest, old -> new."""
    old_inputs = {name: record["digest"] for name, record in old.inputs.items()}
    before = _facts(old.tables, old_inputs, old.version)
    after = _facts(tables, inputs, version)
    changed = [name for name in before | after if before.get(name, "") != after.get(name, "")]
    return [f"{name} {_short(before.get(name))} -> {_short(after.get(name))}" for name in changed]


def _facts(tables: Tables, inputs: Mapping[str, Digest], version: int) -> dict[str, object]:
    """All that enters a key, by name."""
    facts: dict[str, object] = {}
    for table, values in tables.items():
        for key in sorted(values):
            facts[f"{table}.{key}"] = values[key]
    for name, digest in inputs.items():
        facts[f"input {name}"] = digest[:12]
    facts["stage version"] = version
    return facts


def _short(value: object) -> str:
    if value is None:
        return "none"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def find_inputs(stage: Stage, planned: Mapping[str, Planned], store: Store) -> dict[str, Artifact]:
    """The artifacts a stage reads, as a plan has them.

    Raises:
        MissingArtifactError: one is not there; the hint is the one command that makes all of them.
        CorruptArtifactError: one is damaged.
    """
    inputs = _inputs_made(stage, planned)
    missing = _last_missing(set(stage.inputs) - set(stage.optional), inputs)
    if missing:
        _raise_if_damaged(planned, store)
        raise MissingArtifactError(
            f"there is no result of `{missing}` for this configuration in `{store.root}`",
            hint=f"run `tinygpt run --until {missing}`",
        )
    return inputs


def _raise_if_damaged(planned: Mapping[str, Planned], store: Store) -> None:
    for one in planned.values():
        if one.key and one.artifact is None:
            store.find(one.stage.name, one.key)


class Outcome(NamedTuple):
    """What running a stage did.

    Args:
        artifact: the result.
        cached: the artifact was there and nothing ran.
        reproduced: it was there, was forced to run again, and gave the same bytes.
    """

    artifact: Artifact
    cached: bool
    reproduced: bool = False


def execute(
    stage: Stage,
    config: Config,
    inputs: Inputs,
    *,
    store: Store,
    external_digests: ExternalDigests,
    runner: Runner,
    reporter: Reporter,
    force: bool = False,
    lock_timeout: float | None = None,
) -> Outcome:
    """The artifact of a stage: the cached one, or a new one made by `runner`.

    Args:
        inputs: by stage name; their digests enter the key.
        force: run even if there is one; equal bytes keep the old artifact, others replace it with a
            warning.
        lock_timeout: seconds to wait for another process that makes the same; None for ever.
    Raises:
        CorruptArtifactError: the cached one is damaged and `force` is not given.
        BusyError: the other process did not finish in time.
    """
    key = stage_key(stage, config, digests(inputs), external_digests)
    if not force and (artifact := _cached(store, stage, key)):
        return Outcome(artifact, cached=True)
    with store.lock(stage.name, key, timeout=lock_timeout, on_wait=reporter.note):
        # Another process may have made it while we waited for the lock
        if not force and (artifact := _cached(store, stage, key)):
            return Outcome(artifact, cached=True)
        old = None
        with suppress(ArtifactError):
            old = store.find(stage.name, key)
        tables = stage_tables(stage, config, external_digests)
        began = time.monotonic()
        out = store.begin(stage.name, key, version=stage.version, tables=tables, inputs=inputs)
        try:
            runner(config, inputs, out, reporter)
            out.provenance(seconds=round(time.monotonic() - began, 3), tinygpt=__version__)
            new = store.publish(out)
        finally:
            out.discard()
    if old and old.digest != new.digest:
        _report_difference(stage, old, new, reporter)
    reproduced = old is not None and old.digest == new.digest
    return Outcome(new, cached=False, reproduced=reproduced)


def _cached(store: Store, stage: Stage, key: Key) -> Artifact | None:
    if artifact := store.find(stage.name, key):
        artifact.check()
    return artifact


def _report_difference(stage: Stage, old: Artifact, new: Artifact, reporter: Reporter) -> None:
    before, after = old.manifest.files, new.manifest.files
    names = sorted({*before, *after})
    file = next(name for name in names if before.get(name) != after.get(name))
    what = f"`{stage.name}` produced different output than before"
    reporter.note(f"{what}: `{file}` differs; the old artifact is in `.trash/`")
