"""Texts that a command is given, e.g., by `eval --text`, read by the rules of `data.source`."""

import glob
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tinygpt.config.source import file_pattern
from tinygpt.config.tables import DataConfig
from tinygpt.corpus import Documents, files, text_files
from tinygpt.corpus.decoding import lines
from tinygpt.corpus.files import DocumentFile
from tinygpt.errors import InputError
from tinygpt.hashing import hash_json
from tinygpt.progress import Reporter, SilentReporter
from tinygpt.records import DatasetMeta

FEW = 20
"""From fewer documents, a model does not learn where documents end."""

MARKED = {text_files.END_OF_TEXT, text_files.CHESS_GAMES, text_files.PERCENT_LINES}
"""Rules that follow what stands in a text to separate documents."""


class GivenTexts(NamedTuple):
    """What was read.

    Args:
        documents: at least one, none blank.
        left_out: bytes of text files that are in no document: separators, blank lines.
        title: what was read, for people, e.g., "1 file: blank lines separate documents".
    """

    documents: list[str]
    left_out: int
    title: str


def read_given(
    pattern: str, data: DataConfig, reporter: Reporter, trained_on: DatasetMeta | None = None
) -> GivenTexts:
    """Read the documents of files by the rules of [data], without its limit.

    With `data.separator` = auto, a text that does not mark its documents, e.g., by `<|endoftext|>`,
    is divided like the text that the model was trained on: into paragraphs, into lines, or not at
    all if that had fewer documents than FEW. For other models, and where the dataset is not known,
    the rule is that of a corpus, but two documents suffice instead of division.AT_LEAST.

    Args:
        pattern: a file, a folder or a glob pattern; `-` for standard input.
        data: the table [data]; `data.separator`, `data.text_field` and `data.clean` are used.
        reporter: receives what was read.
        trained_on: the dataset of the model, if it is known.

    Raises:
        InputError: there is no such file, it is malformed, or there is no text in it.
    """
    as_data = data.model_copy(update={"source": _path(pattern), "max_documents": None})
    if trained_on is not None:
        as_data = _divided_like(as_data, trained_on)
    documents = Documents(as_data, reporter, at_least=2)
    texts = list(documents)
    if not texts:
        raise InputError(f"`{pattern}` contains no text", hint="name a file with text in it")
    rule = documents.separation or f"texts in `{data.text_field}`"
    return GivenTexts(texts, _left_out(documents.rules), f"{documents.title}: {rule}")


def _divided_like(data: DataConfig, trained_on: DatasetMeta) -> DataConfig:
    """The settings that divide a text as the text of a dataset was divided."""
    unit = trained_on.get("unit")
    separator = "auto" if trained_on["train"]["documents"] >= FEW else "file"
    if unit is not None:
        separator = {"paragraph": "blank_lines", "line": "lines"}[unit]
    if data.separator != "auto" or separator == "auto":
        return data
    if MARKED.intersection(Documents(data, SilentReporter()).rules.values()):
        return data
    return data.model_copy(update={"separator": separator})


def given_fingerprint(pattern: str, data: DataConfig) -> str:
    """A hash of all that `read_given` depends on: names and bytes of the files, and the rules.

    Raises:
        InputError: a file is missing or cannot be read.
    """
    found = files.fingerprint(files.find(_path(pattern)))
    return f"text:{hash_json('tinygpt.text', found, data.separator, data.text_field, data.clean)}"


def _path(pattern: str) -> str:
    path = file_pattern(pattern, Path.cwd())
    # a sentence that was typed instead of a name may be too long to be a path
    if path != "-" and not glob.has_magic(path) and not os.path.exists(path):  # noqa: PTH110
        raise InputError(
            f"`{pattern[:100]}` does not exist", hint="name a file or folder with text in it"
        )
    return path


def _left_out(rules: Mapping[DocumentFile, text_files.Rule]) -> int:
    """How many bytes of text files are in no document."""
    size = 0
    for file, rule in rules.items():
        size += sum(len(line.encode()) for line in lines(file))
        size -= sum(len(document.encode()) for document in text_files.documents(file, rule))
    return size
