"""Prints how many lines of code the package and its lm/ hold, and fails beyond the budget of docs/design.md, section 1.

Blank lines, comments and docstrings are free: they are what the code is read by.
"""

import ast
import io
import sys
import tokenize
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "tinygpt"
BUDGETS = {PACKAGE: 6_000, PACKAGE / "lm": 1_600}
_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def code_lines(source: str) -> int:
    """Lines of `source` that hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def main() -> int:
    """Print one line for each budget; 1 if one is broken."""
    within = True
    for folder, budget in BUDGETS.items():
        files = {path: code_lines(path.read_text(encoding="utf-8")) for path in folder.rglob("*.py")}
        count = sum(files.values())
        within &= count <= budget
        print(f"{folder.relative_to(PACKAGE.parent)}/: {count:,} lines of code in {len(files)} files, of {budget:,} allowed")
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
