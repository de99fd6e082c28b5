"""The bytes of a text file as lines of Unicode, and what to type where they are not UTF-8."""

import codecs
import io
import re
import zlib
from collections.abc import Iterator

from tinygpt.corpus.fields import reason
from tinygpt.corpus.files import DocumentFile, marked_encoding
from tinygpt.errors import InputError

MAX_DOCUMENT = 256 << 20  # bytes, or characters of a line: they are in memory several times
TOO_LONG = f"a line or document of more than {MAX_DOCUMENT >> 20} MiB, which is too long"
DIVIDE = "divide it into documents, e.g., by blank lines, see `data.separator`"
_SAMPLE = 1 << 16
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_HAN = "的一是不了在人有我他"
_KANA = "ぁ-んァ-ヶ"
_CYRILLIC = "а-я"
_LIKELY = (
    ("shift_jis", _KANA, 0.2),
    ("euc-jp", _KANA, 0.2),
    ("euc-kr", "이는을를의가다고", 0.1),
    ("gb18030", _HAN, 0.03),
    ("big5", _HAN, 0.03),
    ("windows-1251", _CYRILLIC, 0.7),
    ("koi8-r", _CYRILLIC, 0.7),
)
"""Encodings, frequent letters, and the share of these among the characters beyond ASCII."""


def lines(file: DocumentFile, newline: str | None = None) -> Iterator[str]:
    """The lines of a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Byte order marks at the start of a line are dropped: files that were joined have them inside.

    Args:
        file: the file.
        newline: None to end each line in LF, also where the file has CR or CR-LF; "" to leave line
            ends as they are.

    Raises:
        InputError: the file cannot be read, or is in another encoding; the message names the line,
            the hint what to type.
    """
    try:
        with file.open() as stream:
            head = stream.read(_SAMPLE)
        encoding = marked_encoding(head) or "utf-8"
        # UTF-16 without a mark may be UTF-8 by chance: each letter and a control character
        if encoding == "utf-8" and len(_CONTROL.findall(head)) * 10 > len(head):
            raise InputError(f"`{file.name}`: not UTF-8 (control characters)", hint=advice(head))
        with file.open() as stream, io.TextIOWrapper(stream, encoding, newline=newline) as text:
            while line := text.readline(MAX_DOCUMENT):
                if len(line) == MAX_DOCUMENT:
                    raise InputError(f"`{file.name}` has {TOO_LONG}", hint=DIVIDE)
                yield line.lstrip("\ufeff")
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise InputError(f"`{file.name}`: not {encoding.upper()} ({error.reason})") from error
        raise _not_utf_8(file) from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read `{file.name}`: {reason(error)}") from error


def _not_utf_8(file: DocumentFile) -> InputError:
    """The error for a file that is not UTF-8, with the line in which that shows."""
    with file.open() as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                byte = f"byte 0x{line[error.start]:02x} at position {error.start + 1}"
                around = line[max(0, error.start - _SAMPLE) : error.start + _SAMPLE]
                sample = around + stream.read(_SAMPLE)
                return InputError(
                    f"`{file.name}`, line {number}: not UTF-8 ({byte})", hint=advice(sample)
                )
    return InputError(f"`{file.name}` changed while it was read", hint="run the command again")


def advice(sample: bytes) -> str:
    """What to do with bytes that are not UTF-8."""
    encoding = likely_encoding(sample)
    if encoding is None:
        return "it is not text; save the text in it as a file in UTF-8"
    return f"convert it, e.g., `iconv -f {encoding} -t utf-8 old.txt > new.txt`"


def likely_encoding(sample: bytes) -> str | None:
    """The encoding of bytes that are not UTF-8, in iconv's spelling; None if they are not text.

    Letters beyond ASCII stand alone in the languages of Western Europe. In others they stand
    together, and in the right encoding some of them are frequent.
    """
    if 0 in sample:
        # what every text in UTF-16 has: white space, letters of ASCII, or commas and periods
        shares = {
            name: _share(sample, name, r"[\sa-z,.，。、]") for name in ("utf-16le", "utf-16be")
        }
        likeliest = max(shares, key=shares.__getitem__)
        return likeliest if shares[likeliest] > 0.05 else None
    runs = re.findall(rb"[\x80-\xff]+", sample)
    if sum(map(len, runs)) >= 1.5 * len(runs):
        for encoding, letters, share in _LIKELY:
            if _share(sample, encoding, f"[{letters}]", among=r"[^\0-\x7f]") >= share:
                return encoding
    # ISO 8859-1 has no visible character there, Windows its quotation marks and dashes
    return "windows-1252" if re.search(rb"[\x80-\x9f]", sample) else "latin1"


def _share(sample: bytes, encoding: str, letters: str, among: str = "(?s).") -> float:
    """The share of some characters among others; 0 if the bytes are not in this encoding."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeDecodeError:
        return 0
    return len(re.findall(letters, text)) / max(1, len(re.findall(among, text)))
