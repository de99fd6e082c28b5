"""docs/proof.json: what is merged into it, and that docs/guarantees.md says what it holds."""

import re
import shlex
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.proofs.figures import named_tests
from tools import docs, proofs
from tools.proofs import Figure, Outcomes, Section

ENVIRONMENT = {"python": "3.11"}
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
HERE = "tests/proofs/test_record.py"
OTHER = "tests/store/test_crashes.py"
BLOCK = re.compile(r"<!-- figures:start ([\w-]+) -->")


def kills(count: int, file: str = HERE, guarantee: str = "G1", **more: object) -> Figure:
    """So many kills, counted by a test in `file`."""
    found = {"guarantee": guarantee, "what": "kills", "count": count, "bad": 0}
    return Figure(**found | {"test": f"{file}::test_kills"} | more)  # type: ignore[typeddict-item]


def section(*figures: Figure, python: str = "3.11") -> Section:
    """What tests recorded that counted these figures."""
    files = {found["test"].partition("::")[0] for found in figures}
    tests = {file: Outcomes(passed=1, skipped={}, failed=[]) for file in files}
    minutes = dict.fromkeys(files, 1.5)
    environment = {"python": python}
    return Section(environment=environment, minutes=minutes, tests=tests, figures=list(figures))


def test_files_that_ran_replace_what_they_recorded_and_others_stay():
    old = section(kills(1), kills(2, OTHER))
    new = section(kills(3))
    assert proofs.merged(old, new)["figures"] == [kills(3), kills(2, OTHER)]
    assert set(proofs.merged(old, new)["tests"]) == {HERE, OTHER}
    assert proofs.merged(None, new) == new


def test_figures_of_another_environment_or_of_files_that_are_gone_are_left_out():
    new = section(kills(3))
    assert proofs.merged(section(kills(2, OTHER), python="3.12"), new)["figures"] == [kills(3)]
    assert proofs.merged(section(kills(2, "tests/gone.py")), new)["figures"] == [kills(3)]


def test_sections_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "proof.json"
    proofs.write("proof", section(kills(1)), path)
    proofs.write("interop", section(kills(2, guarantee="export"), python="3.12"), path)
    proofs.write("proof", section(kills(3)), path)
    recorded = proofs.read(path)
    assert recorded["proof"]["figures"] == [kills(3)]
    assert recorded["interop"]["figures"] == [kills(2, guarantee="export")]


def test_figures_and_controls_are_said_apart_and_tests_are_counted_where_there_are_none():
    recorded = {"proof": section(kills(1253), kills(8, what="cuts", bad=4, control=True))}
    assert proofs.lines("G1", recorded) == [
        "Figures: 1,253 kills; 0 bad.",
        "Controls that have to be bad: 4 of 8 cuts.",
    ]
    assert proofs.lines("G2", recorded, [HERE]) == ["Figures: 1 tests; 0 bad."]
    assert "none recorded" in proofs.lines("G2", recorded)[0]


@pytest.mark.parametrize(
    ("bad", "control", "fails"), [(0, False, False), (1, False, True), (0, True, True)]
)
def test_a_figure_fails_if_something_is_bad_and_a_control_if_nothing_is(
    unrecorded, bad, control, fails
):
    if fails:
        with pytest.raises(AssertionError):
            unrecorded("G0", "tries", 3, bad=bad, control=control)
    else:
        unrecorded("G0", "tries", 3, bad=bad, control=control)


@pytest.fixture
def unrecorded(figure, request):
    """The fixture `figure`, whose figures of this test are not kept."""
    yield figure
    request.node.user_properties.clear()


def test_every_promise_has_a_block_of_figures_and_every_figure_a_block():
    promises = [text for text in re.split(r"(?m)^(?=##)", GUARANTEES) if text.startswith("### ")]
    assert [text.splitlines()[0] for text in promises if len(BLOCK.findall(text)) != 1] == []
    blocks = BLOCK.findall(GUARANTEES)
    assert len(set(blocks)) == len(blocks) > 20
    recorded = [found for part in proofs.read().values() for found in part["figures"]]
    assert {found["guarantee"] for found in recorded} <= set(blocks)


def test_the_figures_in_the_document_are_those_recorded(monkeypatch, tmp_path):
    assert docs.generated(GUARANTEES) == GUARANTEES
    proofs.write("proof", section(kills(123_456)), tmp_path / "proof.json")
    monkeypatch.setattr(proofs.read, "__defaults__", (tmp_path / "proof.json",))
    assert "123,456 kills" in docs.generated(GUARANTEES)


def test_every_proof_that_the_document_names_is_there():
    assert {path for path in named_tests() if not path.is_file()} == set()
    assert len(named_tests()) > 40


def test_nothing_recorded_has_failed_and_no_path_or_host_is_in_it():
    recorded = proofs.read()
    for part in recorded.values():
        assert [file for file, outcomes in part["tests"].items() if outcomes["failed"]] == []
        for found in part["figures"]:
            assert bool(found["bad"]) == bool(found.get("control")), found
    assert not re.search(r'"/\w', proofs.RECORD.read_text() if recorded else "")


@pytest.mark.full
@pytest.mark.parametrize(
    ("target", "file"),
    [
        ("proof", "proofs/test_mutations"),
        ("proof", "store/test_crashes"),
        ("test-full", "store/test_crashes"),
    ],
)
def test_make_calls_pytest_in_a_way_that_finds_its_tests(target, file):
    """With a path after an option, pytest would not know the options of tests/conftest.py."""
    plan = subprocess.run(
        ["make", "--dry-run", "--old-file=.venv/.installed-dev", target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    words = shlex.split(plan.stdout.replace("\\\n", " "))
    arguments = [*words[words.index("pytest") + 1 :], "--collect-only", "-qq"]
    line = [sys.executable, "-m", "pytest", *arguments]
    found = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert file in found.stdout


@pytest.mark.full
def test_the_figures_of_tests_in_several_processes_are_recorded(tmp_path):
    files = ["tests/store/test_unfinished_runs.py", "tests/store/test_upkeep.py"]
    record = f"--record={tmp_path / 'proof.json'}"
    line = [sys.executable, "-m", "pytest", "-q", "--numprocesses=2", "--dist=loadfile", record]
    done = subprocess.run([*line, *files], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    recorded = proofs.read(tmp_path / "proof.json")["proof"]
    assert sorted(recorded["tests"]) == files
    assert {found["test"].partition("::")[0] for found in recorded["figures"]} == set(files)
