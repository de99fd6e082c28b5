"""pyproject.toml names every library that the package imports, from the version that is tested."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.architecture import imports
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRA = PROJECT["optional-dependencies"]["tensorboard"]
"""What the package imports where it is installed: exports/tensorboard.py says if it is missing."""
BOUNDS = dict(requirement.split(">=") for requirement in [*PROJECT["dependencies"], *EXTRA])


def pinned(name: str) -> dict[str, str]:
    """The versions in a file of constraints."""
    text = (ROOT / name).read_text("utf-8")
    return dict(re.findall(r"^([\w-]+)==(\S+)", text, re.MULTILINE))


def test_every_lower_bound_but_that_of_torch_is_the_version_that_is_tested():
    lowest = pinned("constraints-lowest.txt")
    assert set(lowest) == set(BOUNDS)
    assert lowest.pop("torch") == pinned("constraints.txt")["torch"]
    for name, version in lowest.items():
        assert re.fullmatch(rf"{re.escape(BOUNDS[name])}(\.0)*", version), name


def imported_libraries(folder: Path) -> set[str]:
    """What modules import that is neither Python's own nor ours."""
    found = set()
    for path in folder.rglob("*.py"):
        for _, name in imports(ast.parse(path.read_text("utf-8"))):
            found.add(name.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"tinygpt"}


def test_every_imported_library_is_a_dependency():
    distributions = packages_distributions()
    named = {name.lower() for name in BOUNDS}
    # parts of datasets, typer and pydantic, whose versions must fit theirs
    named |= {"huggingface-hub", "click", "pydantic-core", "annotated-types", "typing-extensions"}
    for library in imported_libraries(ROOT / "tinygpt"):
        names = {name.lower().replace("_", "-") for name in distributions.get(library, [library])}
        assert names & named, library
