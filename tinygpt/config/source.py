"""The values of `data.source`: which of three kinds of source each one names."""

import glob
import os
import re
from pathlib import Path
from typing import NamedTuple

from tinygpt.errors import ConfigError

TEXT_SUFFIXES = (".txt", ".md", ".rst", ".tex", ".py")
RECORD_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
"""Files of records, each of which has a field that holds a document."""
BUILTIN_STORIES = 20_000
"""Stories that `builtin` generates unless `data.max_documents` is a number."""

HUB_DOCUMENTS = 50_000
"""Documents taken from the hub with `data.max_documents` = auto."""

SEPARATORS = ("auto", "end_of_text", "blank_lines", "lines", "file")
"""Values of `data.separator`, besides `regex:...`."""

SUFFIX = re.compile(
    rf"({'|'.join(map(re.escape, (*TEXT_SUFFIXES, *RECORD_SUFFIXES)))})(\.gz|\.zst)?$",
    re.IGNORECASE,
)
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


def file_pattern(spelling: str, base: Path) -> str:
    """A file, folder or glob pattern as an absolute path; `-`, standard input, stays.

    Args:
        spelling: what was typed; unlike `data.source`, it is never a dataset of the hub.
        base: the folder that relative paths start from.
    """
    if spelling == "-":
        return spelling
    path = os.path.expanduser(spelling)  # noqa: PTH111  (an unknown user is part of the name)
    whole = os.path.normpath(base / path)
    if _GLOB.search(path) and not os.path.exists(whole):  # noqa: PTH110  (no error if too long)
        return os.path.normpath(Path(glob.escape(str(base))) / path)
    return whole


def _looks_like_a_file(spelling: str) -> bool:
    has_suffix = SUFFIX.search(spelling) or spelling.endswith((".gz", ".zst"))
    return bool(has_suffix) or spelling.startswith((".", "~", "\\"))


def document_limit(limit: int | str | None, source: str) -> int | None:
    """The number that `data.max_documents` stands for, so that cache keys contain it.

    Args:
        limit: a number, "auto", or None for no limit, which `builtin` has to have.
        source: the value of `data.source`.
    """
    if isinstance(limit, int):
        return limit
    kind = parse_source(source)
    if isinstance(kind, BuiltinSource):
        return BUILTIN_STORIES
    return HUB_DOCUMENTS if limit == "auto" and isinstance(kind, HubSource) else None


def check_separator(separator: str) -> str:
    """The value of `data.separator`, unchanged.

    Raises:
        ConfigError: it is not one of the values, or its regular expression is malformed.
    """
    setting = f"`data.separator` = {separator!r}"
    kind, _, pattern = separator.partition(":")
    if separator not in SEPARATORS and (kind != "regex" or not pattern):
        choices = ", ".join(f"`{choice}`" for choice in SEPARATORS)
        raise ConfigError(f"{setting} is not a separator", hint=f"use {choices} or `regex:...`")
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(
            f"{setting} is not a regular expression: {error}",
            hint="write it as Python does, e.g., `regex:^%$` for lines of `%` alone",
        ) from error
    return separator
