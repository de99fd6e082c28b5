"""The shape of the package (docs/design.md), checked on its syntax trees.

Each rule has a source that breaks it.
"""

import ast
import re

import pytest
import yaml

from tests.architecture import (
    BANNED_WORDS,
    FACTS,
    MAY_IMPORT,
    MAY_WRITE,
    Rule,
    banned_words,
    cli_starts_with_typer_only,
    errors_are_not_swallowed,
    every_module_of_stages_is_a_stage,
    functions_are_short,
    import_circle,
    imports_go_downwards,
    json_of_the_store_is_read_as_a_type,
    no_stage_imports_another,
    nothing_is_imported_by_a_computed_name,
    nothing_runs_code_from_data,
    only_the_file_system_layer_writes,
    only_the_hub_meets_the_network,
    part,
    parts_know_only_their_libraries,
    stage_modules,
    what_is_public_is_explained,
)
from tests.conftest import ROOT
from tools import count_statements as counter
from tools import docs

PACKAGE = ROOT / "tinygpt"
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

BREAKS: dict[Rule, tuple[str, ...]] = {
    imports_go_downwards: (
        "from tinygpt.cli import app",
        "from tinygpt import ui",
        "def f():\n    import tinygpt.stages.train",
        "from .. import lm",
    ),
    nothing_is_imported_by_a_computed_name: (
        "import importlib\nimportlib.import_module('tinygpt.' + x)",
        "__import__(name)",
        "import_module('tinygpt.cli')",
    ),
    no_stage_imports_another: (
        "from tinygpt.stages import build_dataset",
        "from tinygpt.stages.eval import run",
    ),
    every_module_of_stages_is_a_stage: (
        "def measure(config, inputs, out, reporter): pass",
        "class Stage:\n    def run(self): pass",
    ),
    parts_know_only_their_libraries: (
        "import rich",
        "def f():\n    from typer import echo",
        "import datasets",
    ),
    cli_starts_with_typer_only: ("import torch", "from pydantic import BaseModel"),
    only_the_hub_meets_the_network: (
        "import socket",
        "from urllib import request",
        "import http.client",
    ),
    nothing_runs_code_from_data: (
        "import pickle",
        "torch.load(x)",
        "from torch import save",
        "np.load(x)",
        "eval(x)",
        "yaml.load(x)",
    ),
    only_the_file_system_layer_writes: (
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
    json_of_the_store_is_read_as_a_type: (
        "rows = artifact.read_rows('metrics.jsonl')",
        "run.read_json('config.json')",
    ),
    errors_are_not_swallowed: (
        "try:\n    f()\nexcept Exception:\n    pass",
        "try:\n    f()\nexcept:\n    ...",
        "with contextlib.suppress(Exception):\n    f()",
    ),
    functions_are_short: ("def f():\n" + "    x = 1\n" * counter.MAX_FUNCTION_LINES,),
    what_is_public_is_explained: (
        '"""Module."""\ndef f(): pass',
        '"""Module."""\nclass C: pass',
        "x = 1",
    ),
}
BAD_IN = {
    no_stage_imports_another: "stages/train.py",
    every_module_of_stages_is_a_stage: "stages/train.py",
    cli_starts_with_typer_only: "cli/app.py",
}
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


def parse_package() -> dict[str, ast.Module]:
    """The syntax tree of each module, by its path below tinygpt/."""
    return {module: ast.parse((PACKAGE / module).read_text("utf-8")) for module in MODULES}


class TestRules:
    @pytest.mark.parametrize("module", MODULES)
    def test_every_module_keeps_every_rule(self, module):
        tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
        broken = []
        for rule in BREAKS:
            for finding in rule(tree, module):
                broken.append(f"tinygpt/{module}:{finding} ({rule.__name__})")
        assert not broken, "\n" + "\n".join(broken)

    @pytest.mark.parametrize(
        ("rule", "source"),
        [(rule, source) for rule, sources in BREAKS.items() for source in sources],
        ids=lambda value: getattr(value, "__name__", None) or str(value)[:40],
    )
    def test_each_rule_finds_what_breaks_it(self, rule, source):
        assert list(rule(ast.parse(source), BAD_IN.get(rule, "lm/bad.py")))

    def test_no_rule_finds_fault_with_a_harmless_module(self):
        tree = ast.parse(HARMLESS)
        assert [finding for rule in BREAKS for finding in rule(tree, "lm/good.py")] == []

    def test_what_may_write_still_exists_and_still_writes(self):
        for place in MAY_WRITE:
            module, _, function = place.partition(":")
            tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
            # Checked under another name, the module must break the rule, or its entry is dead
            findings = list(only_the_file_system_layer_writes(tree, "lm/other.py"))
            assert any(not function or f" {function} " in finding for finding in findings), place


class TestOrderOfImports:
    def test_every_part_of_the_package_has_its_place(self):
        assert {part(module) for module in MODULES} == set(MAY_IMPORT)

    def test_parts_import_only_parts_below_them(self):
        order = list(MAY_IMPORT)
        for name, below in MAY_IMPORT.items():
            assert name not in below or name in FACTS
            for lower in below - FACTS:
                assert order.index(lower) < order.index(name), f"{name} imports {lower}"

    def test_no_modules_import_each_other_in_a_circle(self):
        assert import_circle(parse_package()) == []

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ("from tinygpt.lm import b", "from tinygpt.lm.a import x"),
            ("import tinygpt.lm.b", "def f():\n    from tinygpt.lm.a import x"),
            ("from tinygpt.lm.b import y", "if not TYPE_CHECKING:\n    import tinygpt.lm.a"),
        ],
    )
    def test_a_circle_of_two_modules_is_found(self, first, second):
        trees = {"lm/a.py": ast.parse(first), "lm/b.py": ast.parse(second)}
        assert set(import_circle(trees)) == {"lm/a.py", "lm/b.py"}

    def test_a_circle_through_a_package_and_its_folder_is_found(self):
        trees = {
            "lm/__init__.py": ast.parse("from tinygpt.lm.a import x"),
            "lm/a.py": ast.parse("from tinygpt.lm.fast.b import y"),
            "lm/fast/b.py": ast.parse("from tinygpt.lm import x"),
        }
        assert set(import_circle(trees)) == set(trees)

    def test_an_import_for_type_checkers_alone_makes_no_circle(self):
        trees = {
            "lm/a.py": ast.parse("from tinygpt.lm.b import y"),
            "lm/b.py": ast.parse("if TYPE_CHECKING:\n    from tinygpt.lm.a import x"),
        }
        assert import_circle(trees) == []


