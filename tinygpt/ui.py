"""The screen: counts as people say them, tables, progress bars.

A command's output goes to stdout, all else to stderr.
"""

import errno
import os
import re
import stat
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from tinygpt.errors import StorageError
from tinygpt.progress import Reporter, duration

if TYPE_CHECKING:
    from rich.progress import Progress, Task

    from tinygpt.records import MetricsRow

# What can move a cursor or reorder a line: C0 (but newline and tab), DEL, C1, direction and format
# controls, lone surrogates
_UNSAFE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)

BAR_SECONDS = 0.1  # between two updates of a bar
LINE_SECONDS = 5.0  # between two progress lines where there is no bar
RED_TO_GREEN = (
    203,
    209,
    215,
    221,
    191,
    155,
    120,
)  # of the 256 colors; black text can be read on it


def escape(text: str) -> str:
    """Untrusted text with its control characters spelled out.

    ESC becomes `\\x1b`, a right-to-left override `\\u202e`.
    """

    def spell(match: re.Match[str]) -> str:
        code = ord(match[0])
        return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"

    return _UNSAFE.sub(spell, text)


def escape_json(text: str) -> str:
    """The same for JSON, which stays JSON: only `\\uXXXX` is an escape there."""

    def spell(match: re.Match[str]) -> str:
        return "" if match[0] == "\r" else f"\\u{ord(match[0]):04x}"

    return _UNSAFE.sub(spell, text)


def number(value: float) -> str:
    """At most 4 figures: 9,999 · 12.4 k · 3.06 M."""
    for limit, scale, unit in ((999.5e6, 1e9, "G"), (999.5e3, 1e6, "M"), (9_999.5, 1e3, "k")):
        if abs(value) >= limit:
            return f"{value / scale:.3g} {unit}"
    is_whole = isinstance(value, int) or abs(value) >= 999.5
    return f"{value:,.0f}" if is_whole else f"{value:.3g}"


def count(value: int, singular: str) -> str:
    """1 file · 3 files · 12.4 M tokens."""
    return f"{number(value)} {singular if value == 1 else singular + 's'}"


def size(value: int) -> str:
    """312 bytes · 12.4 kB · 7.4 MB."""
    return count(value, "byte") if value < 9_999.5 else f"{number(value)}B"


def columns(stream: TextIO) -> int | None:
    """Width of the terminal behind a stream, or what COLUMNS says; None where there is no limit."""
    from_environment = os.environ.get("COLUMNS", "")
    if from_environment.isdigit() and int(from_environment) > 0:
        return int(from_environment)
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None


def _stderr_width() -> int:
    return columns(sys.stderr) or 120


def table(title: str, rows: Sequence[tuple[str, str]], width: int | None = None) -> str:
    """A title and two columns; a value that is too wide is wrapped."""
    label_width = max((len(escape(label)) for label, _ in rows), default=0)
    lines = []
    for label, value in rows:
        line = f"  {escape(label).ljust(label_width)}  {escape(value)}".rstrip()
        lines.append(wrap(line, width, label_width + 4))
    return "\n".join([escape(title), *lines])


