"""The rules of docs/design.md as functions of syntax trees; test_architecture.py applies them.

A rule takes a module's tree and its path below tinygpt/, and yields what it finds: the line, and
what is wrong there.
"""

import ast
import graphlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping

from tinygpt.pipeline import STAGES
from tools.count_statements import long_functions

FACTS = {"errors", "hashing", "progress", "records"}
COMPUTE = {"lm", "analysis", "figures", "html_shared", "html_report", "html_page"}
MAY_IMPORT = {
    **dict.fromkeys(FACTS, FACTS),
    "config": FACTS,
    "store": {*FACTS, "config"},
    "pipeline": {*FACTS, "config", "store"},
    "corpus": {*FACTS, "config"},
    "lm": {*FACTS, "config"},
    "analysis": {*FACTS, "config", "lm"},
    "figures": {"analysis", "lm"},
    "html_shared": {"lm"},
    "html_report": {*FACTS, "figures", "analysis", "lm", "html_shared"},
    "html_page": {*FACTS, "config", "lm", "html_shared"},
    "html_experiment": {"html_shared"},
    "runs": {*FACTS, "config", "store", "pipeline", "lm", "analysis"},
    "exports": {*FACTS, "config", "store", "lm", "analysis", "figures", "runs"},
    "imports": {*FACTS, "config", "store", "pipeline", "lm", "runs", "exports"},
    "stages": {*FACTS, "config", "store", "pipeline", "corpus", *COMPUTE, "runs"},
    "trained_models": {*FACTS, "store"},
    "continuation": {*FACTS, "config", "store", "pipeline"},
    "external_digests": {*FACTS, "config", "store", "corpus", "continuation"},
    "model_inputs": {*FACTS, "config", "store", "pipeline", "trained_models"},
    "project": {
        *FACTS,
        *("config", "store", "pipeline", "corpus", "lm", "stages"),
        *("trained_models", "model_inputs", "external_digests", "continuation"),
    },
    "library": {*FACTS, "config", "store", "lm", "runs", "trained_models", "project"},
    "experiments": {
        *FACTS,
        *("config", "store", "pipeline", "lm", "analysis", "html_experiment", "runs", "project"),
    },
    "ui": FACTS,
    "cli": {
        *FACTS,
        *("config", "store", "pipeline", "corpus", *COMPUTE, "runs", "stages"),
        *("config", "store", "pipeline", "corpus", *COMPUTE, "runs", "stages"),
        *("exports", "imports", "trained_models", "continuation"),
        *("project", "library", "experiments", "ui"),
    },
    "__main__": {"cli"},
    "__init__": {"config", "project", "library"},
}
"""What each part may import besides itself: only what lies below it."""

COMPUTED_IMPORTS = {"project.py", "__init__.py"}
"""Modules that load parts of tinygpt by a computed name: a stage when it runs, a name when used."""

NUMERIC = {"torch", "numpy", "matplotlib", "tokenizers", "datasets", "pyarrow", "safetensors"}
FORBIDDEN_LIBRARIES = {
    **{part: NUMERIC | {"rich", "typer"} for part in (*FACTS, "config", "store", "pipeline")},
    "lm": {"rich", "typer", "datasets", "pyarrow", "time", "logging", "subprocess"},
    "analysis": {"rich", "typer", "datasets", "pyarrow", "time", "logging", "subprocess"},
    "ui": {"torch", "numpy"},
}
NETWORK = {
    *("socket", "socketserver", "ssl", "http", "urllib.request", "ftplib"),
    *("requests", "httpx", "aiohttp"),
}
HUB = {"datasets", "huggingface_hub"}
CODE_IN_DATA = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
CODE_IN_DATA_CALLS = {
    *(f"{module}.{name}" for module in ("np", "numpy") for name in ("load", "save", "savez")),
    *(f"torch.{name}" for name in ("load", "save", "jit.load")),
    *(f"yaml.{name}" for name in ("load", "load_all", "unsafe_load", "full_load", "dump")),
    *("eval", "exec"),
}

