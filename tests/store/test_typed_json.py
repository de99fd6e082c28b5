"""JSON of a store is read as its type and up to a size; what is something else is refused."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import publish, seal
from tinygpt.errors import CorruptArtifactError
from tinygpt.hashing import hash_file
from tinygpt.records import SplitSize, Summary
from tinygpt.store import Artifact, Store
from tinygpt.store.manifest import RunTable
from tinygpt.store.metrics import evaluations, read_metrics
from tinygpt.store.typed_json import parse

SIZE = {"documents": 1, "tokens": 2, "bytes": 3}
TRAIN = {"seed": 1, "max_steps": 2, "batch_size": 1, "grad_accum_steps": 1}
STEP: dict[str, Any] = {"kind": "step", "step": 1, "tokens": 32, "loss": 5.0}
STEP |= {"learning_rate": 0.1, "grad_norm": 1.0, "chain": "0123456789abcdef"}
EVAL: dict[str, Any] = {"kind": "eval", "step": 1, "tokens": 32, "val_loss": 5.0}
EVAL |= {"val_perplexity": 148.4, "best": True, "sample": "Once"}


def test_what_is_of_its_type_comes_back_without_keys_that_nobody_knows() -> None:
    assert parse(json.dumps(SIZE | {"more": 1}).encode(), SplitSize) == SIZE


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "EOF while parsing a value"),
        (b"[1, 2]", "Input should be a valid dictionary"),
        (json.dumps(SIZE | {"bytes": "3"}).encode(), "`bytes`: input should be a valid integer"),
        (json.dumps(SIZE | {"bytes": 3.0}).encode(), "`bytes`: input should be a valid integer"),
        (json.dumps(SIZE | {"bytes": True}).encode(), "`bytes`: input should be a valid integer"),
        (json.dumps(SIZE | {"bytes": -1}).encode(), "`bytes`: input should be greater than"),
        (json.dumps(SIZE | {"bytes": 2**63}).encode(), "`bytes`: input should be less than"),
        (json.dumps({"documents": 1, "tokens": 2}).encode(), "`bytes`: field required"),
        (b"[" * 200_000, "recursion limit exceeded"),
        (b'{"a":' * 200_000, "recursion limit exceeded"),
        (b"9" * 5000, "number out of range"),
        (b'"\xff"', "invalid unicode"),
        (b'{"documents": 1, "tokens": "\\ud800"}', "unexpected end of hex escape"),
    ],
)
def test_what_is_of_another_type_is_refused_in_one_line(data: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        parse(data, SplitSize)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_a_number_that_is_not_finite_is_refused(number: str) -> None:
    with pytest.raises(ValueError, match=r"expected value|not JSON compliant|invalid number"):
        parse(f"[{number}]".encode(), list[float])


@pytest.mark.parametrize(
    ("stage", "hint"),
    [
        ("corpus", "`tinygpt run --until corpus --force` makes it again"),
        ("train", "`tinygpt run --until train --force` makes it again"),
        ("experiment", "the `tinygpt run --vary` that made it makes it again with `--force`"),
    ],
)
def test_the_error_names_artifact_file_and_the_command_that_makes_it_again(
    tmp_path: Path, stage: str, hint: str
) -> None:
    artifact = publish(Store(tmp_path), stage, {"summary.json": b'{"rows": [["a"]]}'})
    with pytest.raises(CorruptArtifactError) as caught:
        artifact.read_json("summary.json", Summary)
    assert caught.value.exit_code == 3
    assert f"artifact `{stage}/{artifact.id}`" in caught.value.message
    assert "`summary.json` is not what this version of tinygpt writes" in caught.value.message
    assert "`rows.0`" in caught.value.message
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (None, "`tables.train`: Input should be a valid dictionary"),
        ({"seed": 1}, "`tables.train`: `max_steps`: field required"),
        ({**TRAIN, "max_steps": "2"}, "`tables.train`: `max_steps`: input should be a valid int"),
        ({**TRAIN, "max_steps": 0}, "`tables.train`: `max_steps`: input should be greater than"),
    ],
)
def test_a_manifest_is_read_as_its_type_like_a_file(
    tmp_path: Path, table: dict[str, Any] | None, problem: str
) -> None:
    artifact = publish(Store(tmp_path), "train", {})
    seal(artifact.folder, tables={} if table is None else {"train": table})
    with pytest.raises(CorruptArtifactError) as caught:
        Artifact.load(artifact.folder).table("train", RunTable)
    assert "`manifest.json` is not what this version of tinygpt writes" in caught.value.message
    assert problem in caught.value.message
    seal(artifact.folder, tables={"train": TRAIN})
    assert Artifact.load(artifact.folder).table("train", RunTable) == TRAIN


def test_an_input_that_a_manifest_lacks_is_named(tmp_path: Path) -> None:
    artifact = publish(Store(tmp_path), "eval", {})
    with pytest.raises(CorruptArtifactError, match="has no input of `train`"):
        artifact.input("train")


def metrics(tmp_path: Path, *rows: dict[str, Any] | bytes) -> Artifact:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    return publish(Store(tmp_path), "train", {"metrics.jsonl": b"\n".join([*lines, b""])})


def test_metrics_are_steps_and_evaluations(tmp_path: Path) -> None:
    rows = read_metrics(metrics(tmp_path, STEP, EVAL, STEP | {"step": 2}))
    assert rows == [STEP, EVAL, STEP | {"step": 2}]
    assert evaluations(rows) == [EVAL]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "are missing"),
        ([STEP], "are missing"),
        ([EVAL], "are missing"),
        ([STEP, EVAL | {"best": False}], "are missing"),
        ([STEP | {"step": 0}, EVAL], "are missing"),
        ([STEP, STEP | {"step": 3}, EVAL], "are missing"),
        ([EVAL | {"step": 2}, STEP], "not in its order"),
        ([STEP, b"", EVAL], "expected value"),
        ([STEP, EVAL | {"kind": "other"}], "`1.StepRow"),
        ([STEP, EVAL | {"val_loss": None}], "`1."),
        ([STEP | {"loss": -1e308}, EVAL], "`0.StepRow.loss`"),
        ([STEP, EVAL | {"val_loss": 1e308}], "`1."),
        ([STEP, b"[]"], "`1."),
    ],
)
def test_metrics_that_are_not_those_of_a_run_are_refused(
    tmp_path: Path, rows: list[dict[str, Any] | bytes], problem: str
) -> None:
    with pytest.raises(CorruptArtifactError, match=problem):
        read_metrics(metrics(tmp_path, *rows))


@pytest.mark.parametrize(
    ("name", "size"), [("eval.json", 17 << 20), ("samples.jsonl", 513 << 20), ("other", 1 << 20)]
)
def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, name: str, size: int) -> None:
    artifact = publish(Store(tmp_path), "eval", {name: b"1"})
    path = artifact.path(name)
    path.chmod(0o644)
    os.truncate(path, size)  # sparse
    files = {name: {"sha256": hash_file(path), "bytes": size}}
    manifest = artifact.manifest.model_copy(update={"files": files})
    grown = Artifact(artifact.folder, manifest, artifact.root)
    with pytest.raises(CorruptArtifactError, match=f"has {size:,} bytes, more than it can need"):
        grown.read(name, most=1000 if name == "other" else None)
