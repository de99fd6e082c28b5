"""The folder that an export becomes: not there, or there as a whole.

<parent>/.tinygpt-export.<random>/   the files until all of them are written and checked
<parent>/<target>/                   the export; .tinygpt-export.json lists its files
"""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tinygpt.errors import StorageError, TinygptError, UsageError
from tinygpt.hashing import hash_stream
from tinygpt.store import files
from tinygpt.store.new_folder import NewFolder
from tinygpt.store.store import MARKER as STORE_MARKER

MARKER = ".tinygpt-export.json"
MAX_MARKER_BYTES = 1 << 20
FILE_MODE = 0o644  # an export belongs to its user, who may edit it
ELSEWHERE = "name a folder that does not exist yet"


class ExportFolder(NewFolder):
    """The files of an export until it is complete; `folder` is where they are meanwhile."""

    file_mode = FILE_MODE

    def write(self, name: str, data: bytes) -> None:
        """Write a file; it is durable on return. The name may have folders: "train/events"."""
        self.bytes(name, data)

    def read(self, name: str) -> bytes:
        """The bytes of a file that was written, read back from the disk."""
        with files.refusals(self.folder / name):
            return (self.folder / name).read_bytes()


@contextmanager
def new_folder(target: Path, kind: str, force: bool = False) -> Iterator[ExportFolder]:
    """A folder to write an export into; the block ends with it in place, or leaves nothing.

    Args:
        target: where it goes; folders above it are created.
        kind: the format, e.g., "hf".
        force: replace an earlier export.
    Raises:
        UsageError: the target exists, and may not be replaced.
        StorageError: the system refuses to write it.
    """
    check_target(target, force)
    place = _place(target)
    made = [above for above in place.parents if not above.exists()]
    partial = place.parent / f".tinygpt-export.{secrets.token_hex(6)}"
    finished = False
    try:
        for above in reversed(made):
            files.make_folder(above)
        out = ExportFolder(partial)
        yield out
        _seal(out, kind)
        _put(partial, place, force)
        finished = True
    except StorageError as error:
        error.hint = "free some space, check the permissions, or export to another folder"
        raise
    finally:
        if not finished:
            files.discard(partial)
            for above in made:
                with suppress(StorageError):
                    if above.is_dir() and not files.entries(above):
                        files.remove(above)


def check_target(target: Path, force: bool) -> None:
    """Refuse a target that exists, or that must never be replaced.

    Raises:
        UsageError: with the reason.
    """
    if not target.name or target.name == "..":
        raise UsageError(f"`{target}` is no name for a new folder", hint=ELSEWHERE)
    place = _place(target)
    for above in place.parents:
        if (above / STORE_MARKER).exists():
            raise UsageError(
                f"`{target}` is inside the store `{above}`", hint="name a folder outside of it"
            )
    if not os.path.lexists(place):
        return
    if place.is_symlink() or not place.is_dir():
        kind = "a symbolic link" if place.is_symlink() else "a file"
        raise UsageError(f"`{target}` exists and is {kind}", hint=ELSEWHERE)
    _refuse_precious(target, place)
    if not force:
        hint = f"{ELSEWHERE}; `--force` replaces an earlier export"
        raise UsageError(f"the folder `{target}` exists", hint=hint)
    _require_export(place)


def _place(target: Path) -> Path:
    """The absolute path of a target; links above it are followed, it itself is not."""
    return Path(os.path.realpath(target.parent)) / target.name


def _refuse_precious(target: Path, place: Path) -> None:
    """Refuse a store, and the working folder, the home folder and what is above them."""
    if (place / STORE_MARKER).exists():
        raise UsageError(f"`{target}` is a store", hint=ELSEWHERE)
    home = os.path.realpath(os.path.expanduser("~"))  # noqa: PTH111 - Path.home() may raise
    for name, folder in (("the working folder", Path.cwd()), ("your home folder", Path(home))):
        for kept in (folder, *folder.parents):
            if kept.exists() and kept.samefile(place):
                what = name if kept == folder else f"above {name}"
                raise UsageError(f"`{target}` is {what}", hint=ELSEWHERE)


def _require_export(place: Path) -> None:
    """Refuse a folder that holds anything but the unchanged files of an export.

    Raises:
        UsageError: with the first file that is another one.
    """
    hint = f"{ELSEWHERE}, or move your own files out of it"
    try:
        with files.open_beneath(place, place / MARKER) as stream:
            listed = dict(json.loads(stream.read(MAX_MARKER_BYTES))["files"])
    except FileNotFoundError as error:
        raise UsageError(
            f"`{place}` is not an export of tinygpt: it has no `{MARKER}`", hint=ELSEWHERE
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"`{place / MARKER}` is not what an export writes", hint=ELSEWHERE
        ) from error
    for path in _below(place):
        name = path.relative_to(place).as_posix()
        if name == MARKER:
            continue
        if name not in listed:
            raise UsageError(f"`{place}` holds `{name}`, which no export wrote", hint=hint)
        if _hash(place, path) != listed[name]:
            raise UsageError(f"`{path}` was changed after the export", hint=hint)


def _hash(place: Path, path: Path) -> str | None:
    """The hash of a file; None for one that cannot be read, e.g., a link."""
    with suppress(OSError), files.open_beneath(place, path) as stream:
        return hash_stream(stream)
    return None


def _below(folder: Path) -> Iterator[Path]:
    """Everything below a folder that is not itself a folder; links are not followed."""
    for path in files.entries(folder):
        if path.is_dir() and not path.is_symlink():
            yield from _below(path)
        else:
            yield path


def _seal(out: ExportFolder, kind: str) -> None:
    """Write the list of the files, after everything else is durable."""
    hashes = {name: record["sha256"] for name, record in out.files.items()}
    content = json.dumps({"format": kind, "files": hashes}, indent=1, sort_keys=True)
    out.sync()
    files.write_file(out.folder / MARKER, content.encode() + b"\n", FILE_MODE)
    files.fsync_folder(out.folder)


def _put(partial: Path, place: Path, force: bool) -> None:
    """Rename the finished folder into place; an earlier export is removed only afterwards."""
    old = partial.with_name(f"{partial.name}.old")
    try:
        if force and os.path.lexists(place):
            files.rename(place, old)
            _require_export(old)  # again: what came in meanwhile would be lost
        files.rename(partial, place)
    except (TinygptError, KeyboardInterrupt):
        if not os.path.lexists(partial):
            files.rename(place, partial)
        if os.path.lexists(old):
            files.rename(old, place)
        raise
    try:
        if os.path.lexists(old):
            files.remove(old)
    except KeyboardInterrupt:
        files.discard(old)
        raise
