"""File systems of one's own, for proofs that fill a disk or cut its power; only root may mount."""

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tools.proofs import file_system

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2  # EXT4_GOING_FLAGS_NOLOGFLUSH: the journal in memory is lost, as in a power cut


def call(*command: object) -> "subprocess.CompletedProcess[str]":
    """A program of the system; its result is looked at by the caller."""
    line = [str(part) for part in command]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def mount(*arguments: object) -> None:
    """Mount a file system, or skip the test with what the system says."""
    if os.getuid() != 0:
        pytest.skip("needs root, to mount a file system")
    if not (shutil.which("mount") and shutil.which("mkfs.ext4")):
        pytest.skip("needs `mount` and `mkfs.ext4`")
    done = call("mount", *arguments)
    if done.returncode:
        pytest.skip(f"a file system may not be mounted here: {done.stderr.strip()[-100:]}")


def unmount(place: Path) -> None:
    """Take a file system away; one in use goes when its last user does."""
    if call("umount", place).returncode:
        call("umount", "--lazy", place)


class Disk:
    """A file system ext4 in a file, whose power can be cut.

    Args:
        folder: where the file and the place it is mounted at are made.
    """

    def __init__(self, folder: Path) -> None:
        self.image = folder / "disk.img"
        self.place = folder / "disk"
        self.place.mkdir()
        with self.image.open("wb") as file:
            file.truncate(64 << 20)
        call("mkfs.ext4", "-q", "-F", self.image)
        self.mount()

    def mount(self) -> None:
        mount("-o", "loop", self.image, self.place)
        assert file_system(self.place) == "ext4"

    def cut_power(self) -> None:
        """From now on nothing reaches the disk, and every call fails; remount to see what did."""
        fd = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        except OSError as error:
            pytest.skip(f"the system cannot cut the power of a file system: {error}")
        finally:
            os.close(fd)

    def restart(self) -> None:
        """Mount what has reached the disk."""
        unmount(self.place)
        self.mount()


@contextmanager
def disk(folder: Path) -> Iterator[Disk]:
    """A disk that is gone after the block."""
    made = Disk(folder)
    try:
        yield made
    finally:
        unmount(made.place)


@contextmanager
def tmpfs(place: Path, options: str) -> Iterator[Path]:
    """A file system in memory, e.g., with "size=40k" or "nr_inodes=9"."""
    place.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", options, "tmpfs", place)
    try:
        yield place
    finally:
        unmount(place)
