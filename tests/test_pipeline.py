"""Keys: everything that matters changes them, nothing else does. Planning and running stages."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from tests.helpers import Notes
from tests.proofs.figures import RecordFigure
from tests.store.workload import CONFIG, EXTERNAL_DIGESTS, run_all, run_stage
from tinygpt.config.fields import FIELDS
from tinygpt.config.tables import Config
from tinygpt.errors import CorruptArtifactError, MissingArtifactError
from tinygpt.hashing import Digest
from tinygpt.pipeline import (
    STAGES,
    Outcome,
    Runner,
    Stage,
    execute,
    find_inputs,
    plan,
    stage_key,
    stage_tables,
    why_not_cached,
)
from tinygpt.progress import Reporter
from tinygpt.store import Artifact, ArtifactWriter, Store

D = Digest("d" * 64)
ALL_DIGESTS = {
    "data.source": "fingerprint",
    "eval.text": "sha256:text",
    "tokenizer.from": "sha256:tokenizer",
    "train.init_from": "digest",
}


def keys(config: Config, external_digests: Mapping[str, str] = ALL_DIGESTS) -> dict[str, str]:
    """Each stage's key on inputs of a fixed digest."""
    found: dict[str, str] = {}
    for name, stage in STAGES.items():
        inputs = dict.fromkeys(stage.inputs, D)
        found[name] = stage_key(stage, config, inputs, external_digests)
    return found


KEYS = [name.split(".") for name in FIELDS]
OTHER_VALUES: dict[str, Any] = {
    "data.source": "builtin",
    "data.separator": "lines",
    "tokenizer.vocab_size": 300,
    "model.d_model": 256,
    "model.n_heads": 8,
    "sample.stop": ("x",),
}


def changed(table: str, key: str) -> Config:
    """The default configuration with another valid value of one field."""
    values = getattr(CONFIG, table).model_dump(by_alias=True)
    if key == "warmup_fraction":
        values["warmup_steps"] = None  # only one of the two may be set
    value = values[key]
    annotation = FIELDS[f"{table}.{key}"].annotation
    words = [word for word in get_args(annotation) if isinstance(word, str)]
    candidates = [OTHER_VALUES.get(f"{table}.{key}"), *words, not value, f"{value}x", 0.5, 7]
    for candidate in candidates:
        if candidate in (None, value):
            continue
        tables = CONFIG.model_dump() | {table: values | {key: candidate}}
        try:
            return Config.model_validate(tables, strict=True)
        except ValidationError:
            continue
    raise AssertionError(f"no other value of {table}.{key} is known")


def stages_that_rerun(table: str, key: str) -> set[str]:
    found: set[str] = set()
    for name, stage in STAGES.items():
        if table in stage.tables or f"{table}.{key}" in stage.tables:
            found.add(name)
    return found


@pytest.mark.parametrize(("table", "key"), KEYS)
def test_a_changed_field_changes_the_keys_of_the_stages_that_name_it_and_no_others(
    table: str, key: str, figure: RecordFigure
) -> None:
    assert changes_the_right_keys(table, key)
    assert (table == "runtime") == (stages_that_rerun(table, key) == set())
    figure("G7", "fields of the configuration that are changed, one at a time", 1)


def test_control_a_field_that_enters_no_key_is_noticed(
    monkeypatch: pytest.MonkeyPatch, figure: RecordFigure
) -> None:
    def leave_out_one_field(stage: Stage, *arguments: Any) -> dict[str, Any]:
        tables: dict[str, Any] = dict(stage_tables(stage, *arguments))
        for name, values in tables.items():
            tables[name] = dict(list(values.items())[1:])
        return tables

    monkeypatch.setattr("tinygpt.pipeline.stage_tables", leave_out_one_field)
    bad = [f"{table}.{key}" for table, key in KEYS if not changes_the_right_keys(table, key)]
    what = "changed fields if the first of each table enters no key"
    figure("G7", what, len(KEYS), len(bad), control=True)


def changes_the_right_keys(table: str, key: str) -> bool:
    """Whether a changed field changes the keys of the stages that name it, and no others."""
    before, after = keys(CONFIG), keys(changed(table, key))
    # The fingerprint of the source stands in the key, not its name
    is_replaced = f"{table}.{key}" == "data.source"
    expected = set() if is_replaced else stages_that_rerun(table, key)
    return {name for name in before if before[name] != after[name]} == expected


