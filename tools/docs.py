"""Rewrites what files repeat of the program: tinygpt.toml, preset reference, blocks of documents.

Between `<!-- config:start -->` and `<!-- config:end -->` stands the configuration, between
`<!-- help:start COMMAND -->` and `<!-- help:end -->` the help of a command (of tinygpt itself, if
none is named), between `<!-- figures:start GUARANTEE -->` and `<!-- figures:end -->` what
docs/proof.json holds of a guarantee (where it was recorded, if none is named).
"""

import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
HELP_COLUMNS = 100  # of the terminal on which the help of a command is printed
MAX_COLUMNS = 120  # of a document

_BLOCK = re.compile(
    r"(?P<start><!-- (?P<kind>config|help|figures):start ?(?P<command>[\w -]*?) ?-->\n)"
    r".*?"
    r"(?P<end><!-- (?P=kind):end -->)",
    re.DOTALL,
)


def documents() -> list[Path]:
    """The documents of the checkout."""
    return [
        *sorted(ROOT.glob("*.md")),
        *sorted((ROOT / "docs").glob("*.md")),
        ROOT / "artifacts" / "README.md",
    ]


def generated(text: str) -> str:
    """The document with every generated block as the program has it now."""

    def block(found: re.Match[str]) -> str:
        match found["kind"]:
            case "config":
                content = config_reference()
            case "help":
                content = help_block(found["command"])
            case _:
                content = figures_block(found["command"], text[: found.start()])
        return found["start"] + content + found["end"]

    return _BLOCK.sub(block, text)


def figures_block(guarantee: str, before: str) -> str:
    """What docs/proof.json holds of a guarantee, as items of a list.

    Args:
        before: the document up to the block; its last section names the proofs.
    """
    from tools import proofs

    sections = proofs.read()
    if not guarantee:
        return _wrap(proofs.setting(sections)) + "\n"
    files = re.findall(r"`(tests/[\w/]+\.py)`", before.rpartition("\n### ")[2])
    items = proofs.lines(guarantee, sections, files)
    return "".join(_wrap(f"- {item}", indent="  ") + "\n" for item in items)


def config_reference() -> str:
    """Every key with its default, its meaning and its values, under a heading for each table."""
    from tinygpt.config.fields import FIELDS, TABLES

    blocks = []
    for table, fields in TABLES.items():
        meaning = (fields.__doc__ or "").splitlines()[0]
        items = [key_item(name) for name in FIELDS if name.startswith(f"{table}.")]
        blocks.append(f"\n## `[{table}]`\n\n{_wrap(meaning)}\n\n" + "\n".join(items) + "\n")
    return "".join(blocks) + "\n"


def key_item(name: str) -> str:
    """A key as an item of a list; a row of a table would be too wide."""
    from tinygpt.config.fields import FIELDS, requirement, spell

    field = FIELDS[name]
    setting = f"- **`{name}`** = `{spell(field.default)}`"
    return _wrap(f"{setting}: {field.description}. *Takes {requirement(name)}.*", indent="  ")


def _wrap(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text,
        MAX_COLUMNS,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def help_block(command: str = "") -> str:
    """What `tinygpt COMMAND --help` prints on a terminal of HELP_COLUMNS columns."""
    from typer.testing import CliRunner

    from tinygpt.cli.app import app

    result = CliRunner(env={"COLUMNS": str(HELP_COLUMNS)}).invoke(
        app,
        [*command.split(), "--help"],
        prog_name="tinygpt",
        terminal_width=HELP_COLUMNS,
    )
    if result.exit_code:
        raise SystemExit(f"`tinygpt {command} --help` failed: {result.output}")
    typed = " ".join(["tinygpt", *command.split(), "--help"])
    return f"\n```console\n$ {typed}\n{result.stdout.strip()}\n```\n\n"


def main() -> None:
    """Rewrite the files that differ, and name them."""
    from tinygpt.config import Config, render

    reference = render(Config(), "toml")
    wanted = {
        ROOT / "tinygpt.toml": reference,
        ROOT / "tinygpt" / "presets" / "reference.toml": reference,
    }
    for path in documents():
        wanted[path] = generated(path.read_text(encoding="utf-8"))
    for path, text in wanted.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8", newline="\n")
            print(f"rewrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # the documents of this checkout are about its own program
    main()
