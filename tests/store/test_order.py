"""Every operation of the disk that makes an artifact or a checkpoint, in its order.

A file is synced before the folder that names it, all files before the manifest, everything before
the rename that makes it visible, and that rename before the result is reported. The operations of
a whole file, `create`, `write`, `chmod` and `fsync`, are one line, "file ...".
"""

import os
import re
from pathlib import Path

import pytest

from tests.store.workload import Recorder, run_one, save_checkpoint, watched
from tinygpt.hashing import Key, hash_json
from tinygpt.pipeline import check_recipe
from tinygpt.store import Store
from tinygpt.store.files import Operation
from tinygpt.store.pack import pack
from tinygpt.store.unpack import unpack

pytestmark = pytest.mark.usefixtures("fast")
WHOLE_FILE = ("create", "write", "chmod", "fsync")

PUBLICATION = """\
mkdir .
fsync folder ..
mkdir .locks
fsync folder .
lock .locks/store.lock
lock .locks/corpus-*.lock
mkdir .partial
fsync folder .
file .partial/..tinygpt-store.*
rename .partial/..tinygpt-store.* to .tinygpt-store
fsync folder .
fsync folder .partial
mkdir .partial/corpus-*.*
fsync folder .partial
file .partial/corpus-*.*/data.bin
mkdir .partial/corpus-*.*/inner
fsync folder .partial/corpus-*.*
file .partial/corpus-*.*/inner/more.bin
file .partial/corpus-*.*/summary.json
fsync folder .partial/corpus-*.*/inner
file .partial/corpus-*.*/manifest.json
fsync folder .partial/corpus-*.*
mkdir corpus
fsync folder .
rename .partial/corpus-*.* to corpus/*
fsync folder corpus
fsync folder .partial
"""

CHECKPOINT = """\
mkdir .new.*
fsync folder .
file .new.*/model.bin
mkdir .new.*/best
fsync folder .new.*
file .new.*/best/model.bin
fsync folder .new.*/best
file .new.*/manifest.json
fsync folder .new.*
rename .new.* to checkpoint/step-00000002
fsync folder checkpoint
fsync folder .
rename checkpoint/step-00000001 to .gone.*
fsync folder .
fsync folder checkpoint
unlink .gone.*/best/model.bin
rmdir .gone.*/best
unlink .gone.*/manifest.json
unlink .gone.*/model.bin
rmdir .gone.*
"""

SIDE_FILE = """\
mkdir kept
fsync folder .
file kept/.snapshot-1.*
rename kept/.snapshot-1.* to kept/snapshot-1
fsync folder kept
"""


def lines_of(log: list[Operation], root: Path) -> str:
    """Operations as lines, paths from `root`, random and hashed names as stars."""

    def name(path: Path) -> str:
        return re.sub(r"[0-9a-f]{12}", "*", os.path.relpath(path, root))

    lines = []
    for index, operation in enumerate(log):
        whole = log[index : index + len(WHOLE_FILE)]
        if operation.kind == "create":
            assert tuple(part.kind for part in whole) == WHOLE_FILE
            assert {part.path for part in whole} == {operation.path}
            lines.append(f"file {name(operation.path)}")
        elif operation.kind not in WHOLE_FILE:
            target = f" to {name(operation.target)}" if operation.target else ""
            lines.append(f"{operation.kind} {name(operation.path)}{target}")
    return "\n".join(lines) + "\n"


def test_everything_is_durable_before_an_artifact_is_visible(tmp_path: Path) -> None:
    recorder = Recorder()
    with watched(recorder):
        run_one(Store(tmp_path / "store"), "corpus", {})
    assert lines_of(recorder.log, tmp_path / "store") == PUBLICATION


def test_everything_is_durable_before_an_unpacked_artifact_is_visible(tmp_path: Path) -> None:
    corpus = run_one(Store(tmp_path / "store"), "corpus", {}).artifact
    pack(Store(tmp_path / "store"), tmp_path / "corpus.tar", [corpus], check_recipe)
    recorder = Recorder()
    with watched(recorder):
        unpack(Store(tmp_path / "other"), tmp_path / "corpus.tar", check_recipe)
    begin = PUBLICATION.index("mkdir .partial/corpus")
    assert lines_of(recorder.log, tmp_path / "other").endswith(PUBLICATION[begin:])


def test_everything_is_durable_before_a_checkpoint_replaces_another(tmp_path: Path) -> None:
    run = Store(tmp_path).begin("train", Key(hash_json("test"))).unfinished_run
    save_checkpoint(run, 1, keep=1)
    recorder = Recorder()
    with watched(recorder):
        save_checkpoint(run, 2, keep=1)
    assert lines_of(recorder.log, run.folder) == CHECKPOINT
    recorder = Recorder()
    with watched(recorder):
        run.write_side_file("snapshot-1", b"1")
    assert lines_of(recorder.log, run.folder) == SIDE_FILE
