"""A command line run inside the test's own process, in a folder of its own."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tinygpt.cli import invoke


@dataclass(frozen=True)
class Result:
    """What a command line left."""

    code: int
    out: str
    err: str


@pytest.fixture
def tinygpt(tmp_path, monkeypatch, capsys) -> Callable[..., Result]:
    """tinygpt("train", "--resume"): the exit code and what stood on stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Result:
        capsys.readouterr()
        code = invoke([str(argument) for argument in arguments])
        return Result(code, *capsys.readouterr())

    return call
