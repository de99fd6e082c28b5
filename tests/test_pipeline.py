"""Keys: everything that matters changes them, nothing else does; plan and execute."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from tests.store.workload import CONFIG, OUTSIDE, run_all, run_stage
from tinygpt.config.tables import Config
from tinygpt.errors import MissingArtifactError
from tinygpt.hashing import Digest
from tinygpt.pipeline import STAGES, Outcome, Stage, execute, find_inputs, plan, stage_key, stage_tables, why
from tinygpt.report import SilentReport
from tinygpt.store import Artifact, Out, Store

D = Digest("d" * 64)
ALL_OUTSIDE = {"data.source": "fingerprint", "eval.text": "sha256:text", "train.init_from": "digest"}


def keys(config: Config, outside: Mapping[str, str] = ALL_OUTSIDE) -> dict[str, str]:
    """Each stage's key on inputs of a fixed digest."""
    return {name: stage_key(stage, config, dict.fromkeys(stage.inputs, D), outside) for name, stage in STAGES.items()}


FIELDS = [(table, key) for table in Config.model_fields for key in type(getattr(CONFIG, table)).model_fields]
OTHER: dict[str, Any] = {
    "data.source": "builtin",
    "tokenizer.vocab_size": 300,
    "model.d_model": 256,
    "model.n_heads": 8,
    "sample.stop": ("x",),
}


def changed(table: str, key: str) -> Config:
    """The default configuration with another valid value of one field."""
    values = getattr(CONFIG, table).model_dump()
    if key == "warmup_fraction":
        values["warmup_steps"] = None  # only one of the two may be set
    field = type(getattr(CONFIG, table)).model_fields[key]
    names = [name for name in get_args(field.annotation) if isinstance(name, str)]
    value = values[key]
    for other in (OTHER.get(f"{table}.{key}"), *names, not value, str(value) + "x", 0.5, 7):
        try:
            config = Config.model_validate(CONFIG.model_dump() | {table: values | {key: other}}, strict=True)
        except ValidationError:
            continue
        if other not in (None, value):
            return config
    raise AssertionError(f"no other value of {table}.{key} is known")


def stages_that_rerun(table: str, key: str) -> set[str]:
    whole = {name for name, stage in STAGES.items() if table in stage.tables}
    return whole | {name for name, stage in STAGES.items() if f"{table}.{key}" in stage.tables}


@pytest.mark.parametrize(("table", "key"), FIELDS)
def test_a_changed_field_changes_the_keys_of_the_stages_that_name_it_and_no_other(table: str, key: str) -> None:
    before, after = keys(CONFIG), keys(changed(table, key))
    resolved = f"{table}.{key}" == "data.source"  # its fingerprint stands in the key, not its spelling
    expected = set() if resolved else stages_that_rerun(table, key)
    assert {name for name in before if before[name] != after[name]} == expected
    assert (table == "runtime") == (stages_that_rerun(table, key) == set())


@pytest.mark.parametrize("name", ["data.source", "eval.text", "train.init_from"])
def test_what_a_name_outside_stands_for_is_in_the_key(name: str) -> None:
    table, key = name.split(".")
    config = changed(table, key)
    (stage,) = stages_that_rerun(table, key)
    assert keys(config)[stage] != keys(config, ALL_OUTSIDE | {name: "other"})[stage]
    with pytest.raises(ValueError, match=name):
        keys(config, {other: value for other, value in ALL_OUTSIDE.items() if other != name})


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_name_version_and_each_input_are_in_the_key(stage: Stage) -> None:
    inputs = dict.fromkeys(stage.inputs, D)
    key = stage_key(stage, CONFIG, inputs, ALL_OUTSIDE)
    others = [Stage(stage.name + "x", stage.version, stage.tables, stage.inputs, stage.outside)]
    others += [Stage(stage.name, stage.version + 1, stage.tables, stage.inputs, stage.outside)]
    assert key not in [stage_key(other, CONFIG, inputs, ALL_OUTSIDE) for other in others]
    for name in stage.inputs:
        assert key != stage_key(stage, CONFIG, inputs | {name: Digest("e" * 64)}, ALL_OUTSIDE)
    with pytest.raises(ValueError, match="reads"):
        stage_key(stage, CONFIG, inputs | {"another": D}, ALL_OUTSIDE)


