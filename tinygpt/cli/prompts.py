"""The prompt of `tinygpt sample`: typed, in a file, or line by line; a text file of `plot`."""

import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tinygpt.errors import InputError
from tinygpt.progress import Reporter

if TYPE_CHECKING:
    from tinygpt.config import DataConfig
    from tinygpt.records import DatasetMeta

MAX_PROMPT_BYTES = 1 << 20


def typed_prompts(prompt: str | None) -> Iterator[str | None]:
    """The prompt already given, then one line of standard input after the other.

    An empty line, None, lets the model begin.
    """
    if prompt is not None:
        yield prompt
    with suppress(ImportError):
        import readline  # noqa: F401  lets `input` edit, and remember
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="surrogateescape")  # what is not UTF-8 is found below
    mark = "> " if sys.stdin.isatty() and sys.stdout.isatty() else ""
    with suppress(EOFError):
        while True:
            line = input(mark).encode(errors="surrogateescape")
            yield _decoded(line, "standard input") or None


def read_prompt(path: Path, data: "DataConfig", reporter: Reporter) -> str:
    """The prompt in a file; `-` is standard input.

    A text is one prompt, without a byte order mark and its last line end; other line ends become
    LF. Of JSON, CSV and Parquet, the first document is the prompt.

    Raises:
        InputError: it cannot be read, is too long or is not UTF-8.
    """
    from tinygpt.corpus.files import DocumentFile

    file = DocumentFile(path, path.name, path.name)
    if file.format != ".txt":
        return first_document(path, data, reporter)
    source = "standard input" if str(path) == "-" else str(path)
    try:
        if str(path) == "-":
            content = sys.stdin.buffer.read(MAX_PROMPT_BYTES + 1)
        else:
            # what comes through a pipe can be opened only once, and is not compressed
            with file.open() if path.is_file() else path.open("rb") as stream:
                content = stream.read(MAX_PROMPT_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot read the prompt in `{source}`: {reason}", hint="check the path"
        ) from error
    text = _decoded(content, source).replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")
    reporter.note(f"prompt: {len(text):,} characters from `{source}`")
    return text


def first_document(
    path: Path, data: "DataConfig", reporter: Reporter, trained_on: "DatasetMeta | None" = None
) -> str:
    """The first document of a file, read by the rules of [data].

    Raises:
        InputError: see given.read_given.
    """
    from tinygpt.corpus.given import read_given

    texts = read_given(str(path), data, reporter, trained_on).documents
    which = "the only document" if len(texts) == 1 else f"the first of {len(texts):,} documents"
    reporter.note(f"text: {which} in `{path}`, {len(texts[0]):,} characters")
    return texts[0]


def note_last_space(prompt: str | None, reporter: Reporter) -> None:
    """Note that a prompt ends in a space, which is rarely meant."""
    if prompt is not None and prompt.endswith(" "):
        reporter.note(
            "the prompt ends in a space; most tokens begin with theirs, so a prompt without it is "
            "usually continued better"
        )


def _decoded(data: bytes, source: str) -> str:
    from tinygpt.corpus.decoding import advice
    from tinygpt.corpus.files import marked_encoding

    if len(data) > MAX_PROMPT_BYTES:
        raise InputError(
            f"the prompt in `{source}` is longer than {MAX_PROMPT_BYTES:,} bytes", hint="shorten it"
        )
    try:
        return data.decode(marked_encoding(data) or "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"the prompt in `{source}` is not UTF-8 (byte {error.start:,})", hint=advice(data)
        ) from error
