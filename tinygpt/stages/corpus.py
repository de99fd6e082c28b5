"""Stage `corpus`: the documents of `data.source` in, one compressed file of them out.

Only one document is in memory at a time.
"""

import gzip
import json

from tinygpt.config import Config
from tinygpt.corpus import Documents, fingerprint
from tinygpt.errors import InputError
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
        InputError: the source is missing, not what it should be, empty, or changed meanwhile.
        NetworkError: the hub is needed and not there.
    """
    name = config.data.source
    before = fingerprint(config.data)
    documents = Documents(config.data, reporter)
    count = size = 0
    reporter.task("read documents", config.data.max_documents, unit="documents")
    with (
        out.stream("documents.jsonl.gz") as raw,
        gzip.GzipFile("", "wb", 3, raw, mtime=0) as packed,
    ):
        for document in documents:
            packed.write(json.dumps(document, ensure_ascii=False).encode() + b"\n")
            count += 1
            size += len(document.encode())
            reporter.advance()
    if not count:
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
        "documents": count,
        "bytes": size,
        "empty": documents.empty,
        "source": documents.source,
    }
    out.json("meta.json", meta)
    rows = [
        ["source", documents.title],
        ["documents", f"{count:,}"],
        ["text", f"{size:,} bytes"],
    ]
    if documents.empty:
        rows.append(["empty", f"{documents.empty:,} dropped"])
    out.json("summary.json", {"rows": rows})
