"""A folder of its own for every test of the configuration."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tinygpt.config import LoadedConfig, load_config

Load = Callable[..., LoadedConfig]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """load_config in a folder that is empty but for a file with `text`, without the environment.

    A file of another name than tinygpt.toml is named as `config_file`.
    """

    def load_text(
        text: str | bytes | None = None, name: str = "tinygpt.toml", **arguments: object
    ) -> LoadedConfig:
        if text is not None:
            path = tmp_path / name
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
            if name != "tinygpt.toml":
                arguments["config_file"] = path
        return load_config(**{"cwd": tmp_path, "environ": {}, **arguments})

    return load_text
