"""Bytes as lines: encodings that are read, and what is said of the others."""

import gzip
import io
import zipfile

import pytest

from tests.corpus.reading import read, write
from tinygpt.corpus.decoding import likely_encoding, lines
from tinygpt.corpus.files import DocumentFile
from tinygpt.errors import InputError

ENGLISH = "Once upon a time there was a cat.\nIt sat on a mat.\n"
TEXTS = {
    "latin1": "Il était une fois un élève très curieux,\nqui rêvait d'été à Nîmes.\n",
    "windows-1252": "“Übermut tut selten gut”, sagte der Müller – und ging.\n",
    "gb18030": "从前有一座山,山里有一座庙。庙里的老和尚在给小和尚讲故事,他说的是什么?\n",
    "big5": "從前有一座山,山裡有一座廟。廟裡的老和尚在給小和尚講故事,他說的是什麼?\n",
    "shift_jis": "むかしむかし、あるところに、おじいさんとおばあさんがいました。\n",
    "euc-jp": "むかしむかし、あるところに、おじいさんとおばあさんがいました。\n",
    "euc-kr": "옛날 옛날에 어느 마을에 고양이가 살았다. 고양이는 생선을 좋아했다고 한다.\n",
    "windows-1251": "Жили-были старик со старухой у самого синего моря.\n",
    "koi8-r": "Жили-были старик со старухой у самого синего моря.\n",
    "utf-16le": ENGLISH,
    "utf-16be": ENGLISH,
}
CASES = [*TEXTS.items(), ("utf-16le", TEXTS["gb18030"]), ("utf-16be", TEXTS["koi8-r"])]


@pytest.mark.parametrize(("encoding", "text"), CASES)
@pytest.mark.parametrize("repeats", [1, 50])
def test_a_text_that_is_not_utf_8_is_refused_with_the_command_that_fits(
    tmp_path, encoding, text, repeats
):
    data = (text * repeats).encode(encoding)
    with pytest.raises(InputError, match="not UTF-8") as caught:
        read(write(tmp_path / "a.txt", data))
    assert caught.value.hint == (
        f"convert it, e.g., `iconv -f {encoding} -t utf-8 old.txt > new.txt`"
    )


@pytest.mark.parametrize("encoding", TEXTS)
def test_the_advised_encoding_gives_the_text_back(encoding):
    data = TEXTS[encoding].encode(encoding)
    assert data.decode(str(likely_encoding(data))) == TEXTS[encoding]


def test_letters_far_inside_an_english_text_are_recognized(tmp_path):
    data = ENGLISH.encode() * 5_000 + TEXTS["gb18030"].encode("gb18030")
    with pytest.raises(InputError, match="line 10001: not UTF-8") as caught:
        read(write(tmp_path / "a.txt", data))
    assert "iconv -f gb18030" in str(caught.value.hint)


def word_document() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as document:
        document.writestr("word/document.xml", ENGLISH * 20)
        document.writestr("[Content_Types].xml", "<Types/>")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data", [word_document(), b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8], ids=["Word", "PNG"]
)
def test_bytes_that_are_no_text_are_not_to_be_converted(tmp_path, data):
    with pytest.raises(InputError, match="not UTF-8") as caught:
        read(write(tmp_path / "a.docx", data))
    assert caught.value.hint == "it is not text; save the text in it as a file in UTF-8"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("text", [ENGLISH, TEXTS["gb18030"], "🙂\n"])
def test_a_byte_order_mark_says_how_a_text_is_read(tmp_path, encoding, text):
    assert read(write(tmp_path / "a.txt", text.encode(encoding))) == [text.strip()]
    assert read(write(tmp_path / "b.txt.gz", text.encode(encoding))) == [text.strip()]


def test_big_endian_marks_are_known_too(tmp_path):
    data = "\ufeffOnce.".encode("utf-16be")
    assert read(write(tmp_path / "a.txt", data)) == ["Once."]


def test_half_a_character_of_utf_16_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"`a\.txt`: not UTF-16"):
        read(write(tmp_path / "a.txt", ENGLISH.encode("utf-16")[:-1]))


def test_a_few_nul_characters_stay_in_a_text(tmp_path):
    assert read(write(tmp_path / "a.txt", "Once \0 upon a time.")) == ["Once \0 upon a time."]


def test_gzip_is_recognized_without_its_suffix(tmp_path):
    assert read(write(tmp_path / "a.txt", gzip.compress(b"Once."))) == ["Once."]
    assert read(write(tmp_path / "stories", gzip.compress(b"Once."))) == ["Once."]
    assert read(write(tmp_path / "a.jsonl", gzip.compress(b'{"text": "Once."}'))) == ["Once."]


def test_line_ends_stay_where_the_caller_wants_them(tmp_path):
    file = DocumentFile(write(tmp_path / "a", b"\xef\xbb\xbfa\r\nb\rc\n"), "a", ".txt")
    assert list(lines(file)) == ["a\n", "b\n", "c\n"]
    assert list(lines(file, newline="")) == ["a\r\n", "b\r", "c\n"]


def test_the_line_of_a_wrong_byte_is_named(tmp_path):
    with pytest.raises(InputError, match=r"line 3: not UTF-8 \(byte 0xe9 at position 4\)"):
        read(write(tmp_path / "a.txt", b"a\n\ncaf\xe9\n"))
