"""Stage `corpus`: the stories of `data.source` in, one compressed file of them out. Only one story is in memory at a time."""

import gzip
import json

from tinygpt.config import Config
from tinygpt.corpus import Stories, fingerprint
from tinygpt.errors import InputError
from tinygpt.report import Report
from tinygpt.store import Inputs, Out


def run(config: Config, inputs: Inputs, out: Out, report: Report) -> None:
    """Read the source once, in order, and write every story as one JSON string a line.

    Args:
        config: [data] is used.
        inputs: none.
        out: where the artifact goes.
        report: told the progress.
    Raises:
        InputError: the source is not there, not what it should be, empty, or changed while it was read.
        NetworkError: the hub is needed and not there.
    """
    before = fingerprint(config.data)
    stories = Stories(config.data, report)
    count = size = 0
    report.task("read stories", config.data.max_stories, unit="stories")
    with out.stream("stories.jsonl.gz") as raw, gzip.GzipFile("", "wb", 3, raw, mtime=0) as packed:
        for story in stories:
            packed.write(json.dumps(story, ensure_ascii=False).encode() + b"\n")
            count += 1
            size += len(story.encode())
            report.advance()
    if not count:
        raise InputError(f"`{config.data.source}` holds no story", hint="name another source: `--source stories.txt`")
    if fingerprint(config.data) != before:
        raise InputError(f"`{config.data.source}` changed while it was read", hint="run the command again")
    if stories.repaired:
        report.note(f"U+FFFD stands for half a surrogate pair in {stories.repaired:,} of the stories")
    out.provenance(source=config.data.source, fingerprint=before)
    out.json("meta.json", {"stories": count, "bytes": size, "empty": stories.empty, "source": stories.source})
    rows = [["source", stories.title], ["stories", f"{count:,}"], ["text", f"{size:,} bytes"]]
    if stories.empty:
        rows.append(["empty", f"{stories.empty:,} dropped"])
    out.json("summary.json", {"rows": rows})
