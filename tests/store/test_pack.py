"""Packs: what goes in comes out in another store, and nothing else does."""

import errno
import json
import os
import random
import shutil
import tarfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO
from unittest.mock import ANY, patch

import pytest

from tests.proofs.figures import RecordFigure, Size
from tests.store.packs import accept, contents, join, members, mutate, sealed
from tests.store.workload import (
    ERRORS,
    FailAt,
    KillAt,
    KilledError,
    Recorder,
    faults,
    overwrite,
    run_all,
    run_one,
    run_train,
    watched,
)
from tinygpt.config.tables import Config, TrainConfig
from tinygpt.errors import (
    BusyError,
    CorruptArtifactError,
    MissingArtifactError,
    StorageError,
    TinygptError,
    UsageError,
)
from tinygpt.hashing import hash_json
from tinygpt.pipeline import STAGES, check_recipe, execute
from tinygpt.progress import Reporter, SilentReporter
from tinygpt.store import Artifact, ArtifactWriter, Store, tar, upkeep
from tinygpt.store.artifact import MODEL_FILES
from tinygpt.store.files import Operation
from tinygpt.store.manifest import Manifest, now, recipe_key
from tinygpt.store.new_folder import NewFolder
from tinygpt.store.pack import pack as pack_checked
from tinygpt.store.stage_names import IMPORT_STAGE
from tinygpt.store.unpack import Packed, Unpacked, unpack

pytestmark = pytest.mark.usefixtures("fast")


@pytest.fixture
def full(tmp_path: Path) -> Store:
    """A store with one artifact of each stage up to the model."""
    run_all(tmp_path / "full")
    return Store(tmp_path / "full")


@pytest.fixture
def packed(full: Store, tmp_path: Path) -> Path:
    """The model and all it was made from."""
    pack(full, tmp_path / "model.tar", full.list("train"))
    return tmp_path / "model.tar"


@pytest.fixture
def friend(tmp_path: Path) -> Store:
    """Another store, in which there is nothing yet."""
    return Store(tmp_path / "friend" / "artifacts")


def pack(
    store: Store, path: Path, wanted: Sequence[Artifact], *, text: bool = True
) -> tuple[list[Artifact], int]:
    return pack_checked(store, path, wanted, check_recipe, text=text, timeout=5)


def put(store: Store, path: Path) -> list[Unpacked]:
    return unpack(store, path, check_recipe, timeout=5)


def must_not_run(
    config: Config, inputs: Mapping[str, Artifact], out: ArtifactWriter, reporter: Reporter
) -> None:
    raise AssertionError("a stage ran although its artifact was unpacked")


def test_another_store_has_every_artifact_cached(packed: Path, full: Store, friend: Store) -> None:
    unpacked = put(friend, packed)
    assert [state for _, state in unpacked] == ["new"] * 4
    made: dict[str, Artifact] = {}
    for name in ("corpus", "tokenize", "build-dataset", "train"):
        inputs = {source: made[source] for source in STAGES[name].inputs}
        outcome = run_one(friend, name, inputs, runner=must_not_run)
        assert outcome.cached
        made[name] = outcome.artifact
    assert [one.digest for one in full.list()] == [one.digest for one in friend.list()]
    assert upkeep.verify(friend) == []
    assert contents(friend.root) == contents(full.root)
    with pytest.raises(AssertionError):  # control: nothing is cached in a third store
        run_one(Store(friend.root.parent / "third"), "corpus", {}, runner=must_not_run)


def test_equal_contents_give_equal_bytes(packed: Path, friend: Store, tmp_path: Path) -> None:
    put(friend, packed)
    old = os.umask(0o077)
    try:
        pack(friend, tmp_path / "again.tar", friend.list("train"))
    finally:
        os.umask(old)
    assert (tmp_path / "again.tar").read_bytes() == packed.read_bytes()


def test_a_pack_is_a_plain_tar_file_without_times_and_owners(packed: Path, full: Store) -> None:
    with tarfile.open(packed) as archive:
        infos = archive.getmembers()
        assert archive.pax_headers == {}
    assert all(info.isreg() for info in infos)
    assert {(info.mtime, info.uid, info.gid, info.uname, info.gname) for info in infos} == {
        (0, 0, 0, "", "")
    }
    names = [info.name for info in infos]
    assert names == sorted(contents(full.root))