class TestStages:
    def test_every_stage_has_its_module(self):
        assert stage_modules() <= set(MODULES)

    def test_a_module_that_is_no_stage_is_found(self):
        tree = ast.parse("def run(config, inputs, out, reporter): pass")
        assert list(every_module_of_stages_is_a_stage(tree, "stages/helpers.py"))
        assert not list(every_module_of_stages_is_a_stage(tree, "stages/build_dataset.py"))


class TestWords:
    @pytest.mark.parametrize("module", MODULES)
    def test_modules_use_the_words_of_the_field(self, module):
        assert list(banned_words((PACKAGE / module).read_text("utf-8"))) == []

    @pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
    def test_documents_use_the_words_of_the_field(self, path):
        assert list(banned_words(path.read_text("utf-8"))) == []

    @pytest.mark.parametrize("word", BANNED_WORDS)
    def test_each_banned_word_is_found_as_a_whole_word(self, word):
        assert list(banned_words(f"one\ntwo ({word}).")) == [f"2: {word}"]
        assert list(banned_words(f"a{word} {word}b")) == []


class TestCountOfStatements:
    def test_statements_are_counted_without_docstrings(self):
        source = '''"""Module."""
# comment
x = 1; y = 2

class C:
    """Doc."""
    z: int = 3
    """What it is."""

    def f(self):
        """Doc."""
        if x:
            return """a

            b"""
        """Not a docstring, but no code either."""
'''
        # x, y, class, z, def, if, return
        assert counter.count_statements(ast.parse(source)) == 7

    def test_the_package_is_within_its_budgets(self, capsys):
        assert counter.main() == 0, capsys.readouterr().out

    def test_an_exceeded_budget_fails(self, monkeypatch, capsys):
        monkeypatch.setattr(counter, "BUDGETS", [counter.Budget(PACKAGE / "config", 1)])
        assert counter.main() == 1
        assert "tinygpt/config/: " in capsys.readouterr().out

    def test_a_folder_left_out_of_a_budget_is_not_counted(self):
        fast = PACKAGE / "lm" / "fast"
        files = counter.Budget(PACKAGE / "lm", 1, without=fast).files()
        assert PACKAGE / "lm" / "model.py" in files
        assert fast / "attention.py" not in files

    def test_pages_are_counted_in_lines(self, monkeypatch, tmp_path, capsys):
        package = tmp_path / "tinygpt"
        package.mkdir()
        (package / "page.js").write_text("let a = 1;\nlet b = 2;\n")
        monkeypatch.setattr(counter, "ROOT", tmp_path)
        monkeypatch.setattr(counter, "PACKAGE", package)
        monkeypatch.setattr(counter, "BUDGETS", [])
        assert counter.main() == 0
        assert "JavaScript: 2 lines" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("source", "complaint"),
        [
            ("x = 1\n" * (counter.MAX_FILE_LINES + 1), "a.py: 401 lines, of 400 allowed"),
            ("def f():\n" + "    x = 1\n" * 50, "a.py:1: f has 51 lines, of 50 allowed"),
        ],
    )
    def test_a_file_or_a_function_that_is_too_long_fails(
        self, source, complaint, monkeypatch, tmp_path, capsys
    ):
        (tmp_path / "a.py").write_text(source)
        monkeypatch.setattr(counter, "ROOT", tmp_path)
        monkeypatch.setattr(counter, "PACKAGE", tmp_path)
        monkeypatch.setattr(counter, "BUDGETS", [])
        assert counter.main() == 1
        assert complaint in capsys.readouterr().out

    def test_what_is_as_long_as_allowed_passes(self, monkeypatch, tmp_path):
        docstring = '    """Doc.\n\n    More.\n    """\n'
        function = "def f():\n" + docstring + "    x = 1\n" * 49
        rest = "x = 1\n" * (counter.MAX_FILE_LINES - function.count("\n"))
        (tmp_path / "a.py").write_text(function + rest)
        monkeypatch.setattr(counter, "ROOT", tmp_path)
        assert counter.too_long(tmp_path / "a.py") == []


