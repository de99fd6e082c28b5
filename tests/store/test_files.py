"""The seam itself: modes, names, links, refusals."""

import errno
import io
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store.workload import run_all
from tinygpt.errors import StorageError
from tinygpt.hashing import Key, hash_bytes, hash_json
from tinygpt.store import Out, Store, files, upkeep
from tinygpt.store.files import is_safe_name

KEY = Key(hash_json("test"))
CLIMBING = ["..", "../x", "/etc/passwd", "a/../b", "a//b", "a/", "\\x", "C:x", "~", "a\0b", "x.", "x "]
hostile = st.one_of(
    st.text(max_size=300),
    st.sampled_from(CLIMBING),
    st.lists(st.sampled_from(["..", ".", "a", "", "a" * 300, "con", "…"]), max_size=12).map("/".join),
)


@pytest.fixture
def out(store: Store) -> Out:
    return store.begin("corpus", KEY)


def tree(root: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


def test_files_are_read_only_and_folders_are_not_whatever_the_umask(tmp_path: Path, fast: None) -> None:
    for umask in (0o000, 0o022, 0o077, 0o777):
        before = os.umask(umask)
        try:
            run_all(tmp_path / f"{umask:o}", names=("corpus",))
        finally:
            os.umask(before)
        (artifact,) = Store(tmp_path / f"{umask:o}").list()
        for path in [artifact.folder, *artifact.folder.rglob("*")]:
            assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o444)


@given(name=hostile)
def test_no_name_leads_out_of_a_folder(name: str) -> None:
    if is_safe_name(name):
        inside = Path(os.path.normpath(Path("/store") / name))
        assert inside.is_relative_to("/store")
        assert inside != Path("/store")
        assert not set(name) & set('\\:\0<>"|?*~ ')
        assert not any(part.endswith(".") or part.startswith(".") for part in name.split("/"))


def test_a_hostile_name_writes_nothing(out: Out, tmp_path: Path) -> None:
    before = tree(tmp_path)
    for name in (*CLIMBING, "", "x" * 101, "manifest.json", "Manifest.JSON", "a/b/c/d/e/f/g/h/i"):
        with pytest.raises(ValueError, match="plain"):
            out.bytes(name, b"")
    assert tree(tmp_path) == before


def test_a_name_is_written_once_and_twins_in_case_are_one_name(out: Out) -> None:
    out.bytes("Model.bin", b"")
    for name in ("Model.bin", "model.BIN"):
        with pytest.raises(ValueError, match="free"):
            out.bytes(name, b"")


@pytest.mark.parametrize("place", [".partial", ".locks", ".trash", "corpus", ".pins", "latest"])
def test_a_link_planted_in_the_store_is_not_followed(tmp_path: Path, fast: None, place: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / place).symlink_to(outside)
    store = Store(tmp_path / "artifacts")
    for attempt in (
        lambda: run_all(store.root, names=("corpus",)),
        lambda: run_all(store.root, names=("corpus",), force=True),
        lambda: store.put_latest({"story.txt": b"x"}),
        lambda: store.pin(store.list()[0]),
        lambda: upkeep.gc(store, timeout=0),
        lambda: upkeep.repair(store, timeout=0),
    ):
        try:
            attempt()
        except (StorageError, IndexError):
            continue
    assert {path.name for path in outside.iterdir()} == {"precious"}


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_a_root_that_is_no_folder_is_one_clear_error(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "artifacts"
    root.write_text("") if kind == "file" else root.symlink_to(tmp_path / "nowhere")
    store = Store(root)
    for attempt in (store.list, lambda: store.find("corpus", KEY), lambda: store.begin("corpus", KEY)):
        with pytest.raises(StorageError, match="artifacts") as caught:
            attempt()
        assert "--store" in str(caught.value.hint)


def test_a_root_that_is_a_link_to_a_folder_works(tmp_path: Path, fast: None) -> None:
    (tmp_path / "big disk").mkdir()
    (tmp_path / "artifacts").symlink_to(tmp_path / "big disk")
    run_all(tmp_path / "artifacts", names=("corpus",))
    assert len(Store(tmp_path / "artifacts").list()) == 1
    assert upkeep.verify(Store(tmp_path / "artifacts")) == []


def test_reading_an_empty_store_makes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "artifacts")
    assert (store.list(), store.find("corpus", KEY), store.unfinished(), upkeep.verify(store)) == ([], None, [], [])
    assert not store.root.exists()


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (errno.ENOSPC, "space"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission"),
        (errno.EFBIG, "large"),
        (errno.EIO, "input/output"),
    ],
)
def test_each_refusal_of_the_system_has_its_sentence_and_hint(number: int, word: str) -> None:
    error = StorageError.refused(OSError(number, "x"), Path("place"))
    assert word in error.message
    assert "place" in error.message
    assert error.hint
    assert error.exit_code == 8


def test_a_stream_that_fails_leaves_its_file_out(out: Out) -> None:
    with pytest.raises(TypeError), out.stream("half.bin") as stream:
        stream.writelines([b"x" * 3_000_000, "no bytes"])  # type: ignore[list-item]
    assert out.files == {}


def test_streams_take_many_small_and_few_large_pieces(out: Out) -> None:
    data = bytes(range(256)) * 20_000
    with out.stream("a.bin") as stream:
        for start in range(0, len(data), 1000):
            stream.write(data[start : start + 1000])
    with out.stream("b.bin") as stream:
        stream.write(memoryview(data))
    assert out.files["a.bin"] == out.files["b.bin"] == {"sha256": hash_bytes(data), "bytes": len(data)}


def test_gzip_writes_into_a_stream(out: Out) -> None:
    import gzip

    with out.stream("a.gz") as stream, gzip.GzipFile(fileobj=stream, mode="wb", mtime=0) as packed:
        packed.write(b"story")
    assert gzip.decompress((out.folder / "a.gz").read_bytes()) == b"story"


def test_nothing_is_opened_for_overwriting(tmp_path: Path, fast: None) -> None:
    path = tmp_path / "there"
    path.write_bytes(b"mine")
    with pytest.raises(StorageError):
        files.write_file(path, b"new")
    assert path.read_bytes() == b"mine"


def test_latest_holds_plain_copies_of_the_last_results_only(store: Store) -> None:
    store.put_latest({"plots/a.png": b"1", "story.txt": b"2"})
    latest = store.put_latest({"story.txt": b"3"})
    assert tree(latest) == {str(latest / "story.txt"): b"3"}
    assert store.list() == []
    assert upkeep.verify(store) == []


def test_reading_goes_through_the_descriptor_that_was_hashed(store: Store, out: Out) -> None:
    out.bytes("a.bin", b"abc")
    artifact = store.publish(out)
    with artifact.open("a.bin") as stream:
        assert isinstance(stream, io.BufferedReader)
        assert stream.tell() == 0
        assert os.fstat(stream.fileno()).st_ino == artifact.path("a.bin").stat().st_ino
