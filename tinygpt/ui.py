"""What the screen shows: counts as people say them, tables, progress. The product goes to stdout, all else to stderr."""

import os
import re
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.live import Live

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
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def count(value: int, singular: str, plural: str | None = None) -> str:
    """1 file · 3 files · 12.4 M tokens."""
    return f"{number(value)} {singular if value == 1 else plural or singular + 's'}"


def size(value: int) -> str:
    """312 bytes · 1.2 kB · 7.4 MB."""
    if value < 1_000:
        return count(value, "byte")
    scale, unit = next((scale, unit) for scale, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if value >= scale)
    return f"{value / scale:.3g} {unit}"


def duration(seconds: float) -> str:
    """0.4 s · 20 s · 1 min 20 s · 2 h 5 min · 3 days 4 h."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    amounts = (whole // 86_400, whole // 3_600 % 24, whole // 60 % 60, whole % 60)
    said = [f"{amount} {unit}" for amount, unit in zip(amounts, ("days", "h", "min", "s"), strict=True)]
    first = next(index for index, amount in enumerate(amounts) if amount)
    return " ".join(said[index] for index in range(first, min(first + 2, 4)) if amounts[index]).replace("1 days", "1 day")


def columns(stream: TextIO) -> int | None:
    """Width of the terminal behind a stream, or what COLUMNS says; None where lines may be as long as they are."""
    if (said := os.environ.get("COLUMNS", "")).isdigit() and int(said) > 0:
        return int(said)
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None


def table(title: str, rows: Sequence[tuple[str, str]], width: int | None) -> str:
    """A title and two columns; where a row is too wide, the value goes below its label and is wrapped between words."""
    lines = [escape(title)]
    label_width = max((len(escape(label)) for label, _ in rows), default=0)
    for label, value in ((escape(label), escape(value)) for label, value in rows):
        line = f"  {label.ljust(label_width)}  {value}".rstrip()
        if width is None or len(line) <= width:
            lines.append(line)
            continue
        lines.append(f"  {label}")
        wrapped = textwrap.wrap(value, max(width - 4, 10), break_long_words=False, break_on_hyphens=False)
        lines += [f"    {part}" for part in wrapped]
    return "\n".join(lines)


@dataclass
class Task:
    """What a progress line is made from."""

    title: str
    total: int | None
    unit: str
    done: int
    started: float
    first: int
    figures: dict[str, float] = field(default_factory=dict)

    def line(self, now: float, width: int, *, bar: str = "") -> str:
        """Title, count, figures and time left, as many as fit in `width`; the rest is a bar of the two characters in `bar`."""
        counted = f"{self.done:,}/{self.total:,}" if self.total is not None else f"{self.done:,}"
        head = [self.title, f"{counted} {self.unit}".rstrip()]
        figures = [_figure(name, value) for name, value in self.figures.items()]
        left = ""
        if self.total is not None and self.done > self.first:
            left = f"ETA {duration((now - self.started) / (self.done - self.first) * (self.total - self.done))}"
        room = width - len("  ".join(head))
        shown: list[str] = []
        for piece in [left, *figures]:
            if piece and len(piece) + 2 <= room:
                room -= len(piece) + 2
                shown.append(piece)
        if bar and self.total and room >= 8:
            cells = min(room - 2, 30)
            full = round(cells * min(self.done / self.total, 1))
            head.insert(1, bar[0] * full + bar[1] * (cells - full))
        return "  ".join([*head, *(piece for piece in [*figures, left] if piece in shown)])[:width]


def _figure(name: str, value: float) -> str:
    if name.endswith("_per_second"):
        return f"{number(round(value))} {name.removesuffix('_per_second').replace('_', ' ')}/s"
    return f"{name.replace('_', ' ')} {value:.4g}"


class PlainReport:
    """A Report in plain lines: one when a task begins to take time, then one every few seconds.

    Args:
        every: seconds between lines; None shows no progress.
        quiet: notes and tables are not shown either.
        stream: generated text is passed on to stdout as it is made.
        rephrase: applied to every note, e.g., to spell commands as the user typed them.
    """

    def __init__(
        self,
        *,
        every: float | None = 5.0,
        quiet: bool = False,
        stream: bool = False,
        rephrase: Callable[[str], str] = str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.every, self.quiet, self.stream, self.rephrase, self.clock = every, quiet, stream, rephrase, clock
        self.current: Task | None = None
        self._shown = 0.0
        self._line_open = False

    def task(self, title: str, total: int | None = None, *, unit: str = "", done: int = 0) -> None:
        self.close()
        self._shown = self.clock()
        self.current = Task(escape(title), total, unit, done, self._shown, done)

    def advance(self, amount: int = 1, **figures: float) -> None:
        if self.current is None:
            return
        self.current.done += amount
        self.current.figures.update(figures)
        self._draw()

    def _draw(self) -> None:
        now = self.clock()
        if self.current and self.every is not None and now - self._shown >= self.every:
            self._shown = now
            self._say(self.current.line(now, columns(sys.stderr) or 120))

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
        print(text, file=sys.stderr, flush=True)  # noqa: T201

    def close(self) -> None:
        """Take the progress line off the screen."""
        self.current = None


class BarReport(PlainReport):
    """A Report with a live line at the bottom of the terminal."""

    live: "Live | None" = None

    def task(self, title: str, total: int | None = None, *, unit: str = "", done: int = 0) -> None:
        super().task(title, total, unit=unit, done=done)
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console(file=sys.stderr, highlight=False)
        bar = "━╌" if "utf" in (console.encoding or "").lower() else "#."

        def draw() -> Text:
            line = self.current.line(self.clock(), max(console.width - 1, 10), bar=bar) if self.current else ""
            return Text(line, no_wrap=True, overflow="crop")

        self.live = Live(
            console=console,
            get_renderable=draw,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self.live.start()

    def _draw(self) -> None:
        """The live line redraws itself."""

    def _say(self, text: str) -> None:
        if self.live is None:
            return super()._say(text)
        self.live.console.print(text, markup=False, soft_wrap=True)

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None
        super().close()


def make_report(mode: str, *, quiet: bool, stream: bool, rephrase: Callable[[str], str]) -> PlainReport:
    """The Report for this terminal.

    Args:
        mode: `runtime.progress`: auto, bar, plain or none.
    """
    on_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    if not quiet and (mode == "bar" or (mode == "auto" and on_terminal)):
        return BarReport(stream=stream, rephrase=rephrase)
    return PlainReport(every=None if quiet or mode == "none" else 5.0, quiet=quiet, stream=stream, rephrase=rephrase)


def say_note(text: str) -> None:
    """Say a line on stderr, escaped."""
    print(escape(text), file=sys.stderr, flush=True)  # noqa: T201


def say_product(text: str, *, end: str = "\n") -> None:
    """Write the product to stdout, escaped."""
    print(escape(text), end=end, flush=True)  # noqa: T201


def say_json(value: object) -> None:
    """One JSON object (or list) on stdout."""
    import json

    print(escape_json(json.dumps(value, indent=2, ensure_ascii=False)), flush=True)  # noqa: T201


def failure(message: str, hint: str | None, *, is_mistake: bool = True) -> str:
    """The one form of an error; a run that was asked to stop is none."""
    return escape(("error: " if is_mistake else "") + message + (f"\n\nhint: {hint}" if hint else ""))