@pytest.mark.parametrize("name", ["data.source", "eval.text", "tokenizer.from", "train.init_from"])
def test_the_digest_of_an_external_name_is_in_the_key(name: str) -> None:
    table, key = name.split(".")
    config = changed(table, key)
    (stage,) = stages_that_rerun(table, key)
    assert keys(config)[stage] != keys(config, ALL_DIGESTS | {name: "other"})[stage]
    others = {other: digest for other, digest in ALL_DIGESTS.items() if other != name}
    with pytest.raises(ValueError, match=name):
        keys(config, others)


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_name_version_and_each_input_are_in_the_key(stage: Stage) -> None:
    inputs = dict.fromkeys(stage.inputs, D)
    key = stage_key(stage, CONFIG, inputs, ALL_DIGESTS)
    renamed = stage._replace(name=stage.name + "x")
    newer = stage._replace(version=stage.version + 1)
    assert key != stage_key(renamed, CONFIG, inputs, ALL_DIGESTS)
    assert key != stage_key(newer, CONFIG, inputs, ALL_DIGESTS)
    for name in stage.inputs:
        other = inputs | {name: Digest("e" * 64)}
        assert key != stage_key(stage, CONFIG, other, ALL_DIGESTS)
    with pytest.raises(ValueError, match="reads"):
        stage_key(stage, CONFIG, inputs | {"another": D}, ALL_DIGESTS)


def test_equal_values_spelled_differently_have_one_key() -> None:
    one = Config.model_validate(
        {"train": {"grad_clip": 1, "max_steps": 5}, "sample": {"stop": ["a"]}}
    )
    two = Config.model_validate(
        {"sample": {"stop": ("a",)}, "train": {"max_steps": 5, "grad_clip": 1.0}}
    )
    assert keys(one) == keys(two)


PINNED = {
    "corpus": "b50414c46e7c",
    "tokenize": "d1080ef12864",
    "build-dataset": "ad924256647e",
    "train": "57b791744ed4",
    "eval": "486ee93219e8",
    "sample": "e5f0dfc8cd81",
    "plot": "fa9ce629d2d3",
    "page": "033cc052d5a9",
}


def test_the_keys_of_the_default_configuration_are_pinned() -> None:
    """A change here makes everybody's artifacts unreachable: only on purpose."""
    assert {name: key[:12] for name, key in keys(CONFIG).items()} == PINNED


def test_stages_name_tables_that_exist_and_inputs_that_come_before_them() -> None:
    names = list(STAGES)
    for stage in STAGES.values():
        assert stage_tables(stage, CONFIG, ALL_DIGESTS)
        for source in stage.inputs:
            assert names.index(source) < names.index(stage.name)
        tables = {table.split(".")[0] for table in stage.tables}
        for name in stage.external:
            assert name.split(".")[0] in tables


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    return Store(tmp_path / "artifacts")


def run(
    store: Store,
    stage: str,
    *,
    runner: Runner = run_stage,
    reporter: Reporter | None = None,
    force: bool = False,
    external_digests: Mapping[str, str] = EXTERNAL_DIGESTS,
) -> Outcome:
    planned = plan(CONFIG, store, external_digests)
    return execute(
        STAGES[stage],
        CONFIG,
        find_inputs(STAGES[stage], planned, store),
        store=store,
        external_digests=external_digests,
        runner=runner,
        reporter=reporter or Notes(),
        force=force,
    )


def never(*_: object) -> None:
    raise AssertionError("nothing should run")


class TestRunning:
    def test_the_second_time_nothing_runs(self, store: Store) -> None:
        first = run(store, "corpus")
        second = run(store, "corpus", runner=never)
        assert not first.cached
        assert second.cached
        assert first.artifact.digest == second.artifact.digest

    def test_a_stage_that_fails_leaves_nothing(self, store: Store) -> None:
        def fail(
            config: Config, inputs: Mapping[str, Artifact], out: ArtifactWriter, reporter: object
        ) -> None:
            out.bytes("half", b"x")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            run(store, "corpus", runner=fail)
        assert store.list() == []
        assert list(store.partial.iterdir()) == []

    def test_forced_with_equal_bytes_it_is_reproduced_and_the_old_one_stays(
        self, store: Store
    ) -> None:
        old = run(store, "corpus").artifact
        reporter = Notes()
        again = run(store, "corpus", reporter=reporter, force=True)
        assert not again.cached
        assert again.reproduced
        assert reporter.notes == []
        assert again.artifact.created == old.created
        assert not store.trash.exists()

    def test_forced_with_other_bytes_it_replaces_the_old_one_and_names_the_first_file(
        self, store: Store
    ) -> None:
        run(store, "corpus")

        def other(
            config: Config, inputs: Mapping[str, Artifact], out: ArtifactWriter, reporter: object
        ) -> None:
            out.bytes("data.bin", b"other")
            out.bytes("zzz.bin", b"new")

        reporter = Notes()
        again = run(store, "corpus", runner=other, reporter=reporter, force=True)
        assert not again.reproduced
        (note,) = reporter.notes
        assert "`data.bin`" in note
        assert again.artifact.read("data.bin") == b"other"
        assert len(list(store.trash.iterdir())) == 1

    def test_inputs_are_recorded_with_their_digests(self, store: Store) -> None:
        corpus = run(store, "corpus").artifact
        tokenize = run(store, "tokenize").artifact
        record = {"stage": "corpus", "key": corpus.key, "digest": corpus.digest}
        assert tokenize.manifest.inputs == {"corpus": record}
        expected = stage_tables(STAGES["tokenize"], CONFIG, EXTERNAL_DIGESTS)
        assert tokenize.manifest.tables == expected

    def test_an_input_of_equal_digest_reruns_nothing_after_it(self, store: Store) -> None:
        run(store, "corpus")
        run(store, "tokenize")
        digests = {"data.source": "another fingerprint, the same documents"}
        assert not run(store, "corpus", external_digests=digests).cached
        assert run(store, "tokenize", external_digests=digests, runner=never).cached


