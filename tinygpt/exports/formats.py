"""The formats in which a model leaves tinygpt."""

from collections.abc import Callable
from pathlib import Path

from tinygpt.errors import UsageError
from tinygpt.exports.model import ModelToExport
from tinygpt.exports.target import ExportFolder, new_folder
from tinygpt.runs.trained_weights import Note, ignore

Write = Callable[[ModelToExport, ExportFolder, str, Note], str]
"""Writes a model as the number format says, checks what it wrote, and returns one line about it."""

FORMATS = {
    "hf": ("f32", "f16", "bf16"),
    "gguf": ("f32", "f16", "q8_0"),
    "csv": (),
    "tensorboard": (),
}
"""The number formats of the weights, the default first; none for a format without weights."""


def _writer(kind: str) -> Write:
    """The function `write` of a format."""
    if kind == "hf":
        from tinygpt.exports.hugging_face import write
    elif kind == "gguf":
        from tinygpt.exports.gguf_file import write
    elif kind == "csv":
        from tinygpt.exports.csv_tables import write
    else:
        from tinygpt.exports.tensorboard import write
    return write


def check_format(kind: str, dtype: str | None) -> str:
    """The number format to write.

    Args:
        kind: name of a format.
        dtype: as the user named it; None for the format's default.
    Returns:
        One of the format's dtypes; "" for a format without weights.
    Raises:
        UsageError: there is no such format, or it has no such dtype.
    """
    if kind not in FORMATS:
        known = ", ".join(f"`{name}`" for name in FORMATS)
        raise UsageError(f"there is no format `{kind}`", hint=f"`--to` takes {known}")
    dtypes = FORMATS[kind]
    if dtype is None:
        return dtypes[0] if dtypes else ""
    if not dtypes:
        raise UsageError(f"`--dtype {dtype}`: {kind} holds no weights", hint="leave it out")
    if dtype not in dtypes:
        known = ", ".join(f"`{name}`" for name in dtypes)
        raise UsageError(f"{kind} has no number format `{dtype}`", hint=f"`--dtype` takes {known}")
    return dtype


def export(
    model: ModelToExport,
    target: Path,
    kind: str,
    dtype: str | None = None,
    force: bool = False,
    note: Note = ignore,
) -> str:
    """Write a model to a new folder and check what was written.

    Args:
        target, force: see new_folder.
        kind, dtype: see check_format.
        note: receives what else is to be said.
    Returns:
        One line: what the check compared, and the largest difference.
    Raises:
        UsageError: format, dtype or target cannot be used.
        ConfigError: the format cannot express the model.
        VerificationError: what was written is not the model; nothing is left of it.
        StorageError: the system refuses to write it.
    """
    chosen = check_format(kind, dtype)
    write = _writer(kind)
    with new_folder(target, kind, force) as out:
        return write(model, out, chosen, note)
