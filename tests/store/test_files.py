"""The file-system layer: modes, names, links, and what the operating system refuses."""

import errno
import gzip
import io
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.proofs.figures import RecordFigure, Size
from tests.store.workload import FailAt, run_all, watched
from tinygpt.errors import StorageError
from tinygpt.hashing import Key, hash_bytes, hash_json
from tinygpt.store import ArtifactWriter, Store, files, upkeep
from tinygpt.store.files import is_safe_name

KEY = Key(hash_json("test"))
UNSAFE_NAMES = [
    "..",
    "../x",
    "/etc/passwd",
    "a/../b",
    "a//b",
    "a/",
    "\\x",
    "C:x",
    "~",
    "a\0b",
    "x.",
    "x ",
]
PARTS = ["..", ".", "a", "", "a" * 300, "con", "…"]
any_name = st.one_of(
    st.text(max_size=300),
    st.sampled_from(UNSAFE_NAMES),
    st.lists(st.sampled_from(PARTS), max_size=12).map("/".join),
)


@pytest.fixture
def out(store: Store) -> ArtifactWriter:
    return store.begin("corpus", KEY)


def tree(root: Path) -> dict[str, bytes | None]:
    """The bytes of every file below a folder; None for a folder."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_files_are_read_only_and_folders_are_not_whatever_the_umask(
    tmp_path: Path, fast: None, umask: int
) -> None:
    root = tmp_path / "store"
    before = os.umask(umask)
    try:
        run_all(root, names=("corpus",))
    finally:
        os.umask(before)
    (artifact,) = Store(root).list()
    for path in [artifact.folder, *artifact.folder.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o444)


def is_harmless(name: str) -> bool:
    """Whether a name stays below a folder on every system."""
    inside = Path(os.path.normpath(Path("/store") / name))
    return (
        inside.is_relative_to("/store")
        and inside != Path("/store")
        and not set(name) & set('\\:\0<>"|?*~ ')
        and not any(part.endswith(".") or part.startswith(".") for part in name.split("/"))
    )


def test_no_safe_name_leads_out_of_a_folder(size: Size, figure: RecordFigure) -> None:
    names = size(100, 500, 5_000)

    @settings(max_examples=names)
    @given(name=any_name)
    def check(name: str) -> None:
        assert is_harmless(name) or not is_safe_name(name)

    check()
    figure("G21", "names, none of which leads out of a folder", names)


def test_control_names_are_not_harmless_only_because_no_part_of_them_is_two_dots(
    figure: RecordFigure,
) -> None:
    passed = [name for name in UNSAFE_NAMES if ".." not in name.split("/")]
    bad = sum(not is_harmless(name) for name in passed)
    figure("G21", "hostile names of which no part is `..`", len(passed), bad, control=True)


@pytest.mark.parametrize(
    "name",
    [*UNSAFE_NAMES, "", "x" * 101, "manifest.json", "Manifest.JSON", "a/b/c/d/e/f/g/h/i"],
)
def test_an_unsafe_name_is_refused_and_writes_nothing(
    out: ArtifactWriter, tmp_path: Path, name: str
) -> None:
    before = tree(tmp_path)
    with pytest.raises(ValueError, match="plain"):
        out.bytes(name, b"")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["Model.bin", "model.BIN"])
def test_a_name_is_refused_if_it_is_taken_in_any_case(out: ArtifactWriter, name: str) -> None:
    out.bytes("Model.bin", b"")
    with pytest.raises(ValueError, match="free"):
        out.bytes(name, b"")


@pytest.mark.parametrize("place", [".partial", ".locks", ".trash", "corpus", ".pins", "latest"])
def test_a_link_in_place_of_a_folder_of_the_store_is_not_followed(
    tmp_path: Path, fast: None, place: str
) -> None:
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
    if kind == "file":
        root.write_text("")
    else:
        root.symlink_to(tmp_path / "nowhere")
    store = Store(root)
    for attempt in (
        store.list,
        store.check_exists,
        lambda: store.find("corpus", KEY),
        lambda: store.begin("corpus", KEY),
    ):
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
    assert store.list() == []
    assert store.find("corpus", KEY) is None
    assert store.unfinished_runs() == []
    assert upkeep.verify(store) == []
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
def test_each_error_of_the_system_has_its_sentence_and_hint(number: int, word: str) -> None:
    error = StorageError.refused(OSError(number, "x"), Path("place"))
    assert word in error.message
    assert "place" in error.message
    assert error.hint
    assert error.exit_code == 8


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_only_for_a_full_disk_the_hint_is_to_free_space(number: int) -> None:
    full = StorageError.refused(OSError(number, "x"), "place")
    denied = StorageError.refused(OSError(errno.EACCES, "x"), "place")
    assert "`tinygpt artifacts gc`" in str(full.hint)
    assert "permissions" in str(denied.hint)
    assert "gc" not in str(denied.hint)


def test_a_stream_that_fails_leaves_its_file_out_and_closed(out: ArtifactWriter) -> None:
    with pytest.raises(TypeError), out.stream("half.bin") as stream:
        stream.writelines([b"x" * 3_000_000, "no bytes"])  # type: ignore[list-item]
    assert out.files == {}
    assert stream.raw.closed  # type: ignore[attr-defined]


def test_a_copy_that_fails_leaves_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"bytes")
    full_disk = FailAt(2, errno.ENOSPC)
    with pytest.raises(StorageError), watched(full_disk):
        files.copy_file(tmp_path, tmp_path / "source", tmp_path / "copy")
    assert full_disk.failed_kind == "write"
    assert not (tmp_path / "copy").exists()


def test_streams_take_many_small_and_few_large_pieces(out: ArtifactWriter) -> None:
    data = bytes(range(256)) * 20_000
    with out.stream("small-pieces.bin") as stream:
        for start in range(0, len(data), 1000):
            stream.write(data[start : start + 1000])
    with out.stream("one-piece.bin") as stream:
        stream.write(memoryview(data))
    expected = {"sha256": hash_bytes(data), "bytes": len(data)}
    assert out.files == {"small-pieces.bin": expected, "one-piece.bin": expected}


def test_gzip_writes_into_a_stream(out: ArtifactWriter) -> None:
    with (
        out.stream("a.gz") as stream,
        gzip.GzipFile(fileobj=stream, mode="wb", mtime=0) as packed,
    ):
        packed.write(b"story")
    assert gzip.decompress((out.folder / "a.gz").read_bytes()) == b"story"


def test_nothing_is_opened_for_overwriting(tmp_path: Path, fast: None) -> None:
    path = tmp_path / "there"
    path.write_bytes(b"mine")
    with pytest.raises(StorageError):
        files.write_file(path, b"new")
    assert path.read_bytes() == b"mine"


def test_latest_holds_copies_of_the_last_results_only(store: Store) -> None:
    store.put_latest({"plots/a.png": b"1", "story.txt": b"2"})
    latest = store.put_latest({"story.txt": b"3"})
    assert tree(latest) == {str(latest / "story.txt"): b"3"}
    assert files.entries(store.partial) == []


@pytest.mark.parametrize("error", [errno.EROFS, errno.ENOSPC])
def test_copies_that_cannot_be_written_leave_the_old_ones_whole(store: Store, error: int) -> None:
    latest = store.put_latest({"story.txt": b"1", "a/b.png": b"2"})
    before = tree(latest)
    for number in range(1, 19):  # the last one renames the new folder
        hook = FailAt(number, error)
        with watched(hook), pytest.raises(StorageError):
            store.put_latest({"story.txt": b"3", "c/d.png": b"4"})
        assert tree(latest) == before, number
    assert hook.failed_kind == "rename"
    assert files.entries(store.partial) == []
    assert store.list() == []
    assert upkeep.verify(store) == []


def test_reading_goes_through_the_descriptor_that_was_hashed(
    store: Store, out: ArtifactWriter
) -> None:
    out.bytes("a.bin", b"abc")
    artifact = store.publish(out)
    with artifact.open("a.bin") as stream:
        assert isinstance(stream, io.BufferedReader)
        assert stream.tell() == 0
        assert os.fstat(stream.fileno()).st_ino == artifact.path("a.bin").stat().st_ino
