"""What the screen shows: counts as people say them, tables, progress. The product goes to stdout, all else to stderr."""

import os
import re
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from tinygpt.report import duration

if TYPE_CHECKING:
    from rich.progress import Progress, Task

# C0 (but newline and tab), DEL, C1, direction and format controls, lone surrogates: what can move a cursor or reorder a line.
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def escape(text: str) -> str:
    """Untrusted text with its control characters spelled out: ESC becomes `\\x1b`, a right-to-left override `\\u202e`."""
    return _UNSAFE.sub(lambda match: f"\\x{ord(match[0]):02x}" if match[0] <= "\xff" else f"\\u{ord(match[0]):04x}", text)


def escape_json(text: str) -> str:
    """The same for JSON, which stays JSON: only `\\uXXXX` is an escape there."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}" if match[0] != "\r" else "", text)


def number(value: float) -> str:
    """4 figures at most: 9,999 · 12.4 k · 3.06 M."""
    for limit, scale, unit in ((999.5e6, 1e9, "G"), (999.5e3, 1e6, "M"), (9_999.5, 1e3, "k")):
        if abs(value) >= limit:
            return f"{value / scale:.3g} {unit}"
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 999.5 else f"{value:.3g}"


def count(value: int, singular: str, plural: str | None = None) -> str:
    """1 file · 3 files · 12.4 M tokens."""
    return f"{number(value)} {singular if value == 1 else plural or singular + 's'}"


def size(value: int) -> str:
    """312 bytes · 12.4 kB · 7.4 MB."""
    return count(value, "byte") if value < 9_999.5 else f"{number(value)}B"


def columns(stream: TextIO) -> int | None:
    """Width of the terminal behind a stream, or what COLUMNS says; None where lines may be as long as they are."""
    if (said := os.environ.get("COLUMNS", "")).isdigit() and int(said) > 0:
        return int(said)
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None


def table(title: str, rows: Sequence[tuple[str, str]], width: int | None = None) -> str:
    """A title and two columns; a value that is too wide goes on below itself."""
    label_width = max((len(escape(label)) for label, _ in rows), default=0)
    lines = [f"  {escape(label).ljust(label_width)}  {escape(value)}".rstrip() for label, value in rows]
    if width is not None:
        below = " " * (label_width + 4)
        wrapper = textwrap.TextWrapper(width, subsequent_indent=below, break_long_words=False, break_on_hyphens=False)
        lines = [wrapper.fill(line) for line in lines]
    return "\n".join([escape(title), *lines])


def _figure(name: str, value: float) -> str:
    if name.endswith("_per_second"):
        return f"{number(round(value))} {name.removesuffix('_per_second').replace('_', ' ')}/s"
    return f"{name.replace('_', ' ')} {value:.4g}"


class Screen:
    """The Report of the command line: a live bar on a terminal, elsewhere a line every few seconds.

    Args:
        mode: `runtime.progress`: auto, bar, plain or none.
        quiet: only the product is shown.
        stream: generated text is passed on to stdout as it is made.
        rephrase: applied to every note, e.g., to spell commands as the user typed them.
    """

    def __init__(self, mode: str, *, quiet: bool, stream: bool = False, rephrase: Callable[[str], str] = str) -> None:
        self.mode, self.quiet, self.stream, self.rephrase = mode, quiet, stream, rephrase
        if mode == "auto":
            self.mode = "bar" if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else "plain"
        self.progress: Progress | None = None
        self._figures: dict[str, float] = {}
        self._shown = 0.0
        self._line_open = False

    def task(self, title: str, total: int | None = None, *, unit: str = "", done: int = 0) -> None:
        self.close()
        if self.quiet or self.mode == "none":
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._figures, self._shown = {}, time.monotonic()
        said = [TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[said]}")]
        console = Console(file=sys.stderr, highlight=False, markup=False, emoji=False)
        options = {"transient": True, "redirect_stdout": False, "redirect_stderr": False, "disable": self.mode != "bar"}
        self.progress = Progress(said[0], BarColumn(_width() // 5), said[1], console=console, get_time=time.monotonic, **options)
        self.progress.add_task(escape(title), total=total, completed=done, unit=unit, said="")
        self.progress.start()

    def advance(self, amount: int = 1, **figures: float) -> None:
        if self.progress is None:
            return
        task, now = self.progress.tasks[0], time.monotonic()
        self.progress.advance(task.id, amount)
        self._figures |= figures
        if now - self._shown < (0.1 if self.mode == "bar" else 5.0):
            return
        self._shown = now
        if self.mode == "bar":
            self.progress.update(task.id, said=self._line(task, _width() * 4 // 5 - len(task.description) - 3))
        else:
            self._say(f"{task.description}  {self._line(task, _width() - len(task.description) - 2)}")

    def _line(self, task: "Task", width: int) -> str:
        """Count, time left and figures, as many of them as fit."""
        total = f"/{task.total:,}" if task.total is not None else ""
        pieces = [f"{task.completed:,}{total} {task.fields['unit']}".rstrip()]
        if task.time_remaining:
            pieces.append(f"ETA {duration(task.time_remaining)}")
        pieces += [_figure(name, value) for name, value in self._figures.items()]
        while len(pieces) > 1 and len("  ".join(pieces)) > width:
            pieces.pop()
        return "  ".join(pieces)

    def note(self, text: str) -> None:
        if not self.quiet:
            self._say(escape(self.rephrase(text)))

    def result(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        """The one table that ends a stage."""
        self.close()
        if not self.quiet:
            self._say(table(title, rows, columns(sys.stderr)))

    def product(self, text: str) -> None:
        if self.stream and text:
            self.close()
            self._line_open = not text.endswith("\n")
            say_product(text, end="")

    def _say(self, text: str) -> None:
        if self._line_open:
            say_product("")
            self._line_open = False
        if self.progress is not None:
            self.progress.console.print(text, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)  # noqa: T201

    def close(self) -> None:
        """Take the progress off the screen."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


def _width() -> int:
    return columns(sys.stderr) or 120


def say_note(text: str) -> None:
    """Say a line on stderr, escaped."""
    print(escape(text), file=sys.stderr, flush=True)  # noqa: T201


def say_product(text: str, *, end: str = "\n") -> None:
    """Write the product to stdout, escaped."""
    print(escape(text), end=end, flush=True)  # noqa: T201


def say_json(value: object, *, indent: int | None = 2) -> None:
    """One JSON object (or list) on stdout."""
    import json

    print(escape_json(json.dumps(value, indent=indent, ensure_ascii=False)), flush=True)  # noqa: T201


def say_xray(story: Mapping[str, Any]) -> None:
    """How sure the model was of each token, a line each, on stdout; a terminal that has colours shades the token by it."""
    shades = (203, 209, 215, 221, 191, 155, 120)  # red to green, of the 256 colours; the text on them is black
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    print(f"{'token':<14}{'probability':>11}{'entropy':>11}  alternatives")  # noqa: T201
    for token in story["xray"]:
        word, chance = repr(token["token"]), token["probability"]
        shade = f"\x1b[38;5;16;48;5;{shades[int(chance * 6.999)]}m{word}\x1b[0m" if coloured else word
        others = "  ".join(f"{other['token']!r} {other['probability']:.1%}" for other in token["alternatives"])
        print(f"{shade}{' ' * (14 - len(word))}{chance:>11.1%}{token['entropy']:>6.2f} bits  {others}", flush=True)  # noqa: T201