class TestGeneratedDocuments:
    def test_the_configuration_fits_its_columns(self):
        lines = docs.config_reference().splitlines()
        assert max(len(line) for line in lines) <= docs.MAX_COLUMNS
        assert any(line.startswith("- **`train.max_steps`** = `10000`: ") for line in lines)


class TestWorkflow:
    WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))

    def test_it_runs_on_pushes_and_pull_requests(self):
        # YAML 1.1 takes the key `on` for true
        assert set(self.WORKFLOW[True]) == {"push", "pull_request"}

    def test_linux_runs_everything_and_macos_the_quick_tests(self):
        jobs = self.WORKFLOW["jobs"]
        assert set(jobs) == {"linux", "macos"}
        assert jobs["linux"]["runs-on"] == "ubuntu-latest"
        assert jobs["linux"]["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
        assert self.commands("linux") == ["bash .ci/run"]
        assert jobs["macos"]["runs-on"] == "macos-latest"
        assert self.commands("macos") == ["make test"]

    def test_its_commands_exist(self):
        makefile = (ROOT / "Makefile").read_text("utf-8")
        for job in self.WORKFLOW["jobs"]:
            for command in self.commands(job):
                program, argument = command.split()
                if program == "make":
                    assert re.search(rf"^{argument}:", makefile, re.MULTILINE)
                else:
                    assert program == "bash"
                    assert (ROOT / argument).is_file()

    def test_it_uses_no_action_but_checkout_and_setup_python(self):
        for job in self.WORKFLOW["jobs"].values():
            uses = [step["uses"] for step in job["steps"] if "uses" in step]
            names = [action.partition("@")[0] for action in uses]
            assert names == ["actions/checkout", "actions/setup-python"]

    def test_linux_installs_the_cpu_build_that_the_constraints_name(self):
        index = self.WORKFLOW["jobs"]["linux"]["env"]["PIP_EXTRA_INDEX_URL"]
        assert f"PIP_EXTRA_INDEX_URL={index} " in (ROOT / "constraints.txt").read_text("utf-8")

    def commands(self, job: str) -> list[str]:
        """What a job runs beside actions."""
        return [step["run"] for step in self.WORKFLOW["jobs"][job]["steps"] if "run" in step]
