"""The documents of a store that are something else, and documents too long for memory."""

import gzip
import io
import json
import tracemalloc
from pathlib import Path

import pytest

from tests.helpers import Notes
from tinygpt.config import Config, DataConfig
from tinygpt.corpus import Documents, decoding, read_documents
from tinygpt.errors import CorruptArtifactError, InputError
from tinygpt.hashing import Key, hash_json
from tinygpt.progress import SilentReporter
from tinygpt.stages import corpus
from tinygpt.store import Store

PACKED = gzip.compress(b'"Once"\n"upon"\n', mtime=0)


def test_documents_come_back_as_they_were() -> None:
    assert list(read_documents(io.BytesIO(PACKED))) == ["Once", "upon"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PACKED[:-9],
        PACKED + b"junk",
        b'"Once"\n',
        gzip.compress(b'"Once"\n\n"upon"\n', mtime=0),
        gzip.compress(b'"Once\n', mtime=0),
        gzip.compress(b'["Once"]\n', mtime=0),
        gzip.compress(b"3\n", mtime=0),
        gzip.compress(b'"\xff"\n', mtime=0),
        gzip.compress(b"[" * 200_000, mtime=0),
        PACKED[:12] + b"\xff\xff" + PACKED[14:],
    ],
)
def test_a_file_of_something_else_is_refused_with_the_command_that_makes_it_again(
    data: bytes,
) -> None:
    if data == b"":
        assert list(read_documents(io.BytesIO(data))) == []  # too little text, says who divides it
        return
    with pytest.raises(CorruptArtifactError, match=r"documents\.jsonl\.gz") as caught:
        list(read_documents(io.BytesIO(data)))
    assert caught.value.hint == "`tinygpt run --until corpus --force` makes it again"


@pytest.mark.full
def test_a_document_that_unpacks_to_gigabytes_is_refused_before_it_is_there() -> None:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as lines:
        lines.write(b'"')
        for _ in range(1500):
            lines.write(b"a" * (1 << 20))
    packed.seek(0)
    tracemalloc.start()
    with pytest.raises(CorruptArtifactError, match="268,435,456 bytes"):
        next(read_documents(packed))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 600 << 20


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv"])
def test_a_line_that_is_too_long_is_refused_with_the_name_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(decoding, "MAX_DOCUMENT", 1000)
    text = "word " * 250
    rows = {"a.txt": text, "a.jsonl": json.dumps({"text": text}), "a.csv": f'text\n"{text}"\n'}
    (tmp_path / name).write_text(rows[name], encoding="utf-8")
    with pytest.raises(InputError, match=f"{name}` has a line or document of more than") as caught:
        list(Documents(DataConfig(source=str(tmp_path / name)), Notes()))
    assert "data.separator" in str(caught.value.hint)


def test_a_document_of_many_lines_that_is_too_long_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("Once upon a time.\n" * 200, encoding="utf-8")
    data = DataConfig(source=str(tmp_path / "a.txt"), separator="file")
    monkeypatch.setattr(corpus, "MAX_DOCUMENT", 1000)
    out = Store(tmp_path / "store").begin("corpus", Key(hash_json("test")))
    with pytest.raises(InputError, match="has a line or document of more than"):
        corpus.run(Config(data=data), {}, out, SilentReporter())
    out.discard()
