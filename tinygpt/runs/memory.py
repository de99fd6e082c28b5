"""Does the memory that a training run needs fit into what there is?"""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from tinygpt.analysis.costs import peak_memory
from tinygpt.config import Config
from tinygpt.errors import ConfigError
from tinygpt.lm.fast.precision import choose_device, choose_precision
from tinygpt.progress import Reporter

SYSTEM = Path("/")
COMFORTABLE = 0.8  # share of the memory there is, above which other programs may suffer
MOST_MICRO_BATCHES = 65_536  # in a step, see TrainConfig.grad_accum_steps


def check_memory(config: Config, vocab_size: int, processes: int, reporter: Reporter) -> None:
    """Say how much memory training takes, before any of it is allocated.

    Args:
        config: [model], [train] and [runtime] are used.
        vocab_size: entries of the tokenizer.
        processes: that train together on this machine.
        reporter: receives the estimate, and a warning above COMFORTABLE.
    Raises:
        ConfigError: it is more than there is; with batch sizes that fit.
    """
    device = choose_device(config.runtime.device)
    precision = choose_precision(config.train.precision, device).name

    def needed(batch_size: int) -> int:
        train = config.train.model_copy(update={"batch_size": batch_size})
        return peak_memory(config.model, train, vocab_size, precision, processes)

    total = needed(config.train.batch_size)
    about = f"memory      about {in_words(total)}"
    if device.type != "cpu":
        reporter.note(f"{about}; not compared with what this {device.type} device has")
        return
    there = available_memory(processes)
    if there is None:
        reporter.note(f"{about}; this system does not say how much there is")
        return
    reporter.note(f"{about}, of {in_words(there)} there are")
    if total <= COMFORTABLE * there:
        return
    sequences = config.train.batch_size * config.train.grad_accum_steps
    fewest = math.ceil(sequences / MOST_MICRO_BATCHES)
    smaller = (
        size
        for size in range(config.train.batch_size - 1, fewest - 1, -1)
        if sequences % size == 0 and needed(size) <= COMFORTABLE * there
    )
    hint = "use a smaller `model.context_length`, `model.d_model` or `tokenizer.vocab_size`"
    if size := next(smaller, None):
        sizes = f"--set train.batch_size={size} --set train.grad_accum_steps={sequences // size}"
        hint = f"`{sizes}` takes the same steps in about {in_words(needed(size))}"
    if total > there:
        raise ConfigError(
            f"training needs about {in_words(total)} of memory, and there are {in_words(there)}",
            hint=hint,
        )
    reporter.note(f"warning: that is nearly all memory there is; {hint}")


def in_words(size: int) -> str:
    """312 MiB · 41 GiB."""
    return f"{size / 2**20:,.0f} MiB" if size < 10 * 2**30 else f"{size / 2**30:,.0f} GiB"


def available_memory(processes: int = 1, root: Path = SYSTEM) -> int | None:
    """Bytes that this process may have: what is free and what it has, or a container's limit.

    Where the system does not say what is free (macOS), all memory of the machine counts.

    Args:
        processes: that share the memory, of which this is one.
        root: the folder that holds proc and sys.
    Returns:
        None where the system does not say.
    """
    found = list(_limits(root / "proc/self/cgroup", root / "sys/fs/cgroup"))
    with suppress(OSError, ValueError, StopIteration):
        lines = (root / "proc/meminfo").read_text().splitlines()
        free = next(line for line in lines if line.startswith("MemAvailable:"))
        found.append(int(free.split()[1]) * 1024 + processes * _own_memory(root))
    if not found:
        with suppress(OSError, ValueError, AttributeError):
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found) // processes if found else None


def _own_memory(root: Path) -> int:
    """Bytes that this process has in memory."""
    pages = (root / "proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _limits(groups: Path, mounted: Path) -> Iterator[int]:
    """The limits of the Linux control groups of this process, and of those above them."""
    with suppress(OSError):
        for line in groups.read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers == "":  # version 2
                folder, file = mounted, "memory.max"
            elif "memory" in controllers.split(","):  # version 1
                folder, file = mounted / "memory", "memory.limit_in_bytes"
            else:
                continue
            for above in (PurePosixPath(group), *PurePosixPath(group).parents):
                with suppress(OSError, ValueError):  # not there, or "max"
                    yield int((folder / above.relative_to("/") / file).read_text())
