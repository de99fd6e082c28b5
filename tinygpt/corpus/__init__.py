"""Where stories come from: the hub, files, standard input, or tinygpt itself. Each is an iterator of texts."""

import gzip
import itertools
import json
from collections.abc import Iterator
from typing import BinaryIO

from tinygpt.config.source import BuiltinSource, FileSource, HubSource, parse_source
from tinygpt.config.tables import DataConfig
from tinygpt.corpus import builtin, files, readers
from tinygpt.report import Report


def fingerprint(data: DataConfig) -> str:
    """What `data.source` holds, to stand in the corpus key instead of its spelling.

    Files: a hash of names and bytes. Hub: `org/name@commit`. Builtin: generator version and seed.

    Raises:
        InputError: there is no such file or data set.
        NetworkError: the hub is needed and not there.
    """
    match parse_source(data.source):
        case BuiltinSource(seed):
            return f"builtin:{builtin.VERSION}:{seed}"
        case HubSource() as source:
            from tinygpt.corpus import hub

            return hub.fingerprint(source)
        case FileSource(pattern):
            return files.fingerprint(files.find(pattern))


class Stories:
    """The stories of a source as Unicode text, at most `data.max_stories`, cleaned if asked; iterate once.

    Args:
        data: the table [data].
        report: told how a file is read, and of a connection that broke.

    Attributes:
        empty: texts without a visible character, which are dropped.
        repaired: stories in which half a surrogate pair, which UTF-8 cannot hold, became U+FFFD.
        source: what they are, for programs; no path and no commit, so that equal stories give equal artifacts.
        title: the same for people.

    Raises:
        InputError: the source is not what it should be; while iterating, too.
        NetworkError: the hub is needed and not there.
    """

    def __init__(self, data: DataConfig, report: Report) -> None:
        self.empty = self.repaired = 0
        self._data = data
        match parse_source(data.source):
            case BuiltinSource(seed):
                self.title = f"builtin, seed {seed}: {builtin.LABEL}"
                self.source: dict[str, str | int] = {"kind": "builtin", "seed": seed, "label": builtin.LABEL}
                self._texts: Iterator[str] = itertools.islice(builtin.stories(seed), data.max_stories or builtin.DEFAULT_STORIES)
            case HubSource() as source:
                from tinygpt.corpus import hub

                self.title = f"{source.repo}, split {data.split}"
                self.source = {"kind": "hub", "name": source.repo, "split": data.split}
                self._texts = hub.stories(source, data.split, data.text_field, report)
            case FileSource(pattern):
                found = files.find(pattern)
                self.title = "1 file" if len(found) == 1 else f"{len(found):,} files"
                self.source = {"kind": "files", "files": len(found)}
                self._texts = readers.stories(found, data.text_field, report)

    def __iter__(self) -> Iterator[str]:
        return itertools.islice(self._kept(), self._data.max_stories)

    def _kept(self) -> Iterator[str]:
        for text in self._texts:
            if self._data.clean:
                from ftfy import fix_encoding

                text = fix_encoding(text)
            if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
                text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
                self.repaired += 1
            if text.strip():
                yield text
            else:
                self.empty += 1


def read_stories(stream: BinaryIO) -> Iterator[str]:
    """The stories of a corpus artifact, from its `stories.jsonl.gz`."""
    with gzip.GzipFile(fileobj=stream) as lines:
        for line in lines:
            yield json.loads(line)
