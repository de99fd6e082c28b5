"""What must not be in an export: where it was made, by whom, and on which machine."""

from pathlib import Path

PRIVATE = "ada-of-these-tests"
"""The name of the user and of the machine; see the fixture `hostname`."""


def private_in(export: Path, folder: Path) -> list[str]:
    """Which of the names stand in an export, in a file or in a file's name.

    Args:
        folder: another name that must not: where the test writes.
    """
    found = []
    for private in (PRIVATE, str(folder), str(Path.home())):
        for path in sorted(export.rglob("*")):
            name = str(path.relative_to(export))
            if private in name or (path.is_file() and private.encode() in path.read_bytes()):
                found.append(private)
                break
    return found
