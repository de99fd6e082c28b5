"""Where documents come from: the hub, files, standard input, or tinygpt's own generator."""

import gzip
import itertools
import json
from collections.abc import Iterator
from typing import BinaryIO

from tinygpt.config.source import BuiltinSource, FileSource, HubSource, parse_source
from tinygpt.config.tables import DataConfig
from tinygpt.corpus import builtin, files, readers
from tinygpt.progress import Reporter
from tinygpt.records import SourceRecord


def fingerprint(data: DataConfig) -> str:
    """A hash or name of the content of `data.source`, which replaces its spelling in the cache key.

    Files: a hash of names and bytes. Hub: `org/name@commit`. Builtin: generator version and seed.

    Raises:
        InputError: there is no such file or dataset.
        NetworkError: the hub is needed and cannot be reached.
    """
    match parse_source(data.source):
        case BuiltinSource(seed):
            return f"builtin:{builtin.VERSION}:{seed}"
        case HubSource() as source:
            from tinygpt.corpus import hub

            return hub.fingerprint(source)
        case FileSource(pattern):
            return files.fingerprint(files.find(pattern))


class Documents:
    """The documents of a source as Unicode text, cleaned if asked; iterate once.

    There are at most `data.max_documents` of them.

    Args:
        data: the table [data].
        reporter: receives notes on how a file is read, and on a connection that broke.

    Attributes:
        empty: documents without a visible character, which are dropped.
        repaired: documents with half a surrogate pair, which UTF-8 cannot encode; U+FFFD replaces
            it.
        source: the source for programs.
        title: the source for people.

    Raises:
        InputError: the source is missing or malformed; while iterating, too.
        NetworkError: the hub is needed and cannot be reached.
    """

    source: SourceRecord

    def __init__(self, data: DataConfig, reporter: Reporter) -> None:
        self.empty = 0
        self.repaired = 0
        self._data = data
        self._texts: Iterator[str]
        match parse_source(data.source):
            case BuiltinSource(seed):
                self.title = f"builtin, seed {seed}: {builtin.LABEL}"
                self.source = {"kind": "builtin", "seed": seed, "label": builtin.LABEL}
                count = data.max_documents or builtin.DEFAULT_STORIES
                self._texts = itertools.islice(builtin.stories(seed), count)
            case HubSource() as source:
                from tinygpt.corpus import hub

                self.title = f"{source.repo}, split {data.split}"
                self.source = {"kind": "hub", "name": source.repo, "split": data.split}
                self._texts = hub.documents(source, data.split, data.text_field, reporter)
            case FileSource(pattern):
                found = files.find(pattern)
                self.title = "1 file" if len(found) == 1 else f"{len(found):,} files"
                self.source = {"kind": "files", "files": len(found)}
                self._texts = readers.documents(found, data.text_field, reporter)

    def __iter__(self) -> Iterator[str]:
        return itertools.islice(self._not_empty(), self._data.max_documents)

    def _not_empty(self) -> Iterator[str]:
        for text in self._texts:
            document = self._repair(text)
            if document.strip():
                yield document
            else:
                self.empty += 1

    def _repair(self, text: str) -> str:
        if self._data.clean:
            from ftfy import fix_encoding

            text = fix_encoding(text)
        if text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text):
            return text
        self.repaired += 1
        # UTF-16 joins the halves of a pair; a half that is left over becomes U+FFFD
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def read_documents(stream: BinaryIO) -> Iterator[str]:
    """The documents of a corpus artifact, from its `documents.jsonl.gz`."""
    with gzip.GzipFile(fileobj=stream) as lines:
        for line in lines:
            yield json.loads(line)
