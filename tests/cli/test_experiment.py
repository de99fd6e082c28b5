"""`tinygpt run --vary` and `tinygpt compare --by`: what is typed, what is refused, what is said."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import CONFIG, command, environment
from tinygpt.cli.experiment import MAX_CELLS

pytestmark = pytest.mark.full

LEARNS = ("train.max_steps=30", "train.learning_rate=0.03", "train.optimizer=muon")
SETS = tuple(word for item in LEARNS for word in ("--set", item))
NORM = (*SETS, "--vary", "model.norm=pre,post", "--seeds", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which an experiment has run; tests may add to it."""
    folder = tmp_path_factory.mktemp("experiment")
    config = CONFIG.replace("batch_size = 2", "batch_size = 8") + "[runtime]\nthreads = 1\n"
    (folder / "tinygpt.toml").write_text(config)  # in this process, tests have changed the threads
    done = command(folder, "run", *NORM)
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.fixture
def typed(folder, tinygpt, monkeypatch):
    """tinygpt(...) in that folder."""
    monkeypatch.chdir(folder[0])
    return tinygpt


def test_the_plan_is_said_before_the_first_cell_and_the_answer_is_printed(folder):
    _, done = folder
    lines = done.stderr.splitlines()
    first_cell = next(place for place, line in enumerate(lines) if line.startswith("cell 1/4"))
    needed = "  seeds      1 comparison at this level: 6 needed; with 2 there will be no verdict"
    assert needed in lines[:first_cell]
    assert "  look       1 of 3 at this question, level 0.03125" in lines[:first_cell]
    assert done.stdout.startswith("experiment ")
    assert "no verdict: 2 of the 6 seeds that a verdict needs" in done.stdout
    assert "question           model.norm: pre or post" in done.stdout
    assert lines[-1].endswith("page.html")


def test_json_holds_plan_and_result_and_a_second_call_is_cached(typed):
    result = typed("run", *NORM, "--json")
    said = json.loads(result.out)
    assert said["cached"]
    assert said["stage"] == "experiment"
    assert said["plan"]["seeds"] == [1, 2]
    assert [arm["name"] for arm in said["result"]["arms"]] == ["norm=pre", "norm=post"]
    assert said["result"]["comparisons"][0]["verdict"] == "none"
    assert "cell 1/4" not in result.err
    text = Path(said["page"]).read_text(encoding="utf-8")
    assert "--vary model.norm=pre,post --seeds 2" in text
    assert "--json" not in text


def test_a_dry_run_prints_cells_hits_and_what_the_rest_takes(typed):
    result = typed("run", *NORM[:-1], "3", "--dry-run")
    assert result.code == 0, result.err
    assert "norm=pre, seed 1   cached" in result.out
    assert "norm=post, seed 3  to run" in result.out
    assert "2 cells to run: about" in result.out
    assert "of disk (from runs in this store)" in result.out
    said = json.loads(typed("run", *NORM[:-1], "3", "--dry-run", "--json").out)
    assert [cell["cached"] for cell in said["cells"]] == [True] * 4 + [False] * 2
    assert said["seeds_needed"] == 6
    assert said["left"]["cells"] == 2
    finished = typed("run", *NORM, "--dry-run")
    assert "finished: " in finished.out


