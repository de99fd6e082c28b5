"""The shape of the package (docs/design.md, section 1), checked on its syntax trees. Each rule has a source that breaks it."""

import ast
import importlib.util

import pytest

from tests.architecture import (
    FACTS,
    MAX_FUNCTION,
    MAY_IMPORT,
    MAY_WRITE,
    Rule,
    cli_starts_with_typer_only,
    errors_are_not_swallowed,
    functions_are_short,
    imports_go_downwards,
    no_stage_imports_another,
    nothing_runs_code_from_data,
    only_the_hub_meets_the_network,
    only_the_seam_writes_files,
    part,
    parts_know_only_their_libraries,
    what_is_public_is_explained,
)
from tests.conftest import ROOT

PACKAGE = ROOT / "tinygpt"
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
MAX_FILE = 300

BREAKS: dict[Rule, tuple[str, ...]] = {
    imports_go_downwards: (
        "from tinygpt.cli import app",
        "from tinygpt import ui",
        "def f():\n    import tinygpt.stages.train",
        "from .. import lm",
        "import importlib\nimportlib.import_module('tinygpt.' + x)",
    ),
    no_stage_imports_another: ("from tinygpt.stages import build_dataset", "from tinygpt.stages.eval import run"),
    parts_know_only_their_libraries: ("import rich", "def f():\n    from typer import echo", "import datasets"),
    cli_starts_with_typer_only: ("import torch", "from pydantic import BaseModel"),
    only_the_hub_meets_the_network: ("import socket", "from urllib import request", "import http.client"),
    nothing_runs_code_from_data: (
        "import pickle",
        "torch.load(x)",
        "from torch import save",
        "np.load(x)",
        "eval(x)",
        "yaml.load(x)",
    ),
    only_the_seam_writes_files: (
        "open(p, 'w')",
        "def f():\n    with path.open(mode='ab') as s: pass",
        "gzip.open(p, 'xt')",
        "os.open(p, os.O_RDWR | os.O_CREAT)",
        "p.write_text('')",
        "shutil.rmtree(p)",
        "os.replace(a, b)",
        "array.tofile(p)",
        "from tinygpt.corpus import files\nfiles.rename(a, b)",
    ),
    errors_are_not_swallowed: (
        "try:\n    f()\nexcept Exception:\n    pass",
        "try:\n    f()\nexcept:\n    ...",
        "with contextlib.suppress(Exception):\n    f()",
    ),
    functions_are_short: ("def f():\n" + "    x = 1\n" * MAX_FUNCTION,),
    what_is_public_is_explained: ('"""Module."""\ndef f(): pass', '"""Module."""\nclass C: pass', "x = 1"),
}
BAD_IN = {no_stage_imports_another: "stages/train.py", cli_starts_with_typer_only: "cli/app.py"}
"""Where a bad source is said to stand; elsewhere in lm/."""

HARMLESS = '''"""A module that breaks no rule."""
import ast
from tinygpt.config import ModelConfig
from urllib.parse import quote

def f(text, path, model):
    """Explained."""
    model.eval()
    path.open("rb"), path.open(), artifact.open("train.bin"), os.open(p, os.O_RDONLY)
    text.replace("a", "b"), importlib.import_module("fcntl")
    try:
        f()
    except ValueError:
        pass
'''


@pytest.mark.parametrize("module", MODULES)
def test_every_module_keeps_every_rule(module):
    source = (PACKAGE / module).read_text(encoding="utf-8")
    tree = ast.parse(source)
    broken = [f"tinygpt/{module}:{finding} ({rule.__name__})" for rule in BREAKS for finding in rule(tree, module)]
    if source.count("\n") > MAX_FILE:
        broken.append(f"tinygpt/{module} has more than {MAX_FILE} lines")
    assert not broken, "\n" + "\n".join(broken)


@pytest.mark.parametrize(
    ("rule", "source"),
    [(rule, source) for rule, sources in BREAKS.items() for source in sources],
    ids=lambda value: getattr(value, "__name__", None) or str(value)[:40],
)
def test_each_rule_finds_what_breaks_it(rule, source):
    assert list(rule(ast.parse(source), BAD_IN.get(rule, "lm/bad.py")))


def test_no_rule_finds_fault_with_a_harmless_module():
    assert [finding for rule in BREAKS for finding in rule(ast.parse(HARMLESS), "lm/good.py")] == []


def test_every_part_of_the_package_has_its_place_in_the_order():
    assert {part(module) for module in MODULES} <= set(MAY_IMPORT)
    for name, below in MAY_IMPORT.items():
        assert name not in below or name in FACTS
    order = list(MAY_IMPORT)
    assert all(order.index(lower) < order.index(upper) for upper, lowers in MAY_IMPORT.items() for lower in lowers - FACTS)


def test_what_may_write_still_exists_and_still_writes():
    for place in MAY_WRITE:
        module, _, function = place.partition(":")
        tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
        # checked under another name, the module must break the rule, or its entry is dead
        assert any(not function or f" {function} " in finding for finding in only_the_seam_writes_files(tree, "lm/other.py"))


def test_only_code_is_counted_as_code():
    spec = importlib.util.spec_from_file_location("count_lines", ROOT / ".ci" / "count_lines.py")
    assert spec
    assert spec.loader
    counter = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(counter)
    source = '"""Module.\n\nMore."""\n\n# comment\nx = 1  # comment\n\ndef f():\n    """Doc."""\n    return """a\n\n    b"""\n'
    assert counter.code_lines(source) == 5
    counter.BUDGETS = {PACKAGE / "config": 1}
    assert counter.main() == 1
