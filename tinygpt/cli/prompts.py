"""The prompt of `tinygpt sample`: typed, in a file, or line by line."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tinygpt.errors import InputError

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
            yield _checked(line, "standard input") or None


def read_prompt(path: Path) -> str:
    """The prompt in a file; `-` is standard input.

    Raises:
        InputError: it cannot be read, is too long or is not UTF-8.
    """
    try:
        with sys.stdin.buffer if str(path) == "-" else path.open("rb") as stream:
            data = stream.read(MAX_PROMPT_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"cannot read the prompt in `{path}`: {error.strerror}", hint="check the path"
        ) from error
    return _checked(data, str(path))


def _checked(data: bytes, source: str) -> str:
    if len(data) > MAX_PROMPT_BYTES:
        raise InputError(
            f"the prompt in `{source}` is longer than {MAX_PROMPT_BYTES:,} bytes", hint="shorten it"
        )
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"the prompt in `{source}` is not UTF-8 (byte {error.start:,})",
            hint="convert it to UTF-8",
        ) from error
