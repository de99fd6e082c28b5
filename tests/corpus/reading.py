"""Files for tests, and how they are read."""

import gzip
from pathlib import Path

from tinygpt.config import DataConfig
from tinygpt.corpus import files, readers
from tinygpt.corpus.division import divide
from tinygpt.progress import Reporter, SilentReporter


def write(path: Path, data: str | bytes) -> Path:
    """Write a file, compressed if its name ends in .gz."""
    content = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def read(
    path: Path | str,
    field: str = "text",
    reporter: Reporter | None = None,
    *,
    separator: str = "auto",
) -> list[str]:
    """The texts in files, empty ones included."""
    reporter = reporter or SilentReporter()
    found = files.find(str(path), reporter)
    rules = divide(found, separator, reporter).rules
    data = DataConfig(text_field=field)
    return list(readers.documents(found, data, reporter, rules))