class TestPlanning:
    @pytest.mark.parametrize(
        ("stage", "made", "missing"),
        [
            ("tokenize", (), "corpus"),
            ("eval", (), "train"),
            ("train", ("corpus", "tokenize"), "build-dataset"),
            ("plot", (), "eval"),
        ],
    )
    def test_a_missing_input_names_the_one_command_that_makes_all(
        self, store: Store, stage: str, made: tuple[str, ...], missing: str
    ) -> None:
        if made:
            run_all(store.root, names=made)
        planned = plan(CONFIG, store, EXTERNAL_DIGESTS)
        with pytest.raises(MissingArtifactError, match=f"`{missing}`") as caught:
            find_inputs(STAGES[stage], planned, store)
        assert f"`tinygpt run --until {missing}`" in str(caught.value.hint)

    def test_a_plan_says_what_is_cached_and_what_is_waited_for(self, store: Store) -> None:
        first = plan(CONFIG, store, EXTERNAL_DIGESTS, "tokenize")
        assert {name: planned.why for name, planned in first.items()} == {
            "corpus": "not made yet",
            "tokenize": "runs after `corpus`",
        }
        assert not store.root.exists()
        run_all(store.root)
        second = plan(CONFIG, store, EXTERNAL_DIGESTS, "train")
        assert [planned.why for planned in second.values()] == ["cached"] * 4

    def test_a_plan_names_the_changed_settings(self, store: Store) -> None:
        run_all(store.root)
        config = Config.model_validate(
            {
                "train": {"max_steps": 600, "grad_clip": None},
                "tokenizer": {"vocab_size": 8_000},
            }
        )
        planned = plan(config, store, EXTERNAL_DIGESTS)
        why = {name: one.why for name, one in planned.items()}
        assert why["train"] == "train.grad_clip 1.0 -> none, train.max_steps 10000 -> 600"
        assert why["build-dataset"] == "cached"
        assert why["eval"] == "runs after `train`"
        assert why["sample"] == "runs after `train`"
        assert why["plot"] == "runs after `eval`"

    def test_stages_that_are_planned_already_are_not_looked_up_again(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run_all(store.root)
        known = plan(CONFIG, store, EXTERNAL_DIGESTS, "build-dataset")
        looked_up: list[str] = []
        find = Store.find

        def counting_find(self: Store, stage: str, key: Any) -> Artifact | None:
            looked_up.append(stage)
            return find(self, stage, key)

        monkeypatch.setattr(Store, "find", counting_find)
        planned = plan(CONFIG, store, EXTERNAL_DIGESTS, "train", known)
        assert looked_up == ["train"]
        assert planned["corpus"] is known["corpus"]

    def test_a_plan_names_a_damaged_artifact_and_looking_for_inputs_raises(
        self, store: Store
    ) -> None:
        run_all(store.root)
        (store.list("tokenize")[0].folder / "manifest.json").unlink()
        planned = plan(CONFIG, store, EXTERNAL_DIGESTS, "build-dataset")
        assert "damaged" in planned["tokenize"].why
        assert planned["tokenize"].artifact is None
        with pytest.raises(CorruptArtifactError, match="tokenize"):
            find_inputs(STAGES["train"], planned, store)

    def test_changed_inputs_and_versions_are_named(self, store: Store) -> None:
        run_all(store.root)
        other = store.list("train")[0]  # any artifact of another digest
        stage = STAGES["tokenize"]
        newer = stage._replace(version=stage.version + 1)
        text = why_not_cached(newer, CONFIG, {"corpus": other}, store, EXTERNAL_DIGESTS)
        old = store.list("corpus")[0]
        assert text.startswith(f"input corpus {old.digest[:12]} -> {other.digest[:12]}")
        assert text.endswith(f"stage version {stage.version} -> {newer.version}")
