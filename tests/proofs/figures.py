"""What tests that prove docs/guarantees.md share: how much they do, and how they record it.

    pytest                                        a sample of each proof
    pytest --tier full                            more of it
    pytest --tier proof --record=docs/proof.json  all of it, recorded for docs/guarantees.md

Every test in a file that docs/guarantees.md names has the mark `proved`, one that asks for its size
the mark `sized`.
"""

import re
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import pytest

from tools import proofs

T = TypeVar("T")
Tier = Literal["quick", "full", "proof"]
ROOT = proofs.ROOT
NAMED_TEST = re.compile(r"`(tests/[\w/]+(?:\.py|/))`")


class RecordFigure(Protocol):
    """See `figure`."""

    def __call__(
        self,
        guarantee: str,
        what: str,
        count: int,
        bad: int | None = 0,
        seed: int | None = None,
        control: bool = False,
    ) -> None: ...


class Size(Protocol):
    """See `size`."""

    def __call__(self, quick: T, full: T, proof: T | None = None) -> T: ...


@pytest.fixture
def size(request: pytest.FixtureRequest) -> Size:
    """size(quick, full, proof) is the one for this call of pytest; `proof` is `full` if left out.

    For example, `size(5, 50, 500)` races.
    """

    def chosen(quick: T, full: T, proof: T | None = None) -> T:
        largest = full if proof is None else proof
        return {"quick": quick, "full": full, "proof": largest}[request.config.getoption("--tier")]

    return chosen


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> RecordFigure:
    """Record what a proof has counted, and fail if something was bad.

    figure("G1", "kills, each before an operation of the store", 253, bad=0, seed=1)

    With `control=True`, the protection was taken away, and nothing bad is what fails.
    """

    def record(
        guarantee: str,
        what: str,
        count: int,
        bad: int | None = 0,
        seed: int | None = None,
        control: bool = False,
    ) -> None:
        found = proofs.Figure(
            guarantee=guarantee, what=what, count=count, bad=bad, test=test_name(request.node)
        )
        if seed is not None:
            found["seed"] = seed
        if control:
            found["control"] = True
        print(proofs.phrase(found))
        assert count > 0, f"no {what}"
        assert bool(bad) == control, proofs.phrase(found)
        request.node.user_properties.append(("figure", found))

    return record


def test_name(item: pytest.Item) -> str:
    """File and function of a test, without its parameters."""
    return item.nodeid.partition("[")[0]


def named_tests() -> set[Path]:
    """The test files that docs/guarantees.md names, those in folders that it names included."""
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    found: set[Path] = set()
    for name in NAMED_TEST.findall(text):
        place = ROOT / name
        found |= set(place.rglob("test_*.py")) if place.is_dir() else {place}
    return found


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("proofs")
    group.addoption("--tier", choices=["quick", "full", "proof"], default="quick")
    group.addoption("--record", type=Path, help="the JSON file that figures are merged into")
    group.addoption("--section", default="proof", help="where in that file")


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if is_one_of_several(config):
        # What took longest begins first, so that no process works alone in the end
        recorded = proofs.read().get("proof", {}).get("minutes", {})
        items.sort(key=lambda item: -recorded.get(item.nodeid.partition("::")[0], 0))
    named = named_tests()
    for item in items:
        if item.path in named:
            item.add_marker(pytest.mark.proved)
        if "size" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.sized)


def is_one_of_several(config: pytest.Config) -> bool:
    """Whether this is a process that pytest-xdist started, and that reports to another."""
    return hasattr(config, "workerinput")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--record") and not is_one_of_several(config):
        config.pluginmanager.register(Recorder(config), "recorder of figures")


class Recorder:
    """Prints figures as they come in, and merges them into the record at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.path: Path = config.getoption("--record")
        self.section: str = config.getoption("--section")
        self.figures: list[proofs.Figure] = []
        self.tests: dict[str, proofs.Outcomes] = {}
        self.seconds: dict[str, float] = defaultdict(float)
        self.began = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.split("::")[0]
        outcomes = self.tests.setdefault(name, {"passed": 0, "skipped": {}, "failed": []})
        self.seconds[name] += report.duration
        if report.failed:
            outcomes["failed"].append(report.nodeid.partition("::")[2])
        elif report.skipped:
            reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else "expected")
            reason = reason.removeprefix("Skipped: ")
            outcomes["skipped"][reason] = outcomes["skipped"].get(reason, 0) + 1
        elif report.when == "call":
            outcomes["passed"] += 1
            for key, found in report.user_properties:
                if key == "figure":
                    self.add(found)  # type: ignore[arg-type]

    def add(self, found: proofs.Figure) -> None:
        """Keep a figure; those of one test with other parameters are summed."""
        for known in self.figures:
            differs = {key for key in {*known, *found} if known.get(key) != found.get(key)}
            if differs <= {"count", "bad"}:
                known["count"] += found["count"]
                if known["bad"] is not None and found["bad"] is not None:
                    known["bad"] += found["bad"]
                return
        self.figures.append(found.copy())
        minutes = (time.monotonic() - self.began) / 60
        self.print(f"\n  {minutes:.0f} min  {found['guarantee']}  {proofs.phrase(found)}")

    def print(self, text: str) -> None:
        reporter = self.config.pluginmanager.getplugin("terminalreporter")
        reporter.write_line(text)

    @pytest.hookimpl(wrapper=True)
    def pytest_terminal_summary(self, exitstatus: pytest.ExitCode) -> Iterator[None]:
        yield
        is_part = self.config.getoption("-k") or "::" in "".join(self.config.args)
        is_ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        if is_part or not is_ended or not self.tests:
            self.print("Not all tests of some files ran: nothing is recorded.")
            return
        scratch = self.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        section = proofs.Section(
            environment=proofs.environment(scratch),
            minutes={name: round(spent / 60, 1) for name, spent in self.seconds.items()},
            tests=self.tests,
            figures=sorted(self.figures, key=proofs.order),
        )
        proofs.write(self.section, section, self.path)
        self.print(f"\nguarantee | figure | control, merged into {self.path}:")
        for guarantee in dict.fromkeys(found["guarantee"] for found in section["figures"]):
            self.print(" | ".join([guarantee, *proofs.lines(guarantee, {"": section})]))