WRITING_CALLS = {
    *("write_bytes", "write_text", "mkdir", "makedirs", "unlink", "rmdir", "rmtree", "rename"),
    *("touch", "chmod", "symlink_to", "hardlink_to", "copyfile", "copy2", "copytree"),
    *("copyfileobj", "truncate", "tofile", "mkdtemp", "mkstemp"),
    *("NamedTemporaryFile", "TemporaryDirectory"),
    *("os.remove", "os.replace", "os.link", "os.symlink", "shutil.move", "shutil.copy"),
}
MAY_WRITE = {
    "store/files.py": "the file-system layer of the store",
    "cli/config.py:init": "the user's own tinygpt.toml",
    "cli/compare.py:_draw": "compare.png, which is for the user and no stage reads",
    "cli/stages.py:_copy": "pictures and pages, copied to where the user says",
    "corpus/files.py:_standard_input": "a temporary folder: standard input, read twice",
    "cli/signals.py": "the null device",
    "cli/streams.py": "the null device",
    "ui.py:silence": "the null device",
}
"""Functions as `module.py:function`, or whole modules, that create or change files, and which."""

BANNED_WORDS = (
    *("told", "telling", "tells", "unembed", "Noise", "dearest", "Look", "HeadWorth", "Findings"),
    *("end_of_story", "story_starts", "max_stories", "report_card"),
)
"""Words for which docs/design.md has another one, the field's own."""

Rule = Callable[[ast.Module, str], Iterator[str]]


def part(module: str) -> str:
    """The part of the package that a module belongs to: "lm/model.py" to "lm"."""
    return module.removesuffix(".py").split("/")[0]


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of everything imported, at any depth; `from a import b` gives "a.b"."""
    for node in ast.walk(tree):
        yield from _imported_names(node)


def _imported_names(node: ast.AST) -> Iterator[tuple[int, str]]:
    match node:
        case ast.Import(names=names):
            for alias in names:
                yield node.lineno, alias.name
        case ast.ImportFrom(module=source, names=names, level=level):
            for alias in names:
                yield node.lineno, "." * level + f"{source or ''}.{alias.name}"


def imports_that_run(node: ast.AST) -> Iterator[str]:
    """What a module imports when it runs, at any depth: all but what type checkers alone import."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        for child in node.orelse:
            yield from imports_that_run(child)
        return
    for _, name in _imported_names(node):
        yield name
    for child in ast.iter_child_nodes(node):
        yield from imports_that_run(child)


def import_circle(trees: Mapping[str, ast.Module]) -> list[str]:
    """Modules that import each other in a circle, the first named again at the end; [] for none.

    Args:
        trees: the syntax tree of each module by its path below tinygpt/.
    """
    path_of = {_dotted_name(path): path for path in trees}
    graph: dict[str, set[str]] = {}
    for path, tree in trees.items():
        imported = set()
        for name in imports_that_run(tree):
            module = name if name in path_of else name.rpartition(".")[0]
            if module in path_of:
                imported.add(path_of[module])
        graph[path] = imported
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return []


def _dotted_name(path: str) -> str:
    below = path.removesuffix(".py").removesuffix("__init__")
    return f"tinygpt/{below}".rstrip("/").replace("/", ".")


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
    importer = part(module)
    for line, name in imports(tree):
        if name.startswith("."):
            yield f"{line}: relative import {name}"
        if not name.startswith("tinygpt."):
            continue
        imported = name.split(".")[1]
        allowed = {*MAY_IMPORT[importer], importer}
        if imported in MAY_IMPORT and imported not in allowed:
            yield f"{line}: {importer} imports {imported}"


def nothing_is_imported_by_a_computed_name(tree: ast.Module, module: str) -> Iterator[str]:
    if module in COMPUTED_IMPORTS:
        return
    for node, name, _ in calls(tree):
        if name.rpartition(".")[2] in ("import_module", "__import__") and not _is_library(node):
            yield f"{node.lineno}: imports by a computed name"


def _is_library(call: ast.Call) -> bool:
    """Whether what is imported is spelled out and lies outside tinygpt."""
    if not call.args or not isinstance(call.args[0], ast.Constant):
        return False
    return not str(call.args[0].value).startswith("tinygpt")


def no_stage_imports_another(tree: ast.Module, module: str) -> Iterator[str]:
    if part(module) != "stages":
        return
    for line, name in imports(tree):
        if name.startswith("tinygpt.stages."):
            yield f"{line}: imports {name}"


def every_module_of_stages_is_a_stage(tree: ast.Module, module: str) -> Iterator[str]:
    if part(module) != "stages" or module == "stages/__init__.py":
        return
    if module not in stage_modules():
        yield "1: no stage has this name"
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    if "run" not in functions:
        yield "1: the stage has no function `run`"


def stage_modules() -> set[str]:
    """Where the `run` function of each stage is."""
    return {f"stages/{name.replace('-', '_')}.py" for name in STAGES}


def parts_know_only_their_libraries(tree: ast.Module, module: str) -> Iterator[str]:
    for line, name in imports(tree):
        if within(name, FORBIDDEN_LIBRARIES.get(part(module), set())):
            yield f"{line}: {part(module)} imports {name}"


