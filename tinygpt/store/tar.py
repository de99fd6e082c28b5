"""Plain tar files with one spelling: sorted names, no times, no owners, regular files alone.

A header is POSIX.1-1988 ustar. What is spelled in any other way is refused: links, devices,
folders, extended headers, other orders, and bytes where there have to be zeros.
"""

import os
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

BLOCK = 512  # bytes of a header; the bytes of a file are padded to a multiple of it
END = bytes(2 * BLOCK)
MAX_FILES = 100_000
_PIECE = 1 << 20
_MODE = b"0000644\0"
_NOBODY = b"0000000\0"
_MAX_NAME = 100
_MAX_PREFIX = 155
_MAX_SIZE = 8**11 - 1
_KINDS = {b"1": "a link", b"2": "a link", b"3": "a device", b"4": "a device", b"5": "a folder"}


class Entry(NamedTuple):
    """A file in a tar file.

    Args:
        size: bytes.
        offset: where its bytes begin.
    """

    name: str
    size: int
    offset: int = 0

    @property
    def padding(self) -> int:
        """Bytes of zeros that follow its own."""
        return -self.size % BLOCK


def header(entry: Entry) -> bytes:
    """The one header that a file may have.

    Raises:
        ValueError: its name is too long, or its size too large.
    """
    prefix, name = _split(entry.name)
    if not 0 <= entry.size <= _MAX_SIZE:
        raise ValueError("has more than 8 GiB")
    fields = (
        *(name.ljust(_MAX_NAME, b"\0"), _MODE, _NOBODY, _NOBODY),
        *(b"%011o\0" % entry.size, b"%011o\0" % 0, b" " * 8),
        *(b"0", bytes(100), b"ustar\x0000", bytes(64), _NOBODY, _NOBODY),
        prefix.ljust(_MAX_PREFIX, b"\0"),
    )
    block = b"".join(fields).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _split(name: str) -> tuple[bytes, bytes]:
    """The folders and the rest of a name, of which a header has to hold each."""
    data = name.encode("ascii")
    cut = data.find(b"/", max(len(data) - _MAX_NAME - 1, 0)) if len(data) > _MAX_NAME else -1
    prefix, rest = data[: max(cut, 0)], data[cut + 1 :]
    if len(prefix) > _MAX_PREFIX or len(rest) > _MAX_NAME:
        raise ValueError("has a name too long for a plain tar file")
    return prefix, rest


def read_entries(stream: BinaryIO) -> Iterator[Entry]:
    """The files in a tar file; their bytes are not read.

    Raises:
        ValueError: it is not spelled as it has to be, is cut off, or goes on after its end.
    """
    total = os.fstat(stream.fileno()).st_size
    position = 0
    last = ""
    for _ in range(MAX_FILES + 1):
        stream.seek(position)
        block = stream.read(BLOCK)
        if block == bytes(BLOCK):
            break
        entry = _read_header(block, position)
        if entry.name <= last:
            raise ValueError(f"`{entry.name}` is there twice, or out of order")
        last = entry.name
        position += BLOCK + entry.size + entry.padding
        if position + len(END) > total:
            raise ValueError(f"it is cut off: `{entry.name}` has {entry.size:,} bytes")
        yield entry
    else:
        raise ValueError(f"it holds more than {MAX_FILES:,} files")
    stream.seek(position)
    if stream.read(len(END) + 1) != END:
        raise ValueError("it goes on after its end, or is cut off")


def _read_header(block: bytes, position: int) -> Entry:
    """The file that a header describes, if `header` writes the same for it."""
    folders, name = block[345:500].rstrip(b"\0"), block[:_MAX_NAME].rstrip(b"\0")
    full = b"/".join(filter(None, (folders, name))).decode("ascii", "backslashreplace")
    if block[257:262] != b"ustar":
        raise ValueError(f"byte {position:,} does not begin a file of a plain tar file")
    kind = _KINDS.get(block[156:157], "spelled in another way than a plain file")
    try:
        entry = Entry(full, int(block[124:135], 8), position + BLOCK)
        is_plain = header(entry) == block
    except ValueError as error:
        raise ValueError(f"`{full}` is {kind}") from error
    if not is_plain:
        raise ValueError(f"`{full}` is {kind}")
    return entry


def pieces(stream: BinaryIO, entry: Entry) -> Iterator[bytes]:
    """The bytes of a file in pieces of about a megabyte.

    Raises:
        ValueError: it is cut off, or no zeros follow it.
    """
    stream.seek(entry.offset)
    left = entry.size
    while left:
        piece = stream.read(min(left, _PIECE))
        if not piece:
            raise ValueError(f"it is cut off in `{entry.name}`")
        left -= len(piece)
        yield piece
    if stream.read(entry.padding) != bytes(entry.padding):
        raise ValueError(f"`{entry.name}` is not followed by zeros")
