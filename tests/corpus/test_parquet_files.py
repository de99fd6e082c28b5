"""Parquet: one column of text, of any Arrow type, whatever stands beside it."""

import io
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.corpus.reading import read, write
from tests.proofs.figures import RecordFigure, Size
from tinygpt.corpus import files, parquet_files
from tinygpt.errors import InputError

TEXTS = ["A cat.", None, "ünï\0 \U0001f600"]
EXPECTED = ["A cat.", "", "ünï\0 \U0001f600"]


def parquet(table: pa.Table, **options: object) -> bytes:
    buffer = io.BytesIO()
    try:
        pq.write_table(table, buffer, **options)
    except pa.ArrowNotImplementedError as error:
        pytest.skip(f"this pyarrow cannot write it: {error}")
    return buffer.getvalue()


def read_bytes(folder: Path, data: bytes, field: str = "text") -> list[str]:
    return read(write(folder / "a.parquet", data), field=field)


ENCODED = [text and text.encode() for text in TEXTS]
TEXT_COLUMNS = {
    "string": pa.array(TEXTS),
    "large_string": pa.array(TEXTS, pa.large_string()),
    "dictionary": pa.array(TEXTS).dictionary_encode(),
    "binary": pa.array(ENCODED),
    "large_binary": pa.array(ENCODED, pa.large_binary()),
    "string_view": pa.array(TEXTS, pa.string_view()),
    "binary_view": pa.array(ENCODED, pa.binary_view()),
    "dictionary of binary": pa.array(ENCODED).dictionary_encode(),
}


@pytest.mark.parametrize("kind", TEXT_COLUMNS)
def test_a_column_of_text_or_of_bytes_in_utf_8_is_read(tmp_path, kind):
    assert read_bytes(tmp_path, parquet(pa.table({"text": TEXT_COLUMNS[kind]}))) == EXPECTED


def test_a_column_of_nulls_is_empty(tmp_path):
    assert read_bytes(tmp_path, parquet(pa.table({"text": pa.nulls(2)}))) == ["", ""]


UUIDS = pa.array([b"0123456789abcdef"] * 3, pa.binary(16))
BESIDE = {
    "map": pa.array([[("a", 1)]] * 3, pa.map_(pa.string(), pa.int64())),
    "uuid": pa.ExtensionArray.from_storage(pa.uuid(), UUIDS),
    "list_view": pa.array([[1], [2], None], pa.list_view(pa.int64())),
    "fixed_size_list": pa.array([[1, 2]] * 3, pa.list_(pa.int8(), 2)),
    "float16": pa.array(np.arange(3, dtype=np.float16)),
    "decimal256": pa.array([1, 2, 3], pa.decimal256(50, 2)),
    "duration": pa.array([1, 2, 3], pa.duration("s")),
    "struct": pa.array([{"text": 1}] * 3),
    "text.x": pa.array([1, 2, 3]),
}
"""Columns of types some of which pandas and `datasets` cannot read."""


@pytest.mark.parametrize("name", BESIDE)
def test_whatever_stands_beside_the_text_is_not_read(tmp_path, name):
    table = pa.table({name: BESIDE[name], "text": TEXTS})
    assert read_bytes(tmp_path, parquet(table)) == EXPECTED


def test_metadata_of_other_libraries_is_not_read(tmp_path):
    features = b'{"info": {"features": {"text": {"_type": "FromTheFuture"}}}}'
    metadata = {b"huggingface": features, b"pandas": b"no JSON"}
    table = pa.table({"text": TEXTS}).replace_schema_metadata(metadata)
    assert read_bytes(tmp_path, parquet(table)) == EXPECTED


def test_a_damaged_column_beside_the_text_is_not_read(tmp_path):
    whole = parquet(pa.table({"text": TEXTS, "n": ["UNIQUE"] * 3}), compression="none")
    assert (
        read_bytes(tmp_path, whole.replace(b"UNIQUE", b"\xff\xff\xff\xff\xff\xff", 1)) == EXPECTED
    )


def nested() -> pa.Table:
    inner = [pa.array(["A cat.", "A dog.", "A cow."]), pa.array([1, 2, 3])]
    missing = pa.array([False, True, False])
    story = pa.StructArray.from_arrays(inner, ["text", "n"], mask=missing)
    return pa.table({"id": [1, 2, 3], "story": story})


def test_a_path_names_a_nested_field_unless_a_column_has_that_very_name(tmp_path):
    data = parquet(nested())
    assert read_bytes(tmp_path, data, "story.text") == ["A cat.", "", "A cow."]
    both = nested().append_column("story.text", pa.array(["a", "b", "c"]))
    assert read_bytes(tmp_path, parquet(both), "story.text") == ["a", "b", "c"]


