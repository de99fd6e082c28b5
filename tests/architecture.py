"""The rules of docs/design.md, section 1, as functions of a syntax tree; tests/test_architecture.py applies them.

A rule takes a module's tree and its path below tinygpt/, and yields what it finds: the line and what is wrong there.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterator

from tinygpt.pipeline import STAGES

MAX_FUNCTION = 50
FACTS = {"errors", "hashing", "report"}
MAY_IMPORT = {
    **dict.fromkeys(FACTS, FACTS),
    "config": FACTS,
    "store": {*FACTS, "config"},
    "pipeline": {*FACTS, "config", "store"},
    "corpus": {*FACTS, "config", "store"},
    "lm": {"errors", "hashing", "config"},
    "figures": {"lm"},
    "report_html": {"figures", "lm"},
    "stages": {*FACTS, "config", "store", "pipeline", "corpus", "lm", "figures", "report_html"},
    "bench": {*FACTS, "config", "store", "pipeline", "corpus", "lm"},
    "ui": {*FACTS, "config", "store", "pipeline", "corpus", "lm"},
    "cli": {*FACTS, "config", "store", "pipeline", "corpus", "lm", "figures", "stages", "bench", "ui"},
    "__main__": {"cli"},
    "__init__": set(),
}
"""What each part may import beside itself: only what lies below it."""

NUMERIC = {"torch", "numpy", "matplotlib", "tokenizers", "datasets", "safetensors"}
FORBIDDEN_LIBRARIES = {
    **{part: NUMERIC | {"rich", "typer"} for part in (*FACTS, "config", "store", "pipeline")},
    "lm": {"rich", "typer", "datasets", "time", "logging", "subprocess"},
    "ui": {"torch", "numpy"},
}
NETWORK = {"socket", "socketserver", "ssl", "http", "urllib.request", "ftplib", "requests", "httpx", "aiohttp"}
HUB = {"datasets", "huggingface_hub"}
CODE_IN_DATA = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
CODE_IN_DATA_CALLS = {
    *(f"{module}.{name}" for module in ("np", "numpy") for name in ("load", "save", "savez")),
    *(f"torch.{name}" for name in ("load", "save", "jit.load")),
    *(f"yaml.{name}" for name in ("load", "load_all", "unsafe_load", "full_load", "dump")),
    *("eval", "exec"),
}

WRITING_CALLS = {
    *(
        "write_bytes",
        "write_text",
        "mkdir",
        "makedirs",
        "unlink",
        "rmdir",
        "rmtree",
        "rename",
        "touch",
        "chmod",
        "symlink_to",
        "hardlink_to",
    ),
    *(
        "copyfile",
        "copy2",
        "copytree",
        "copyfileobj",
        "truncate",
        "tofile",
        "mkdtemp",
        "mkstemp",
        "NamedTemporaryFile",
        "TemporaryDirectory",
    ),
    *("os.remove", "os.replace", "os.link", "os.symlink", "shutil.move", "shutil.copy"),
}
MAY_WRITE = {
    "store/files.py": "the one seam to the store",
    "cli/config.py:init": "the user's own tinygpt.toml",
    "cli/compare.py:compare": "compare.png, which is for the user and no stage reads",
    "cli/pipeline.py:_copy": "artifacts/latest, which is for the user and no stage reads",
    "bench/sample.py:first_token_ms": "a temporary folder: a model for a new process",
    "corpus/files.py:_standard_input": "a temporary folder: standard input, read twice",
    "corpus/readers.py:_table": "a temporary folder: a table, unpacked for its reader",
    "cli/failures.py:_closed_pipe": "the null device",
}
"""Modules, or functions as `module.py:function`, that create or change files, and why it is no file of the store."""

Rule = Callable[[ast.Module, str], Iterator[str]]


def part(module: str) -> str:
    """The part of the package that a module belongs to: "lm/model.py" to "lm", "pipeline.py" to "pipeline"."""
    return module.removesuffix(".py").split("/")[0]


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and full name of everything imported, wherever it stands; `from a import b` gives "a.b"."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=source, names=names, level=level):
                yield from ((node.lineno, "." * level + f"{source or ''}.{alias.name}") for alias in names)


def within(name: str, modules: set[str]) -> bool:
    """Whether `name` is one of the modules or lies in one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def calls(tree: ast.Module) -> Iterator[tuple[ast.Call, str, str]]:
    """Each call, its dotted name and the outermost function it stands in."""
    for top in tree.body:
        for node in ast.walk(top):
            if isinstance(node, ast.Call):
                yield node, ast.unparse(node.func), getattr(top, "name", "")


