"""What tests of exports share."""

import socket

import pytest

from tests.exports.privacy import PRIVATE


@pytest.fixture
def hostname(monkeypatch) -> str:
    """A name of the machine and of the user that stands nowhere else."""
    monkeypatch.setattr(socket, "gethostname", lambda: PRIVATE)
    for variable in ("LOGNAME", "USER", "USERNAME"):
        monkeypatch.setenv(variable, PRIVATE)
    monkeypatch.setenv("HOME", f"/{PRIVATE}")
    return PRIVATE
