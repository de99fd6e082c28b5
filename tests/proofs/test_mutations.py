"""Files of a store with other contents and right hashes: one error, soon and in little memory."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.proofs.figures import RecordFigure, Size

pytestmark = pytest.mark.full
SERVERS = 2
SEED = 1


def serve(folder: Path, cases: int, *flags: str) -> list[dict[str, Any]]:
    """What fork servers report of cases that they share; the last line of each has its counts."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    servers = []
    for number in range(SERVERS):
        line = [sys.executable, "-m", "tests.proofs.mutation_server", str(SEED + number)]
        line += [str(cases // SERVERS), str(folder / str(number)), *flags]
        servers.append(
            subprocess.Popen(line, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        )
    reports = []
    for server in servers:
        out, _ = server.communicate()
        assert server.returncode == 0
        reports += [json.loads(report) for report in out.splitlines()]
    return reports


def test_a_file_with_other_contents_and_right_hashes_is_one_error(
    tmp_path: Path, size: Size, figure: RecordFigure
):
    """No unexpected error, no traceback, at most a minute and 1 GiB; see mutation_server.fault."""
    reports = serve(tmp_path, size(100, 500, 10_000))
    counts = [report for report in reports if "cases" in report]
    faults = [report for report in reports if "fault" in report]
    print(json.dumps(counts))
    for fault in faults:
        print(json.dumps(fault))
    cases = sum(count["cases"] for count in counts)
    figure("G23", "files with other contents and right hashes", cases, bad=len(faults), seed=SEED)


def test_the_same_commands_succeed_where_nothing_is_changed(tmp_path: Path, size: Size):
    *faults, first, second = serve(tmp_path, size(40, 100, 300), "--unchanged")
    assert faults == []
    assert set(first["codes"]) == set(second["codes"]) == {"0"}


def test_a_manifest_without_a_key_or_with_another_type_is_one_error(
    tmp_path: Path, size: Size, figure: RecordFigure
):
    *faults, first, second = serve(tmp_path, size(60, 300, 1_000), "--keys")
    for fault in faults:
        print(json.dumps(fault))
    what = "manifests that lack a key, or where it has another type"
    cases = first["cases"] + second["cases"]
    figure("G23", what, cases, bad=len(faults), seed=SEED)


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        ((), "files with other contents, read without their types"),
        (("--keys",), "manifests that lack a key, read without types"),
    ],
)
def test_without_typed_readers_such_files_are_unexpected_errors(
    tmp_path: Path, figure: RecordFigure, flags: tuple[str, ...], what: str
):
    reports = serve(tmp_path, 200, *flags, "--untyped")
    bad = [report for report in reports if report.get("fault", "").startswith("unexpected")]
    figure("G23", what, 200, bad=len(bad), seed=SEED, control=True)
