"""The folder of an export: whole or not there, and nothing of the user's is ever removed."""

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tinygpt.errors import StorageError, UsageError
from tinygpt.exports.target import MARKER, new_folder
from tinygpt.store import Store, files
from tinygpt.store.files import Operation


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """The working folder and the home folder of these tests."""
    for name in ("work", "home"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def hook() -> Iterator[Callable[[files.Hook], None]]:
    """Sets what is called before each operation on the disk."""

    def set_hook(called: files.Hook) -> None:
        files.hook = called

    yield set_hook
    files.hook = None


def export(
    target: Path | str, content: str = "1", *, force: bool = False, name: str = "config"
) -> None:
    with new_folder(Path(target), "hf", force) as out:
        out.write("weights", content.encode())
        out.write(name, b"c")
        out.write("runs/train/events", b"e")
        assert out.read("weights") == content.encode()


def everything(folder: Path) -> dict[str, str]:
    """All files and folders below one, and what is in them."""
    return {
        path.relative_to(folder).as_posix(): path.read_text() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


def test_an_export_is_there_as_a_whole_with_a_list_of_its_files(tmp_path):
    export("new/below/out")
    found = everything(tmp_path / "work")
    marker = json.loads(found.pop(f"new/below/out/{MARKER}"))
    assert marker["format"] == "hf"
    assert list(marker["files"]) == ["config", "runs/train/events", "weights"]
    assert {name for name, text in found.items() if text != "folder"} == {
        "new/below/out/weights",
        "new/below/out/config",
        "new/below/out/runs/train/events",
    }
    mode = (tmp_path / "work" / "new/below/out/weights").stat().st_mode
    assert mode & 0o777 == 0o644


def test_what_fails_leaves_nothing_not_even_the_folders_above(tmp_path):
    with pytest.raises(ValueError, match="plain, relative"):
        export("new/below/out", name="../out")
    assert everything(tmp_path / "work") == {}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("failure", [errno.ENOSPC, errno.EIO, None], ids=["full", "bad", "Ctrl-C"])
def test_an_export_that_is_stopped_at_any_operation_leaves_what_was_there(
    tmp_path, hook, failure, force
):
    work = tmp_path / "work"
    if force:
        export("new/out", "old")
    before = everything(work)
    stops = 0
    while not stopped_at(stops, hook, failure, force=force):
        assert everything(work) == before
        stops += 1
    assert stops > 15
    assert Path("new/out/weights").read_text() == "new"
    left = sorted(path.name for path in (work / "new").iterdir())
    assert left == ["out"] or (len(left) == 2 and left[0].endswith(".old") and failure)


def stopped_at(
    number: int, hook: Callable[[files.Hook], None], failure: int | None, *, force: bool
) -> bool:
    """Export while one operation fails, or is interrupted; whether the new export is in place."""
    count = iter(range(number))

    def fail(operation: Operation) -> None:
        if next(count, None) is None:
            files.hook = None  # once: what removes the rest may work
            raise KeyboardInterrupt if failure is None else OSError(failure, "refused")

    hook(fail)
    expected = KeyboardInterrupt if failure is None else StorageError
    try:
        export("new/out", "new", force=force)
    except expected:
        return Path("new/out/weights").is_file() and Path("new/out/weights").read_text() == "new"
    finally:
        files.hook = None
    return True


def test_a_target_that_exists_is_refused_whatever_it_is(tmp_path):
    for name, make in {
        "folder": Path.mkdir,
        "file": Path.touch,
        "link": lambda path: path.symlink_to(tmp_path / "home"),
        "dangling": lambda path: path.symlink_to(tmp_path / "nowhere"),
    }.items():
        make(Path(name))
        before = everything(tmp_path)
        with pytest.raises(UsageError, match=f"`{name}` exists"):
            export(name)
        with pytest.raises(UsageError):
            export(name, force=True)
        assert everything(tmp_path) == before


def test_force_replaces_an_export_and_nothing_else(tmp_path):
    export("out", "old")
    with pytest.raises(UsageError, match="the folder `out` exists") as refused:
        export("out", "new")
    assert "`--force`" in (refused.value.hint or "")
    export("out", "new", force=True)
    assert Path("out/weights").read_text() == "new"
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["out"]


@pytest.mark.parametrize(
    "change",
    [
        lambda out: (out / "mine.txt").write_text("mine"),
        lambda out: (out / "runs" / "mine.txt").write_text("mine"),
        lambda out: (out / "link").symlink_to(out / "weights"),
        lambda out: (out / "weights").write_text("edited"),
        lambda out: [(out / "weights").unlink(), (out / "weights").symlink_to("/etc/hostname")],
        lambda out: (out / MARKER).unlink(),
        lambda out: (out / MARKER).write_text("{}"),
        lambda out: (out / MARKER).write_text("[" * 100_000),
        lambda out: (out / MARKER).write_text('{"files": [1]}'),
    ],
)
def test_force_refuses_a_folder_in_which_something_else_is(tmp_path, change):
    export("out", "old")
    change(Path("out"))
    before = everything(tmp_path)
    with pytest.raises(UsageError) as refused:
        export("out", "new", force=True)
    assert refused.value.hint
    assert everything(tmp_path) == before


def test_what_comes_into_an_export_while_it_is_replaced_is_kept(tmp_path):
    export("out", "old")
    folder = new_folder(Path("out"), "hf", force=True)
    folder.__enter__().write("weights", b"new")
    Path("out/mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"mine\.txt"):
        folder.__exit__(None, None, None)
    assert Path("out/mine.txt").read_text() == "mine"
    assert Path("out/weights").read_text() == "old"
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["out"]


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (".", "is no name"),
        ("..", "is no name"),
        ("/", "is no name"),
        ("", "is no name"),
        ("{tmp}/work", "is the working folder"),
        ("{tmp}/work/../work", "is the working folder"),
        ("{tmp}/home", "is your home folder"),
        ("{tmp}", "is above the working folder"),
        ("{tmp}/store", "is a store"),
        ("{tmp}/store/train/new", "is inside the store"),
        ("{tmp}/link-to-store/new", "is inside the store"),
        ("{tmp}/link-to-work", "is a symbolic link"),
    ],
)
def test_force_never_replaces_what_must_stay_even_with_a_forged_marker(tmp_path, target, reason):
    store = Store(tmp_path / "store")
    store.publish(store.begin("corpus", "0" * 64))  # type: ignore[arg-type]
    (tmp_path / "link-to-store").symlink_to(store.root)
    (tmp_path / "link-to-work").symlink_to(tmp_path / "work")
    for folder in (tmp_path, tmp_path / "work", tmp_path / "home", store.root):
        (folder / MARKER).write_text('{"files": {}}')
    before = everything(tmp_path)
    with pytest.raises(UsageError, match=reason):
        export(target.format(tmp=tmp_path), force=True)
    assert everything(tmp_path) == before


def test_an_unknown_home_folder_is_no_obstacle(monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    export("out")
    export("out", "new", force=True)
    assert Path("out/weights").read_text() == "new"


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path):
    Path("file").touch()
    for target in ("file/out", "file/below/out", "n" * 300):
        with pytest.raises(StorageError) as refused:
            export(target)
        assert refused.value.hint == (
            "free some space, check the permissions, or export to another folder"
        )
    assert everything(tmp_path / "work") == {"file": ""}


@pytest.mark.parametrize("name", ["../out", "/etc/x", "a/../b", ".hidden", "weights"])
def test_no_file_leaves_its_folder(name):
    with pytest.raises(ValueError, match="plain, relative"):
        export("out", name=name)
    assert not Path("out").exists()
