"""One look for all pictures, and their bytes.

Colours are those of Okabe & Ito (2008), told apart by colour-blind people; lines differ in dash or marker as well, so that
black-and-white print keeps the meaning. Settings of the person who runs this do not enter: equal numbers, equal bytes.
"""

import functools
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font

Array = np.ndarray[Any, np.dtype[Any]]
Format = Literal["png", "svg"]

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#767676"

_SETTINGS: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "text.parse_math": False,  # a `$` in a story is a dollar
    "svg.hashsalt": "tinygpt",
    "svg.fonttype": "path",
    "savefig.dpi": 120,
}


@contextmanager
def style() -> Iterator[None]:
    """The region in which figures are made and drawn."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def new_figure(width: float, height: float, *, constrained: bool = True) -> Figure:
    """An empty figure of that size in inches, known to no window system; call inside style()."""
    figure = Figure(figsize=(width, height), layout="constrained" if constrained else None)
    FigureCanvasAgg(figure)
    return figure


def grid(figure: Figure, rows: int, columns: int, **options: Any) -> Array:
    """Axes in a grid, (rows, columns), whatever the numbers."""
    return cast(Array, figure.subplots(rows, columns, squeeze=False, **options))


def to_bytes(figure: Figure, format: Format) -> bytes:
    """The picture as a file, without date or program version; call inside style()."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=format, metadata={"Software": None} if format == "png" else {"Date": None, "Creator": None})
    return buffer.getvalue()


def drawable(text: str) -> str:
    """The text with every character that the font lacks spelled as its code point, e.g., ⟨1F600⟩."""
    known = _characters()
    return "".join(c if ord(c) in known and c.isprintable() else f"⟨{ord(c):X}⟩" for c in text)


@functools.cache
def _characters() -> frozenset[int]:
    font = FT2Font(font_manager.findfont("DejaVu Sans"))
    return frozenset(font.get_charmap())


def mark_steps(axes: Axes, steps: Array) -> None:
    """A logarithmic step axis with plain numbers, also for a single step."""
    axes.set_xscale("log")
    low, high = float(steps.min()), float(steps.max())
    axes.set_xlim(low / 1.15, high * 1.15)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else "")
    axes.xaxis.set_minor_formatter("")


def layer_lines(count: int) -> list[dict[str, Any]]:
    """How the lines of each layer look: from light to dark, dashes in turn."""
    shades = [to_hex(matplotlib.colormaps["viridis_r"](0.15 + 0.85 * i / max(count - 1, 1))) for i in range(count)]
    return [{"color": shade, "ls": ("-", "--", "-.", ":")[i % 4], "lw": 1.3} for i, shade in enumerate(shades)]
