"""Fixtures of the store's tests: fsync costs nothing where only the order of operations matters."""

import os
from pathlib import Path

import pytest

from tinygpt.store import Store


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make fsync return at once; the hook of the file-system layer still sees each call."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture
def store(tmp_path: Path, fast: None) -> Store:
    """An empty store."""
    return Store(tmp_path / "artifacts")
