"""Every byte of every file is flipped, cut off, deleted or swapped: each time, reading fails.

The error names the artifact, the file and the command that rebuilds it.
"""

import json
import os
import random
import shutil
from pathlib import Path

import pytest

from tests.proofs.figures import RecordFigure, Size
from tests.store.workload import overwrite, run_all, run_one
from tinygpt.errors import (
    CorruptArtifactError,
    MissingArtifactError,
    TinygptError,
    UsageError,
)
from tinygpt.hashing import Key, hash_bytes, hash_json
from tinygpt.progress import SilentReporter
from tinygpt.store import Artifact, Store, upkeep
from tinygpt.store.manifest import Manifest
from tinygpt.store.stage_names import CHECKPOINT

pytestmark = pytest.mark.usefixtures("fast")
ZEROS = "0" * 64


@pytest.fixture
def corpus(tmp_path: Path) -> Artifact:
    run_all(tmp_path / "store", names=("corpus",))
    return Store(tmp_path / "store").list()[0]


def check(store: Store, artifact: Artifact) -> None:
    """Find an artifact and hash its files, as `execute` does."""
    found = store.find(artifact.stage, artifact.key)
    assert found
    found.check()


def assert_damage_is_found(corpus: Artifact, file: str, case: object = None) -> None:
    store = Store(corpus.root)
    with pytest.raises(CorruptArtifactError) as caught:
        check(store, corpus)
    assert f"corpus/{corpus.id}" in caught.value.message, case
    assert file in caught.value.message, case
    assert caught.value.hint == (
        "`tinygpt artifacts verify --repair` removes it, and "
        "`tinygpt run --until corpus --force` makes it again"
    ), case
    assert [fault.culprit for fault in upkeep.verify(store)] == [corpus.folder], case


def every_file(artifact: Artifact) -> list[str]:
    return [*artifact.names(), "manifest.json"]


def test_every_flipped_byte_is_found(corpus: Artifact, size: Size, figure: RecordFigure) -> None:
    rng = random.Random(0)
    flips = 0
    for name in every_file(corpus):
        path = corpus.folder / name
        original = path.read_bytes()
        for place in range(0, len(original), size(7, 1)):
            flipped = bytearray(original)
            flipped[place] ^= 1 << rng.randrange(8)
            overwrite(path, bytes(flipped))
            assert_damage_is_found(corpus, name, place)
            flips += 1
        overwrite(path, original)
    figure("G4", "flipped bits, one in each byte of an artifact", flips, seed=0)
    assert upkeep.verify(Store(corpus.root)) == []


def test_every_truncation_and_growth_is_found(
    corpus: Artifact, size: Size, figure: RecordFigure
) -> None:
    lengths = 0
    for name in every_file(corpus):
        path = corpus.folder / name
        original = path.read_bytes()
        shorter = [original[:length] for length in range(0, len(original), size(7, 1))]
        for data in (*shorter, original + b"\0", original + b"\n", original + b" "):
            overwrite(path, data)
            assert_damage_is_found(corpus, name, len(data))
            lengths += 1
        overwrite(path, original)
    figure("G4", "other lengths of its files", lengths)
    assert upkeep.verify(Store(corpus.root)) == []


def test_control_without_comparing_hashes_most_flips_are_not_found(
    corpus: Artifact, figure: RecordFigure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Artifact, "_check_hash", lambda *_: None)
    path = corpus.path("data.bin")
    original = path.read_bytes()
    missed = 0
    for place in range(len(original)):
        overwrite(path, original[:place] + bytes([original[place] ^ 1]) + original[place + 1 :])
        check(Store(corpus.root), corpus)
        missed += 1
    figure("G4", "flipped bits without comparing hashes", len(original), missed, control=True)


def test_every_deleted_file_is_found(corpus: Artifact) -> None:
    aside = corpus.root / "aside"
    for name in every_file(corpus):
        path = corpus.folder / name
        path.rename(aside)
        assert_damage_is_found(corpus, name)
        aside.rename(path)


@pytest.mark.parametrize("kind", ["folder", "link", "pipe", "link to itself"])
def test_anything_but_a_regular_file_is_found_without_waiting(
    corpus: Artifact, tmp_path: Path, kind: str, figure: RecordFigure
) -> None:
    aside = tmp_path / "aside"
    for name in every_file(corpus):
        path = corpus.folder / name
        path.rename(aside)
        match kind:
            case "folder":
                path.mkdir()
            case "link":
                path.symlink_to(aside)  # refused even though it leads to the right bytes
            case "pipe":
                os.mkfifo(path)
            case "link to itself":
                path.symlink_to(path)
        assert_damage_is_found(corpus, name)
        if kind == "folder":
            path.rmdir()
        else:
            path.unlink()
        aside.rename(path)
    figure("G5", "links, pipes and folders in place of files", len(every_file(corpus)))


