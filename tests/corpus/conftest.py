"""What several tests of sources need."""

import io
import sys
from collections.abc import Callable, Iterator

import pytest

from tinygpt.corpus import files


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """Gives bytes to standard input, which is read once per process."""

    def give(data: bytes) -> None:
        files._standard_input.cache_clear()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    yield give
    files._standard_input.cache_clear()
