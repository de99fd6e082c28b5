"""A standard stream that is closed, full or read-only, and a working directory that is gone."""

import errno
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import environment
from tinygpt.cli import failures
from tinygpt.errors import StorageError

COMMANDS = ["artifacts ls", "train --help", "train --lr 1"]


def shell(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """A line of bash, in which `tinygpt` is this package."""
    program = f'tinygpt() {{ exec {shlex.quote(sys.executable)} -m tinygpt "$@"; }}'
    return subprocess.run(
        ["bash", "-c", f"{program}\n{line}"],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_closed_stream_is_the_null_device(project, command, closed):
    usual = shell(project[0], f"tinygpt {command}")
    done = shell(project[0], f"tinygpt {command} {closed}")
    assert done.returncode == usual.returncode
    assert done.stdout == ("" if ">&-" in closed.split() else usual.stdout)
    assert done.stderr == ("" if "2>&-" in closed else usual.stderr)


def test_a_file_does_not_get_the_number_of_a_closed_stream(tmp_path):
    """The null device has it; the control is a Python that leaves it free."""
    code = "import os; number = os.dup(0); os.write(2, str(number).encode())"
    start = "from tinygpt.cli import streams; streams.replace_missing(); "
    for before, number in (("", "1"), (start, "3")):
        line = f"{shlex.quote(sys.executable)} -c '{before}{code}' >&-"
        assert shell(tmp_path, line).stderr == number


@pytest.mark.parametrize(
    ("line", "stream"),
    [
        ("tinygpt sample x --seed 1 >/dev/full", "standard output"),
        ("tinygpt sample x --seed 1 --json >/dev/full", "standard output"),
        ("tinygpt artifacts ls >/dev/full", "standard output"),
        ("tinygpt --version >/dev/full", "standard output"),
        ("tinygpt artifacts ls 1</dev/null", "standard output"),
        ("tinygpt run 2>/dev/full", None),
        ("tinygpt run >/dev/full 2>/dev/full", None),
    ],
)
def test_a_stream_that_takes_nothing_is_named_and_nothing_is_said_of_the_store(
    project, line, stream
):
    done = shell(project[0], line)
    assert done.returncode == 8
    if stream:
        message, hint = done.stderr.split("error: ")[1].rstrip("\n").split("\n\nhint: ")
        assert message.startswith(f"cannot write to {stream}: ")
        assert hint == "send it to another file or device"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["--help", "--version", "artifacts ls", "init mine"])
def test_where_no_file_may_have_a_byte_the_exit_code_is_8(project, tmp_path, command):
    there = f"--store {project[0] / 'artifacts'}" if command == "artifacts ls" else ""
    done = shell(tmp_path, f"ulimit -f 0; tinygpt {command} {there} >out.txt")
    assert done.returncode == 8
    assert "file too large" in done.stderr.lower()
    assert not (tmp_path / "mine" / "tinygpt.toml").exists()


def test_a_shortage_of_space_elsewhere_is_no_matter_of_the_store(project, tmp_path):
    done = shell(tmp_path, f"ulimit -f 0; cd {project[0]}; tinygpt plot --out {tmp_path}/out")
    assert done.returncode == 8
    message = done.stderr.split("error: ")[1]
    assert message.startswith(f"cannot use `{tmp_path}/out/")
    assert "or choose another place with `--out`" in message


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """The working directory is a folder that has been removed."""
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()


@pytest.mark.parametrize(
    "command",
    [
        *("run", "tokenize", "build-dataset", "train", "eval", "sample x", "plot"),
        *("compare a b", "replay a", "doctor", "config show", "init", "artifacts ls"),
        *("artifacts gc", "run --preset demo --store /tmp/s"),
    ],
)
def test_a_working_directory_that_is_gone_is_said(tinygpt, nowhere, command):
    result = tinygpt(*command.split())
    assert (result.code, result.out) == (8, "")
    assert result.err == (
        "error: the working directory no longer exists\n\nhint: `cd` into one that does\n"
    )


def test_where_the_working_directory_is_gone_help_and_wrong_flags_are_answered(
    tinygpt, nowhere, monkeypatch
):
    assert tinygpt("--version").code == tinygpt("train", "--help").code == 0
    for program in ("tinygpt", "/x/tinygpt/__main__.py", ".venv/bin/tinygpt"):
        monkeypatch.setattr(sys, "argv", [program])
        result = tinygpt("train", "--lr", "1")
        assert result.code == 2
        assert "train --set train.learning_rate=1`" in result.err


def test_python_m_tinygpt_says_so_too(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    done = shell(gone, f"rmdir {gone}; tinygpt artifacts ls")
    assert done.returncode == 8
    assert "the working directory no longer exists" in done.stderr


@pytest.mark.parametrize("named", ["a", None])
def test_an_error_of_the_system_names_the_file_and_what_to_do(named):
    error = OSError(errno.ENOSPC, "No space left on device", named)
    with (
        pytest.raises(StorageError) as caught,
        failures.writing(Path("mine.png"), "use `--out DIR`"),
    ):
        raise error
    assert caught.value.message == f"cannot use `{named or 'mine.png'}`: no space left on device"
    assert caught.value.hint == "free some space there, or use `--out DIR`"


def test_no_memory_for_a_mapping_is_out_of_memory():
    said = failures.as_user_error(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)))
    assert (said.exit_code, said.message) == (1, "the memory is full")


@pytest.mark.full
@pytest.mark.parametrize("line", ["artifacts ls", "--help", "train", "nonsense", "config show"])
@pytest.mark.parametrize("streams", [">out", "2>err", ">out 2>err"])
def test_where_no_file_may_grow_the_exit_code_is_that_of_the_command_or_8(
    project, tmp_path, line, streams
):
    """A limit of 0 bytes (RLIMIT_FSIZE), of which Python is informed by an error, not a signal."""
    usual = shell(project[0], f"tinygpt {line}").returncode
    places = streams.replace(">", f">{tmp_path}/")
    done = shell(project[0], f"trap '' XFSZ; ulimit -f 0; tinygpt {line} {places}")
    assert done.returncode in (usual, 8)
    assert "Traceback" not in done.stdout + done.stderr
    assert all(path.stat().st_size == 0 for path in tmp_path.iterdir())
