"""The plain copies in `latest/`: two commands at once, a store that takes nothing."""

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import CONFIG, environment
from tests.store.workload import watched
from tinygpt.store import Store, upkeep
from tinygpt.store.files import Operation


def copies(store: Path) -> dict[str, bytes]:
    """What is in `latest/`, by name."""
    latest = store / "latest"
    found = {path: path.read_bytes() for path in latest.rglob("*") if path.is_file()}
    return {path.relative_to(latest).as_posix(): data for path, data in found.items()}


@pytest.fixture
def store(project, tinygpt, tmp_path) -> Path:
    """A copy of the finished run's store, and its tinygpt.toml."""
    (tmp_path / "tinygpt.toml").write_text(CONFIG)
    return Path(shutil.copytree(project[0] / "artifacts", tmp_path / "artifacts"))


@pytest.mark.parametrize("command", [["run"], ["plot"]])
@pytest.mark.parametrize("error", [errno.EROFS, errno.ENOSPC])
def test_a_store_that_takes_nothing_answers_from_the_cache(tinygpt, store, command, error):
    before = copies(store)

    def refuse(operation: Operation) -> None:
        raise OSError(error, "injected")

    with watched(refuse):
        done = tinygpt(*command)
    assert done.code == 0
    assert "latest` keeps older copies: cannot use `" in done.err
    assert copies(store) == before
    assert upkeep.verify(Store(store)) == []


def test_copies_held_by_another_process_are_a_note(tinygpt, store, monkeypatch):
    monkeypatch.setattr("tinygpt.cli.results.LATEST_TIMEOUT", 0)
    with Store(store).hold("latest", 0, print):
        done = tinygpt("plot")
    assert done.code == 0
    assert "latest` keeps older copies: process " in done.err


@pytest.mark.full
@pytest.mark.parametrize("number", range(8))
def test_two_runs_at_once_both_end_well(store, tmp_path, number):
    """Each second pair finds nothing; the others find all of it, so that only `latest/` is new."""
    expected = copies(store)
    if number % 2:
        shutil.rmtree(store)
    pair = [
        subprocess.Popen(
            [sys.executable, "-m", "tinygpt", *words],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for words in (["run"], ["plot"] if number == 6 else ["run"])
    ]
    for process in pair:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert "keeps older copies" not in err
    assert copies(store) == expected
    assert upkeep.verify(Store(store)) == []


@pytest.mark.parametrize("place", [".partial/train-{id}.0123456789ab", ".partial/latest.01"])
def test_what_a_killed_process_left_is_a_note_and_the_next_stage_removes_it(tinygpt, store, place):
    left = store / place.format(id=Store(store).list("train")[0].id)
    (left / "checkpoint").mkdir(parents=True)
    (left / "checkpoint" / "half").write_text("x")
    verified = tinygpt("artifacts", "verify")
    assert verified.code == 0
    assert verified.err.splitlines()[0].endswith("was left by a process that did not finish")
    assert verified.err.endswith("artifacts intact\n")
    assert tinygpt("sample", "x", "--seed", "77").code == 0
    assert not left.exists()
    assert len(tinygpt("artifacts", "verify").err.splitlines()) == 1
