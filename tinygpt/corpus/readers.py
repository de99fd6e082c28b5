"""Documents out of files, by format: text, JSON, CSV and Parquet, each also compressed."""

import zlib
from collections.abc import Iterator, Mapping, Sequence

from tinygpt.config.tables import DataConfig
from tinygpt.corpus import csv_files, json_files, parquet_files, text_files
from tinygpt.corpus.fields import reason
from tinygpt.corpus.files import DocumentFile
from tinygpt.corpus.text_files import Rule
from tinygpt.errors import InputError
from tinygpt.progress import Reporter, SilentReporter


def documents(
    files: Sequence[DocumentFile],
    data: DataConfig,
    reporter: Reporter,
    rules: Mapping[DocumentFile, Rule],
) -> Iterator[str]:
    """The texts in the files, in order, empty ones included.

    One document is in memory at a time; of JSON that is one array, one file; of Parquet, one column
    of a row group.

    Args:
        files: from files.find.
        data: `data.text_field` names the field of all but text.
        reporter: receives notes on how the files are read.
        rules: how each text file is divided, from division.divide.

    Raises:
        InputError: a file is not what its name says; the message names file and line.
    """
    delimiters: set[str] = set()
    for file in files:
        try:
            if not file.path.stat().st_size:
                continue
            if file.format == ".txt":
                yield from text_files.documents(file, rules[file])
            elif file.format == ".csv":
                dialect = csv_files.sniff(file, data.text_field)
                is_known = dialect.delimiter in delimiters
                delimiters.add(dialect.delimiter)
                listener = SilentReporter() if is_known else reporter
                yield from csv_files.documents(file, data.text_field, dialect, listener)
            elif file.format == ".parquet":
                yield from parquet_files.documents(file, data.text_field)
            else:
                yield from json_files.documents(file, data.text_field)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"cannot read `{file.name}`: {reason(error)}") from error