def test_names_and_sizes_that_a_tar_file_cannot_hold_are_refused() -> None:
    inner = "/".join(["a" * 100, "b" * 50, "c" * 100])
    entry = tar.Entry(f"{inner}", 7)
    assert len(tar.header(entry)) == tar.BLOCK
    for name, size in ((f"{'d' * 30}/{inner}", 1), ("x", 8 << 30), ("x", -1)):
        with pytest.raises(ValueError, match="has "):
            tar.header(tar.Entry(name, size))


def test_names_of_any_length_up_to_the_limit_come_back(tmp_path: Path) -> None:
    names = sorted("/".join(["f" * i, "g" * 60, "h" * (100 - i)]) for i in range(1, 95))
    path = tmp_path / "long.tar"
    blocks = [tar.header(tar.Entry(name, 1)) + b"x" + bytes(tar.BLOCK - 1) for name in names]
    path.write_bytes(b"".join(blocks) + tar.END)
    with path.open("rb") as stream:
        assert [entry.name for entry in tar.read_entries(stream)] == names
    with tarfile.open(path) as archive:
        assert archive.getnames() == names


def test_folders_of_the_machine_stay_at_home(full: Store, friend: Store, tmp_path: Path) -> None:
    home = "/home/somebody"
    words = ["train", "--source", f"{home}/texts/my.txt", f"--store={home}/a", "--set", "a=../b/c"]

    def write(
        config: Config, inputs: Mapping[str, Artifact], out: ArtifactWriter, reporter: Reporter
    ) -> None:
        out.bytes("data.bin", b"x")
        out.provenance(source=f"{home}/texts/my.txt", command=words, threads="2")

    corpus = run_one(full, "corpus", {}, runner=write, force=True).artifact
    assert home in corpus.path("manifest.json").read_text()
    pack(full, tmp_path / "corpus.tar", [corpus])
    assert b"somebody" not in (tmp_path / "corpus.tar").read_bytes()
    (unpacked,) = put(friend, tmp_path / "corpus.tar")
    facts = unpacked.artifact.manifest.provenance
    assert facts["source"] == "…/my.txt"
    assert facts["command"] == ["train", "--source", "…/my.txt", "--store=…/a", "--set", "a=…/c"]
    assert facts["threads"] == "2"
    assert (unpacked.artifact.key, unpacked.artifact.digest) == (corpus.key, corpus.digest)


def test_pins_do_not_travel(full: Store, friend: Store, tmp_path: Path) -> None:
    (model,) = full.list("train")
    full.pin(model)
    pack(full, tmp_path / "pinned.tar", [model])
    assert not any(friend.is_pinned(made) for made, _ in put(friend, tmp_path / "pinned.tar"))


def test_without_text_only_model_and_tokenizer_go_in(
    full: Store, friend: Store, tmp_path: Path
) -> None:
    path = tmp_path / "model.tar"
    made, size = pack(full, path, full.list("train"), text=False)
    assert sorted(one.stage for one in made) == ["tokenize", "train"]
    assert size == path.stat().st_size
    put(friend, path)
    assert sorted(one.stage for one in friend.list()) == ["tokenize", "train"]
    assert upkeep.verify(friend) == []
    for stage in ("corpus", "build-dataset"):
        with pytest.raises(UsageError, match="holds text"):
            pack(full, tmp_path / "no.tar", full.list(stage), text=False)
    with pytest.raises(MissingArtifactError, match="was made from `build-dataset/"):
        pack(friend, tmp_path / "no.tar", friend.list("train"))
    assert not (tmp_path / "no.tar").exists()
    again, _ = pack(friend, tmp_path / "yes.tar", friend.list("train"), text=False)
    assert [one.key for one in again] == [one.key for one in made]


def test_the_model_that_a_model_continues_goes_in(full: Store, tmp_path: Path) -> None:
    (base,) = full.list("train")
    inputs = {made.stage: made for made in full.list()}
    config = Config(train=TrainConfig(init_from=base.digest))
    external = {"train.init_from": base.digest}
    reads = {name: inputs[name] for name in STAGES["train"].inputs}
    continued = execute(
        STAGES["train"],
        config,
        reads,
        store=full,
        external_digests=external,
        runner=run_train,
        reporter=SilentReporter(),
    ).artifact
    made, _ = pack(full, tmp_path / "two.tar", [continued])
    assert [one.stage for one in made].count("train") == 2
    assert len(made) == 5


