"""The documents say what the program says, and point to what is there."""

import doctest
import re
import subprocess
import sys
from importlib.metadata import version

import pytest

import tinygpt
from tests.conftest import ROOT
from tests.document_checks import (
    COMMANDS,
    FENCE,
    MAX_COLUMNS,
    MAX_README_LINES,
    README,
    Check,
    benches_that_do_not_exist,
    commands_that_do_not_exist,
    keys_that_do_not_exist,
    links_that_lead_nowhere,
    long_lines,
    old_words,
    paths_of_a_machine,
    paths_that_do_not_exist,
    stale_blocks,
    targets_that_do_not_exist,
)
from tests.test_dependencies import pinned
from tinygpt.config.fields import FIELDS
from tools import docs

DOCUMENTS = docs.documents()
IMAGINED = ROOT / "docs" / "imagined.md"

BREAKS: dict[Check, tuple[str, ...]] = {
    commands_that_do_not_exist: (
        "`tinygpt bench train`",
        "`tinygpt artifacts prune`",
        "```bash\ntinygpt train --minutes 3\n```",
        "```\n.venv/bin/tinygpt sample \\\n    --length 3\n```",
        "torchrun: `torchrun -m tinygpt learn`",
        "`--length`",
    ),
    keys_that_do_not_exist: (
        "`train.story_starts`",
        "`train.max_step = 3`",
        "```\ntinygpt run --set data.max_stories=3\n```",
        "`TINYGPT_TRAIN_STEPS=3`",
    ),
    paths_that_do_not_exist: (
        "`lm/loss.py`",
        "`docs/gone.md`",
        "`bench/`",
        "```\ntinygpt/\n  lm/    the model\n    loss.py   cross-entropy\n```",
    ),
    targets_that_do_not_exist: ("`make everything`", "```\nPYTHON=python3 make instal\n```"),
    benches_that_do_not_exist: (
        "`python -m benchmarks.speed`",
        "```\npython -m benchmarks.train --minutes 3\n```",
    ),
    links_that_lead_nowhere: (
        "[a](nothing.md)",
        "[a](../README.md#nothing)",
        "[a](../../elsewhere.md)",
        '<img width="9" src="images/nothing.png">',
    ),
    long_lines: ("a" * (MAX_COLUMNS + 1),),
    paths_of_a_machine: ("wrote /home/ada/x",),
    old_words: ("The model tells a story.", "`report_card`"),
    stale_blocks: ("<!-- help:start run -->\nUsage\n<!-- help:end -->\n",),
}

HARMLESS = """\
`tinygpt sample "Once upon a time" --top-p 0.9 --seed 7`, `tinygpt artifacts`, `tinygpt --help`,
`torchrun --nproc-per-node 2 -m tinygpt train`, `--xray`, `train.max_steps = 3`, `train.bin`,
`lm/model.py`, `docs/design.md`, `tests/store/`, `.partial/`, `make demo`, `model.module()`,
`python -m benchmarks.learn --minutes 4`, [a](design.md#4-names),
https://example.org/home/ada, ../work/x

```
tinygpt/
  lm/         the model,
              without which nothing works
    model.py  GPT
```

```
PIP_EXTRA_INDEX_URL=https://example.org/whl/cpu make demo PYTHON=python3.12
tinygpt run --set train.max_steps=3 --dry-run  # shows what --length would do
```
"""


@pytest.mark.parametrize("check", BREAKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_document_passes_every_check(path, check):
    text = path.read_text(encoding="utf-8")
    if check is stale_blocks and "<!-- help:start" in text:
        printed_by = pinned("constraints.txt")["typer"]
        if version("typer") != printed_by:
            pytest.skip(f"{path.name} has the help as typer {printed_by} prints it")
    assert check(path, text) == []


@pytest.mark.parametrize(
    ("check", "text"),
    [(check, text) for check, texts in BREAKS.items() for text in texts],
    ids=lambda value: getattr(value, "__name__", None) or str(value)[:40],
)
def test_each_check_finds_what_breaks_it(check, text):
    assert check(IMAGINED, text)


@pytest.mark.parametrize("check", BREAKS, ids=lambda check: check.__name__)
def test_no_check_finds_fault_with_a_harmless_document(check):
    assert check(IMAGINED, HARMLESS) == []


def test_a_readme_of_too_many_lines_is_found():
    assert long_lines(README, "a\n" * (MAX_README_LINES + 1))
    assert not long_lines(README, "a\n" * MAX_README_LINES)


def test_every_folder_of_the_package_is_in_the_trees():
    packages = {path.parent.name for path in (ROOT / "tinygpt").glob("*/__init__.py")}
    for path in (README, ROOT / "docs" / "design.md"):
        (tree,) = [
            block
            for block in FENCE.findall(path.read_text(encoding="utf-8"))
            if block.startswith("tinygpt/")
        ]
        names = [re.split(r"\s{2,}", line.strip())[0] for line in tree.splitlines()]
        assert packages <= set(re.findall(r"(\w+)/", " ".join(names))), path.name


def test_the_documents_show_the_help_of_every_command_and_every_key():
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"<!-- help:start ?([a-z -]*?) ?-->", text))
    expected = {""}
    for name, command in COMMANDS.commands.items():
        expected |= {name, *(f"{name} {below}" for below in getattr(command, "commands", ()))}
    assert shown == expected
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert [key for key in FIELDS if f"`{key}`" not in text] == []


def test_a_document_that_disagrees_is_rewritten(monkeypatch, tmp_path):
    stale = "a\n<!-- config:start -->\n~stale~\n<!-- config:end -->\nb\n"
    (tmp_path / "README.md").write_text(stale)
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "README.md").touch()
    (tmp_path / "tinygpt" / "presets").mkdir(parents=True)
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    docs.main()
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "~stale~" not in text
    reference = (ROOT / "tinygpt.toml").read_bytes()
    assert (tmp_path / "tinygpt.toml").read_bytes() == reference
    assert (tmp_path / "tinygpt" / "presets" / "reference.toml").read_bytes() == reference
    assert "`train.max_steps`" in text
    assert "`10000`" in text
    assert text.startswith("a\n")
    assert text.endswith("\nb\n")


def test_python_m_tinygpt_prints_the_documented_help():
    command = [sys.executable, "-m", "tinygpt", "--help"]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "Usage:" in result.stdout


def run_examples(text: str) -> list[str]:
    """Run the examples of a document; what each that fails was expected to print, and printed."""
    examples = "".join(re.findall(r"^```pycon\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    test = doctest.DocTestParser().get_doctest(examples, {}, "library.md", None, 0)
    failures: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=failures.append)
    return failures


def test_the_examples_of_the_library_run(trained_folder, monkeypatch):
    monkeypatch.chdir(trained_folder)
    text = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    failures = run_examples(text)
    assert not failures, "\n".join(failures)
    public = [name for name in dir(tinygpt.Model) if not name.startswith("_")]
    assert [name for name in public if f".{name}" not in text and f"`{name}()`" not in text] == []


def test_an_example_with_another_output_is_found():
    assert run_examples("```pycon\n>>> 1 + 1\n2\n```\n") == []
    assert run_examples("```pycon\n>>> 1 + 1\n3\n```\n")
