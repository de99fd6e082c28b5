"""The common style of all pictures, and pictures as bytes.

Colors are those of Okabe & Ito (2008), which color-blind people can tell apart; lines differ in
dash or marker as well, so that black-and-white print keeps the meaning. The user's matplotlib
settings have no effect: equal numbers give equal bytes.
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
BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
RED = "#D55E00"
GRAY = "#767676"
DASHES = ("-", "--", "-.", ":")

_SETTINGS: Any = {
    "font.family": FONT,
    "font.size": 9,
    "text.parse_math": False,  # a `$` in a text is a dollar
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "savefig.dpi": 120,
    "svg.fonttype": "path",
    "svg.hashsalt": "tinygpt",
}

# What matplotlib writes otherwise: program version and date
_NO_METADATA: dict[Format, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}


def style() -> AbstractContextManager[None]:
    """The context in which figures are made and drawn."""
    return matplotlib.style.context(_SETTINGS, after_reset=True)


def to_bytes(figure: Figure, format: Format) -> bytes:
    """The picture as a file, without date or program version; call inside style()."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=format, metadata=_NO_METADATA[format])
    return buffer.getvalue()


def add_axes(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Add axes at a place given in inches from the lower left corner."""
    across, up = figure.get_size_inches()
    return figure.add_axes((x / across, y / up, width / across, height / up))


def legend_below(figure: Figure) -> Figure:
    """Add one legend for all axes, each name once; call when everything else is drawn."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        handles, names = axes.get_legend_handles_labels()
        entries.update(zip(names, handles, strict=True))
    columns = min(len(entries), 8)
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns)
    return figure


def drawable(text: str) -> str:
    """The text with each character that the font lacks as its code point, e.g., ⟨1F600⟩."""
    font = get_font(findfont(FONT))
    characters = []
    for character in text:
        has_glyph = character.isprintable() and font.get_char_index(ord(character))
        characters.append(character if has_glyph else f"⟨{ord(character):X}⟩")
    return "".join(characters)


def layer_lines(count: int) -> list[dict[str, Any]]:
    """Line style and label of each layer: shades from light to dark, dashes in turn."""
    shades = matplotlib.colormaps["viridis_r"](np.linspace(0.15, 1, count))
    lines = []
    for layer, shade in enumerate(shades):
        dashes = DASHES[layer % len(DASHES)]
        lines.append({"color": to_hex(shade), "ls": dashes, "lw": 1.3, "label": f"layer {layer}"})
    return lines
