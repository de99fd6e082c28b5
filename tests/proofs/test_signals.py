"""G18: Ctrl-C, SIGTERM and SIGHUP at random moments of every stage, through the real program."""

import json
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.conftest import CONFIG, command, environment, hear_sighup
from tests.proofs.figures import RecordFigure
from tinygpt.cli.signals import HANDLED
from tinygpt.store import Store
from tinygpt.store.upkeep import verify

pytestmark = pytest.mark.proof
TRAIN = ("train",)
RECIPE = CONFIG.replace("max_steps = 3", "max_steps = 4000") + "[runtime]\nthreads = 1\n"
STAGES = (
    "run --until corpus --force",
    "tokenize --force",
    "build-dataset --force",
    "train --fresh --max-steps 4000 --set train.seed={number}",
    "eval --force",
    "sample x --seed {number}",
    "plot --force",
    "run --force",
)
SIGNALS_PER_STAGE = 25


def start(folder: Path, arguments: Sequence[str] = TRAIN) -> subprocess.Popen[str]:
    """A command, as soon as it answers signals itself."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tinygpt", *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_sighup,
    )
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        lines = status.read_text().splitlines()
        caught = next(line for line in lines if line.startswith("SigCgt:"))
        if int(caught.split()[1], 16) >> (signal.SIGALRM - 1) & 1:  # the last to be caught
            break
        time.sleep(0.001)
    return process


def assert_ended_well(process: subprocess.Popen[str], number: int) -> bool:
    """Whether a signal has stopped the process, which says so or has ended as usual."""
    _, err = process.communicate(timeout=300)
    assert process.returncode in (0, 128 + number), err
    for word in ("Traceback", "unexpected", "Exception ignored"):
        assert word not in err
    return process.returncode != 0


def digest(folder: Path) -> str:
    (run,) = Store(folder / "artifacts").list("train")
    return run.digest


def test_signals_at_random_moments_save_and_lead_to_the_same_bytes(
    tmp_path: Path, figure: RecordFigure
):
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
            number = chance.choice(HANDLED)
            if run and sent < 6 * run:  # the first is not disturbed
                time.sleep(chance.uniform(0, 8))
                process.send_signal(number)
                sent += 1
            _, err = process.communicate(timeout=300)
            code = process.returncode
            assert code in (0, 128 + number), err
            assert "Traceback" not in err
            assert not verify(Store(folder / "artifacts"))
            stopped += code != 0
            if "checkpoint saved" in err:
                saved += 1
                assert "train --resume` continues it" in err
        digests.add(digest(folder))
    assert len(digests) == 1
    assert saved >= 5
    figure("G18", "signals at random moments of five runs of `train`", sent, seed=1)
    figure("G18", "stops by them", stopped)
    figure("G18", "of the stops during training and saved", saved)


def test_the_first_signal_waits_for_the_step_and_a_second_one_stops_at_once(
    tmp_path: Path, figure: RecordFigure
):
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
    figure("G18", "second signal in a step of minutes, which ends it at once", 1)
    assert process.returncode == 128 + signal.SIGINT, err
    assert "Traceback" not in err
    assert not verify(Store(tmp_path / "artifacts"))


def test_200_signals_at_random_moments_of_every_stage_end_it_with_their_code(
    tmp_path: Path, figure: RecordFigure
):
    """From the moment on in which signals are caught: imports are most of the time."""
    (tmp_path / "tinygpt.toml").write_text(CONFIG + "[runtime]\nthreads = 1\n")
    assert command(tmp_path, "run").returncode == 0
    store = Store(tmp_path / "artifacts")
    chance = random.Random(2)
    stopped = {}
    for stage in STAGES:
        longest = 0.0
        stopped[stage] = 0
        for number in range(SIGNALS_PER_STAGE):
            process = start(tmp_path, stage.format(number=number).split())
            began = time.monotonic()
            sent = chance.choice(HANDLED)
            time.sleep(chance.uniform(0, longest))
            process.send_signal(sent)
            if assert_ended_well(process, sent):
                longest = max(longest, 0.5, min(6.0, 1.5 * (time.monotonic() - began)))
            else:
                longest *= 0.8
            stopped[stage] += process.returncode != 0
            assert list(store.partial.glob("*.*")) == [], stage
    print(json.dumps(stopped))
    figure(
        "G18", "signals at random moments of every stage", len(STAGES) * SIGNALS_PER_STAGE, seed=2
    )
    assert not verify(store)
    assert all(count > SIGNALS_PER_STAGE // 3 for count in stopped.values())


def test_signals_while_a_lock_is_waited_for_end_the_wait(tmp_path: Path, figure: RecordFigure):
    (tmp_path / "tinygpt.toml").write_text(CONFIG)
    assert command(tmp_path, "run", "--until", "tokenize").returncode == 0
    store = Store(tmp_path / "artifacts")
    (tokenize,) = store.list("tokenize")
    chance = random.Random(3)
    with store.lock("tokenize", tokenize.key, timeout=0, on_wait=print):
        for number in HANDLED * 7:
            process = start(tmp_path, ["tokenize", "--force"])
            time.sleep(chance.uniform(0, 3))
            process.send_signal(number)
            assert assert_ended_well(process, number)
    assert not verify(store)
    figure("G18", "signals during the wait for a lock", 7 * len(HANDLED), seed=3)


SIGNAL_IN_AN_IMPORT = """
    import signal, sys
    from tinygpt.cli import signals
    from tinygpt.cli.failures import exit_code

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == sys.argv[1]:
                sys.meta_path.remove(Finder)
                signal.raise_signal(signal.SIGINT)

    def call():
        sys.meta_path.insert(0, Finder)
        import torch
        import numpy
        torch.ones(2).numpy()
        numpy.linalg.norm(numpy.ones(3))
        for _ in range(300):
            signal.sigtimedwait([], 0.01)

    class AtOnce(signals.Signals):
        def _interrupt(self):  # and does not remember that it did
            raise signals.Stopped

    of_command = signals.Signals()
    if sys.argv[2] == "at once":
        signals._is_importing = lambda frame: False
        of_command = AtOnce()
    sys.exit(exit_code(call, [], of_command, str))
"""


def test_a_signal_at_the_import_of_any_module_of_numpy_by_torch_ends_with_130(figure: RecordFigure):
    """PyTorch imports it in native code, which turns an interrupt into errors of other kinds.

    The control acts at once, and takes such an error for what it seems.
    """
    listing = "import sys, torch; print(*(name for name in sys.modules if name[:6] == 'numpy.'))"
    names = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    ).stdout.split()
    bad = {"after": 0, "at once": 0}
    for moment in bad:
        for name in names[::3]:
            code = textwrap.dedent(SIGNAL_IN_AN_IMPORT)
            line = [sys.executable, "-c", code, name, moment]
            done = subprocess.run(
                line, capture_output=True, text=True, check=False, env=environment(), timeout=120
            )
            bad[moment] += done.returncode != 130 or "unexpected" in done.stderr
    count = len(names[::3])
    figure("G18", "signals at the import of another module of numpy each", count, bad["after"])
    figure("G18", "such signals acted on at once", count, bad["at once"], control=True)
