"""One look for all pictures, and their bytes.

Colours are those of Okabe & Ito (2008), told apart by colour-blind people; lines differ in dash or marker as well, so that
black-and-white print keeps the meaning. Settings of the person who runs this do not enter: equal numbers, equal bytes.
"""

import io
from contextlib import AbstractContextManager
from typing import Any, Literal

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

Format = Literal["png", "svg"]

FONT = "DejaVu Sans"  # comes with matplotlib: the same on every machine
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#767676"

# Without parse_math a `$` in a story is a dollar
_SETTINGS: Any = dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon", "text.parse_math"), False)
_SETTINGS |= {"font.family": FONT, "font.size": 9, "axes.titlesize": 10}
_SETTINGS |= {"axes.grid": True, "axes.axisbelow": True, "grid.color": "#e4e4e4"}
_SETTINGS |= {"savefig.dpi": 120, "svg.fonttype": "path", "svg.hashsalt": "tinygpt"}


def style() -> AbstractContextManager[None]:
    """The region in which figures are made and drawn."""
    return matplotlib.style.context(_SETTINGS, after_reset=True)


def to_bytes(figure: Figure, format: Format) -> bytes:
    """The picture as a file, without date or program version; call inside style()."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=format, metadata={"Software": None} if format == "png" else {"Date": None, "Creator": None})
    return buffer.getvalue()


def add_axes(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches from the lower left corner."""
    across, up = figure.get_size_inches()
    return figure.add_axes((x / across, y / up, width / across, height / up))


def legend_below(figure: Figure) -> Figure:
    """The figure with one legend for all axes, each name once; call when everything is drawn."""
    entries = {name: handle for axes in figure.axes for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=min(len(entries), 8))
    return figure


def drawable(text: str) -> str:
    """The text with every character that the font lacks spelled as its code point, e.g., ⟨1F600⟩."""
    font = get_font(findfont(FONT))
    return "".join(c if c.isprintable() and font.get_char_index(ord(c)) else f"⟨{ord(c):X}⟩" for c in text)


def layer_lines(count: int) -> list[dict[str, Any]]:
    """How the lines of each layer look and are called: from light to dark, dashes in turn."""
    shades, dashes = matplotlib.colormaps["viridis_r"](np.linspace(0.15, 1, count)), ("-", "--", "-.", ":")
    return [{"color": to_hex(shade), "ls": dashes[i % 4], "lw": 1.3, "label": f"layer {i}"} for i, shade in enumerate(shades)]
