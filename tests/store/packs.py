"""Packs for the tests: taken apart, spelled otherwise, mutated."""

import hashlib
import io
import random
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

from tinygpt.pipeline import check_recipe
from tinygpt.store import Store, tar
from tinygpt.store.tar import header as plain_header
from tinygpt.store.unpack import Unpacked, unpack

Member = tuple[str, bytes]


def members(data: bytes) -> list[Member]:
    """Name and bytes of each file in a pack, as Python's own tarfile reads it."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = []
        for info in archive.getmembers():
            stream = archive.extractfile(info)
            assert stream is not None
            found.append((info.name, stream.read()))
        return found


def join(files: Iterable[Member]) -> bytes:
    """A tar file of these files in this order, spelled like a pack, whatever their names."""
    blocks = []
    for name, data in files:
        blocks += [sealed(name, len(data)), data, bytes(-len(data) % tar.BLOCK)]
    return b"".join(blocks) + tar.END


def sealed(name: str, size: int, **fields: bytes) -> bytes:
    """A header with a right checksum.

    Args:
        fields: kind (1 byte), link, mode, owner, time or length, instead of those of a plain file.
    """
    header = bytearray(plain_header(tar.Entry("x", size)))
    header[: len(name)] = name.encode("latin-1")
    places = {"kind": 156, "link": 157, "mode": 100, "owner": 265, "time": 136, "length": 124}
    for field, value in fields.items():
        header[places[field] : places[field] + len(value)] = value
    return with_checksum(header)


def with_checksum(header: bytes | bytearray) -> bytes:
    """The header with the sum of its bytes made right."""
    blank = bytearray(header)
    blank[148:156] = b" " * 8
    blank[148:156] = b"%06o\0 " % sum(blank)
    return bytes(blank)


def accept(root: Path, data: bytes, scratch: Path) -> list[Unpacked]:
    """Unpack these bytes into the store of a folder."""
    path = scratch / "mutated.tar"
    path.write_bytes(data)
    return unpack(Store(root), path, check_recipe, timeout=5)


def contents(root: Path) -> dict[str, str]:
    """The hash of each file of the artifacts of a store, by its name there."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.relative_to(root).parts[0].startswith(".")
    }


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A pack changed in one of many ways."""
    return rng.choice(MUTATIONS)(data, rng)


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    noise = rng.randbytes(rng.choice((1, 8, 100, 600)))
    return data[:start] + noise + data[start + len(noise) :]


def _cut_out(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.choice((1, 12, 512, 1024, 5000)) :]


def _put_in(data: bytes, rng: random.Random) -> bytes:
    start = rng.choice((rng.randrange(len(data)), rng.randrange(0, len(data), 512)))
    piece = rng.choice((bytes(512), rng.randbytes(9), data[start : start + 1024], data[:512]))
    return data[:start] + piece + data[start:]


def _swap_blocks(data: bytes, rng: random.Random) -> bytes:
    blocks = [data[i : i + 512] for i in range(0, len(data), 512)]
    one, two = rng.sample(range(len(blocks)), 2)
    blocks[one], blocks[two] = blocks[two], blocks[one]
    return b"".join(blocks)


def _edit_header(data: bytes, rng: random.Random) -> bytes:
    """Other bytes in a field of a header, whose checksum is made right again."""
    starts = [i for i in range(0, len(data), 512) if data[i + 257 : i + 262] == b"ustar"]
    start = rng.choice(starts)
    header = bytearray(data[start : start + 512])
    place = rng.choice((0, 1, 40, 100, 108, 116, 124, 134, 136, 156, 157, 257, 263, 265, 345))
    piece = rng.choice((b"\xff", b"../", b"/", b"1", b"x", b"7777", b"-", b" ", rng.randbytes(3)))
    header[place : place + len(piece)] = piece
    return data[:start] + with_checksum(header[:512]) + data[start + 512 :]


def _rename(data: bytes, rng: random.Random) -> bytes:
    files = members(data)
    at = rng.randrange(len(files))
    name, content = files[at]
    stage, key, file = name.split("/", 2)
    names = (
        *(f"../{name}", f"/{name}", f"{stage}/../../{file}", f"{stage}/{key}/../../../{file}"),
        *(name.upper(), name.title(), f"{name}/", f"./{name}", name.replace("/", "\\"), f"{name}."),
        *(f"latest/{key}/{file}", f".pins/{key}/{file}", f"checkpoint/{key}/{file}", file, ""),
        *(f"{stage}/{key[::-1]}/{file}", f"{stage}/{key}/inner/manifest.json", f"{name}\x7f"),
    )
    files[at] = rng.choice(names), content
    return join(sorted(files) if rng.random() < 0.7 else files)


def _rearrange(data: bytes, rng: random.Random) -> bytes:
    """Files twice, left out, exchanged or in another order."""
    files = members(data)
    one, two = rng.sample(range(len(files)), 2)
    match rng.randrange(4):
        case 0:
            files.insert(one, files[two])
        case 1:
            del files[one]
        case 2:
            files[one], files[two] = (files[one][0], files[two][1]), (files[two][0], files[one][1])
        case 3:
            files[one], files[two] = files[two], files[one]
    return join(files)


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_flip, _overwrite, _cut_out, _put_in, _swap_blocks, _edit_header, _rename, _rearrange),
    *(
        lambda data, rng: data[: rng.randrange(len(data))],
        lambda data, rng: data + rng.randbytes(9),
    ),
)
