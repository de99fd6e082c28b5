"""The wheel holds all that the program needs.

It is built, installed into an empty environment and used there.
"""

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
    "data.max_documents=300",
    "tokenizer.vocab_size=300",
]


def try_to_call(
    *command: str | Path, cwd: Path, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run a command without what the tests' own environment adds."""
    inherited = dict(os.environ)
    for name in ("PYTHONPATH", "VIRTUAL_ENV"):
        inherited.pop(name, None)
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=inherited | environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def call(*command: str | Path, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command that must succeed."""
    result = try_to_call(*command, cwd=cwd, **environ)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result


def files_of_the_checkout() -> list[str]:
    """What git would give a stranger, as paths below the checkout."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    names = listed.stdout.decode().split("\0")
    return [name for name in names if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    clean = folder / "tree"
    for name in files_of_the_checkout():
        copy = clean / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps")
    call(*pip, "--wheel-dir", folder, clean, cwd=folder)
    return next(folder.glob("tinygpt-*.whl"))


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tinygpt` in a new environment with the wheel, and this environment's libraries behind it."""
    folder = tmp_path_factory.mktemp("environment")
    call(sys.executable, "-m", "venv", folder, cwd=folder)
    scripts = folder / "bin"
    pip = (scripts / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index")
    call(*pip, wheel, cwd=folder)
    base = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", vars=base))
    (packages / "libraries.pth").write_text("\n".join(site.getsitepackages()))
    return scripts / "tinygpt"


def test_the_wheel_holds_the_whole_package_and_nothing_beside_it(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert all(name.startswith(("tinygpt/", "tinygpt-")) for name in names)
    packaged = {name for name in names if name.startswith("tinygpt/")}
    package = {name for name in files_of_the_checkout() if name.startswith("tinygpt/")}
    assert packaged == package


def test_the_wheel_holds_presets_pages_and_the_marker_of_types(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"tinygpt/presets/{name}.toml" for name in ("demo", "laptop", "reference")} <= names
    assert "tinygpt/html_report/page.html" in names
    assert "tinygpt/py.typed" in names


def test_benches_tools_and_tests_are_not_installed(program, tmp_path):
    python = program.parent / "python"
    for module in ("benchmarks", "tools.docs", "tests.conftest"):
        result = try_to_call(python, "-c", f"import {module}", cwd=tmp_path)
        assert "ModuleNotFoundError" in result.stderr, module


def test_the_installed_program_runs_init_and_the_demo_in_an_empty_folder(program, tmp_path):
    show_origin = "import tinygpt; print(tinygpt.__file__)"
    origin = call(program.parent / "python", "-c", show_origin, cwd=tmp_path).stdout
    assert str(program.parent.parent) in origin, "the checkout was imported, not the wheel"
    call(program, "init", "mine", "--preset", "demo", cwd=tmp_path)
    written = (tmp_path / "mine" / "tinygpt.toml").read_text(encoding="utf-8")
    assert 'source = "builtin"' in written
    settings = [word for key in QUICK for word in ("--set", key)]
    call(program, "run", *settings, cwd=tmp_path / "mine", OMP_NUM_THREADS="2")
    assert list((tmp_path / "mine" / "artifacts" / "train").glob("*/model.safetensors"))
    prompt = "Once upon a time"
    sample = ("sample", prompt, "--seed", "1", *settings)
    again = call(program, *sample, cwd=tmp_path / "mine")
    assert again.stdout.startswith(prompt)