def test_an_imported_model_travels_without_the_folder_it_came_from(
    full: Store, friend: Store, tmp_path: Path
) -> None:
    folder = Manifest(
        **{"stage": IMPORT_STAGE, "version": 1, "key": "0" * 64, "tables": {}, "inputs": {}},
        provenance={"created": now()},
    )
    inputs = {"folder": Artifact(tmp_path, folder, tmp_path)}
    key = recipe_key("train", 1, {}, {"folder": folder.digest})
    out = full.begin("train", key, inputs=inputs)
    for name in MODEL_FILES:
        out.bytes(name, b"x")
    pack(full, tmp_path / "imported.tar", [full.publish(out)])
    (unpacked,) = put(friend, tmp_path / "imported.tar")
    assert unpacked.artifact.is_imported


def test_what_is_there_stays_and_what_is_damaged_is_mended(packed: Path, friend: Store) -> None:
    put(friend, packed)
    (model,), (corpus,) = friend.list("train"), friend.list("corpus")
    before = {made.folder: made.folder.stat().st_ino for made in friend.list()}
    assert {state for _, state in put(friend, packed)} == {"there"}
    assert {made.folder: made.folder.stat().st_ino for made in friend.list()} == before
    model.path("snapshots/1").unlink()  # can be used without it
    overwrite(corpus.path("data.bin"), b"x" * 32)
    states = {made.stage: state for made, state in put(friend, packed)}
    assert states == {
        **{"corpus": "mended", "train": "mended"},
        **{"tokenize": "there", "build-dataset": "there"},
    }
    assert upkeep.verify(friend) == []
    assert len(list(friend.trash.iterdir())) == 2


def test_a_model_that_lacks_a_file_travels_and_does_not_replace_a_whole_one(
    full: Store, packed: Path, friend: Store, tmp_path: Path
) -> None:
    (model,) = full.list("train")
    model.path("snapshots/2").unlink()
    pack(full, tmp_path / "lacking.tar", [model])
    put(friend, tmp_path / "lacking.tar")
    assert friend.list("train")[0].missing() == ["snapshots/2"]
    assert {made.stage: state for made, state in put(friend, packed)}["train"] == "mended"
    assert {state for _, state in put(friend, tmp_path / "lacking.tar")} == {"there"}
    assert friend.list("train")[0].missing() == []


def test_what_was_made_from_a_model_that_lacks_a_file_travels(
    full: Store, friend: Store, tmp_path: Path
) -> None:
    inputs = {made.stage: made for made in full.list()}
    inputs["train"].path("snapshots/2").unlink()
    evaluation = run_one(
        full, "eval", {name: inputs[name] for name in STAGES["eval"].inputs}
    ).artifact
    pack(full, tmp_path / "eval.tar", [evaluation])
    assert len(put(friend, tmp_path / "eval.tar")) == 5


def test_another_artifact_of_the_same_key_is_refused_and_stays(packed: Path, friend: Store) -> None:
    def write_other(
        config: Config, inputs: Mapping[str, Artifact], out: ArtifactWriter, reporter: Reporter
    ) -> None:
        out.bytes("data.bin", b"other")

    ours = run_one(friend, "corpus", {}, runner=write_other).artifact
    before = contents(friend.root)
    with pytest.raises(UsageError, match="the store has another `corpus/") as refused:
        put(friend, packed)
    assert "--store DIR" in str(refused.value.hint)
    assert contents(friend.root) == before
    ours.check()


def test_a_target_that_exists_or_lies_in_a_store_is_refused(full: Store, tmp_path: Path) -> None:
    models = full.list("train")
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("mine", "link", "full"):
        with pytest.raises(UsageError, match="exists"):
            pack(full, tmp_path / name, models)
    with pytest.raises(UsageError, match="is inside the store"):
        pack(full, full.partial / "x.tar", models)
    with pytest.raises(StorageError) as missing:
        pack(full, tmp_path / "no folder" / "x.tar", models)
    assert "choose another place" in str(missing.value.hint)
    assert (tmp_path / "mine").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "link", "mine"]


def test_a_target_that_exists_is_refused_before_anything_is_read(
    full: Store, tmp_path: Path
) -> None:
    (corpus,) = full.list("corpus")
    overwrite(corpus.path("data.bin"), b"x" * 32)
    with pytest.raises(UsageError, match="exists"):
        pack(full, full.root, [corpus])