@pytest.mark.parametrize("kind", ["pipe", "larger"])
def test_what_is_refused_does_not_stay_open(corpus: Artifact, kind: str) -> None:
    """A process may look at thousands of damaged files."""
    path = corpus.path("data.bin")
    path.chmod(0o644)
    if kind == "larger":
        path.write_bytes(path.read_bytes() + b"x")
    else:
        path.unlink()
        os.mkfifo(path)
    before = len(list(Path("/dev/fd").iterdir()))
    with pytest.raises(CorruptArtifactError) as caught:  # holds what the frames below hold
        corpus.open("data.bin")
    assert caught.tb is not None
    assert len(list(Path("/dev/fd").iterdir())) == before


@pytest.mark.parametrize("component", ["corpus", "corpus/{id}", "corpus/{id}/inner"])
def test_a_link_at_any_component_of_a_path_is_refused(
    corpus: Artifact, tmp_path: Path, component: str
) -> None:
    place = corpus.root / component.format(id=corpus.id)
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    store = Store(corpus.root)
    with pytest.raises(CorruptArtifactError, match="symbolic link"):
        check(store, corpus)
    assert "symlink" in {fault.kind for fault in upkeep.verify(store)}


@pytest.mark.parametrize("name", ["", "data.bin", "manifest.json"])
def test_folders_or_files_swapped_between_two_artifacts_are_found(
    tmp_path: Path, name: str
) -> None:
    root = tmp_path / "store"
    run_all(root)
    (corpus,) = Store(root).list("corpus")
    (tokenizer,) = Store(root).list("tokenize")
    swap(corpus.folder / name, tokenizer.folder / name)
    for artifact in (corpus, tokenizer):
        with pytest.raises(CorruptArtifactError):
            check(Store(root), artifact)
    culprits = {fault.culprit for fault in upkeep.verify(Store(root))}
    assert culprits == {corpus.folder, tokenizer.folder}
    swap(corpus.folder / name, tokenizer.folder / name)
    assert upkeep.verify(Store(root)) == []


