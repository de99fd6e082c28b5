"""Every byte of every file: flipped, cut, grown, deleted, swapped; the reader is told, with the command that rebuilds it."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.store.workload import CONFIG, OUTSIDE, run_all, run_stage
from tinygpt.errors import CorruptArtifactError, TinygptError
from tinygpt.hashing import hash_json
from tinygpt.pipeline import STAGES, execute
from tinygpt.report import SilentReport
from tinygpt.store import Artifact, Store, upkeep

pytestmark = pytest.mark.usefixtures("fast")


@pytest.fixture
def corpus(tmp_path: Path) -> Artifact:
    run_all(tmp_path / "store", names=("corpus",))
    return Store(tmp_path / "store").list()[0]


def damage(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change a file and leave size (where it can), time and mode as they were: none of these is trusted."""
    before, data = path.stat(), path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(change(data))
    path.chmod(before.st_mode & 0o777)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def is_noticed(corpus: Artifact, file: str) -> bool:
    """Whether find-and-check, as `execute` does it, refuses, naming artifact, file and the command that helps."""
    store = Store(corpus.root)
    try:
        check(store, corpus)
    except CorruptArtifactError as error:
        told = f"corpus/{corpus.id}" in error.message and file in error.message
        helped = error.hint == "rebuild it with `tinygpt run --until corpus --force`"
        return told and helped and [fault.culprit for fault in upkeep.verify(store)] == [corpus.folder]
    return False


def check(store: Store, artifact: Artifact) -> None:
    found = store.find(artifact.stage, artifact.key)
    assert found
    found.check()


def every_file(artifact: Artifact) -> list[str]:
    return [*artifact.names(), "manifest.json"]


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.full)])
def test_every_flipped_byte_is_noticed(corpus: Artifact, every: int) -> None:
    rng = random.Random(0)
    for name in every_file(corpus):
        path = corpus.folder / name
        whole = path.read_bytes()
        for place in range(0, len(whole), every):
            bit = 1 << rng.randrange(8)
            damage(path, lambda data, p=place, b=bit: data[:p] + bytes([data[p] ^ b]) + data[p + 1 :])
            assert is_noticed(corpus, name), (name, place, bit)
            damage(path, lambda _, whole=whole: whole)
    assert upkeep.verify(Store(corpus.root)) == []


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.full)])
def test_every_truncation_and_growth_is_noticed(corpus: Artifact, every: int) -> None:
    for name in every_file(corpus):
        path = corpus.folder / name
        whole = path.read_bytes()
        for length in range(0, len(whole), every):
            damage(path, lambda data, n=length: data[:n])
            assert is_noticed(corpus, name), (name, length)
            damage(path, lambda _, whole=whole: whole)
        for extra in (b"\0", b"\n", b" "):
            damage(path, lambda data, extra=extra: data + extra)
            assert is_noticed(corpus, name), (name, extra)
            damage(path, lambda _, whole=whole: whole)


def test_every_deleted_file_is_noticed(corpus: Artifact) -> None:
    for name in every_file(corpus):
        path = corpus.folder / name
        path.rename(corpus.root / "aside")
        assert is_noticed(corpus, name)
        (corpus.root / "aside").rename(path)


@pytest.mark.parametrize("kind", ["folder", "link", "pipe", "link to itself"])
def test_a_thing_that_is_no_file_is_noticed_at_once(corpus: Artifact, tmp_path: Path, kind: str) -> None:
    for name in every_file(corpus):
        path, aside = corpus.folder / name, tmp_path / "aside"
        path.rename(aside)
        match kind:
            case "folder":
                path.mkdir()
            case "link":
                path.symlink_to(aside)  # even if the right bytes lie behind it
            case "pipe":
                os.mkfifo(path)
            case "link to itself":
                path.symlink_to(path)
        assert is_noticed(corpus, name)
        path.rmdir() if kind == "folder" else path.unlink()
        aside.rename(path)


@pytest.mark.parametrize("component", ["corpus", "corpus/{id}", "corpus/{id}/inner"])
def test_a_link_at_any_component_is_refused(corpus: Artifact, tmp_path: Path, component: str) -> None:
    place = corpus.root / component.format(id=corpus.id)
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    store = Store(corpus.root)
    with pytest.raises(CorruptArtifactError, match="symbolic link"):
        check(store, corpus)
    assert {fault.kind for fault in upkeep.verify(store)} >= {"symlink"}


def test_swapped_artifacts_are_noticed(tmp_path: Path) -> None:
    root = tmp_path / "store"
    run_all(root)
    one, two = Store(root).list("corpus")[0], Store(root).list("tokenize")[0]
    for name in ("", "data.bin", "manifest.json"):
        a, b = one.folder / name, two.folder / name
        _swap(a, b)
        for artifact in (one, two):
            with pytest.raises(CorruptArtifactError):
                check(Store(root), artifact)
        assert {fault.culprit for fault in upkeep.verify(Store(root))} == {one.folder, two.folder}
        _swap(a, b)
    assert upkeep.verify(Store(root)) == []


def _swap(a: Path, b: Path) -> None:
    a.rename(a.with_name("tmp"))
    b.rename(a)
    a.with_name("tmp").rename(b)


