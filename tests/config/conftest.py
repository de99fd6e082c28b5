"""A folder of its own for every test of the configuration."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tinygpt.config import LoadedConfig, load_config

Load = Callable[..., LoadedConfig]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """load_config in an empty folder, with `text` in a file there, and without the environment."""

    def load_text(text: str | bytes | None = None, name: str = "tinygpt.toml", **kwargs: object) -> LoadedConfig:
        if text is not None:
            (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
            if name != "tinygpt.toml":
                kwargs["config_file"] = tmp_path / name
        return load_config(**{"cwd": tmp_path, "environ": {}} | kwargs)

    return load_text
