"""The store's tests: the disk's own fsync is left out where only the order of operations is tested."""

import os
from pathlib import Path

import pytest

from tinygpt.store import Store


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """fsync costs nothing; the seam's hook still sees it."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture
def store(tmp_path: Path, fast: None) -> Store:
    """An empty store."""
    return Store(tmp_path / "artifacts")