def cli_starts_with_typer_only(tree: ast.Module, module: str) -> Iterator[str]:
    if part(module) != "cli":
        return
    allowed = {*sys.stdlib_module_names, "typer", "click", "tinygpt"}
    for statement in tree.body:
        for line, name in _imported_names(statement):
            if name.split(".")[0] not in allowed:
                yield f"{line}: imports {name} before a command runs"


def only_the_hub_meets_the_network(tree: ast.Module, module: str) -> Iterator[str]:
    for line, name in imports(tree):
        if within(name, NETWORK | HUB) and module != "corpus/hub.py":
            yield f"{line}: imports {name}"


def nothing_runs_code_from_data(tree: ast.Module, module: str) -> Iterator[str]:
    for line, name in imports(tree):
        if within(name, CODE_IN_DATA) or name in CODE_IN_DATA_CALLS:
            yield f"{line}: imports {name}"
    for node, name, _ in calls(tree):
        if name in CODE_IN_DATA_CALLS:
            yield f"{node.lineno}: calls {name}"


def only_the_file_system_layer_writes(tree: ast.Module, module: str) -> Iterator[str]:
    if module in MAY_WRITE:
        return
    layer_names = set()
    for _, name in imports(tree):
        if name == "tinygpt.store.files":
            layer_names.add(name.rpartition(".")[2])
    for node, name, function in calls(tree):
        if name.partition(".")[0] in layer_names:
            continue
        writes = name in WRITING_CALLS or name.rpartition(".")[2] in WRITING_CALLS
        writes = writes or opens_for_writing(node, name)
        if writes and f"{module}:{function}" not in MAY_WRITE:
            yield f"{node.lineno}: {function} calls {name}"


def opens_for_writing(node: ast.Call, name: str) -> bool:
    """Whether a call of open(), Path.open(), gzip.open() or os.open() may change a file."""
    arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
    if name == "os.open":
        flags = " ".join(ast.unparse(argument) for argument in arguments)
        return re.search(r"O_(WRONLY|RDWR|CREAT|APPEND|TRUNC)", flags) is not None
    if name.rpartition(".")[2] not in ("open", "fdopen"):
        return False
    texts = [argument.value for argument in arguments if isinstance(argument, ast.Constant)]
    modes = [text for text in texts if isinstance(text, str) and is_mode(text)]
    return any(re.search(r"[wax+]", mode) for mode in modes)


def is_mode(text: str) -> bool:
    """Whether a text is a mode of open()."""
    return re.fullmatch(r"[rwaxbt+]{1,4}", text) is not None


def json_of_the_store_is_read_as_a_type(tree: ast.Module, module: str) -> Iterator[str]:
    for node, name, _ in calls(tree):
        if name.rpartition(".")[2] in ("read_json", "read_rows") and len(node.args) < 2:
            yield f"{node.lineno}: {name} without a type"


def errors_are_not_swallowed(tree: ast.Module, module: str) -> Iterator[str]:
    broad = ("Exception", "BaseException")
    for node in ast.walk(tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        catches_all = node.type is None or ast.unparse(node.type) in broad
        if catches_all and all(does_nothing(statement) for statement in node.body):
            yield f"{node.lineno}: swallows every error"
    for call, name, _ in calls(tree):
        suppressed = [ast.unparse(argument) for argument in call.args]
        if name.rpartition(".")[2] == "suppress" and not set(broad).isdisjoint(suppressed):
            yield f"{call.lineno}: swallows every error"


def does_nothing(statement: ast.stmt) -> bool:
    """Whether a statement is `pass` or a constant."""
    if isinstance(statement, ast.Pass):
        return True
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def functions_are_short(tree: ast.Module, module: str) -> Iterator[str]:
    for node, complaint in long_functions(tree):
        yield f"{node.lineno}: {complaint}"


def what_is_public_is_explained(tree: ast.Module, module: str) -> Iterator[str]:
    if not ast.get_docstring(tree):
        yield "1: the module has no docstring"
    for node in tree.body:
        named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if named and not node.name.startswith("_") and not ast.get_docstring(node):
            yield f"{node.lineno}: {node.name} has no docstring"


def banned_words(text: str) -> Iterator[str]:
    """Line and word of each banned word that stands in a text as a whole word."""
    pattern = re.compile(rf"\b({'|'.join(BANNED_WORDS)})\b")
    for number, line in enumerate(text.splitlines(), start=1):
        for match in pattern.finditer(line):
            yield f"{number}: {match[0]}"
