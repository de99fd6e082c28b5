"""Writes html_page/unicode.js: which characters the `tokenizers` library takes for what.

A browser's own `\\p{L}` follows the Unicode version of the browser. Token ids must be those of the
library, whatever the browser; run this again when a new library knows more characters.
"""

import itertools
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel

TARGET = Path(__file__).parents[1] / "tinygpt" / "html_page" / "unicode.js"
SURROGATES = range(0xD800, 0xE000)
CODE_POINTS = 0x110000
LINE = 96
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

HEAD = """\
// Letters, numbers and white space as the `tokenizers` library knows them; written by
// tools/unicode_classes.py. A browser's own classes depend on its version. Of each class: how many
// characters to skip, then how many belong to it, in turn, in base 36.
"""


def character_class(pretokenizer: ByteLevel, character: str) -> str:
    """The class of a character in GPT-2's pattern: LETTERS, NUMBERS, SPACES, or "" for others."""
    ends = [end for _, (_, end) in pretokenizer.pre_tokenize_str(f"a{character}1")]
    if ends == [2, 3]:
        return "LETTERS"
    if ends == [1, 3] and character != " ":  # a space belongs to what follows
        return "NUMBERS"
    joins = len(pretokenizer.pre_tokenize_str(f"!{character}!")) == 1
    return "" if joins else "SPACES"


def classes() -> dict[str, list[int]]:
    """The code points of each class, ascending."""
    pretokenizer = ByteLevel(add_prefix_space=False)
    found: dict[str, list[int]] = {"LETTERS": [], "NUMBERS": [], "SPACES": []}
    for code_point in range(CODE_POINTS):
        if code_point in SURROGATES:
            continue
        name = character_class(pretokenizer, chr(code_point))
        if name:
            found[name].append(code_point)
    return found


def run_lengths(code_points: list[int]) -> list[int]:
    """How many to skip and how many to take, in turn."""
    members = set(code_points)
    inside = (code_point in members for code_point in range(code_points[-1] + 1))
    return [len(list(run)) for _, run in itertools.groupby(inside)]


def base_36(number: int) -> str:
    """A number in base 36, as JavaScript's parseInt reads it."""
    digits = DIGITS[number % 36]
    return base_36(number // 36) + digits if number >= 36 else digits


def script(found: dict[str, list[int]]) -> str:
    """The text of unicode.js."""
    parts = [HEAD]
    for name, code_points in found.items():
        numbers = " ".join(map(base_36, run_lengths(code_points)))
        lines = []
        while numbers:
            cut = len(numbers) if len(numbers) <= LINE else numbers.rindex(" ", 0, LINE)
            lines.append(numbers[:cut])
            numbers = numbers[cut + 1 :]
        parts.append(f"const {name} = `\n" + "\n".join(lines) + "`;\n")
    return "".join(parts)


if __name__ == "__main__":
    TARGET.write_text(script(classes()), "utf-8")
