"""tinygpt: train a small GPT from scratch on your own machine, and see what it learned.

    model = tinygpt.load("artifacts/train/3f9a1c0b2d4e")
    print(model.generate_text("Once upon a time"))

Importing tinygpt costs nothing: what it offers is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinygpt.config import load_config as load_config
    from tinygpt.library import Model as Model
    from tinygpt.library import load as load
    from tinygpt.project import Project as Project

__version__ = "0.1.0"
__all__ = ["Model", "Project", "load", "load_config"]

_HOMES = {
    "Model": "tinygpt.library",
    "load": "tinygpt.library",
    "Project": "tinygpt.project",
    "load_config": "tinygpt.config",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'tinygpt' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
