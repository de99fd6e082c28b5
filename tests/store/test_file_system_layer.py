"""The store without hooks: real kills, a real limit on file sizes, and a search of its source.

The search shows that nothing changes the disk without the file-system layer, `store/files.py`.
"""

import ast
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tinygpt
from tests.proofs.figures import RecordFigure, Size
from tests.store.workload import problems, run_all, watched
from tinygpt.store import files

PACKAGE = Path(tinygpt.__file__).parent
RUN = """
import sys
from pathlib import Path
from tests.store.workload import run_all
class Done(list):
    def append(self, name):
        print(name, flush=True)
print("go", flush=True)
run_all(Path(sys.argv[1]), done=Done())
"""
WRITERS = {
    "NamedTemporaryFile",
    "chmod",
    "fsync",
    "ftruncate",
    "makedirs",
    "mkdir",
    "mkdtemp",
    "rename",
    "replace",
    "rmdir",
    "rmtree",
    "symlink_to",
    "touch",
    "truncate",
    "unlink",
    "write_bytes",
    "write_text",
}
WRITING_MODES = {"w", "wb", "a", "ab", "x", "xb", "r+b"}


def changes_the_disk(call: ast.Call) -> bool:
    """Whether a call changes the disk, other than through the file-system layer."""
    name = getattr(call.func, "id", "")
    owner = ""
    if isinstance(call.func, ast.Attribute):
        name = call.func.attr
        owner = ast.unparse(call.func.value)
    if owner == "shutil":
        return True
    if name == "open":
        constants = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
        return not WRITING_MODES.isdisjoint(constants)
    if name == "replace" and (len(call.args) != 1 or not owner or call.keywords):
        return False  # of a text or a dataclass
    return name in WRITERS and owner != "files"


def disk_changes(path: Path) -> list[str]:
    """The calls in a source file that change the disk."""
    return [
        f"{path.name}:{node.lineno} {ast.unparse(node.func)}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and changes_the_disk(node)
    ]


def test_only_the_file_system_layer_changes_the_disk() -> None:
    layer = PACKAGE / "store/files.py"
    sources = [
        *(PACKAGE / "store").glob("*.py"),
        *(PACKAGE / "stages").glob("*.py"),
        PACKAGE / "pipeline.py",
    ]
    found = [call for source in sources if source != layer for call in disk_changes(source)]
    assert found == []
    assert len(disk_changes(layer)) > 5  # the search finds what it looks for


def test_store_and_pipeline_import_neither_torch_nor_numpy() -> None:
    code = """
import sys, tinygpt.pipeline
print(sorted({"torch", "numpy", "datasets", "matplotlib"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_each_fsync_is_called_for_the_file_or_folder_that_the_hook_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other tests replace `os.fsync`, and watch the hook; here the call itself is watched."""
    announced: list[tuple[Path, int]] = []
    synced: list[int] = []

    def hook(operation: files.Operation) -> None:
        if operation.kind in ("fsync", "fsync folder"):
            announced.append((operation.path, operation.path.stat().st_ino))

    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    with watched(hook):
        run_all(tmp_path / "store")
    assert synced == [inode for _, inode in announced]
    made = [path for path in (tmp_path / "store").rglob("*") if ".locks" not in path.parts]
    assert {path.stat().st_ino for path in made} <= set(synced)


def test_running_again_after_a_real_kill_gives_the_same_bytes(
    tmp_path: Path, size: Size, figure: RecordFigure
) -> None:
    kills = size(4, 40, 100)
    reference = run_all(tmp_path / "reference")
    rng = random.Random(kills)
    reported = 0
    for number in range(kills):
        root = tmp_path / str(number)
        command = [sys.executable, "-c", RUN, str(root)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        assert process.stdout.readline() == "go\n"
        time.sleep(rng.random() * 0.25)
        process.send_signal(signal.SIGKILL)
        out, _ = process.communicate()
        done = out.splitlines()
        reported += len(done)
        assert problems(root, done, reference) == [], number
    figure("G1", "SIGKILLs at random moments", kills, seed=kills)
    if reported:
        figure("G1", "stages reported done before such a kill, all of them there", reported)


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_FSIZE")
def test_a_real_limit_on_file_sizes_is_one_storage_error_and_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "store"
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500)); {RUN.strip()}"
    command = [sys.executable, "-c", code, str(root)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert "StorageError" in result.stderr
    assert "too large" in result.stderr
    assert result.returncode == 1
    assert list((root / ".partial").iterdir()) == []
    assert problems(root, [], run_all(tmp_path / "reference")) == []
