"""What the HTML files of tinygpt share: style, elements, charts, and how a page is put together.

A page needs only a browser and trusts nothing that it shows. Data goes in as JSON, and scripts show
it as text nodes, so that no document, prompt or setting can become an element. The content security
policy lets the browser load nothing and run only the script inside, which it names by its hash.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files

import numpy as np

from tinygpt.lm.weights import Array

STYLE = "base.css"


def assemble(
    package: str, shared: Sequence[str], scripts: Sequence[str], blocks: Mapping[str, str]
) -> bytes:
    """A page: `page.html` of a package with its style, its script and its data.

    Args:
        package: has page.html, page.css and the scripts beside its modules.
        shared: parts of the script that are here.
        scripts: parts of the script that are in the package; they come after.
        blocks: texts that stand in the page for `{{name}}`. They must be safe there, as
            `embedded_json` and base64 are; a placeholder in them is not replaced.
    """
    script = "".join(_read(__package__, name) for name in shared)
    script += "".join(_read(package, name) for name in scripts)
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    replacements = {
        "script hash": f"sha256-{script_hash}",
        "style": _read(__package__, STYLE) + _read(package, "page.css"),
        "script": script,
        **blocks,
    }
    parts = re.split(r"{{(.*?)}}", _read(package, "page.html"))  # in turn: text, name, text, ...
    parts[1::2] = [replacements[name] for name in parts[1::2]]
    return "".join(parts).encode("utf-8")


def _read(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text("utf-8")


def embedded_json(value: object) -> str:
    """JSON that may stand in a script element.

    It is ASCII, and no character in it can end the element or begin another: `<`, `>` and `&` are
    escaped.

    Raises:
        ValueError: a number outside an array is NaN or infinite.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), default=to_numbers)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def to_numbers(values: Array) -> object:
    """Nested lists of numbers: floats to five digits, None for NaN and infinity."""
    if values.dtype.kind == "i":
        return values.tolist()
    if values.ndim:
        return [to_numbers(value) for value in values]
    number = float(values)
    return float(f"{number:.5g}") if np.isfinite(number) else None
