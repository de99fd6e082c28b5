"""Where documents come from: the hub, files, standard input, or tinygpt's own generator."""

import gzip
import itertools
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from tinygpt.config.source import BuiltinSource, FileSource, HubSource, parse_source
from tinygpt.config.tables import DataConfig
from tinygpt.corpus import builtin, division, files, readers, text_files
from tinygpt.corpus.decoding import MAX_DOCUMENT
from tinygpt.errors import CorruptArtifactError
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

    Args:
        data: the table [data].
        reporter: receives notes on how a text is divided, on files that are skipped, on a limit
            that leaves documents out, and on a connection that broke.
        at_least: documents that blank lines or line ends must give to be taken for separators.

    Attributes:
        limit: `data.max_documents`; None for none.
        empty: documents without a visible character, which are dropped.
        repaired: documents with half a surrogate pair, which UTF-8 cannot encode; U+FFFD replaces
            it.
        source: the source for programs.
        title: the source for people.
        separation: what separates the documents of text files, in words; empty without such files.
        rules: how each text file is divided.
        unit: "paragraph" or "line" if the documents of text files are such parts of a text.

    Raises:
        InputError: the source is missing or malformed; while iterating, too.
        NetworkError: the hub is needed and cannot be reached.
    """

    source: SourceRecord

    def __init__(
        self, data: DataConfig, reporter: Reporter, *, at_least: int = division.AT_LEAST
    ) -> None:
        assert data.max_documents != "auto"  # DataConfig has put a value in its place
        self.limit = data.max_documents
        self.empty = 0
        self.repaired = 0
        self.separation = ""
        self.rules: Mapping[files.DocumentFile, text_files.Rule] = {}
        self.unit: str | None = None
        self._data = data
        self._reporter = reporter
        self._texts: Iterator[str]
        match parse_source(data.source):
            case BuiltinSource(seed):
                self.title = f"builtin, seed {seed}: {builtin.LABEL}"
                self.source = {"kind": "builtin", "seed": seed, "label": builtin.LABEL}
                self._texts = builtin.stories(seed)
            case HubSource() as source:
                from tinygpt.corpus import hub

                self.title = f"{source.repo}, split {data.split}"
                self.source = {"kind": "hub", "name": source.repo, "split": data.split}
                self._texts = hub.documents(source, data.split, data.text_field, reporter)
            case FileSource(pattern):
                found = files.find(pattern, reporter)
                self.title = "1 file"
                if len(found) > 1:
                    endings = files.by_ending(file.path for file in found)
                    self.title = f"{len(found):,} files ({endings})"
                self.source = {"kind": "files", "files": len(found)}
                divided = division.divide(found, data.separator, reporter, at_least)
                self.separation = divided.words
                self.rules = divided.rules
                self.unit = divided.unit
                self._texts = readers.documents(found, data, reporter, self.rules)

    def __iter__(self) -> Iterator[str]:
        texts = self._not_empty()
        yield from itertools.islice(texts, self.limit)
        if self.limit is not None and self.source["kind"] != "builtin":
            self._note_limit(self.limit, texts)

    def _note_limit(self, limit: int, rest: Iterator[str]) -> None:
        """Report that documents are left out; those of the hub, which is slow, are not counted."""
        empty = self.empty
        if self.source["kind"] == "hub":
            taken = f"the first {limit:,} documents"
            left_out = sum(1 for _ in itertools.islice(rest, 1))
        else:
            left_out = sum(1 for _ in rest)
            taken = f"{limit:,} of {limit + left_out:,} documents"
        if left_out:
            self._reporter.note(f"{taken} are taken; all with `--set data.max_documents=none`")
        self.empty = empty  # of those taken

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


def read_documents(stream: BinaryIO, reporter: Reporter | None = None) -> Iterator[str]:
    """The documents of a corpus artifact, from its `documents.jsonl.gz`.

    Args:
        stream: the bytes of that file.
        reporter: its progress bar moves by one with each document.
    Raises:
        CorruptArtifactError: the file holds something else.
    """
    try:
        with gzip.GzipFile(fileobj=stream) as lines:
            while line := lines.readline(MAX_DOCUMENT + 1):
                document = json.loads(line) if len(line) <= MAX_DOCUMENT else None
                if not isinstance(document, str):
                    raise ValueError(f"a line is not a text of up to {MAX_DOCUMENT:,} bytes")
                if reporter is not None:
                    reporter.advance()
                yield document
    except (gzip.BadGzipFile, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise CorruptArtifactError(
            f"`documents.jsonl.gz` is not what tinygpt writes: {error}",
            hint="`tinygpt run --until corpus --force` makes it again",
        ) from error
