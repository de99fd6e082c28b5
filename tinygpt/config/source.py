"""What `data.source` can say, and which of the three kinds a spelling is."""

import glob
import re
from pathlib import Path
from typing import NamedTuple

from tinygpt.errors import ConfigError

TEXT_SUFFIXES = (".txt", ".jsonl", ".json", ".csv", ".parquet")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
_GLOB = re.compile(r"[*?\[]")


class BuiltinSource(NamedTuple):
    """`builtin` or `builtin@SEED`: the stories that tinygpt writes itself."""

    seed: int


class HubSource(NamedTuple):
    """`org/name` or `org/name@revision`: a data set of the Hugging Face hub."""

    repo: str
    revision: str | None


class FileSource(NamedTuple):
    """A file, a folder or a glob pattern; `-` for one stream from standard input."""

    pattern: str


def parse_source(spelling: str, base: Path | None = None) -> BuiltinSource | HubSource | FileSource:
    """Decide what a spelling of `data.source` means.

    A known suffix, a leading `.`, `~` or `/`, a glob character or an existing path makes it a file; what is left and looks like
    `org/name` is a data set of the hub.

    Args:
        spelling: the value of `data.source`.
        base: the folder that relative paths start from; None for the working directory.

    Raises:
        ConfigError: no path can be made of it.
    """
    if spelling == "-":
        return FileSource(spelling)
    if match := re.fullmatch(r"builtin(?:@(\d{1,18}))?", spelling):
        return BuiltinSource(seed=int(match[1] or 0))
    try:
        path = Path(spelling).expanduser()
        full = path if base is None else base / path
        exists = full.exists()
    except (RuntimeError, OSError) as error:  # no such user's home; a name longer than the system takes
        raise ConfigError(f"`data.source` = {spelling[:60]!r} is not a path that can be read") from error
    is_pattern = bool(_GLOB.search(spelling)) and not exists
    if is_pattern and base is not None and not path.is_absolute():
        full = Path(glob.escape(str(base))) / path  # only what the user wrote is a pattern
    has_suffix = spelling.lower().removesuffix(".gz").endswith(TEXT_SUFFIXES) or spelling.endswith(".gz")
    if has_suffix or is_pattern or exists or spelling[:1] in (".", "~", "\\") or path.is_absolute():
        return FileSource(str(full))
    if _HUB_ID.fullmatch(spelling):
        repo, _, revision = spelling.partition("@")
        return HubSource(repo, revision or None)
    return FileSource(str(full))
