"""G6: equal inputs and an equal configuration give equal bytes, wherever and whenever they run."""

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cli.conftest import CONFIG, environment
from tests.helpers import STORIES
from tests.proofs.figures import RecordFigure
from tinygpt.store import Store

pytestmark = pytest.mark.proof
RECIPE = (
    CONFIG.replace('source = "builtin"', 'source = "texts"').replace("max_documents = 80\n", "")
    + '[runtime]\nthreads = 1\nprogress = "none"\n'
)
CLOCK = Path(__file__).with_name("later_clock.c")


@dataclass(frozen=True)
class Variation:
    """One thing that must not matter.

    Args:
        folder: where the project is.
        before: commands of tinygpt that run first.
    """

    folder: str = "project"
    variables: Mapping[str, str] = field(default_factory=dict)
    python: Sequence[str] = ()
    before: Sequence[str] = ()
    umask: int = 0o022
    files_backwards: bool = False
    settings: Sequence[str] = ()


VARIATIONS = {
    "a store in a path with spaces and other scripts": Variation(folder="a b/Zoë/故事"),
    "another folder for temporary files": Variation(variables={"TMPDIR": "{elsewhere}"}),
    "a strict umask": Variation(umask=0o077),
    "another time zone": Variation(variables={"TZ": "Pacific/Kiritimati"}),
    "another locale": Variation(variables={"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0"}),
    "hash seed 0": Variation(variables={"PYTHONHASHSEED": "0"}),
    "hash seed 1": Variation(variables={"PYTHONHASHSEED": "1"}),
    "hash seed 2": Variation(variables={"PYTHONHASHSEED": "2"}),
    "files that were made in another order": Variation(files_backwards=True),
    "another user": Variation(variables={"HOME": "{elsewhere}", "USER": "ada", "LOGNAME": "ada"}),
    "a clock that is a year ahead": Variation(variables={"LD_PRELOAD": "{clock}"}),
    "some stages that ran before": Variation(before=["run --until build-dataset", "train"]),
    "python -O": Variation(python=["-O"]),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the braces in VARIATIONS stand for; the library of the clock needs a C compiler."""
    folder = tmp_path_factory.mktemp("elsewhere")
    library = folder / "later_clock.so"
    if compiler := shutil.which("cc"):
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, CLOCK, "-ldl"], check=True)
    return {"elsewhere": str(folder), "clock": str(library)}


def digests(root: Path, varied: Variation, places: Mapping[str, str]) -> dict[str, str]:
    """The digest of each stage after `tinygpt run`, and those of the files in `latest/`."""
    folder = root / varied.folder
    (folder / "texts").mkdir(parents=True)
    (folder / "tinygpt.toml").write_text(RECIPE)
    numbers = list(range(12))
    for number in reversed(numbers) if varied.files_backwards else numbers:
        stories = "\n\n".join(STORIES[number::12])
        (folder / "texts" / f"{number:02d}.txt").write_text(stories, encoding="utf-8")
    variables = {name: value.format(**places) for name, value in varied.variables.items()}
    settings = [part for setting in varied.settings for part in ("--set", setting)]
    for command in (*varied.before, "run"):
        subprocess.run(
            [sys.executable, *varied.python, "-m", "tinygpt", *command.split(), *settings],
            cwd=folder,
            env={**environment(), "OMP_NUM_THREADS": "1", **variables},
            umask=varied.umask,
            capture_output=True,
            check=True,
        )
    return {made.stage: made.digest for made in Store(folder / "artifacts").list()}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, places: dict[str, str]) -> dict[str, str]:
    """The digests without any variation."""
    found = digests(tmp_path_factory.mktemp("plain"), Variation(), places)
    assert len(found) == 8
    return found


@pytest.mark.parametrize("name", VARIATIONS)
def test_all_stages_give_the_same_bytes(
    tmp_path: Path,
    places: dict[str, str],
    expected: dict[str, str],
    name: str,
    figure: RecordFigure,
) -> None:
    variables = VARIATIONS[name].variables
    if "LD_PRELOAD" in variables and not Path(places["clock"]).exists():
        pytest.skip("needs a C compiler, to put the clock ahead")
    assert digests(tmp_path, VARIATIONS[name], places) == expected
    figure("G6", "environments in which all eight stages give the same bytes", 1)


def test_control_another_seed_gives_other_bytes(
    tmp_path: Path, places: dict[str, str], expected: dict[str, str], figure: RecordFigure
) -> None:
    found = digests(tmp_path, Variation(settings=["train.seed=1"]), places)
    differ = [stage for stage in expected if found[stage] != expected[stage]]
    assert {"corpus", "tokenize", "build-dataset"}.isdisjoint(differ)
    figure("G6", "stages with another `train.seed`", len(expected), len(differ), control=True)