def test_a_file_that_appears_while_it_is_packed_stays(full: Store, tmp_path: Path) -> None:
    target = tmp_path / "x.tar"

    def appear(operation: Operation) -> None:
        target.write_text("mine")

    with watched(appear), pytest.raises(UsageError, match="exists"):
        pack(full, target, full.list("train"))
    assert target.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "x.tar"]


@pytest.mark.parametrize("wrong", [b"\0" * 32, b""], ids=["other bytes", "cut off"])
def test_a_pack_that_cannot_be_read_back_is_an_error(
    full: Store, tmp_path: Path, wrong: bytes
) -> None:
    """As if the disk kept other bytes than those that were written."""

    def lose(operation: Operation) -> None:
        if operation.kind == "rename" or not operation.path.name.startswith(".tinygpt-pack."):
            return
        if operation.kind == "fsync":
            data = operation.path.read_bytes()
            (name, content), *_ = members(data)
            assert name.endswith("data.bin")
            operation.path.write_bytes(data.replace(content, wrong))

    with watched(lose), pytest.raises(CorruptArtifactError) as damaged:
        pack(full, tmp_path / "x.tar", full.list("corpus"))
    assert "make that artifact again" in str(damaged.value.hint)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_file_that_shrinks_while_it_is_read_is_refused(packed: Path) -> None:
    with packed.open("rb") as stream:
        entry, *_ = tar.read_entries(stream)
        os.truncate(packed, entry.offset + entry.size - 1)
        with pytest.raises(ValueError, match="it is cut off in"):
            list(tar.pieces(stream, entry))


def test_a_damaged_artifact_is_not_packed(full: Store, tmp_path: Path) -> None:
    (corpus,), (model,) = full.list("corpus"), full.list("train")
    overwrite(corpus.path("data.bin"), b"x" * 32)
    with pytest.raises(CorruptArtifactError):
        pack(full, tmp_path / "x.tar", [model])
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


ID = "0123456789ab"
HASHES = {"key": "0" * 64, "digest": "0" * 64}


def with_file(data: bytes, name: str, content: bytes = b"x") -> bytes:
    return join(sorted([*members(data), (name, content)]))


def with_header(data: bytes, name: str, **fields: bytes) -> bytes:
    """The pack with a file of no bytes at its beginning, whose header is spelled otherwise."""
    return sealed(name, 0, **fields) + data


def with_manifest(data: bytes, of: str, *places: object) -> bytes:
    """The pack with another value somewhere in a manifest, whose own hash is made right.

    Args:
        places: where, and last the value: "tables", "train", "seed", 2.
    """
    files = dict(members(data))
    name = next(one for one in files if one.startswith(f"{of}/") and "manifest" in one)
    value = json.loads(files[name])
    *above, last, new = places
    inner = value
    for place in above:
        inner = inner[place]
    inner[last] = new
    del value["sha256"]
    body = {**value, "digest": value["digest"]}
    value["sha256"] = hash_json("tinygpt.manifest", body)
    files[name] = json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"
    return join(sorted(files.items()))


def in_other_folder(data: bytes) -> bytes:
    corpus = next(name for name, _ in members(data) if name.startswith("corpus/"))[:19]
    renamed = ((name.replace(corpus, f"corpus/{ID}"), one) for name, one in members(data))
    return join(sorted(renamed))


def without(data: bytes, end: str) -> bytes:
    return join(item for item in members(data) if not item[0].endswith(end))