def test_by_default_there_are_as_many_seeds_as_a_verdict_takes(typed):
    two = json.loads(typed("run", "--vary", "model.norm=pre,post", "--dry-run", "--json").out)
    assert two["plan"]["seeds"] == [1, 2, 3, 4, 5, 6]
    three = typed("run", "--vary", "train.learning_rate=1,2,3", "--dry-run", "--json")
    assert len(json.loads(three.out)["plan"]["seeds"]) == 7


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["--vary", "model.nrm=pre,post"], "has no `model.nrm` (from --vary)", "`model.norm`"),
        (["--vary", "model.norm=pre,behind"], '`model.norm` = "behind" is not valid', "LayerNorm"),
        (["--vary", "train.batch_size=8,x"], '`train.batch_size` = "x" is not valid', ""),
        (["--vary", "model.d_model=16,17"], "is not divisible by", "use 16 or 18"),
        (["--vary", "model.norm=pre"], "names one value", ""),
        (["--vary", "model.norm=pre,pre"], "two arms have the same key", "--seeds"),
        (["--vary", "train.grad_clip=1,1.0"], "two arms have the same key", "--seeds"),
        (["--vary", "model.norm"], "has no values", "--vary model.norm=pre,post"),
        (["--vary", "model.norm=pre,post", "--vary", "model.norm=pre,post"], "varied twice", ""),
        (["--vary", "train.seed=1..6"], "`train.seed` is not a difference", "--seeds 1..6"),
        (["--vary", "sample.temperature=0.5,1"], "changes nothing in the measured stages", ""),
        (["--vary", "train.eval_every=10,20"], "changes nothing in the measured stages", ""),
        (["--vary", "runtime.threads=1,2"], "changes nothing in the measured stages", ""),
        (["--vary", "train.beta1=0.1,0.2", "--seeds", "0"], "does not name seeds", "1..6"),
        (["--vary", "train.batch_size=1..33", "--seeds", "2"], "66 cells, more than 64", "66"),
        (["--vary", "model.norm=pre,post", "--max-cells", "3"], "12 cells, more than 3", "12"),
        (["--vary", "model.norm=pre,post", "--until", "sample"], "until `eval`", "--until"),
        (["--vary", "model.norm=pre,post", "--budget", "days"], "not known", "tokens"),
        (
            ["--vary", "model.norm=pre,post", "--budget", "seconds", "--jobs", "2"],
            "cannot be combined with `--jobs`",
            "one job",
        ),
        (["--vary", "model.norm=pre,post", "--min-effect", "-1"], "is not a difference", "0.01"),
        (["--seeds", "3"], "`--seeds` belongs to an experiment", "--vary"),
        (["--jobs", "2"], "`--jobs` belongs to an experiment", "--vary"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_runs(typed, folder, words, message, hint):
    before = sorted((folder[0] / "artifacts").rglob("manifest.json"))
    result = typed("run", *words)
    assert result.code == 2
    assert message in result.err
    assert hint in result.err.partition("hint:")[2]
    assert "Traceback" not in result.err
    assert sorted((folder[0] / "artifacts").rglob("manifest.json")) == before


def test_most_cells_are_those_of_the_help():
    assert MAX_CELLS == 64


def test_an_interrupted_experiment_names_the_command_that_continues_it(folder):
    line = (*SETS, "--set", "train.max_steps=2000", "--vary", "model.activation=gelu,relu")
    process = subprocess.Popen(
        [sys.executable, "-m", "tinygpt", "run", *line],
        cwd=folder[0],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for text in process.stderr:
        if text.startswith("cell 1/12: train"):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "checkpoint saved" in err
    assert "--vary model.activation=gelu,relu` continues; finished cells are reused" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_jobs_that_are_stopped_save_checkpoints_and_leave_no_process(folder, number):
    line = (*SETS, "--set", "train.max_steps=3000", "--set", "runtime.threads=2")
    line += ("--vary", f"train.beta1=0.8,0.{number}", "--jobs", "2")
    process = subprocess.Popen(
        [sys.executable, "-m", "tinygpt", "run", *line],
        cwd=folder[0],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    partial = folder[0] / "artifacts" / ".partial"
    before = set(partial.glob("train-*"))
    begin = time.monotonic()
    while len(set(partial.glob("train-*.*")) - before) < 2 and time.monotonic() < begin + 60:
        time.sleep(0.1)
    time.sleep(2)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in err
    continued = [
        path for path in set(partial.glob("train-*")) - before if (path / "checkpoint").is_dir()
    ]
    assert 1 <= len(continued) <= 2
    wait_for_the_end_of(process.pid)


def wait_for_the_end_of(session: int) -> None:
    """The tracker of multiprocessing ends a moment after its process."""
    end = time.monotonic() + 20
    line = ["ps", "-o", "pid=,args=", "-s", str(session)]
    while left := subprocess.run(line, capture_output=True, text=True, check=False).stdout.strip():
        assert time.monotonic() < end, left
        time.sleep(0.2)


def test_runs_that_are_there_are_compared_by_a_key(typed):
    cells = json.loads(typed("run", *NORM, "--json").out)["result"]["cells"]
    ids = [cell["train"] for cell in cells]
    result = typed("compare", "--by", "model.norm", *ids)
    assert result.code == 0, result.err
    assert "question           model.norm: pre or post" in result.out
    assert "the runs were chosen after they were made, not planned before" in result.out
    said = json.loads(typed("compare", "--by", "model.norm", *ids, "--json").out)
    assert said["result"]["comparisons"][0]["seeds"] == [1, 2]
    for words in (["--min-effect", "0.1"], ["--by", "model.norm", "--out", "x"]):
        assert typed("compare", *words, *ids).code == 2
    refused = typed("compare", "--by", "model.nrm", *ids)
    assert refused.code == 2
    assert "no key of these runs" in refused.err


def test_experiments_are_listed_verified_and_traced(typed):
    listed = typed("artifacts", "ls", "experiment")
    assert "model.norm: pre or post" in listed.out
    assert typed("artifacts", "verify").code == 0
    key = json.loads(typed("run", *NORM, "--json").out)["key"][:12]
    lineage = typed("artifacts", "lineage", key)
    assert lineage.out.count("  train ") >= 4
    assert "  plan " in lineage.out