def imports_go_downwards(tree: ast.Module, module: str) -> Iterator[str]:
    for line, name in imports(tree):
        if name.startswith("."):
            yield f"{line}: relative import {name}"
        if not name.startswith("tinygpt."):
            continue
        target = name.split(".")[1]
        if target != part(module) and target in MAY_IMPORT and target not in MAY_IMPORT[part(module)]:
            yield f"{line}: {part(module)} imports {target}"
    for node, name, _ in calls(tree):
        literal = node.args and isinstance(node.args[0], ast.Constant) and not str(node.args[0].value).startswith("tinygpt")
        if part(module) != "cli" and name.rpartition(".")[2] in ("import_module", "__import__") and not literal:
            yield f"{node.lineno}: imports by a computed name"


def no_stage_imports_another(tree: ast.Module, module: str) -> Iterator[str]:
    stages = {name.replace("-", "_") for name in STAGES}
    for line, name in imports(tree):
        target = name.removeprefix("tinygpt.stages.").split(".")[0]
        if part(module) == "stages" and name.startswith("tinygpt.stages.") and target in stages:
            yield f"{line}: imports stage {target}"


def parts_know_only_their_libraries(tree: ast.Module, module: str) -> Iterator[str]:
    for line, name in imports(tree):
        if within(name, FORBIDDEN_LIBRARIES.get(part(module), set())):
            yield f"{line}: {part(module)} imports {name}"


def cli_starts_with_typer_only(tree: ast.Module, module: str) -> Iterator[str]:
    if part(module) != "cli":
        return
    top = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    for line, name in imports(top):
        if name.split(".")[0] not in {*sys.stdlib_module_names, "typer", "click", "tinygpt"}:
            yield f"{line}: imports {name} before a command runs"


def only_the_hub_meets_the_network(tree: ast.Module, module: str) -> Iterator[str]:
    for line, name in imports(tree):
        if (within(name, NETWORK) and module != "corpus/hub.py") or (within(name, HUB) and part(module) != "corpus"):
            yield f"{line}: imports {name}"


def nothing_runs_code_from_data(tree: ast.Module, module: str) -> Iterator[str]:
    for line, name in imports(tree):
        if within(name, CODE_IN_DATA) or name in CODE_IN_DATA_CALLS:
            yield f"{line}: imports {name}"
    for node, name, _ in calls(tree):
        if name in CODE_IN_DATA_CALLS:
            yield f"{node.lineno}: calls {name}"


def only_the_seam_writes_files(tree: ast.Module, module: str) -> Iterator[str]:
    if module in MAY_WRITE:
        return
    seams = {name.rpartition(".")[2] for _, name in imports(tree) if name == "tinygpt.store.files"}
    for node, name, function in calls(tree):
        if name.partition(".")[0] in seams:
            continue
        writes = name in WRITING_CALLS or name.rpartition(".")[2] in WRITING_CALLS or opens_for_writing(node, name)
        if writes and f"{module}:{function}" not in MAY_WRITE:
            yield f"{node.lineno}: {function} calls {name}"


def opens_for_writing(node: ast.Call, name: str) -> bool:
    """Whether a call of open(), Path.open(), gzip.open() or os.open() may create or change a file."""
    arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
    if name == "os.open":
        return any(re.search(r"O_(WRONLY|RDWR|CREAT|APPEND|TRUNC)", ast.unparse(argument)) for argument in arguments)
    if name.rpartition(".")[2] not in ("open", "fdopen"):
        return False
    texts = [argument.value for argument in arguments if isinstance(argument, ast.Constant) and isinstance(argument.value, str)]
    return any(re.fullmatch(r"[rwaxbt+]{1,4}", text) and re.search(r"[wax+]", text) for text in texts)


def errors_are_not_swallowed(tree: ast.Module, module: str) -> Iterator[str]:
    broad = ("Exception", "BaseException")
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            silent = all(
                isinstance(item, ast.Pass) or (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))
                for item in node.body
            )
            if silent and (node.type is None or ast.unparse(node.type) in broad):
                yield f"{node.lineno}: swallows every error"
    for node, name, _ in calls(tree):
        if name.rpartition(".")[2] == "suppress" and any(ast.unparse(argument) in broad for argument in node.args):
            yield f"{node.lineno}: swallows every error"


def functions_are_short(tree: ast.Module, module: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            lines = (node.end_lineno or 0) - node.lineno + 1 - (docstring.count("\n") + 1 if docstring else 0)
            if lines > MAX_FUNCTION:
                yield f"{node.lineno}: {node.name} has {lines} lines"


def what_is_public_is_explained(tree: ast.Module, module: str) -> Iterator[str]:
    if not ast.get_docstring(tree):
        yield "1: the module has no docstring"
    for node in tree.body:
        named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if named and not node.name.startswith("_") and not ast.get_docstring(node):
            yield f"{node.lineno}: {node.name} has no docstring"
