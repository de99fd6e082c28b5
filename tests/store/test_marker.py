"""What counts as a store: a marker, or artifacts; no other folder is searched or cleared."""

from pathlib import Path

import pytest

from tests.store.workload import KillAt, KilledError, run_all, watched
from tinygpt.errors import MissingArtifactError
from tinygpt.store import Store
from tinygpt.store.store import MARKER

pytestmark = pytest.mark.usefixtures("fast")


def test_the_first_artifact_brings_a_marker_and_the_store_stays_one_without_artifacts(
    store: Store,
) -> None:
    run_all(store.root, names=("corpus",))
    assert (store.root / MARKER).read_text() == "This folder is a store of tinygpt.\n"
    (store.root / "corpus").rename(store.root / "other things")
    store.check_exists()


def test_a_folder_that_is_missing_is_no_store(store: Store) -> None:
    with pytest.raises(MissingArtifactError, match="there is no store") as caught:
        store.check_exists()
    assert caught.value.exit_code == 3
    assert "--store DIR" in str(caught.value.hint)
    assert not store.root.exists()


@pytest.mark.parametrize(
    "name", ["notes.txt", "corpus", "train/my model/manifest.json", "latest/a"]
)
def test_a_folder_with_other_things_is_no_store(store: Store, name: str) -> None:
    path = store.root / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(MissingArtifactError, match="is not a store"):
        store.check_exists()


@pytest.mark.parametrize("names", [[], ["README.md"], ["README.md", ".gitignore", ".DS_Store"]])
def test_an_empty_folder_is_an_empty_store(store: Store, names: list[str]) -> None:
    store.root.mkdir()
    for name in names:
        (store.root / name).write_text("")
    store.check_exists()


def test_a_store_from_before_there_were_markers_is_one_and_is_marked_when_it_is_written(
    store: Store, tmp_path: Path
) -> None:
    run_all(store.root, names=("corpus",))
    (store.root / MARKER).unlink()
    (store.root / "mine.txt").write_text("")
    store.check_exists()
    run_all(store.root, names=("corpus",))  # from the cache, which writes nothing
    assert not (store.root / MARKER).exists()
    run_all(store.root, names=("corpus", "tokenize"))
    assert (store.root / MARKER).exists()


def test_a_store_whose_first_run_was_killed_anywhere_is_one(tmp_path: Path) -> None:
    for number in range(1, 40):
        store = Store(tmp_path / str(number))
        with watched(KillAt(number)), pytest.raises(KilledError):
            run_all(store.root)
        if store.root.exists():
            store.check_exists()