def test_equal_values_spelt_differently_have_one_key() -> None:
    one = Config.model_validate({"train": {"grad_clip": 1, "max_steps": 5}, "sample": {"stop": ["a"]}})
    two = Config.model_validate({"sample": {"stop": ("a",)}, "train": {"max_steps": 5, "grad_clip": 1.0}})
    assert keys(one) == keys(two)


def test_the_keys_of_the_default_configuration_are_pinned() -> None:
    """A change here makes everybody's artifacts unreachable: only on purpose."""
    assert {name: key[:12] for name, key in keys(CONFIG).items()} == PINNED


PINNED = {
    "corpus": "7026fe1a1f5e",
    "tokenize": "0971b4cdefe8",
    "build-dataset": "b40d9ae50f7a",
    "train": "3805a089e63e",
    "eval": "19613cde1646",
    "sample": "39f133dcff9f",
    "plot": "2fc28256bba4",
}


def test_only_whole_tables_or_existing_keys_are_named_and_inputs_come_before() -> None:
    names = list(STAGES)
    for stage in STAGES.values():
        assert stage_tables(stage, CONFIG, ALL_OUTSIDE)
        assert all(names.index(source) < names.index(stage.name) for source in stage.inputs)
        assert all(name.split(".")[0] in {table.split(".")[0] for table in stage.tables} for name in stage.outside)


def run(
    store: Store,
    stage: str,
    config: Config = CONFIG,
    *,
    runner: Any = run_stage,
    notes: list[str] | None = None,
    force: bool = False,
) -> Outcome:
    class Notes(SilentReport):
        def note(self, text: str) -> None:
            if notes is not None:
                notes.append(text)

    inputs = find_inputs(STAGES[stage], config, store, OUTSIDE)
    return execute(STAGES[stage], config, inputs, store=store, outside=OUTSIDE, runner=runner, report=Notes(), force=force)