def wrap(line: str, width: int | None, indent: int) -> str:
    """A line that is too wide as several, all but the first indented; words are never broken."""
    if width is None:
        return line
    return textwrap.fill(
        line,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _figure(name: str, value: float) -> str:
    if name.endswith("_per_second"):
        unit = name.removesuffix("_per_second").replace("_", " ")
        return f"{number(round(value))} {unit}/s"
    return f"{name.replace('_', ' ')} {value:.4g}"


class Screen(Reporter):
    """The Reporter of the command line: a bar on a terminal, elsewhere a line every few seconds.

    Args:
        mode: `runtime.progress`: auto, bar, plain or none.
        quiet: show only the output.
        stream: pass generated text on to stdout as it is made.
        rephrase: applied to every note, e.g., to spell commands as the user typed them.

    Attributes:
        on_metrics: what receives the steps and evaluations of a run; None for nothing.
    """

    def __init__(
        self,
        mode: str,
        *,
        quiet: bool,
        stream: bool = False,
        rephrase: Callable[[str], str] = str,
    ) -> None:
        self.mode = mode
        if mode == "auto":
            has_bars = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
            self.mode = "bar" if has_bars else "plain"
        self.quiet = quiet
        self.stream = stream
        self.rephrase = rephrase
        self.progress: Progress | None = None
        self._figures: dict[str, float] = {}
        self._shown = 0.0
        self._line_open = False
        self.on_metrics: Callable[[MetricsRow], None] | None = None

    def task(self, title: str, total: int | None = None, *, unit: str = "", done: int = 0) -> None:
        self.close()
        if self.quiet or self.mode == "none":
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._figures = {}
        self._shown = time.monotonic()
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(_stderr_width() // 5),
            TextColumn("{task.fields[line]}", markup=False),
            console=Console(file=sys.stderr, highlight=False, markup=False, emoji=False),
            get_time=time.monotonic,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=self.mode != "bar",
        )
        self.progress.add_task(escape(title), total=total, completed=done, unit=unit, line="")
        with _printing("stderr"):
            self.progress.start()

    def advance(self, amount: int = 1, **figures: float) -> None:
        if self.progress is None:
            return
        task = self.progress.tasks[0]
        self.progress.advance(task.id, amount)
        self._figures |= figures
        now = time.monotonic()
        has_bar = self.mode == "bar"
        if now - self._shown < (BAR_SECONDS if has_bar else LINE_SECONDS):
            return
        self._shown = now
        title, width = task.description, _stderr_width()
        if has_bar:
            line = self._line(task, width * 4 // 5 - len(title) - 3)
            self.progress.update(task.id, line=line)
        else:
            self._print(f"{title}  {self._line(task, width - len(title) - 2)}")

    def _line(self, task: "Task", width: int) -> str:
        """Count, time left and figures, as many of them as fit."""
        total = f"/{task.total:,}" if task.total is not None else ""
        pieces = [f"{task.completed:,}{total} {task.fields['unit']}".rstrip()]
        figures = dict(self._figures)
        seconds_left = figures.pop("seconds_left", task.time_remaining)
        if seconds_left:
            pieces.append(f"ETA {duration(seconds_left)}")
        pieces += [_figure(name, value) for name, value in figures.items()]
        while len(pieces) > 1 and len("  ".join(pieces)) > width:
            pieces.pop()
        return "  ".join(pieces)

    def note(self, text: str) -> None:
        if not self.quiet:
            self._print(escape(self.rephrase(text)))

    def result(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        """The one table that ends a stage."""
        self.close()
        if not self.quiet:
            self._print(table(title, rows, columns(sys.stderr)))

    def output(self, text: str) -> None:
        if self.stream and text:
            self.close()
            self._line_open = not text.endswith("\n")
            say_output(text, end="")

    def metrics(self, row: "MetricsRow") -> None:
        if self.on_metrics is not None:
            self.on_metrics(row)

    def _print(self, text: str) -> None:
        """Print a line on stderr, above the bar."""
        if self._line_open:
            say_output("")
            self._line_open = False
        if self.progress is not None and self.mode == "bar":
            with _printing("stderr"):
                self.progress.console.print(text, soft_wrap=True)
        else:
            _print(text, to="stderr")

    def close(self) -> None:
        """Take the progress bar off the screen."""
        if self.progress is not None:
            with _printing("stderr"):
                self.progress.stop()
            self.progress = None


@contextmanager
def _printing(name: str) -> Iterator[None]:
    """Print on a standard stream in the block; a terminal that was closed is forgotten.

    Raises:
        StorageError: the stream cannot be written.
        BrokenPipeError: nobody reads it any more.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        stream = getattr(sys, name)
        if error.errno == errno.EIO and stat.S_ISCHR(os.fstat(stream.fileno()).st_mode):
            silence(stream)
            return
        called = "standard output" if name == "stdout" else "standard error"
        raise StorageError(
            f"cannot write to {called}: {os.strerror(error.errno or 0).lower()}",
            hint="send it to another file or device",
        ) from error


def silence(stream: TextIO) -> None:
    """Let a standard stream lead to the null device from now on."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _print(text: str, *, to: str = "stdout", end: str = "\n") -> None:
    with _printing(to):
        print(text, end=end, file=getattr(sys, to), flush=True)


def say_note(text: str) -> None:
    """Print a line on stderr, escaped."""
    _print(escape(text), to="stderr")


def say_output(text: str, *, end: str = "\n") -> None:
    """Print a command's output on stdout, escaped."""
    _print(escape(text), end=end)


def say_json(value: object, *, indent: int | None = 2) -> None:
    """Print one JSON object (or list) on stdout."""
    import json

    _print(escape_json(json.dumps(value, indent=indent, ensure_ascii=False)))


def say_xray(record: Mapping[str, Any]) -> None:
    """Print how sure the model was of each token, a line each, on stdout.

    A terminal that has colors shades the token by its probability.
    """
    has_colors = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    if os.environ.get("NO_COLOR"):
        has_colors = False
    _print(f"{'token':<14}{'probability':>11}{'entropy':>11}  alternatives")
    for token in record["xray"]:
        _print(_xray_line(token, has_colors=has_colors))


def _xray_line(token: Mapping[str, Any], *, has_colors: bool) -> str:
    word = repr(token["token"])
    padding = " " * (14 - len(word))
    probability, entropy = f"{token['probability']:>11.1%}", f"{token['entropy']:>6.2f} bits"
    others = [f"{other['token']!r} {other['probability']:.1%}" for other in token["alternatives"]]
    if has_colors:
        shade = RED_TO_GREEN[int(token["probability"] * (len(RED_TO_GREEN) - 0.001))]
        word = f"\x1b[38;5;16;48;5;{shade}m{word}\x1b[0m"
    return f"{word}{padding}{probability}{entropy}  {'  '.join(others)}"
