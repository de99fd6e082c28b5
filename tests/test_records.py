"""The JSON files that a pipeline writes are those of tinygpt.records, key by key."""

import shutil
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from typing_extensions import is_typeddict

from tests.helpers import with_settings
from tinygpt import records
from tinygpt.errors import StoppedEarly
from tinygpt.pipeline import STAGES
from tinygpt.progress import Limits
from tinygpt.project import Project
from tinygpt.stages import plot
from tinygpt.store import Artifact

RECORDS: dict[tuple[str, str], Any] = {
    ("corpus", "meta.json"): records.CorpusMeta,
    ("tokenize", "statistics.json"): records.TokenizerStatistics,
    ("build-dataset", "meta.json"): records.DatasetMeta,
    ("train", "config.json"): records.ModelFile,
    ("train", "metrics.jsonl"): records.MetricsRow,
    ("checkpoint", "config.json"): records.ModelFile,
    ("checkpoint", "metrics.jsonl"): records.MetricsRow,
    ("checkpoint", "state.json"): records.RunState,
    ("eval", "eval.json"): records.EvalRecord,
    ("eval", "documents.jsonl"): records.DocumentRow,
    ("sample", "samples.jsonl"): records.SampleRecord,
}
for _stage in STAGES:
    RECORDS[_stage, "summary.json"] = records.Summary


def problems(value: object, expected: Any, where: str = "") -> Iterator[str]:
    """Where a JSON value is not of a type: keys that are missing or unknown, values of another."""
    origin = get_origin(expected)
    if expected is Any:
        return
    if origin in (Union, types.UnionType):
        if all(list(problems(value, option)) for option in get_args(expected)):
            yield f"{where} = {value!r} is none of {expected}"
    elif is_typeddict(expected):
        yield from _record_problems(value, expected, where)
    elif origin is dict:
        assert isinstance(value, dict)
        for key, item in value.items():
            yield from problems(item, get_args(expected)[1], f"{where}.{key}")
    elif origin is list:
        assert isinstance(value, list)
        for item in value:
            yield from problems(item, get_args(expected)[0], f"{where}[]")
    elif origin is Literal:
        if value not in get_args(expected):
            yield f"{where} = {value!r} is none of {get_args(expected)}"
    elif type(value) is not expected and not (expected is float and type(value) is int):
        yield f"{where} = {value!r} is not {expected}"


def _record_problems(value: object, expected: Any, where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where} = {value!r} is no object"
        return
    for key in sorted(expected.__required_keys__ - value.keys()):
        yield f"{where}.{key} is missing"
    hints = get_type_hints(expected)
    for key, item in value.items():
        if key in hints:
            yield from problems(item, hints[key], f"{where}.{key}")
        elif not hasattr(expected, "__pydantic_config__"):  # which allows other keys
            yield f"{where}.{key} is not in {expected.__name__}"


def json_values(artifact: Artifact) -> Iterator[tuple[str, object]]:
    """The name of each JSON file with each value in it, but for the tokenizer's own format."""
    for name in artifact.names():
        if name.endswith(".jsonl"):
            for row in artifact.read_rows(name):
                yield name, row
        elif name.endswith(".json") and name != "tokenizer.json":
            yield name, artifact.read_json(name)


@pytest.fixture(scope="module")
def artifacts(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    """One artifact of every stage, a checkpoint, and those of a run on files."""
    root = tmp_path_factory.mktemp("records")
    store = shutil.copytree(finished.store.root, root / "artifacts")
    project = Project(finished.config, store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plot, "to_bytes", lambda figure, format: b"")
        project.run("page")
    other = project.with_config(with_settings(finished.config, train={"seed": 99}))
    with pytest.raises(StoppedEarly):
        other.run("train", limits=Limits(stop_at_step=3))
    (unfinished,) = project.store.unfinished_runs()
    checkpoint = unfinished.newest()
    assert checkpoint is not None

    text = root / "my.txt"
    text.write_text("\n".join(f"Story {number} of a cat." for number in range(100)))
    on_files = with_settings(
        finished.config,
        data={"source": str(text), "separator": "lines"},
        dataset={"test_fraction": 0.2},
        eval={"num_samples": None, "split": "test"},
    )
    project.with_config(on_files).run("eval")
    on_text = with_settings(on_files, eval={"text": str(text), "split": "val"})
    project.with_config(on_text).run("eval")
    return [checkpoint, *project.artifacts()]


def test_every_json_file_has_exactly_the_keys_of_its_record(artifacts: list[Artifact]) -> None:
    found: set[tuple[str, str]] = set()
    wrong: list[str] = []
    for artifact in artifacts:
        for name, value in json_values(artifact):
            found.add((artifact.stage, name))
            expected = RECORDS[artifact.stage, name]
            wrong += problems(value, expected, f"{artifact.stage}/{name}")
    assert wrong == []
    assert found == set(RECORDS)


def test_metrics_have_rows_of_both_kinds(artifacts: list[Artifact]) -> None:
    for artifact in artifacts:
        if "metrics.jsonl" in artifact.names():
            rows = artifact.read_rows("metrics.jsonl")
            steps = [row for row in rows if row["kind"] == "step"]
            evaluations = [row for row in rows if row["kind"] == "eval"]
            assert not [wrong for row in steps for wrong in problems(row, records.StepRow)]
            assert not [wrong for row in evaluations for wrong in problems(row, records.EvalRow)]
            assert steps
            assert evaluations
            assert len(rows) == len(steps) + len(evaluations)


def test_every_optional_key_is_written_by_some_run(artifacts: list[Artifact]) -> None:
    written: dict[str, set[str]] = {"SourceRecord": {"name", "split"}}  # of the hub alone
    for artifact in artifacts:
        for name, value in json_values(artifact):
            record = RECORDS[artifact.stage, name]
            if is_typeddict(record) and record.__optional_keys__:
                written.setdefault(record.__name__, set()).update(value)
        if artifact.stage == "corpus":
            written["SourceRecord"] |= artifact.read_json("meta.json")["source"].keys()
    optional: dict[str, set[str]] = {}
    for name, record in vars(records).items():
        if is_typeddict(record) and record.__optional_keys__:
            optional[name] = set(record.__optional_keys__)
    assert optional.keys() == written.keys()
    for name, keys in optional.items():
        assert keys <= written[name], name


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"tokens": None}, ".tokens = None is not <class 'int'>"),
        ({"stories": 3}, ".stories is not in SplitSize"),
        ({"documents": "3"}, ".documents = '3' is not <class 'int'>"),
    ],
)
def test_a_record_that_is_wrong_is_noticed(change: dict[str, object], problem: str) -> None:
    right = {"documents": 1, "tokens": 2, "bytes": 3}
    assert list(problems(right, records.SplitSize)) == []
    assert list(problems(right | change, records.SplitSize)) == [problem]
    del right["bytes"]
    assert list(problems(right, records.SplitSize)) == [".bytes is missing"]
