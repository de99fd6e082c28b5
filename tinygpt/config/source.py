"""The values of `data.source`: which of three kinds of source each one names."""

import glob
import re
from pathlib import Path
from typing import NamedTuple

from tinygpt.errors import ConfigError

TEXT_SUFFIXES = (".txt", ".jsonl", ".json", ".csv", ".parquet")
_BUILTIN = re.compile(r"builtin(?:@(\d{1,18}))?")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
_GLOB = re.compile(r"[*?\[]")


class BuiltinSource(NamedTuple):
    """`builtin` or `builtin@SEED`: the stories that tinygpt generates itself."""

    seed: int


class HubSource(NamedTuple):
    """`org/name` or `org/name@revision`: a dataset of the Hugging Face hub."""

    repo: str
    revision: str | None


class FileSource(NamedTuple):
    """A file, a folder or a glob pattern; `-` for one stream from standard input."""

    pattern: str


def parse_source(spelling: str, base: Path | None = None) -> BuiltinSource | HubSource | FileSource:
    """Decide what a value of `data.source` means.

    A known suffix, a leading `.`, `~` or `/`, a glob character or an existing path makes it a file.
    Otherwise `org/name` is a dataset of the hub, and anything else is a file as well.

    Args:
        spelling: the value of `data.source`.
        base: the folder that relative paths start from; None for the working directory.

    Raises:
        ConfigError: the value cannot be a path.
    """
    if spelling == "-":
        return FileSource(spelling)
    builtin = _BUILTIN.fullmatch(spelling)
    if builtin:
        return BuiltinSource(seed=int(builtin[1] or 0))
    try:
        path = Path(spelling).expanduser()
        full_path = path if base is None else base / path
        exists = full_path.exists()
    # a home folder of an unknown user; a name longer than the system takes
    except (RuntimeError, OSError) as error:
        raise ConfigError(
            f"`data.source` = {spelling[:60]!r} is not a path that can be read"
        ) from error

    is_pattern = bool(_GLOB.search(spelling)) and not exists
    is_file = exists or is_pattern or path.is_absolute() or _looks_like_a_file(spelling)
    if not is_file and _HUB_ID.fullmatch(spelling):
        repo, _, revision = spelling.partition("@")
        return HubSource(repo, revision or None)
    if is_pattern and base is not None and not path.is_absolute():
        # only the user's own words are a pattern, not the name of the folder they start from
        return FileSource(str(Path(glob.escape(str(base))) / path))
    return FileSource(str(full_path))


def _looks_like_a_file(spelling: str) -> bool:
    lower = spelling.lower()
    has_suffix = lower.removesuffix(".gz").endswith(TEXT_SUFFIXES) or spelling.endswith(".gz")
    return has_suffix or spelling.startswith((".", "~", "\\"))
