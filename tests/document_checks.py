"""The checks that tests/test_docs.py makes on every document.

A check takes a document's path and its text, and returns what is wrong there.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer.main

from benchmarks import learn, matmul, page, sample, tokenize, train
from tests.conftest import ROOT
from tinygpt.cli.app import app
from tinygpt.config.fields import FIELDS, TABLES
from tools import docs

README = ROOT / "README.md"
MAX_COLUMNS = 120
MAX_README_LINES = 150

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|<img[^>]*\ssrc=\"([^\"]+)\"")
MACHINE_PATH = re.compile(r"(?<![\w.~/:-])/(home|root|work|Users|tmp|mnt|data)/\w")
FENCE = re.compile(r"^```[a-z]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
OTHER_FLAGS = {"--nproc-per-node"}
"""Flags of torchrun."""

FILE_OF_ARTIFACT = re.compile(r"[\w.]+\.(bin|gguf|jsonl?|safetensors|txt|html|png)")
FOLDERS_OF_STORE = {".partial/", ".trash/", "snapshots/", "artifacts/", "artifacts/latest/"}
OLD_WORDS = re.compile(
    r"\b(told|telling|tells|unembed|Noise|dearest|Look|HeadWorth|Findings|end_of_story"
    r"|story_starts|max_stories|report_card)\b"
)

COMMANDS: Any = typer.main.get_command(app)
"""The group of all commands, click's."""

BENCHES = {
    module.__name__.removeprefix("benchmarks."): module
    for module in (learn, matmul, page, sample, tokenize, train)
}

Check = Callable[[Path, str], list[str]]


def prose(text: str) -> str:
    """A document without its code blocks."""
    return FENCE.sub("", text)


def spans(text: str) -> list[str]:
    """What stands in backticks, a line break in it as a space."""
    return [" ".join(span.split()) for span in SPAN.findall(prose(text))]


def typed_lines(text: str) -> list[str]:
    """What a reader may type: lines of code blocks, and what stands in backticks."""
    lines: list[str] = []
    for block in FENCE.findall(text):
        lines += block.replace("\\\n", " ").splitlines()
    return lines + spans(text)


def flags_of(command: Any) -> set[str]:
    """The long flags of a command."""
    flags = {"--help"}
    for parameter in command.params:
        flags.update(name for name in (*parameter.opts, *parameter.secondary_opts))
    return flags


def all_flags() -> set[str]:
    """The long flags of all commands and benches."""
    flags = set(OTHER_FLAGS)
    for module in BENCHES.values():
        flags |= flags_of(bench_command(module))
    groups = [COMMANDS]
    while groups:
        group = groups.pop()
        flags |= flags_of(group)
        groups += getattr(group, "commands", {}).values()
    return flags


def bench_command(module: Any) -> Any:
    """The command that `python -m benchmarks.NAME` runs."""
    bench = typer.Typer()
    bench.command()(module.main)
    return typer.main.get_command(bench)


def commands_that_do_not_exist(path: Path, text: str) -> list[str]:
    """Commands and flags of `tinygpt`, and flags that stand alone."""
    found = []
    for line in typed_lines(text):
        for match in re.finditer(r"(?:^|[\s/;])tinygpt ((?:[a-z-]+ ?|-).*)", line):
            found += _wrong_in_command(match[1].partition("#")[0])
        if line.startswith("--"):
            found += [flag for flag in FLAG.findall(line) if flag not in all_flags()]
    return found


def _wrong_in_command(arguments: str) -> list[str]:
    command = COMMANDS
    words = re.split(r"[\s|;&]", arguments)
    for word in words:
        below = getattr(command, "commands", None)
        if below is None or not re.fullmatch(r"[a-z][a-z-]*", word):
            break
        if word not in below:
            return [f"tinygpt {arguments}: no command {word}"]
        command = below[word]
    here = re.split(r"[|;&]", arguments)[0]
    unknown = set(FLAG.findall(here)) - flags_of(command)
    return [f"tinygpt {arguments}: no flag {flag}" for flag in sorted(unknown)]


