"""G18: Ctrl-C and SIGTERM at random moments of training, through the real command line."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import CONFIG, command, environment
from tinygpt.store import Store
from tinygpt.store.upkeep import verify

pytestmark = pytest.mark.proof
TRAIN = [sys.executable, "-m", "tinygpt", "train"]
RECIPE = CONFIG.replace("max_steps = 3", "max_steps = 4000") + "[runtime]\nthreads = 1\n"


def start(folder: Path) -> subprocess.Popen[str]:
    """Training, as soon as it answers signals itself."""
    process = subprocess.Popen(
        TRAIN,
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        lines = status.read_text().splitlines()
        caught = next(line for line in lines if line.startswith("SigCgt:"))
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            break
        time.sleep(0.01)
    return process


def digest(folder: Path) -> str:
    (run,) = Store(folder / "artifacts").list("train")
    return run.digest


def test_signals_at_random_moments_save_and_lead_to_the_same_bytes(tmp_path: Path):
    chance = random.Random(1)
    sent = stopped = saved = 0
    digests = set()
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    (prepared / "tinygpt.toml").write_text(RECIPE)
    assert command(prepared, "run", "--until", "build-dataset").returncode == 0
    for run in range(5):
        folder = shutil.copytree(prepared, tmp_path / str(run))
        code = -1
        while code != 0:
            process = start(folder)
            number = chance.choice([signal.SIGINT, signal.SIGTERM])
            if run and sent < 6 * run:  # the first is not disturbed
                time.sleep(chance.uniform(0, 8))
                process.send_signal(number)
                sent += 1
            _, err = process.communicate(timeout=300)
            code = process.returncode
            # Once it has said what comes next, it is over, and Python's own handlers are back
            is_over = code == -number and "next: " in err
            assert code in (0, 128 + number) or is_over, err
            assert "Traceback" not in err
            assert not verify(Store(folder / "artifacts"))
            stopped += code != 0
            if "checkpoint saved" in err:
                saved += 1
                assert "train --resume` continues it" in err
        digests.add(digest(folder))
    print(json.dumps({"sent": sent, "stopped": stopped, "in_training": saved}))
    assert len(digests) == 1
    assert saved >= 5


def test_the_first_signal_waits_for_the_step_and_a_second_one_stops_at_once(tmp_path: Path):
    step_of_minutes = RECIPE.replace("grad_accum_steps = 1", "grad_accum_steps = 60000")
    (tmp_path / "tinygpt.toml").write_text(step_of_minutes)
    assert command(tmp_path, "run", "--until", "build-dataset").returncode == 0
    process = start(tmp_path)
    assert process.stderr
    while "time  " not in process.stderr.readline():  # the last line before the first step
        assert process.poll() is None
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):  # the control: one alone waits
        process.wait(timeout=5)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, err = process.communicate(timeout=60)
    print(json.dumps({"seconds": round(time.monotonic() - began, 2)}))
    assert process.returncode == 128 + signal.SIGINT, err
    assert "Traceback" not in err
    assert not verify(Store(tmp_path / "artifacts"))
