"""What readers of records share: the `datasets` library, kept silent, and the text field of a record."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from tinygpt.errors import InputError

_HINT = "name the field of the stories, e.g., `--set data.text_field=story`"


def import_datasets() -> Any:
    """The `datasets` library without its bars, logs and counting of downloads.

    It counts each use, of local files too, by a request to a server of its own; that must be switched off before it is imported.
    """
    os.environ["HF_UPDATE_DOWNLOAD_COUNTS"] = "0"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    import datasets
    import huggingface_hub

    datasets.disable_progress_bars()
    for library in (datasets, huggingface_hub):
        library.utils.logging.set_verbosity(50)  # critical only: every failure reaches the user as one of our errors
    return datasets


def text_of(record: object, field: str, where: str) -> str:
    """The story in a record: the record itself where it is text, else its `field`; empty for a null.

    Raises:
        InputError: no such field, or what it holds is not text. `where` names the file and line.
    """
    if isinstance(record, str):
        return record
    if not isinstance(record, Mapping):
        raise InputError(f"{where}: expected an object with the field `{field}`, found {record!r:.60}")
    if field not in record:
        names = ", ".join(f"`{name}`" for name in record) or "none"
        raise InputError(f"{where}: no field `{field}`; fields present: {names}", hint=_HINT)
    value = record[field]
    if not isinstance(value, str | None):
        raise InputError(f"{where}: the field `{field}` holds {value!r:.60}, not text", hint=_HINT)
    return value or ""


def texts_of(dataset: Any, field: str, name: str) -> Iterator[str]:
    """One column of a streamed data set as texts.

    Raises:
        InputError: as text_of.
    """
    if dataset.column_names:  # known before the first row: columns that need a decoder (images, audio) are never touched
        text_of(dict.fromkeys(dataset.column_names), field, name)  # raises if there is no such field
        dataset = dataset.select_columns([field])
    for number, row in enumerate(dataset, 1):
        yield text_of(row, field, f"{name}, row {number}")


def reason(error: Exception) -> str:
    """The first line of what a library said, without a final period."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return text.strip().splitlines()[0].rstrip(".")
