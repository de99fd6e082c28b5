"""Which code trained a model, and what of it has changed since; it is compared without torch."""

import ast
import hashlib
import re
import sys
from collections.abc import Collection
from pathlib import Path

from tinygpt import __version__
from tinygpt.records import CodeRecord, RunState
from tinygpt.store import Artifact

PACKAGE = Path(__file__).parents[1]
FIRST = "runs/training_run.py"  # training is this module and what it imports
MODULE = re.compile(r"([a-z0-9_]{1,40}/){0,4}[a-z0-9_]{1,40}\.py")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


def current_code() -> CodeRecord:
    """The code in lm/ that training imports, as the provenance of a model and a checkpoint name it.

    A module's digest is a hash of its syntax tree without docstrings: comments and layout do not
    matter. Trees differ between versions of Python.
    """
    modules = {module: _digest(module) for module in sorted(_imported_by_training())}
    return {
        "tinygpt": __version__,
        "python": _python(),
        "source": _source(modules),
        "modules": modules,
    }


def what_changed(recorded: CodeRecord) -> str:
    """How the code differs from a recorded one, in words; "" if it does not, or nobody can say."""
    if recorded["tinygpt"] != __version__:
        return f"tinygpt {recorded['tinygpt']} -> {__version__}"
    # A name comes from a file of someone else, and has to stay in the package
    modules = {name: one for name, one in recorded["modules"].items() if MODULE.fullmatch(name)}
    if recorded["source"] == _source(modules) or recorded["python"] != _python():
        return ""
    changed = [f"`tinygpt/{name}`" for name, digest in modules.items() if _digest(name) != digest]
    return f"{', '.join(changed)} changed" if changed else ""


def other_code(model: Artifact) -> str:
    """What to say of a model that other code trained; "" if this code did, or nobody knows."""
    recorded: CodeRecord | None = model.manifest.provenance.get("code")  # type: ignore[assignment]
    if "state.json" in model.names():  # a checkpoint
        recorded = model.read_json("state.json", RunState)["code"]
    if recorded is None or not (changed := what_changed(recorded)):
        return ""
    note = f"model {model.id} was trained by other code: {changed}"
    if recorded["tinygpt"] != __version__:
        return note
    return f"{note}; `tinygpt train --force` trains it again"


def _imported_by_training() -> set[str]:
    """The modules of lm/ that training imports, directly or not, as paths below the package."""
    found: set[str] = set()
    unread = [FIRST]
    while unread:
        for node in ast.walk(_tree(unread.pop())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tinygpt.lm"):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                new = _modules([str(node.module), *names]) - found
                found |= new
                unread += new
    return found


def _modules(names: Collection[str]) -> set[str]:
    """Of dotted names those that are modules, as paths below the package."""
    paths = {name.removeprefix("tinygpt.").replace(".", "/") + ".py" for name in names}
    return {path for path in paths if (PACKAGE / path).is_file()}


def _tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / module).read_bytes())


def _digest(module: str) -> str:
    """A hash of a module's syntax tree without docstrings; "" if there is no such module."""
    try:
        tree = _tree(module)
    except FileNotFoundError:
        return ""
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node):
            del node.body[0]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def _source(modules: Collection[str]) -> str:
    """A hash of the text of modules, which takes less time than those of their trees."""
    digest = hashlib.sha256()
    for module in sorted(modules):
        path = PACKAGE / module
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()[:16]


def _python() -> str:
    return ".".join(map(str, sys.version_info[:2]))
