"""Stage `corpus`: the documents of `data.source` in, one compressed file of them out.

Only one document is in memory at a time.
"""

import gzip
import json

from tinygpt.config import Config
from tinygpt.corpus import Documents, fingerprint
from tinygpt.corpus.decoding import DIVIDE, MAX_DOCUMENT, TOO_LONG
from tinygpt.corpus.division import Lengths, describe_lengths
from tinygpt.errors import ConfigError, InputError
from tinygpt.progress import Reporter
from tinygpt.records import CorpusMeta
from tinygpt.store import ArtifactWriter, Inputs


def run(config: Config, inputs: Inputs, out: ArtifactWriter, reporter: Reporter) -> None:
    """Read the source once, in order, and write every document as one JSON string a line.

    Args:
        config: [data] is used.
        inputs: none.
        out: where the artifact goes.
        reporter: receives the progress.
    Raises:
        ConfigError: a separator is set, and no file of the source is text.
        InputError: the source is missing, not what it should be, empty, or changed meanwhile.
        NetworkError: the hub is needed and not there.
    """
    name = config.data.source
    before = fingerprint(config.data)
    documents = Documents(config.data, reporter)
    if config.data.separator != "auto" and not documents.separation:
        raise ConfigError(
            f"`data.separator` = {config.data.separator!r} does not apply to `{name}`, where each "
            "record is a document",
            hint="leave it out, or `--set data.separator=auto`",
        )
    lengths = Lengths()
    size = 0
    reporter.task("read documents", documents.limit, unit="documents")
    with (
        out.stream("documents.jsonl.gz") as raw,
        gzip.GzipFile("", "wb", 3, raw, mtime=0) as packed,
    ):
        for document in documents:
            line = json.dumps(document, ensure_ascii=False).encode() + b"\n"
            if len(line) > MAX_DOCUMENT:
                raise InputError(f"`{name}` has {TOO_LONG}", hint=DIVIDE)
            packed.write(line)
            lengths[len(document)] += 1
            size += len(document.encode())
            reporter.advance()
    if not lengths:
        raise InputError(
            f"`{name}` contains no documents", hint="name another source: `--source my.txt`"
        )
    if fingerprint(config.data) != before:
        raise InputError(f"`{name}` changed while it was read", hint="run the command again")
    if documents.repaired:
        what = f"in {documents.repaired:,} of the documents"
        reporter.note(f"U+FFFD stands for half a surrogate pair {what}")
    out.provenance(source=name, fingerprint=before)
    meta: CorpusMeta = {
        "documents": lengths.total(),
        "bytes": size,
        "empty": documents.empty,
        "source": documents.source,
    }
    if documents.unit is not None:
        meta["unit"] = documents.unit
    out.json("meta.json", meta)
    out.json("summary.json", {"rows": summary(meta, documents, lengths)})


def summary(meta: CorpusMeta, documents: Documents, lengths: Lengths) -> list[list[str]]:
    """The result table."""
    rows = [["source", documents.title], ["documents", f"{meta['documents']:,}"]]
    if documents.separation:
        rows.append(["separated", documents.separation])
    rows += [["length", describe_lengths(lengths)], ["text", f"{meta['bytes']:,} bytes"]]
    if meta["empty"]:
        rows.append(["empty", f"{meta['empty']:,} dropped"])
    return rows
