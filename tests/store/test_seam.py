"""No hooks here: real kills, a real limit on file sizes, and a look at the source for writes beside the seam."""

import ast
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tinygpt
from tests.store.test_crashes import problems
from tests.store.workload import run_all

PACKAGE = Path(tinygpt.__file__).parent
RUN = """
import sys
from pathlib import Path
from tests.store.workload import run_all
print("go", flush=True)
run_all(Path(sys.argv[1]))
"""
WRITERS = {
    "mkdir",
    "makedirs",
    "rename",
    "replace",
    "unlink",
    "rmdir",
    "rmtree",
    "write_text",
    "write_bytes",
    "touch",
    "symlink_to",
}
WRITERS |= {"fsync", "truncate", "ftruncate", "chmod", "NamedTemporaryFile", "mkdtemp"}


def writes(path: Path) -> list[str]:
    """Calls that change the disk, other than those of the seam."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        owner = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
        harmless = name == "replace" and (len(node.args) != 1 or not owner or node.keywords)  # of texts and dataclasses
        modes = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and name == "open"]
        if (
            (name in WRITERS and owner != "files" and not harmless)
            or owner == "shutil"
            or {"w", "wb", "a", "ab", "x", "xb", "r+b"} & set(modes)
        ):
            found.append(f"{path.name}:{node.lineno} {ast.unparse(function)}")
    return found


def test_only_the_seam_changes_the_disk() -> None:
    sources = [*(PACKAGE / "store").glob("*.py"), *(PACKAGE / "stages").glob("*.py"), PACKAGE / "pipeline.py"]
    assert [call for source in sources if source.name != "files.py" for call in writes(source)] == []
    assert len(writes(PACKAGE / "store/files.py")) > 5  # the check sees what it looks for


def test_store_and_pipeline_import_neither_torch_nor_numpy() -> None:
    code = "import sys, tinygpt.pipeline; print(sorted({'torch', 'numpy', 'datasets', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.proof)])
def test_a_process_killed_at_a_random_moment_is_continued_by_the_next(tmp_path: Path, kills: int) -> None:
    reference, rng = run_all(tmp_path / "reference"), random.Random(kills)
    for number in range(kills):
        root = tmp_path / str(number)
        process = subprocess.Popen([sys.executable, "-c", RUN, str(root)], stdout=subprocess.PIPE, text=True)
        assert process.stdout
        assert process.stdout.readline() == "go\n"
        time.sleep(rng.random() * 0.15)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert problems(root, [], reference) == [], number


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_FSIZE")
def test_a_real_limit_on_file_sizes_is_one_storage_error_and_leaves_nothing(tmp_path: Path) -> None:
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500)); {RUN.strip()}"
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path / "store")], capture_output=True, text=True)
    assert "StorageError" in result.stderr
    assert "too large" in result.stderr
    assert result.returncode == 1
    assert list((tmp_path / "store/.partial").iterdir()) == []
    assert problems(tmp_path / "store", [], run_all(tmp_path / "reference")) == []