def test_a_damaged_cached_artifact_stops_execute_and_force_rebuilds_it(corpus: Artifact) -> None:
    damage(corpus.path("data.bin"), lambda data: b"X" + data[1:])
    store, notes = Store(corpus.root), list[str]()

    class Notes(SilentReport):
        def note(self, text: str) -> None:
            notes.append(text)

    def again(force: bool) -> Artifact:
        return execute(
            STAGES["corpus"], CONFIG, {}, store=store, outside=OUTSIDE, runner=run_stage, report=Notes(), force=force
        ).artifact

    with pytest.raises(CorruptArtifactError, match=r"data\.bin"):
        again(force=False)
    rebuilt = again(force=True)
    assert rebuilt.digest == corpus.digest
    rebuilt.check()
    assert len(list(store.trash.iterdir())) == 1
    assert upkeep.verify(store) == []
    assert notes == []


def test_a_file_replaced_while_it_is_open_gives_the_bytes_that_were_checked(corpus: Artifact) -> None:
    whole = corpus.path("data.bin").read_bytes()
    with corpus.open("data.bin") as stream:
        corpus.path("data.bin").unlink()
        corpus.path("data.bin").write_bytes(bytes(len(whole)))
        assert stream.read() == whole


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m | {"files": {"../escape": {"sha256": "0" * 64, "bytes": 0}}},
        lambda m: m | {"files": {"/etc/passwd": {"sha256": "0" * 64, "bytes": 0}}},
        lambda m: m | {"files": {"a": {"sha256": "0" * 64, "bytes": 0}, "A": {"sha256": "0" * 64, "bytes": 0}}},
        lambda m: m | {"files": {"data.bin": {"sha256": "zz", "bytes": 1}}},
        lambda m: m | {"files": {"data.bin": {"sha256": "0" * 64, "bytes": -1}}},
        lambda m: m | {"files": {"data.bin": {"sha256": "0" * 64, "bytes": 10**400}}},
        lambda m: m | {"files": {"manifest.json": {"sha256": "0" * 64, "bytes": 1}}},
        lambda m: m | {"files": []},
        lambda m: m | {"inputs": {"x": {"stage": "../up", "key": "0" * 64, "digest": "0" * 64}}},
        lambda m: m | {"stage": "../.."},
        lambda m: m | {"key": "A" * 64},
        lambda m: m | {"tables": {"data": 1}},
        lambda m: m | {"provenance": {"created": 5}},
        lambda m: m | {"version": 1.5},
        lambda m: m | {"format": 2},
        lambda m: m | {"extra": True},
        lambda m: [m],
    ],
)
def test_a_hostile_manifest_with_a_right_hash_is_refused(corpus: Artifact, edit: Callable[[dict[str, object]], object]) -> None:
    import json

    manifest = json.loads((corpus.folder / "manifest.json").read_bytes())
    del manifest["sha256"]
    edited = edit(manifest)
    if isinstance(edited, dict):
        files = edited.get("files")
        if isinstance(files, dict):
            edited["digest"] = hash_json("tinygpt.digest", {name: record["sha256"] for name, record in files.items()})
        edited["sha256"] = hash_json("tinygpt.manifest", edited)
    text = json.dumps(edited, indent=1, sort_keys=True) + "\n"
    damage(corpus.folder / "manifest.json", lambda _: text.encode())
    with pytest.raises(CorruptArtifactError):
        Artifact.load(corpus.folder).check()


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 200_000, b"\xff\xfe", b"null", b'"\\ud800"', b"9" * 5000, b"{}", b"NaN"])
def test_a_manifest_that_is_no_json_object_is_refused(corpus: Artifact, data: bytes) -> None:
    damage(corpus.folder / "manifest.json", lambda _: data)
    with pytest.raises(CorruptArtifactError):
        Artifact.load(corpus.folder)


def test_list_survives_damaged_artifacts_and_resolve_names_them(tmp_path: Path) -> None:
    root = tmp_path / "store"
    run_all(root)
    store = Store(root)
    broken = store.list("tokenize")[0]
    damage(broken.folder / "manifest.json", lambda data: data[:-5])
    assert {artifact.stage for artifact in store.list()} == {"corpus", "build-dataset", "train"}
    with pytest.raises(CorruptArtifactError, match=broken.id):
        store.resolve(broken.id)


@pytest.mark.full
def test_a_thousand_flips_in_a_large_file_are_noticed(tmp_path: Path) -> None:
    store, rng = Store(tmp_path / "store"), random.Random(2)
    key = hash_json("test", 1)
    out = store.begin("corpus", key)  # type: ignore[arg-type]
    out.bytes("big.bin", rng.randbytes(5_000_000))
    artifact = store.publish(out)
    path = artifact.path("big.bin")
    path.chmod(0o644)
    missed = 0
    with path.open("r+b") as file:
        for _ in range(1000):
            place = rng.randrange(5_000_000)
            file.seek(place)
            byte = file.read(1)[0]
            for value, should_fail in ((byte ^ (1 << rng.randrange(8)), True), (byte, False)):
                file.seek(place)
                file.write(bytes([value]))
                file.flush()
                try:
                    artifact.read("big.bin")
                    missed += should_fail
                except TinygptError:
                    missed += not should_fail
    assert missed == 0


def test_an_artifact_can_be_read_from_any_folder(corpus: Artifact, tmp_path: Path) -> None:
    copied = shutil.copytree(corpus.folder, tmp_path / "a name with spaces")
    (tmp_path / "link").symlink_to(copied)
    assert Artifact.load(tmp_path / "link").read("data.bin") == corpus.read("data.bin")