def swap(one: Path, two: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    two.rename(one)
    aside.rename(two)


def test_execute_refuses_a_damaged_cached_artifact_and_force_rebuilds_it(corpus: Artifact) -> None:
    path = corpus.path("data.bin")
    overwrite(path, b"X" + path.read_bytes()[1:])
    store = Store(corpus.root)
    notes: list[str] = []

    class Notes(SilentReporter):
        def note(self, text: str) -> None:
            notes.append(text)

    with pytest.raises(CorruptArtifactError, match=r"data\.bin"):
        run_one(store, "corpus", {}, reporter=Notes())
    rebuilt = run_one(store, "corpus", {}, reporter=Notes(), force=True).artifact
    assert rebuilt.digest == corpus.digest
    rebuilt.check()
    assert len(list(store.trash.iterdir())) == 1
    assert upkeep.verify(store) == []
    assert notes == []


def test_an_open_file_gives_the_checked_bytes_even_if_it_is_replaced(corpus: Artifact) -> None:
    path = corpus.path("data.bin")
    original = path.read_bytes()
    with corpus.open("data.bin") as stream:
        path.unlink()
        path.write_bytes(bytes(len(original)))
        assert stream.read() == original


def empty_files(*names: str) -> dict[str, object]:
    return {"files": {name: {"sha256": ZEROS, "bytes": 0} for name in names}}


def data_file(**record: object) -> dict[str, object]:
    return {"files": {"data.bin": {"sha256": ZEROS, "bytes": 0, **record}}}


@pytest.mark.parametrize(
    "change",
    [
        empty_files("../escape"),
        empty_files("/etc/passwd"),
        empty_files("a", "A"),
        empty_files("manifest.json"),
        data_file(sha256="zz"),
        data_file(bytes=-1),
        data_file(bytes=10**400),
        {"files": []},
        {"inputs": {"x": {"stage": "../up", "key": ZEROS, "digest": ZEROS}}},
        {"stage": "../.."},
        {"key": "A" * 64},
        {"tables": {"data": 1}},
        {"provenance": {"created": 5}},
        {"provenance": {"created": "2026-01-01T00:00:00"}},  # of no time zone
        {"provenance": {"created": "9999-01-01T00:00:00+00:00"}},
        {"provenance": {}},
        {"version": 1.5},
        {"format": 2},
        {"extra": True},
    ],
)
def test_a_manifest_with_a_hostile_value_is_refused_although_its_hash_is_right(
    corpus: Artifact, change: dict[str, object]
) -> None:
    manifest = json.loads((corpus.folder / "manifest.json").read_bytes())
    del manifest["sha256"]
    edited = {**manifest, **change}
    files = edited["files"]
    if isinstance(files, dict):
        hashes = {name: record["sha256"] for name, record in files.items()}
        edited["digest"] = hash_json("tinygpt.digest", hashes)
    edited["sha256"] = hash_json("tinygpt.manifest", edited)
    write_manifest(corpus, edited)
    with pytest.raises(CorruptArtifactError):
        Artifact.load(corpus.folder).check()


def test_a_manifest_of_a_checkpoint_names_its_step(corpus: Artifact) -> None:
    values = {**dict(corpus.manifest), "stage": CHECKPOINT}
    facts = {**corpus.manifest.provenance, "step": 3}
    assert Manifest(**{**values, "provenance": facts}).place == (CHECKPOINT, "step-00000003")
    with pytest.raises(ValueError, match="lacks its step"):
        Manifest(**values)


def test_a_file_that_the_manifest_does_not_list_is_not_read(corpus: Artifact) -> None:
    (corpus.folder / "more").touch()
    with pytest.raises(CorruptArtifactError, match="`more` is not listed in the"):
        corpus.read("more")


def test_names_that_differ_in_case_alone_are_refused_although_both_files_are_there(
    corpus: Artifact,
) -> None:
    manifest = json.loads((corpus.folder / "manifest.json").read_bytes())
    del manifest["sha256"]
    record = {"sha256": hash_bytes(b""), "bytes": 0}
    for names, is_refused in ((("a", "b"), False), (("a", "A"), True)):
        for name in names:
            (corpus.folder / name).touch()
        manifest["files"] = dict.fromkeys(names, record)
        hashes = dict.fromkeys(sorted(names), record["sha256"])
        manifest["digest"] = hash_json("tinygpt.digest", hashes)
        sealed = {**manifest, "sha256": hash_json("tinygpt.manifest", manifest)}
        write_manifest(corpus, sealed)
        if is_refused:
            with pytest.raises(CorruptArtifactError):
                Artifact.load(corpus.folder).check()
        else:
            Artifact.load(corpus.folder).check()


def test_a_manifest_inside_a_list_is_refused(corpus: Artifact) -> None:
    manifest = json.loads((corpus.folder / "manifest.json").read_bytes())
    write_manifest(corpus, [manifest])
    with pytest.raises(CorruptArtifactError):
        Artifact.load(corpus.folder)


def test_a_manifest_written_again_unchanged_is_accepted(corpus: Artifact) -> None:
    """Control: the tests above fail for what they change, not for how they write it."""
    write_manifest(corpus, json.loads((corpus.folder / "manifest.json").read_bytes()))
    assert Artifact.load(corpus.folder) == Artifact(corpus.folder, corpus.manifest, corpus.folder)


def write_manifest(artifact: Artifact, value: object) -> None:
    text = json.dumps(value, indent=1, sort_keys=True) + "\n"
    overwrite(artifact.folder / "manifest.json", text.encode())


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[" * 200_000, b"\xff\xfe", b"null", b'"\\ud800"', b"9" * 5000, b"{}", b"NaN"],
)
def test_a_manifest_that_is_no_json_object_is_refused(corpus: Artifact, data: bytes) -> None:
    overwrite(corpus.folder / "manifest.json", data)
    with pytest.raises(CorruptArtifactError):
        Artifact.load(corpus.folder)


def test_list_skips_damaged_artifacts_and_resolve_names_them(tmp_path: Path) -> None:
    root = tmp_path / "store"
    run_all(root)
    store = Store(root)
    (broken,) = store.list("tokenize")
    manifest = broken.folder / "manifest.json"
    overwrite(manifest, manifest.read_bytes()[:-5])
    assert {artifact.stage for artifact in store.list()} == {"corpus", "build-dataset", "train"}
    with pytest.raises(CorruptArtifactError, match=broken.id):
        store.resolve(broken.id)


def test_only_the_beginning_of_a_key_names_an_artifact(corpus: Artifact) -> None:
    store = Store(corpus.root)
    for prefix in (corpus.key, corpus.id, corpus.key[:4], f"corpus/{corpus.id}"):
        assert store.resolve(prefix) == corpus
    for prefix in ("", corpus.id[:3], "../corpus", corpus.id.upper() + "G", "x" * 12):
        with pytest.raises(UsageError, match="is not the id of an artifact"):
            store.resolve(prefix)
    other_end = "1" if corpus.key[20] == "0" else "0"
    for prefix in ("0" * 12, corpus.key[:20] + other_end, f"train/{corpus.id}"):
        with pytest.raises(MissingArtifactError, match="there is no artifact"):
            store.resolve(prefix)


@pytest.mark.full
def test_a_thousand_flips_in_a_large_file_are_found(tmp_path: Path, figure: RecordFigure) -> None:
    rng = random.Random(2)
    size = 5_000_000
    store = Store(tmp_path / "store")
    out = store.begin("corpus", Key(hash_json("test", 1)))
    out.bytes("big.bin", rng.randbytes(size))
    artifact = store.publish(out)
    path = artifact.path("big.bin")
    path.chmod(0o644)
    with path.open("r+b", buffering=0) as file:
        for _ in range(1000):
            place = rng.randrange(size)
            file.seek(place)
            original = file.read(1)
            file.seek(place)
            file.write(bytes([original[0] ^ (1 << rng.randrange(8))]))
            with pytest.raises(TinygptError):
                artifact.read("big.bin")
            file.seek(place)
            file.write(original)
            artifact.read("big.bin")
    figure("G4", "flipped bits in a file of 5 MB", 1000, seed=2)


def test_an_artifact_can_be_read_from_any_folder(corpus: Artifact, tmp_path: Path) -> None:
    copied = shutil.copytree(corpus.folder, tmp_path / "a name with spaces")
    (tmp_path / "link").symlink_to(copied)
    assert Artifact.load(tmp_path / "link").read("data.bin") == corpus.read("data.bin")