def keys_that_do_not_exist(path: Path, text: str) -> list[str]:
    """Keys as `table.key`, as the argument of --set and as environment variables."""
    tables = "|".join(TABLES)
    found = []
    for span in spans(text):
        match = re.match(rf"((?:{tables})\.[a-z]\w*)\b(?!\()", span)
        if match and not FILE_OF_ARTIFACT.fullmatch(span) and match[1] not in FIELDS:
            found.append(span)
    for line in typed_lines(text):
        keys = re.findall(r"--set ([a-z]+\.\w+)=", line)
        for table, key in re.findall(r"\bTINYGPT_([A-Z]+)_(\w+)=", line):
            keys.append(f"{table}.{key}".lower())
        found += [key for key in keys if key not in (*FIELDS, "table.key")]
    return found


def paths_that_do_not_exist(path: Path, text: str) -> list[str]:
    """Files and folders of the repository in backticks, from its root or from tinygpt/."""
    found = []
    for span in spans(text):
        is_file = re.fullmatch(r"[\w./-]+\.(py|md|toml)", span)
        is_folder = re.fullmatch(r"[\w./-]+/", span) and span not in FOLDERS_OF_STORE
        if is_file or is_folder:
            places = (ROOT / span, ROOT / "tinygpt" / span)
            found += [] if any(place.exists() for place in places) else [span]
    return found + paths_in_trees_that_do_not_exist(text)


def paths_in_trees_that_do_not_exist(text: str) -> list[str]:
    """Files and folders in annotated trees, which are code blocks that begin with `tinygpt/`."""
    found = []
    for block in FENCE.findall(text):
        if not block.startswith("tinygpt/"):
            continue
        folders = {0: ROOT}  # by indent
        for line in block.splitlines():
            indent = len(line) - len(line.lstrip())
            if indent not in folders:
                continue  # goes on with the phrase of the line above
            for name in re.split(r"\s{2,}", line.strip())[0].split():
                place = folders[indent] / name
                found += [] if place.exists() else [str(place.relative_to(ROOT))]
            if line.strip().split()[0].endswith("/"):
                folders = {key: folder for key, folder in folders.items() if key <= indent}
                folders[indent + 2] = folders[indent] / line.split()[0]
    return found


def targets_that_do_not_exist(path: Path, text: str) -> list[str]:
    """Targets of make."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE)
    found = []
    for line in typed_lines(text):
        match = re.search(r"(?:^|[;&]\s*|\b[A-Z_]+=\S+\s+)make ([a-z][a-z-]*)", line)
        if match and match[1] not in targets:
            found.append(line)
    return found


def benches_that_do_not_exist(path: Path, text: str) -> list[str]:
    """Benches, and their flags."""
    found = []
    for line in typed_lines(text):
        for name, arguments in re.findall(r"python -m benchmarks\.(\w+)([^#|;&]*)", line):
            if name not in BENCHES:
                found.append(line)
                continue
            unknown = set(FLAG.findall(arguments)) - flags_of(bench_command(BENCHES[name]))
            found += [f"{line}: no flag {flag}" for flag in sorted(unknown)]
    return found


def links_that_lead_nowhere(path: Path, text: str) -> list[str]:
    """Relative links to a file, and to a heading in it, inside the repository."""
    found = []
    for match in LINK.finditer(text):
        link = match[1] or match[2]
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (path.parent / target).resolve() if target else path
        leads_somewhere = file.exists() and file.is_relative_to(ROOT)
        if leads_somewhere and anchor:
            leads_somewhere = anchor in headings(file.read_text(encoding="utf-8"))
        if not leads_somewhere:
            found.append(link)
    return found


def headings(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    found = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in found}


def long_lines(path: Path, text: str) -> list[str]:
    """Lines that are too long, and a README that has too many of them."""
    lines = text.splitlines()
    found = [f"line {n}: {len(line)}" for n, line in enumerate(lines, 1) if len(line) > MAX_COLUMNS]
    if path == README and len(lines) > MAX_README_LINES:
        found.append(f"{len(lines)} lines")
    return found


def paths_of_a_machine(path: Path, text: str) -> list[str]:
    """Paths that exist on somebody's machine alone."""
    return [match[0] for match in MACHINE_PATH.finditer(text)]


def old_words(path: Path, text: str) -> list[str]:
    """Words that the field does not use for these things."""
    return OLD_WORDS.findall(text)


def stale_blocks(path: Path, text: str) -> list[str]:
    """Generated blocks that are not what the program says now."""
    return [] if docs.generated(text) == text else ["run `make docs`"]
