"""The wheel holds all that the program needs: it is built, installed into an empty environment and used there."""

import os
import site
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.full

QUICK = [
    "train.max_steps=3",
    "model.n_layers=1",
    "model.d_model=16",
    "model.d_ff=32",
    "data.max_stories=300",
    "tokenizer.vocab_size=300",
]


def call(*command: str | Path, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command that must succeed."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    result = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=kept | environ, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from what git would give a stranger."""
    folder = tmp_path_factory.mktemp("wheel")
    clean = folder / "tree"
    clean.mkdir()
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        source = ROOT / name
        if source.is_file():
            (clean / name).parent.mkdir(parents=True, exist_ok=True)
            (clean / name).write_bytes(source.read_bytes())
    call(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, clean, cwd=folder)
    return next(folder.glob("tinygpt-*.whl"))


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tinygpt` in a new environment that holds the wheel, and sees the libraries of this one behind it."""
    folder = tmp_path_factory.mktemp("environment")
    call(sys.executable, "-m", "venv", folder, cwd=folder)
    scripts = folder / "bin"
    call(scripts / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (packages / "libraries.pth").write_text("\n".join(site.getsitepackages()))
    return scripts / "tinygpt"


def test_the_wheel_holds_presets_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"tinygpt/presets/{name}.toml" for name in ("demo", "laptop", "reference")} <= set(names)
    assert all(name.startswith(("tinygpt/", "tinygpt-")) for name in names)
    packaged = {name for name in names if name.endswith(".py")}
    assert packaged == {path.relative_to(ROOT).as_posix() for path in (ROOT / "tinygpt").rglob("*.py")}


def test_the_installed_program_runs_init_and_the_demo_in_an_empty_folder(program, tmp_path):
    where = call(program.parent / "python", "-c", "import tinygpt; print(tinygpt.__file__)", cwd=tmp_path).stdout
    assert str(program.parent.parent) in where, "the checkout was imported, not the wheel"
    call(program, "init", "mine", "--preset", "demo", cwd=tmp_path)
    written = (tmp_path / "mine" / "tinygpt.toml").read_text(encoding="utf-8")
    assert 'source = "builtin"' in written
    settings = [word for key in QUICK for word in ("--set", key)]
    call(program, "run", *settings, cwd=tmp_path / "mine", OMP_NUM_THREADS="2")
    assert list((tmp_path / "mine" / "artifacts" / "train").glob("*/model.safetensors"))
    again = call(program, "sample", "Once upon a time", "--seed", "1", *settings, cwd=tmp_path / "mine")
    assert again.stdout.startswith("Once upon a time")
