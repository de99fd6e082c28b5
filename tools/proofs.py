"""The figures of docs/guarantees.md, which `make proof` writes to docs/proof.json.

docs/proof.json has a section for each command that proves something, `proof` and `interop`:

    {"proof": {"environment": {"python": ...}, "minutes": 41, "tests": {"tests/a.py": {...}},
               "figures": [{"guarantee": "G1", "what": "kills", "count": 253, "bad": 0, ...}]}}
"""

import fcntl
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NotRequired, TypedDict

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "docs" / "proof.json"
PACKAGES = ("torch", "numpy", "safetensors", "tokenizers", "pydantic")


class Figure(TypedDict):
    """What a proof counted.

    Args:
        guarantee: its name in docs/guarantees.md, e.g., "G1".
        what: what was counted, so that "253 {what}" can be read, and "4 of 8 {what}" of a control.
        bad: how many of them were bad; None if there is nothing to compare with.
        control: the protection was taken away, so that some have to be bad.
        test: the test that counted, e.g., "tests/store/test_crashes.py::test_kills".
    """

    guarantee: str
    what: str
    count: int
    bad: int | None
    seed: NotRequired[int]
    control: NotRequired[bool]
    test: str


class Outcomes(TypedDict):
    """How the tests of a file ended.

    Args:
        skipped: how many tests were skipped for each reason.
        failed: the names of those that failed.
    """

    passed: int
    skipped: dict[str, int]
    failed: list[str]


class Section(TypedDict):
    """What one command proved.

    Args:
        minutes: how long the tests took, by file.
    """

    environment: dict[str, str]
    minutes: dict[str, float]
    tests: dict[str, Outcomes]
    figures: list[Figure]


def read(path: Path = RECORD) -> dict[str, Section]:
    """All sections; empty if nothing was recorded yet."""
    if not path.exists():
        return {}
    sections: dict[str, Section] = json.loads(path.read_text(encoding="utf-8"))
    return sections


def merged(old: Section | None, new: Section) -> Section:
    """A section in which the files that ran replace what they recorded before.

    Figures from another environment, and of files that are gone, are left out.
    """
    if old is None or old["environment"] != new["environment"]:
        return new
    kept = {name for name in old["tests"] if name not in new["tests"] and (ROOT / name).exists()}
    figures = [figure for figure in old["figures"] if figure["test"].split("::")[0] in kept]
    figures += new["figures"]

    def of_kept(values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name in kept}

    return {
        "environment": new["environment"],
        "minutes": dict(sorted({**of_kept(old["minutes"]), **new["minutes"]}.items())),
        "tests": dict(sorted({**of_kept(old["tests"]), **new["tests"]}.items())),
        "figures": sorted(figures, key=order),
    }


def write(section: str, new: Section, path: Path = RECORD) -> None:
    """Merge what was proved now into the record; several processes may do so at once."""
    folder = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    sections: dict[str, Any] = dict(read(path))
    sections[section] = merged(sections.get(section), new)
    text = json.dumps(sections, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")
    os.close(folder)


def order(figure: Figure) -> tuple[Any, ...]:
    """Sorts figures: G2 before G10, those with a number first, controls last."""
    name = figure["guarantee"]
    number = int(name[1:]) if name[1:].isdigit() else 1000
    return (number, name, bool(figure.get("control")), figure["test"], figure["what"])


def phrase(figure: Figure) -> str:
    """A figure as words: "253 kills", or "4 of 8 kills of a store without ..." of a control."""
    counted = f"{figure['count']:,} {figure['what']}"
    return f"{figure['bad']:,} of {counted}" if figure["bad"] else counted


def lines(guarantee: str, sections: Mapping[str, Section], files: Sequence[str] = ()) -> list[str]:
    """What was recorded of a guarantee: its figures, and those of its controls.

    Args:
        files: its proofs, of which the tests are counted if no figure was recorded.
    """
    recorded = [figure for section in sections.values() for figure in section["figures"]]
    own = [figure for figure in sorted(recorded, key=order) if figure["guarantee"] == guarantee]
    found = [phrase(figure) for figure in own if not figure.get("control")]
    controls = [phrase(figure) for figure in own if figure.get("control")]
    tests = [section["tests"].get(file) for section in sections.values() for file in files]
    passed = sum(outcomes["passed"] for outcomes in tests if outcomes)
    if not found and passed:
        found = [f"{passed:,} tests"]
    said = [f"Figures: {'; '.join(found)}; 0 bad."] if found else []
    said += [f"Controls that have to be bad: {'; '.join(controls)}."] if controls else []
    return said or ["Figures: none recorded yet; `make proof` records them."]


def setting(sections: Mapping[str, Section]) -> str:
    """How many tests each command ran, and where."""
    said = []
    for name, section in sections.items():
        command = "make proof" if name == "proof" else f"make proof-{name}"
        passed = sum(outcomes["passed"] for outcomes in section["tests"].values())
        skipped = sum(sum(outcomes["skipped"].values()) for outcomes in section["tests"].values())
        minutes = sum(section["minutes"].values())
        here = ", ".join(f"{key} {value}" for key, value in section["environment"].items())
        said.append(
            f"`{command}`: {passed:,} tests passed and {skipped:,} were skipped. Their times add "
            f"up to {minutes:.0f} minutes, with {here}."
        )
    return " ".join(said) or "Nothing is recorded yet; `make proof` records it."


def environment(scratch: Path) -> dict[str, str]:
    """What the figures depend on; no name of a machine and no path.

    Args:
        scratch: a folder where the proofs write.
    """
    import torch

    return {
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in PACKAGES},
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "file system": file_system(scratch),
        "CPU capability": torch.backends.cpu.get_cpu_capability(),
        "cores": str(os.cpu_count()),
    }


def file_system(folder: Path) -> str:
    """The kind of file system that a folder is on, e.g., "ext4"."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return "unknown"
    kinds = {}
    for line in mounts.read_text().splitlines():
        _, place, kind, *_ = line.split()
        if folder.resolve().is_relative_to(place):
            kinds[len(place)] = kind
    return kinds[max(kinds)]
