"""Rewrites what files repeat of the program: tinygpt.toml, preset reference, and blocks of the documents.

Between `<!-- config:start -->` and `<!-- config:end -->` stand the tables of the configuration, between
`<!-- help:start COMMAND -->` and `<!-- help:end -->` the help of a command (of tinygpt itself, if none is named).
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WIDTH = 100
_BLOCK = re.compile(r"(<!-- (config|help):start ?([a-z -]*?) ?-->\n).*?(<!-- \2:end -->)", re.DOTALL)


def documents() -> list[Path]:
    """The documents of the checkout."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "artifacts" / "README.md"]


def generated(text: str) -> str:
    """The document with every generated block as the program has it now."""
    makers = {"config": config_tables, "help": help_block}
    return _BLOCK.sub(lambda match: f"{match[1]}{makers[match[2]](match[3])}{match[4]}", text)


def config_tables(_: str = "") -> str:
    """Every key with its default, its values and its meaning, a table for each table."""
    from tinygpt.config.fields import FIELDS, TABLES, requirement, spell

    lines = []
    for table, fields in TABLES.items():
        lines += [
            f"\n**`[{table}]`** {fields.__doc__.splitlines()[0]}\n",
            "| key | default | values | meaning |",
            "|---|---|---|---|",
        ]
        for key in fields.model_fields:
            field = FIELDS[f"{table}.{key}"]
            values = requirement(f"{table}.{key}").replace("|", "\\|")
            lines.append(f"| `{key}` | `{spell(field.default)}` | {values} | {field.description} |")
    return "\n".join(lines) + "\n\n"


def help_block(command: str = "") -> str:
    """What `tinygpt COMMAND --help` prints on a terminal of 100 columns."""
    from typer.testing import CliRunner

    from tinygpt.cli import app

    result = CliRunner(env={"COLUMNS": str(WIDTH)}).invoke(
        app, [*command.split(), "--help"], prog_name="tinygpt", terminal_width=WIDTH
    )
    if result.exit_code:
        raise SystemExit(f"`tinygpt {command} --help` failed: {result.output}")
    return f"\n```console\n$ tinygpt {command}{' ' if command else ''}--help\n{result.stdout.strip()}\n```\n\n"


def main() -> None:
    """Rewrite the files that differ and name them."""
    from tinygpt.config import Config, render

    reference = render(Config(), "toml")
    after = {ROOT / "tinygpt.toml": reference, ROOT / "tinygpt" / "presets" / "reference.toml": reference}
    after |= {path: generated(path.read_text(encoding="utf-8")) for path in documents()}
    for path, text in after.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8", newline="\n")
            print(f"rewrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # the documents of this checkout speak of its own program
    main()