class TestRunning:
    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
        monkeypatch.setattr(os, "fsync", lambda fd: None)
        return Store(tmp_path / "artifacts")

    def test_the_second_time_nothing_runs(self, store: Store) -> None:
        first = run(store, "corpus")

        def never(*arguments: object) -> None:
            raise AssertionError

        second = run(store, "corpus", runner=never)
        assert (first.cached, second.cached) == (False, True)
        assert first.artifact.digest == second.artifact.digest

    def test_a_stage_that_fails_leaves_nothing(self, store: Store) -> None:
        def fails(config: Config, inputs: Mapping[str, Artifact], out: Out, report: object) -> None:
            out.bytes("half", b"x")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            run(store, "corpus", runner=fails)
        assert store.list() == []
        assert list(store.partial.iterdir()) == []

    def test_forced_with_equal_bytes_is_reproduced_and_the_old_one_stays(self, store: Store) -> None:
        old, notes = run(store, "corpus").artifact, list[str]()
        again = run(store, "corpus", notes=notes, force=True)
        assert (again.cached, again.reproduced, notes) == (False, True, [])
        assert again.artifact.created == old.created
        assert not store.trash.exists()

    def test_forced_with_other_bytes_replaces_and_warns_once_naming_the_first_file(self, store: Store) -> None:
        run(store, "corpus")

        def other(config: Config, inputs: Mapping[str, Artifact], out: Out, report: Any) -> None:
            out.bytes("data.bin", b"other")
            out.bytes("zzz.bin", b"new")

        notes = list[str]()
        again = run(store, "corpus", runner=other, notes=notes, force=True)
        assert not again.reproduced
        assert len(notes) == 1
        assert "`data.bin`" in notes[0]
        assert again.artifact.read("data.bin") == b"other"
        assert len(list(store.trash.iterdir())) == 1

    def test_inputs_are_recorded_with_their_digests(self, store: Store) -> None:
        corpus, tokenize = run(store, "corpus").artifact, run(store, "tokenize").artifact
        assert tokenize.manifest.inputs == {"corpus": {"stage": "corpus", "key": corpus.key, "digest": corpus.digest}}
        assert tokenize.manifest.tables == stage_tables(STAGES["tokenize"], CONFIG, OUTSIDE)

    def test_an_unchanged_input_digest_reruns_nothing_downstream(self, store: Store) -> None:
        run(store, "corpus")
        run(store, "tokenize")
        outside = {"data.source": "another fingerprint, the same stories"}
        corpus = execute(STAGES["corpus"], CONFIG, {}, store=store, outside=outside, runner=run_stage, report=SilentReport())
        assert not corpus.cached
        inputs = {"corpus": corpus.artifact}
        tokenize = execute(
            STAGES["tokenize"], CONFIG, inputs, store=store, outside=outside, runner=run_stage, report=SilentReport()
        )
        assert tokenize.cached

    @pytest.mark.parametrize(
        ("wanted", "made", "missing"),
        [
            ("tokenize", (), "corpus"),
            ("eval", (), "train"),
            ("train", ("corpus", "tokenize"), "build-dataset"),
            ("plot", (), "eval"),
        ],
    )
    def test_a_missing_input_names_the_one_command(self, store: Store, wanted: str, made: tuple[str, ...], missing: str) -> None:
        if made:
            run_all(store.root, names=made)
        with pytest.raises(MissingArtifactError, match=f"`{missing}`") as caught:
            find_inputs(STAGES[wanted], CONFIG, store, OUTSIDE)
        assert f"`tinygpt run --until {missing}`" in str(caught.value.hint)

    def test_plan_says_hit_or_miss_and_why(self, store: Store) -> None:
        assert [p.why for p in plan(CONFIG, store, OUTSIDE, "tokenize")] == ["not made yet", "runs after `corpus`"]
        assert not store.root.exists()
        run_all(store.root)
        assert [p.why for p in plan(CONFIG, store, OUTSIDE, "train")] == ["cached"] * 4
        config = Config.model_validate({"train": {"max_steps": 600, "grad_clip": None}, "tokenizer": {"vocab_size": 8_000}})
        reasons = {p.stage.name: p.why for p in plan(config, store, OUTSIDE)}
        assert reasons["train"] == "train.grad_clip 1.0 -> none, train.max_steps 10000 -> 600"
        assert (reasons["build-dataset"], reasons["eval"], reasons["sample"]) == (
            "cached",
            "runs after `train`",
            "runs after `train`",
        )

    def test_plan_names_a_damaged_artifact(self, store: Store) -> None:
        run_all(store.root)
        (store.list("tokenize")[0].folder / "manifest.json").unlink()
        planned = {p.stage.name: p for p in plan(CONFIG, store, OUTSIDE, "build-dataset")}
        assert "damaged" in planned["tokenize"].why
        assert planned["tokenize"].artifact is None

    def test_why_names_inputs_and_version(self, store: Store) -> None:
        run_all(store.root)
        corpus = store.list("train")[0]  # any artifact of another digest
        stage = STAGES["tokenize"]
        newer = Stage(stage.name, stage.version + 1, stage.tables, stage.inputs)
        text = why(newer, CONFIG, {"corpus": corpus}, store, OUTSIDE)
        assert text.startswith(f"input corpus {store.list('corpus')[0].digest[:12]} -> {corpus.digest[:12]}")
        assert text.endswith(f"stage version {stage.version} -> {newer.version}")