TWICE = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
MESSAGES = [{"role": "user", "content": "A cat."}]


@pytest.mark.parametrize(
    ("table", "field", "message"),
    [
        (nested(), "text", "no field `text`; fields present: `id`, `story.text`, `story.n`"),
        (
            nested(),
            "story",
            r"row 1: the field `story` holds \{'text': 'A cat.', 'n': 1\}, not text",
        ),
        (pa.table({"m": [MESSAGES]}), "m.content", "no field `m.content`; fields present: `m`"),
        (pa.table({"m": [MESSAGES]}), "m", r"row 1: the field `m` holds \[\{"),
        (pa.table({"text": [None, 5]}), "text", "row 2: the field `text` holds 5, not text"),
        (
            pa.table({"text": [b"A", b"caf\xe9"]}),
            "text",
            "row 2: `text` is not UTF-8 .byte 0xe9 at",
        ),
        (TWICE, "text", "2 columns have the name `text`"),
    ],
)
def test_a_column_without_text_is_refused(tmp_path, table, field, message):
    with pytest.raises(InputError, match=message):
        read_bytes(tmp_path, parquet(table), field)


def test_a_string_that_is_not_utf_8_is_refused_with_its_row(tmp_path):
    offsets = pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0")
    wrong = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"A\xff")])
    with pytest.raises(InputError, match=r"row 2: `text` is not UTF-8 \(byte 0xff"):
        read_bytes(tmp_path, parquet(pa.table({"text": wrong})))


def test_every_compression_and_a_compressed_file_are_read(tmp_path):
    table = pa.table({"text": TEXTS * 100})
    for codec in ("none", "snappy", "gzip", "brotli", "zstd", "lz4"):
        data = parquet(table, compression=codec, row_group_size=7)
        assert read_bytes(tmp_path, data) == EXPECTED * 100
    assert read(write(tmp_path / "a.parquet.gz", data)) == EXPECTED * 100
    with pa.CompressedOutputStream(str(tmp_path / "a.parquet.zst"), "zstd") as stream:
        stream.write(data)
    assert read(tmp_path / "a.parquet.zst") == EXPECTED * 100


def test_damaged_and_hostile_files_are_refused_or_read_and_nothing_else_happens(
    tmp_path, size: Size, figure: RecordFigure
):
    data = parquet(pa.table({"text": [f"Cat {n}." for n in range(20)]}), row_group_size=7)
    rng = random.Random(0)
    outcomes = set()
    files = size(300, 300, 3_000)
    for _ in range(files):
        damaged = bytearray(data[: rng.choice([len(data), len(data), rng.randrange(len(data))])])
        for place in rng.choices(range(len(damaged)), k=rng.randrange(4)) if damaged else ():
            damaged[place] = rng.randrange(256)
        try:
            outcomes.add(len(read_bytes(tmp_path, bytes(damaged))) > 0)
        except InputError as error:
            outcomes.add(error.message.partition(" ")[0].rstrip(",:"))
    assert {True, "`a.parquet`"} <= outcomes <= {True, False, "`a.parquet`"}
    figure("columns", "damaged Parquet files, each read or refused", files, seed=0)


def test_a_page_whose_checksum_is_wrong_is_refused(tmp_path):
    table = pa.table({"text": ["A cat sat."]})
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    data = parquet(table, write_page_checksum=True, **options)
    with pytest.raises(InputError, match=r"`a\.parquet` cannot be read as Parquet"):
        read_bytes(tmp_path, data.replace(b"A cat sat.", b"A dog sat."))


def test_one_row_group_of_one_column_is_in_memory(tmp_path):
    rng = random.Random(0)
    text = pa.array([rng.randbytes(5_000).hex() for _ in range(200)])
    schema = pa.schema({"text": pa.string(), "other": pa.string()})
    path = tmp_path / "a.parquet"
    with pq.ParquetWriter(path, schema) as writer:
        for _ in range(10):
            writer.write_table(pa.table({"text": text, "other": text}))
    (file,) = files.find(str(path))
    before = pa.total_allocated_bytes()
    peak = 0
    for _ in parquet_files.documents(file, "text"):
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert peak < 8_000_000  # the column has 20 MB, a row group of it 2 MB


@pytest.mark.full
def test_a_process_that_has_loaded_torch_reads_and_ends(tmp_path):
    # with threads of pyarrow that read ahead, one in four was aborted when it ended
    path = write(tmp_path / "a.parquet", parquet(pa.table({"text": TEXTS})))
    code = "import sys, torch; from tests.corpus.reading import read; print(read(sys.argv[1]))"
    for _ in range(6):
        done = subprocess.run(
            [sys.executable, "-c", code, path], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
