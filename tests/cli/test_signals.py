"""Signals: noted while modules load and during training, acted on elsewhere, at every operation."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.cli.conftest import CONFIG, environment, hear_sighup
from tinygpt.cli.signals import HANDLED, Signals
from tinygpt.store import Store, files
from tinygpt.store.upkeep import verify


def python(code: str, folder: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    """A Python program in a folder of modules."""
    line = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(
        line,
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=hear_sighup,
        **settings,
    )


CAUGHT_IN_AN_IMPORT = """
    import signal, sys
    from tinygpt.cli.failures import exit_code
    from tinygpt.cli import signals
    {patch}
    def call():
        import loading
        print("went on")
        for _ in range(1000):
            signal.sigtimedwait([], 0.01)  # a while
    code = exit_code(call, [], signals.Signals(), str)
    print("loaded" if "loading" in sys.modules else "half loaded", code)
"""


@pytest.mark.parametrize("number", HANDLED)
def test_a_signal_during_an_import_is_acted_on_after_it(tmp_path, number):
    """The control acts at once, as before: the module is never finished."""
    (tmp_path / "loading.py").write_text(f"import signal\nsignal.raise_signal({number:d})\n")
    done = python(CAUGHT_IN_AN_IMPORT.format(patch=""), tmp_path)
    assert done.stdout == f"went on\nloaded {128 + number}\n"
    at_once = python(
        CAUGHT_IN_AN_IMPORT.format(patch="signals._is_importing = lambda frame: False"), tmp_path
    )
    assert at_once.stdout == f"half loaded {128 + number}\n"


def test_a_signal_that_a_callback_swallows_is_acted_on_after_it(tmp_path):
    code = """
        import signal, sys, weakref
        from tinygpt.cli.failures import exit_code
        from tinygpt.cli.signals import Signals
        class Thing:
            pass
        def call():
            thing = Thing()
            reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM))
            del thing
            print("went on")
            for _ in range(1000):
                signal.sigtimedwait([], 0.01)
            print("to the end")
        sys.exit(exit_code(call, [], Signals(), str))
    """
    done = python(code, tmp_path)
    assert (done.stdout, done.returncode) == ("went on\n", 143)
    assert "Exception ignored" not in done.stderr


def test_a_signal_that_native_code_turns_into_its_own_error_is_still_a_signal(tmp_path):
    """The control raises the same without a signal."""
    code = """
        import signal, sys
        from pydantic_core import SchemaValidator
        from tinygpt.cli.failures import exit_code
        from tinygpt.cli.signals import Signals
        class Interrupted:
            def __repr__(self):
                {interrupt}
        def call():
            SchemaValidator({{"type": "literal", "expected": [Interrupted()]}})
        sys.exit(exit_code(call, [], Signals(), str))
    """
    done = python(code.format(interrupt="signal.raise_signal(signal.SIGTERM)"), tmp_path)
    assert (done.returncode, done.stderr.partition(";")[0]) == (143, "stopped by SIGTERM")
    without = python(code.format(interrupt="raise KeyboardInterrupt"), tmp_path)
    assert without.returncode == 1
    assert without.stderr.startswith("error: unexpected SchemaError: Error building")


def test_other_errors_of_callbacks_are_still_shown(tmp_path):
    code = """
        import weakref
        from tinygpt.cli.signals import Signals
        class Thing:
            pass
        thing = Thing()
        reference = weakref.ref(thing, lambda _: 1 / 0)
        with Signals().caught():
            del thing
    """
    done = python(code, tmp_path)
    assert done.returncode == 0
    assert "Exception ignored" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_a_second_signal_during_an_import_ends_at_once(tmp_path):
    (tmp_path / "loading.py").write_text(
        "import signal\nsignal.raise_signal(15)\nprint('one', flush=True)\nsignal.raise_signal(2)\n"
        "print('two')\n"
    )
    done = python(CAUGHT_IN_AN_IMPORT.format(patch=""), tmp_path)
    assert (done.stdout, done.returncode) == ("one\n", 130)


def test_a_signal_before_the_commands_have_loaded_is_acted_on(tmp_path):
    code = """
        import signal, sys
        from tinygpt import cli
        from tinygpt.cli.signals import Signals
        signals = Signals()
        signals.catch()
        signal.raise_signal(signal.SIGTERM)
        sys.exit(cli.invoke(["artifacts", "ls"], signals))
    """
    done = python(code, tmp_path)
    assert done.returncode == 143
    assert (done.stdout, "stopped by SIGTERM" in done.stderr) == ("", True)


def test_sighup_that_was_ignored_at_the_start_stays_ignored(tmp_path):
    """The control is not ignored, and ended by its second SIGHUP."""
    for before, ended in (("SIG_IGN", ("5\n", 0)), ("SIG_DFL", ("", 129))):
        code = f"""
            import signal
            from tinygpt.cli.signals import Signals
            signal.signal(signal.SIGHUP, signal.{before})
            Signals().catch()
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGHUP)
            print(5)
        """
        done = python(code, tmp_path)
        assert (done.stdout, done.returncode) == ended


def test_a_signal_that_is_only_noted_gives_its_exit_code_in_the_end(tinygpt, monkeypatch):
    """Also if the command has nothing more to do when the import is over."""
    monkeypatch.setattr("tinygpt.cli.signals._is_importing", lambda _: True)
    monkeypatch.setattr("tinygpt.config.render", lambda *_: str(signal.raise_signal(15)))
    result = tinygpt("config", "show")
    assert (result.code, result.out) == (143, "None")


def test_signals_leave_the_process_as_it_was():
    before = [signal.getsignal(number) for number in (*HANDLED, signal.SIGALRM)]
    with Signals().caught():
        assert signal.getsignal(signal.SIGHUP) != before[-2]
    assert [signal.getsignal(number) for number in (*HANDLED, signal.SIGALRM)] == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize("command", ["run --until corpus --force", "tokenize --force"])
def test_a_signal_at_any_operation_of_the_disk_leaves_no_unfinished_folder(
    tinygpt, tmp_path, monkeypatch, command
):
    (tmp_path / "tinygpt.toml").write_text(CONFIG)
    assert tinygpt("run", "--until", "tokenize").code == 0
    store = Store(tmp_path / "artifacts")
    operations = 0

    def hook(_: files.Operation) -> None:
        nonlocal operations
        operations += 1
        if operations == at:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(files, "hook", hook)
    for at in range(1, 200):
        operations = 0
        code = tinygpt(*command.split()).code
        assert code == (130 if operations >= at else 0), at
        assert list(store.partial.glob("*.*")) == [], at
        if code == 0:
            break
    assert at > 10
    assert not verify(store)


def test_a_dropped_connection_saves_a_checkpoint(tmp_path):
    """The terminal is closed while a bar is drawn: the process gets SIGHUP, and errors for it."""
    training = CONFIG.replace("max_steps = 3", "max_steps = 100000")
    (tmp_path / "tinygpt.toml").write_text(training)
    terminal, side = os.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", sys.executable, "-m", "tinygpt", "run", "--until", "train"],
        cwd=tmp_path,
        env={**environment(), "TERM": "xterm"},
        stdin=side,
        stdout=side,
        stderr=side,
        preexec_fn=hear_sighup,
    )
    os.close(side)
    shown = b""
    while b"step 2: " not in shown:
        shown += os.read(terminal, 1 << 16)
    os.close(terminal)
    assert process.wait(timeout=120) == 129
    (unfinished,) = Store(tmp_path / "artifacts").unfinished_runs()
    assert unfinished.step >= 2
