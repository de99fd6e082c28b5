"""Does a run fit into the memory there is? The machines are folders with the files of Linux."""

import os
from pathlib import Path

import pytest

from tests.helpers import Notes, with_settings
from tinygpt.config import Config
from tinygpt.errors import ConfigError
from tinygpt.runs import memory
from tinygpt.runs.memory import available_memory, check_memory, in_words

GIB = 2**30
PAGE = os.sysconf("SC_PAGE_SIZE")


def machine(
    root: Path, *, free: int | None = 8 * GIB, own: int = 0, groups: str = "", **limits: object
) -> Path:
    """A root folder in which /proc and /sys say these things.

    Args:
        free: MemAvailable in bytes; None for a kernel that does not say.
        own: bytes that this process has.
        groups: /proc/self/cgroup.
        limits: path of a file below /sys/fs/cgroup -> what it says.
    """
    proc = root / "proc" / "self"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text(groups)
    (proc / "statm").write_text(f"99999 {own // PAGE} 5 1 0 9 0\n")
    available = "" if free is None else f"MemAvailable:   {free // 1024} kB\n"
    (proc.parent / "meminfo").write_text(f"MemTotal:  99999999 kB\n{available}SwapFree: 9 kB\n")
    for name, text in limits.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    return root


def test_what_is_free_and_what_the_process_has_is_available(tmp_path: Path) -> None:
    assert available_memory(root=machine(tmp_path, own=GIB)) == 9 * GIB


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/\n", {"memory.max": 2 * GIB}, 2),
        ("0::/a/b\n", {"a/memory.max": 3 * GIB, "a/b/memory.max": "max"}, 3),
        ("0::/a/b\n", {"a/memory.max": 3 * GIB, "a/b/memory.max": GIB}, 1),
        ("0::/a\n", {"a/memory.max": "max"}, 8),
        ("0::/\n", {}, 8),
        ("0::/../../else\n", {"memory.max": GIB}, 1),
        ("4:memory:/d\n0::/\n", {"memory/d/memory.limit_in_bytes": GIB}, 1),
        ("5:hugetlb,memory:/d\n", {"memory/d/memory.limit_in_bytes": GIB}, 1),
        ("4:memory:/not/mounted\n", {"memory/memory.limit_in_bytes": 2 * GIB}, 2),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": 9223372036854771712}, 8),
        ("3:cpuset:/d\n", {"cpuset/d/memory.limit_in_bytes": GIB}, 8),
        ("0::/\n", {"memory.max": 64 * GIB}, 8),
        ("0::/\n", {"memory.max": "nonsense"}, 8),
    ],
)
def test_the_smallest_limit_of_a_container_counts_if_it_is_below_what_is_free(
    tmp_path: Path, groups: str, limits: dict[str, object], expected: int
) -> None:
    root = machine(tmp_path, groups=groups, **limits)
    assert available_memory(root=root) == expected * GIB


def test_processes_share_what_there_is(tmp_path: Path) -> None:
    root = machine(tmp_path / "a", own=GIB, groups="0::/\n", **{"memory.max": 6 * GIB})
    assert available_memory(3, root) == 2 * GIB
    assert available_memory(4, machine(tmp_path / "b", own=GIB)) == 3 * GIB


def test_a_system_that_does_not_say_what_is_free_has_all_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", values.__getitem__)
    assert available_memory(root=tmp_path) == 4_096_000
    assert available_memory(root=machine(tmp_path, free=None)) == 4_096_000


def test_where_nothing_can_be_read_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sysconf")
    assert available_memory(root=tmp_path) is None


def test_this_machine_says_how_much_memory_it_has() -> None:
    there = available_memory()
    assert there is not None
    assert 2**26 < there < 2**46


@pytest.fixture
def config(tiny_config: Config) -> Config:
    """Nine sequences a micro-batch, four micro-batches."""
    train = {"batch_size": 9, "grad_accum_steps": 4}
    return with_settings(tiny_config, train=train, runtime={"device": "cpu"})


@pytest.fixture
def needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run needs 1 GiB, and 1 GiB more for each sequence of a micro-batch."""

    def peak_memory(model: object, train: object, *_: object) -> int:
        return (1 + train.batch_size) * GIB  # type: ignore[attr-defined]

    monkeypatch.setattr(memory, "peak_memory", peak_memory)


def notes_with(
    config: Config, there: float | None, monkeypatch: pytest.MonkeyPatch, processes: int = 1
) -> list[str]:
    size = None if there is None else int(there * GIB)
    monkeypatch.setattr(memory, "available_memory", lambda processes: size)
    reporter = Notes()
    check_memory(config, 300, processes, reporter)
    return reporter.notes


def test_a_run_that_fits_well_is_one_line(config, needs, monkeypatch) -> None:
    assert notes_with(config, 12.5, monkeypatch) == [
        "memory      about 10 GiB, of 12 GiB there are"
    ]


@pytest.mark.parametrize(("there", "fitting"), [(12.4, 6), (10.0, 6), (10.5, 6)])
def test_above_four_fifths_a_warning_names_batch_sizes_that_fit(
    config, needs, monkeypatch, there: float, fitting: int
) -> None:
    _, warning = notes_with(config, there, monkeypatch)
    assert warning.startswith("warning: that is nearly all memory there is; ")
    sizes = f"--set train.batch_size={fitting} --set train.grad_accum_steps={36 // fitting}"
    assert f"`{sizes}` takes the same steps in about " in warning


@pytest.mark.parametrize(("there", "fitting"), [(9.99, 6), (8.74, 4), (6.25, 4), (2.5, 1)])
def test_more_than_there_is_is_refused_with_batch_sizes_that_fit(
    config, needs, monkeypatch, there: float, fitting: int
) -> None:
    with pytest.raises(ConfigError, match="needs about 10 GiB of memory, and there are") as caught:
        notes_with(config, there, monkeypatch)
    assert caught.value.exit_code == 2
    sizes = f"--set train.batch_size={fitting} --set train.grad_accum_steps={36 // fitting}"
    assert f"`{sizes}` takes the same steps in about " in str(caught.value.hint)
    assert (1 + fitting) <= 0.8 * there


def test_no_more_micro_batches_than_the_configuration_takes_are_advised(
    config, needs, monkeypatch
) -> None:
    train = {"batch_size": 40_000, "grad_accum_steps": 65_536}
    with pytest.raises(ConfigError) as caught:
        notes_with(with_settings(config, train=train), 30_000, monkeypatch)
    assert "batch_size" not in str(caught.value.hint)


def test_where_no_batch_fits_other_keys_are_named(config, needs, monkeypatch) -> None:
    with pytest.raises(ConfigError) as caught:
        notes_with(config, 2.4, monkeypatch)
    assert "batch_size" not in str(caught.value.hint)
    assert "`model.context_length`" in str(caught.value.hint)


def test_where_nothing_is_known_a_note_says_so(config, needs, monkeypatch) -> None:
    (note,) = notes_with(config, None, monkeypatch)
    assert note == "memory      about 10 GiB; this system does not say how much there is"


def test_sizes_are_said_in_the_unit_that_people_use() -> None:
    assert in_words(312 * 2**20) == "312 MiB"
    assert in_words(41 * GIB) == "41 GiB"
