"""Takes one protection of the store away at a time, and looks whether its tests notice.

    python tools/mutants.py                 all of tinygpt/store/ and tinygpt/pipeline.py
    python tools/mutants.py store/locks.py  one file; --quick leaves out the full tests
    python tools/mutants.py --only fsync    those whose description matches

A mutant lacks a call whose result nobody uses (fsync, check, rename, discard), a check (`if ...:
raise`), or a lock (`with ... hold(...)`). Those that the quick tests do not notice are given to the
full ones; those that survive are printed at the end.
"""

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import Queue
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tinygpt"
ORDER = "tests/store/test_order.py"
PACK = "tests/store/test_pack.py"
COPIES = "tests/test_project.py"  # among others, of models that are no longer in a store
SIGNALS = "tests/cli/test_signals.py"
TYPED_JSON = "tests/store/test_typed_json.py"
TESTS_OF = {
    **dict.fromkeys(("store/pack.py", "store/tar.py", "store/unpack.py"), ((ORDER, PACK),)),
    **dict.fromkeys(("store/typed_json.py", "store/metrics.py"), ((TYPED_JSON,),)),
    "pipeline.py": (("tests/test_pipeline.py", "tests/store", "--ignore", PACK), (PACK,)),
}
OTHER_TESTS = (
    (ORDER, "tests/store/test_unfinished_runs.py"),
    ("tests/store", "--ignore", PACK, "--ignore", TYPED_JSON),
    (COPIES, PACK, TYPED_JSON, SIGNALS),
)
"""The first notice most in a moment; the last, which import torch or test packs, take longest."""
TIERS = {
    "quick": ("-m", "not full and not proof"),
    "full": ("-m", "(full or sized) and not proof", "--tier", "full"),
}
LOCKS = {"hold", "lock"}
SECONDS = 600  # after which a test run hangs, so that the mutant is noticed


class Mutant(NamedTuple):
    """A file with one protection less.

    Args:
        file: below tinygpt/.
        what: what is missing, e.g., "no `os.fsync(fd)`".
        source: of the whole file.
    """

    file: str
    line: int
    what: str
    source: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.what}"


def mutants(file: str, source: str) -> Iterator[Mutant]:
    """Every mutant of a source file."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for old, new, what in replacements(node):
            text = replaced(source, old, new)
            ast.parse(text)
            yield Mutant(file, old.lineno, what, text)


def replacements(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str, str]]:
    """What may stand in place of parts of a node: the part, its new source, what that lacks."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield node, "pass", f"no `{short(node.value)}`"
    if isinstance(node, ast.If) and isinstance(node.body[0], ast.Raise):
        yield node.test, "False", f"no error if `{short(node.test)}`"
    if isinstance(node, ast.With):
        for item in node.items:
            call = item.context_expr
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute | ast.Name):
                name = getattr(call.func, "attr", getattr(call.func, "id", ""))
                if name in LOCKS:
                    yield call, "__import__('contextlib').nullcontext()", f"no `{short(call)}`"
    if isinstance(node, ast.Attribute) and node.attr in ("O_NOFOLLOW", "O_NONBLOCK"):
        yield node, "0", f"no `{node.attr}`"


def short(node: ast.AST) -> str:
    """The source of a node, cut off."""
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 70 else f"{text[:67]}..."


def replaced(source: str, node: ast.expr | ast.stmt, new: str) -> str:
    """A source with other text in place of a node."""
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    lines = source.encode().splitlines(keepends=True)
    before = b"".join(lines[: node.lineno - 1]) + lines[node.lineno - 1][: node.col_offset]
    last = node.end_lineno - 1
    after = lines[last][node.end_col_offset :] + b"".join(lines[last + 1 :])
    return (before + new.encode() + after).decode()


def copy_of_checkout(folder: Path) -> Path:
    """The package and its tests, in which a mutant may stand."""
    for name in ("tinygpt", "tests", "tools", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "docs").mkdir()
    for name in ("pyproject.toml", "docs/guarantees.md"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def is_noticed(copy: Path, file: str, options: Sequence[str]) -> bool:
    """Whether a test of a file below tinygpt/ fails, or hangs."""
    return any(fails(copy, [*options, *tests]) for tests in TESTS_OF.get(file, OTHER_TESTS))


def fails(copy: Path, arguments: Sequence[str]) -> bool:
    """Whether a call of pytest fails, or hangs."""
    line = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            line, cwd=copy, env=environment, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return True
    return done.returncode not in (0, 5)  # 5: none of the tests is of this tier


def fate(mutant: Mutant, copy: Path, tiers: Sequence[str]) -> str:
    """Which of the tiers, "quick" and "full", is the first to notice a mutant, or "none"."""
    path = copy / "tinygpt" / mutant.file
    original = path.read_text(encoding="utf-8")
    path.write_text(mutant.source, encoding="utf-8")
    try:
        for tier in tiers:
            if is_noticed(copy, mutant.file, TIERS[tier]):
                return tier
        return "none"
    finally:
        path.write_text(original, encoding="utf-8")


def main() -> None:
    """Try all mutants and print which tests notice them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", help="below tinygpt/; all of the store, if none")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="", help="a regular expression of what is missing")
    parser.add_argument("--quick", action="store_true", help="leave out the full tests")
    arguments = parser.parse_args()
    store = sorted(
        path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "store").glob("*.py")
    )
    found = [
        mutant
        for file in arguments.files or [*store, "pipeline.py"]
        for mutant in mutants(file, (PACKAGE / file).read_text(encoding="utf-8"))
        if re.search(arguments.only, mutant.what)
    ]
    tiers = ["quick"] if arguments.quick else list(TIERS)
    began = time.monotonic()
    survivors = []
    with tempfile.TemporaryDirectory() as scratch:
        copies: Queue[Path] = Queue()
        for number in range(arguments.jobs):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            copies.put(copy_of_checkout(folder))
        if is_noticed(folder, found[0].file, TIERS["quick"]):
            sys.exit("error: the tests fail without any mutant")

        def judge(mutant: Mutant) -> tuple[Mutant, str]:
            copy = copies.get()
            try:
                return mutant, fate(mutant, copy, tiers)
            finally:
                copies.put(copy)

        with ThreadPoolExecutor(arguments.jobs) as pool:
            judged = as_completed([pool.submit(judge, mutant) for mutant in found])
            for number, future in enumerate(judged, start=1):
                mutant, tier = future.result()
                minutes = (time.monotonic() - began) / 60
                print(f"{number}/{len(found)} {minutes:.0f} min  {tier:5}  {mutant}", flush=True)
                if tier == "none":
                    survivors.append(mutant)
    print(f"\n{len(survivors)} of {len(found)} survive")
    for mutant in survivors:
        print(f"  {mutant}")


if __name__ == "__main__":
    main()
