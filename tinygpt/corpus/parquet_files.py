"""Parquet, one column of it: whatever else a file holds is not decoded."""

from collections.abc import Iterator
from typing import Any

from tinygpt.corpus.fields import column_of, not_utf_8, reason, text_of
from tinygpt.corpus.files import DocumentFile
from tinygpt.errors import InputError

_ROWS = 100


def documents(file: DocumentFile, field: str) -> Iterator[str]:
    """One column as texts, in order, empty for null.

    At most one row group of the column is in memory, and of a file compressed by zstd all of it.

    Args:
        file: what is read.
        field: the name of the column, or the path of a field in a struct, e.g., `story.text`.

    Raises:
        InputError: it is not Parquet, is damaged, or has no such column of text.
    """
    import pyarrow
    from pyarrow import parquet

    where = f"`{file.name}`"
    row = 0
    try:
        with file.open() as stream:
            # Parquet is read from its end; gzip can seek, zstd cannot
            source = stream if stream.seekable() else pyarrow.BufferReader(stream.read())
            # reading ahead, in threads of pyarrow, can abort a process that torch is loaded in
            table = parquet.ParquetFile(source, pre_buffer=False, page_checksum_verification=True)
            names = table.schema_arrow.names
            column_of(names if field in names else _paths(table.schema_arrow), field, where)
            for batch in table.iter_batches(_ROWS, columns=[field], use_threads=False):
                # a path has the outermost struct as its column
                name = field if field in batch.schema.names else batch.schema.names[0]
                for value in batch.column(name):
                    row += 1
                    yield _text(value, name, field, f"{where}, row {row}")
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise InputError(f"{where} cannot be read as Parquet: {reason(error)}") from error


def _text(value: Any, name: str, field: str, where: str) -> str:
    """The text in an Arrow scalar of the column `name`."""
    try:
        record = {name: value.as_py()}
    except UnicodeDecodeError as error:
        raise not_utf_8(error, field, where) from error
    return text_of(record, field, where)


def _paths(fields: Any, prefix: str = "") -> list[str]:
    """The columns of an Arrow schema, the fields of a struct by their paths."""
    from pyarrow import types

    paths: list[str] = []
    for field in fields:
        name = f"{prefix}{field.name}"
        paths += _paths(field.type, f"{name}.") if types.is_struct(field.type) else [name]
    return paths