HOSTILE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "absolute": (lambda data: with_file(data, "/tmp/evil"), "no name of a file in a pack"),
    "parent": (lambda data: with_file(data, f"corpus/{ID}/../../../evil"), "no name of a file"),
    "parent first": (lambda data: with_file(data, "../evil"), "no name of a file in a pack"),
    "outside artifacts": (lambda data: with_file(data, ".pins/train"), "no name of a file"),
    "other case": (lambda data: with_file(data, f"Corpus/{ID}/x"), "no name of a file in a pack"),
    "latest": (lambda data: with_file(data, f"latest/{ID}/x"), "has no manifest"),
    "symbolic link": (
        lambda data: with_header(data, "a/evil", kind=b"2", link=b"/etc/passwd"),
        "`a/evil` is a link",
    ),
    "hard link": (lambda data: with_header(data, "a", kind=b"1", link=b"/etc"), "`a` is a link"),
    "device": (lambda data: with_header(data, "a", kind=b"3"), "`a` is a device"),
    "pipe": (lambda data: with_header(data, "a", kind=b"6"), "`a` is spelled in another way"),
    "folder": (lambda data: with_header(data, "corpus", kind=b"5"), "`corpus` is a folder"),
    "pax header": (lambda data: with_header(data, "a", kind=b"x"), "`a` is spelled in another"),
    "global pax": (lambda data: with_header(data, "a", kind=b"g"), "`a` is spelled in another"),
    "GNU long name": (lambda data: with_header(data, "a", kind=b"L"), "spelled in another way"),
    "GNU sparse": (lambda data: with_header(data, "a", kind=b"S"), "spelled in another way"),
    "set-uid": (lambda data: with_header(data, "a", mode=b"0004755"), "spelled in another way"),
    "owner": (lambda data: with_header(data, "a", owner=b"root"), "spelled in another way"),
    "time": (lambda data: with_header(data, "a", time=b"00000000001"), "spelled in another way"),
    "negative": (lambda data: with_header(data, "a", length=b"-0000001000"), "spelled in another"),
    "8 GiB": (
        lambda data: with_header(data, "a", length=b"77777777777"),
        "it is cut off: `a` has 8",
    ),
    "base 256": (lambda data: with_header(data, "a", length=b"\x80" + bytes(11)), "in another way"),
    "twice": (lambda data: join([members(data)[0], *members(data)]), "twice, or out of order"),
    "not sorted": (lambda data: join(reversed(members(data))), "twice, or out of order"),
    "trailing bytes": (lambda data: data + b"x", "goes on after its end"),
    "trailing zeros": (lambda data: data + bytes(512), "goes on after its end"),
    "two tars": (lambda data: data + data, "goes on after its end"),
    "nothing": (lambda data: b"", "byte 0 does not begin a file"),
    "no files": (lambda data: tar.END, "it holds 0 artifacts"),
    "text": (lambda data: b"Once upon a time " * 99, "byte 0 does not begin a file"),
    "gzip": (lambda data: b"\x1f\x8b" + data, "byte 0 does not begin a file"),
    "nonzero padding": (
        lambda data: data.replace(b"}\n" + bytes(20), b"}\nx" + bytes(19), 1),
        "is not followed by zeros",
    ),
    "second manifest": (
        lambda data: with_file(data, f"{members(data)[0][0][:26]}/inner/manifest.json"),
        "inner/manifest.json` is no name",
    ),
    "manifest in capitals": (
        lambda data: with_file(data, members(data)[0][0].rpartition("/")[0] + "/MANIFEST.JSON"),
        "MANIFEST.JSON` is no name",
    ),
    "same name in capitals": (
        lambda data: with_file(data, members(data)[0][0].replace("data.bin", "DATA.BIN")),
        "which its manifest does not list",
    ),
    "stray file": (
        lambda data: with_file(data, members(data)[0][0].replace("data.bin", "evil.bin")),
        "holds `evil.bin`, which its manifest does not list",
    ),
    "no manifest": (lambda data: without(data, "manifest.json"), "has no manifest"),
    "missing file": (lambda data: without(data, "tokenizer.json"), "lacks `tokenizer.json`"),
    "shorter file": (
        lambda data: join(
            (name, one[:-1]) if name.endswith("data.bin") else (name, one)
            for name, one in members(data)
        ),
        "bytes, not 32",
    ),
    "changed file": (
        lambda data: join(
            (name, bytes(32)) if name.endswith("data.bin") else (name, one)
            for name, one in members(data)
        ),
        "does not match its hash",
    ),
    "key": (
        lambda data: with_manifest(data, "corpus", "version", 99),
        "the key of `corpus/.*` does not follow from how it was made",
    ),
    "no JSON": (
        lambda data: join((name, b"{" if "corpus" in name else one) for name, one in members(data)),
        "the manifest of `corpus/.*` is not what this version of tinygpt writes",
    ),
    "nested JSON": (
        lambda data: join(
            (name, b"[" * 100_000 if name.endswith("manifest.json") else one)
            for name, one in members(data)
        ),
        "the manifest of `build-dataset/.*` is not what",
    ),
    "key of a recipe": (
        lambda data: with_manifest(data, "train", "tables", "train", "seed", 5),
        "the key of `train/.*` does not follow",
    ),
    "key of inputs": (
        lambda data: with_manifest(data, "tokenize", "inputs", "corpus", "digest", "0" * 64),
        "the key of `tokenize/.*` does not follow",
    ),
    "place": (in_other_folder, f"corpus/{ID}` has the manifest of `corpus/"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_pack_is_refused_before_anything_is_written(
    packed: Path, friend: Store, tmp_path: Path, kind: str
) -> None:
    change, problem = HOSTILE[kind]
    before = contents(tmp_path / "full")
    recorder = Recorder()
    with watched(recorder), pytest.raises(CorruptArtifactError, match=problem) as refused:
        accept(friend.root, change(packed.read_bytes()), tmp_path)
    assert recorder.log == []
    assert "mutated.tar`: " in refused.value.message
    assert refused.value.hint
    assert not friend.root.parent.exists()
    assert contents(tmp_path / "full") == before


@pytest.mark.parametrize(
    ("of", "places", "problem"),
    [
        ("corpus", ["stage", "latest"], "is of a stage that this version of tinygpt does not"),
        ("corpus", ["provenance", "created", "yesterday"], "is not what this version"),
        ("corpus", ["provenance", "created", "2026-11-27T05:00:00"], "is not what this version"),
        ("corpus", ["provenance", "created", "0001-01-01T00:00:00+00:00"], "is not what this"),
        ("corpus", ["provenance", "fingerprint", None], "is not what this version"),
        ("train", ["provenance", "command", ["run", 5]], "is not what this version"),
        ("train", ["provenance", "code", {"modules": 1}], "is not what this version"),
        ("train", ["inputs", {}], "was made from other inputs than its stage reads"),
        ("train", ["inputs", "corpus", {"stage": "corpus", **HASHES}], "other inputs than its"),
        ("train", ["tables", {}], "does not have the keys of `model`"),
        ("train", ["tables", "train", "max_steps", {"a": 1}], "`train.max_steps` that it cannot"),
        ("train", ["tables", "train", "max_steps", "100"], "`train.max_steps` that it cannot have"),
        ("train", ["tables", "model", "d_model", -1], "`model.d_model` that it cannot have"),
        ("corpus", ["tables", "data", "more", 1], "does not have the keys of `data`"),
    ],
)
def test_a_manifest_that_no_stage_could_have_written_is_refused(
    packed: Path, friend: Store, tmp_path: Path, of: str, places: list[object], problem: str
) -> None:
    """Commands that list or read artifacts rely on what they find in manifests."""
    with pytest.raises(CorruptArtifactError, match=problem):
        accept(friend.root, with_manifest(packed.read_bytes(), of, *places), tmp_path)
    assert not friend.root.parent.exists()


def test_a_manifest_that_is_too_large_is_refused(
    packed: Path, friend: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinygpt.store.unpack.MAX_MANIFEST_BYTES", 2000)
    with pytest.raises(CorruptArtifactError, match="or one that is too large"):
        put(friend, packed)


@pytest.mark.parametrize(
    "limit", ["tinygpt.store.tar.MAX_FILES", "tinygpt.store.unpack.MAX_ARTIFACTS"]
)
def test_the_number_of_files_and_artifacts_is_limited(
    packed: Path, friend: Store, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(limit, 3)
    with pytest.raises(CorruptArtifactError, match="it holds"):
        put(friend, packed)


def test_too_many_artifacts_are_not_packed(
    full: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinygpt.store.pack.MAX_ARTIFACTS", 3)
    with pytest.raises(UsageError, match="these are 4 artifacts"):
        pack(full, tmp_path / "x.tar", full.list("train"))


def test_a_pack_cut_off_anywhere_is_refused(
    packed: Path, friend: Store, tmp_path: Path, size: Size, figure: RecordFigure
) -> None:
    data = packed.read_bytes()
    lengths = range(0, len(data), size(397, 7))
    for length in lengths:
        with pytest.raises(CorruptArtifactError):
            accept(friend.root, data[:length], tmp_path)
    assert not friend.root.parent.exists()
    figure("G24", "packs cut off, all refused", len(lengths))


def test_a_pack_larger_than_the_disk_is_refused_before_it_is_read(
    packed: Path, friend: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.statvfs", lambda path: SimpleNamespace(f_bavail=10, f_frsize=10))
    monkeypatch.setattr("tinygpt.store.unpack.check_hashes", must_not_run)
    with pytest.raises(StorageError, match="has 100 bytes left"):
        put(friend, packed)
    assert not friend.root.parent.exists()


def test_what_is_no_file_is_refused_without_waiting(friend: Store, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "ring").symlink_to(tmp_path / "ring")
    for name in ("missing.tar", "ring", "pipe"):
        with pytest.raises(MissingArtifactError):
            put(friend, tmp_path / name)
    with pytest.raises(UsageError, match="is a folder"):
        put(friend, tmp_path)


def test_a_link_to_a_pack_is_followed(packed: Path, friend: Store, tmp_path: Path) -> None:
    (tmp_path / "link.tar").symlink_to(packed)
    assert len(put(friend, tmp_path / "link.tar")) == 4


def test_a_pack_that_changes_while_it_is_read_is_refused(packed: Path, friend: Store) -> None:
    data = packed.read_bytes()

    def change(operation: Operation) -> None:
        if operation.kind == "create" and operation.path.name == "data.bin":
            packed.write_bytes(data.replace(members(data)[0][1], bytes(32)))

    with watched(change), pytest.raises(CorruptArtifactError, match="has changed since"):
        put(friend, packed)
    assert friend.list() == []
    assert list(friend.partial.iterdir()) == []


def operations(action: Callable[[], object]) -> int:
    recorder = Recorder()
    with watched(recorder):
        action()
    return len(recorder.log)


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_while_unpacking_leaves_nothing_of_the_pack(
    packed: Path, friend: Store, tmp_path: Path, error: int, size: Size, figure: RecordFigure
) -> None:
    numbers = range(1, operations(lambda: put(friend, packed)) + 1, size(29, 1))
    for number in numbers:
        root = tmp_path / str(number) / "artifacts"
        hook = FailAt(number, error, for_ever=True)
        with watched(hook), pytest.raises(StorageError):
            put(Store(root), packed)
        published = Store(root).list()
        if hook.failed_kind not in ("rename", "fsync folder"):
            assert published == []
        assert [path for path in (root / ".partial").glob("*") if path.is_dir()] == []
        assert faults(Store(root)) == []
        put(Store(root), packed)
        assert contents(root) == contents(friend.root)
    figure("G24", "errors while unpacking (ENOSPC, EIO, EDQUOT)", len(numbers))


@pytest.mark.parametrize("end", [KilledError, KeyboardInterrupt])
def test_unpacking_again_after_an_end_at_any_operation_completes_it(
    packed: Path,
    friend: Store,
    tmp_path: Path,
    end: type[BaseException],
    size: Size,
    figure: RecordFigure,
) -> None:
    numbers = range(1, operations(lambda: put(friend, packed)) + 1, size(29, 1))
    for number in numbers:
        root = tmp_path / str(number) / "artifacts"
        with watched(end_at(number, end)), pytest.raises(end):
            put(Store(root), packed)
        assert faults(Store(root)) == []
        if end is KeyboardInterrupt:
            assert [path for path in (root / ".partial").glob("*") if path.is_dir()] == []
        put(Store(root), packed)
        assert contents(root) == contents(friend.root)
    figure("G24", "kills and Ctrl-C while unpacking", len(numbers))


def end_at(number: int, end: type[BaseException]) -> Callable[[Operation], None]:
    """Ends at an operation: KilledError at all later ones, too, as if the process were dead."""
    kill = KillAt(number)

    def hook(operation: Operation) -> None:
        if end is KilledError:
            kill(operation)
            return
        kill.seen += 1
        if kill.seen == number:
            raise end

    return hook


@pytest.mark.parametrize("end", [errno.ENOSPC, errno.EIO, KeyboardInterrupt])
def test_an_end_at_any_operation_of_packing_leaves_no_file(
    full: Store, tmp_path: Path, end: int | type[BaseException]
) -> None:
    models = full.list("train")
    target = tmp_path / "out" / "x.tar"
    target.parent.mkdir()
    total = operations(lambda: pack(full, target, models))
    target.unlink()
    for number in range(1, total + 1):
        hook = FailAt(number, end) if isinstance(end, int) else end_at(number, end)
        with watched(hook):
            try:
                pack(full, target, models)
            except (StorageError, KeyboardInterrupt):
                # What has its name already is whole
                assert not target.exists() or number >= total - 1
            else:
                assert number == 1  # the lock, without which a store can be read
        assert sorted(target.parent.iterdir()) == [target] * target.exists()
        target.unlink(missing_ok=True)
    assert faults(full) == []


PAUSED = ("data.bin", ".tinygpt-pack")


def test_gc_waits_for_packing_and_unpacking(full: Store, packed: Path, friend: Store) -> None:
    """Each is stopped in the middle; gc has to give up, and nothing is lost."""
    target = packed.with_name("other.tar")
    main = threading.current_thread()
    for store, action in (
        (full, lambda: pack(full, target, full.list("train"))),
        (friend, lambda: put(friend, packed)),
    ):
        waiting = threading.Event()
        goes_on = threading.Event()

        def pause(
            operation: Operation,
            waiting: threading.Event = waiting,
            goes_on: threading.Event = goes_on,
        ) -> None:
            if operation.path.name.startswith(PAUSED) and threading.current_thread() is not main:
                waiting.set()
                goes_on.wait(10)

        worker = threading.Thread(target=action)
        with watched(pause):
            worker.start()
            assert waiting.wait(10)
            with pytest.raises(BusyError):
                upkeep.gc(store, timeout=0.1)
            assert upkeep.verify(store) == []  # what is being written is no leftover
            goes_on.set()
            worker.join()
        upkeep.gc(store, timeout=5)
        assert len(store.list()) == 4
    assert target.read_bytes() == packed.read_bytes()


def test_a_store_that_cannot_be_written_can_be_packed(full: Store, tmp_path: Path) -> None:
    shutil.rmtree(full.root / ".locks")

    def refuse(operation: Operation) -> None:
        if operation.path.is_relative_to(full.root):
            raise OSError(errno.EROFS, "read-only")

    with watched(refuse):
        made, _ = pack(full, tmp_path / "x.tar", full.list("train"))
    assert len(made) == 4


def bad_mutations(packed: Path, tmp_path: Path, count: int) -> list[str]:
    """Mutations of a pack that were neither refused nor gave the bytes of the original."""
    data = packed.read_bytes()
    allowed = contents(tmp_path / "full")
    bad = []
    for number in range(count):
        root = tmp_path / "fuzz" / "artifacts"
        mutated = mutate(data, random.Random(number))
        try:
            accept(root, mutated, tmp_path)
        except TinygptError as error:
            if root.parent.exists() or not error.hint:
                bad.append(f"{number}: refused too late, or without a hint")
        except Exception as error:  # noqa: BLE001
            bad.append(f"{number}: {error!r}")
        else:
            if not contents(root).items() <= allowed.items():
                bad.append(f"{number}: accepted other bytes")
            if join(members(mutated)) != mutated:
                bad.append(f"{number}: accepted another spelling")
        shutil.rmtree(root.parent, ignore_errors=True)
        if sorted(path.name for path in tmp_path.iterdir()) != ["full", "model.tar", "mutated.tar"]:
            bad.append(f"{number}: wrote outside of the store")
    assert contents(tmp_path / "full") == allowed
    return bad


def test_a_mutated_pack_is_refused_or_gives_equal_bytes(
    packed: Path, tmp_path: Path, size: Size, figure: RecordFigure
) -> None:
    count = size(40, 500, 5000)
    assert bad_mutations(packed, tmp_path, count) == []
    figure("G24", "mutated packs, refused or equal", count, seed=0)


def test_control_another_spelling_of_headers_would_be_noticed(packed: Path, tmp_path: Path) -> None:
    with patch("tinygpt.store.tar.header", lambda entry: ANY):
        assert bad_mutations(packed, tmp_path, 80) != []


def test_control_a_reader_without_hashes_is_noticed(
    packed: Path, tmp_path: Path, figure: RecordFigure
) -> None:
    def copy(stream: BinaryIO, path: Path, packed: Packed, folder: NewFolder) -> None:
        for name, entry in packed.names.items():
            folder.bytes(name, b"".join(tar.pieces(stream, entry)))
        folder.bytes("manifest.json", packed.manifest.to_bytes())

    with (
        patch("tinygpt.store.unpack.check_hashes", lambda *arguments: None),
        patch("tinygpt.store.unpack._copy", copy),
        patch.object(NewFolder, "_place", lambda folder, name: below(folder.folder, name)),
    ):
        bad = bad_mutations(packed, tmp_path, 80)
    figure("G24", "mutated packs and a reader without hashes", 80, len(bad), control=True)


def below(folder: Path, name: str) -> Path:
    """Where a file goes, its folder made."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    return path
