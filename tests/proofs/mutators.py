"""What can be wrong in the files of a store: each function takes bytes and returns other ones."""

import copy
import gzip
import json
import re
import struct
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

Mutator = Callable[[bytes, Random], bytes]
Place = tuple[str | int, ...]


class Raw(str):
    """A value that stands in JSON as it is, without quotes."""


VALUES = (
    *(None, True, False, -1, 0, 1, 2, 0.5, 1e308, -1e308, 1e-320, 2**31, 2**63, 2**64, -(2**63)),
    *(10**30, "", [], {}, [[]], {"a": 1}, [None], [1, 2, 3], ["x"], "nAN", "-1", "1e999"),
    *map(Raw, ("NaN", "Infinity", "-Infinity", "1e999", "1" * 5000, "-0.0", '"\\ud800"')),
    *map(Raw, ("[" * 900 + "]" * 900, "[" * 200_000 + "]" * 200_000, '{"a":' * 5000 + "1")),
    *("\x1b[2J\x1b]0;own\x07", "<script>alert(1)</script>", "../../../../etc/passwd", "\x00"),
    *("a" * 70_000, "\u202e\u2066", "$\\frac{1}{0}$", "[bold]x[/foo]", "{0.__class__}", "%s%n"),
    *("\n\n\n", "é" * 50),
)
FACTORS = (2, 10, 1000, 10**6, 10**9, 10**18)
DTYPES = ("F16", "BF16", "F64", "I32", "U8", "BOOL", "F8_E4M3", "F4", "I64", "C64", "X", "U64")
SHAPES = ([2**40, 2**40], [-1], [0], [], [2**63], [1] * 100)
OFFSETS = ([-8, 8], [0, 2**63], [8, 0], [2**64 - 1, 2**64], [0, 0])


def to_json(value: Any, *, indent: int | None = 1) -> bytes:
    """JSON in which every Raw stands without quotes."""
    raw: list[str] = []

    def encoded(item: Any) -> Any:
        if isinstance(item, Raw):
            raw.append(item)
            return f"@@{len(raw) - 1}@@"
        if isinstance(item, dict):
            return {key: encoded(member) for key, member in item.items()}
        return [encoded(member) for member in item] if isinstance(item, list) else item

    text = json.dumps(encoded(value), indent=indent)
    for number, token in enumerate(raw):
        text = text.replace(f'"@@{number}@@"', token)
    return text.encode("utf-8", "surrogatepass")


def places(value: Any, above: Place = ()) -> Iterator[Place]:
    """Where something stands in a JSON value: of lists the first and the last entries."""
    if above:
        yield above
    if isinstance(value, dict):
        for key, member in value.items():
            yield from places(member, (*above, key))
    elif isinstance(value, list):
        for index in {*range(min(6, len(value))), *range(max(0, len(value) - 2), len(value))}:
            yield from places(value[index], (*above, index))


def mutated_value(value: Any, chance: Random) -> Any:
    """A JSON value with one to three changes."""
    value = copy.deepcopy(value)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        everywhere = list(places(value))
        shallow = [place for place in everywhere if len(place) <= 2]
        if not everywhere or chance.random() < 0.02:
            return copy.deepcopy(chance.choice(VALUES))
        place = chance.choice(shallow if chance.random() < 0.4 else everywhere)
        parent = value
        for key in place[:-1]:
            parent = parent[key]
        _change(parent, place[-1], chance)
    return value


def _change(parent: Any, key: Any, chance: Random) -> None:
    """Change what stands under a key or index."""
    old = parent[key]
    match chance.randrange(10):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, dict):
            parent[chance.choice([f"{key}x", "", "../x", "__class__"])] = parent.pop(key)
        case 2:
            parent[key] = str(old)
        case 3 if isinstance(old, int | float):
            parent[key] = -old - 1
        case 4 if isinstance(old, int | float):
            parent[key] = old * chance.choice(FACTORS) + chance.choice([0, 1])
        case 5 if isinstance(old, int):
            parent[key] = float(old) + chance.choice([0, 0.5])
        case 6:
            parent[key] = [old]
        case 7 if isinstance(old, list) and old:
            chance.shuffle(old)
        case _:
            # A later change inside the value itself would change VALUES, even into a circle
            parent[key] = copy.deepcopy(chance.choice(VALUES))


def mutated_bytes(data: bytes, chance: Random) -> bytes:
    """Bytes that are cut, flipped, doubled, or something else."""
    place = chance.randrange(len(data) + 1)
    end = chance.randrange(place, len(data) + 1)
    match chance.randrange(12):
        case 0:
            return data[:place]
        case 1:
            return data[:place] + bytes([chance.randrange(256)]) + data[place + 1 :]
        case 2:
            return data[:place] + chance.randbytes(chance.choice([1, 3, 50])) + data[place:]
        case 3:
            return b""
        case 4:
            return b"\xef\xbb\xbf" + data
        case 5:
            return data[:place] + b"\xff\xfe\xc0\x80\0\0" + data[place:]
        case 6:
            return data[:end] + data[place:end] * chance.choice([1, 5, 50]) + data[end:]
        case 7:
            return chance.choice([b"[" * 200_000, b'{"a":' * 100_000])
        case 8:
            return data.replace(b"\n", b"\r\n")
        case 9:
            return chance.randbytes(chance.choice([1, 8, 1000]))
        case 10:
            return data.decode("utf-8", "replace").encode("utf-16")
        case _:
            return data + data


def mutated_json(data: bytes, chance: Random) -> bytes:
    """A JSON file."""
    if chance.random() < 0.2:
        return mutated_bytes(data, chance)
    changed = to_json(mutated_value(json.loads(data), chance))
    if chance.random() < 0.1:  # a key that is there twice
        changed = re.sub(rb'("\w+": )', rb"\g<1>1, \g<1>", changed, count=1)
    return changed


def mutated_lines(data: bytes, chance: Random) -> bytes:
    """A JSON Lines file."""
    if chance.random() < 0.15:
        return mutated_bytes(data, chance)
    lines = data.splitlines()
    place = chance.randrange(len(lines))
    match chance.randrange(10):
        case 0:
            del lines[place : place + chance.choice([1, 5, 1000])]
        case 1:
            lines[place:place] = [lines[place]] * chance.choice([1, 100])
        case 2:
            chance.shuffle(lines)
        case 3:
            lines.insert(place, b"")
        case 4:
            kind = chance.choice([b'"eval"', b'"step", '])
            lines = [line for line in lines if kind not in line]
        case 5:  # the same in every line
            rows = [json.loads(line) for line in lines]
            key, value = chance.choice(list(rows[0])) if rows[0] else 0, chance.choice(VALUES)
            if isinstance(rows[0], dict):
                lines = [to_json({**row, key: value}, indent=None) for row in rows]
        case _:
            lines[place] = to_json(mutated_value(json.loads(lines[place]), chance), indent=None)
    return b"\n".join(lines) + b"\n"


def mutated_gzip(data: bytes, chance: Random) -> bytes:
    """A compressed JSON Lines file; one in twelve becomes a bomb."""
    match chance.randrange(12):
        case 0:
            return mutated_bytes(data, chance)
        case 1:
            return data + chance.choice([data, b"junk", gzip.compress(b"")])
        case 2:
            return gzip.decompress(data)
        case 3:
            text = b'"' + b"a" * (chance.choice([1, 4, 1500]) << 20) + b'"\n'
            return gzip.compress(text, 1)
        case 4:
            return gzip.compress(mutated_bytes(gzip.decompress(data), chance), 1)
        case _:
            return gzip.compress(mutated_lines(gzip.decompress(data), chance), 1)


def mutated_tensors(data: bytes, chance: Random) -> bytes:
    """A safetensors file."""
    if chance.random() < 0.1:
        return mutated_bytes(data, chance)
    length = int.from_bytes(data[:8], "little")
    header, tensors = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
    name = chance.choice([name for name in header if name != "__metadata__"])
    place = header[name]["data_offsets"]
    match chance.randrange(17):
        case 0:
            header[name]["shape"] = chance.choice([*SHAPES, header[name]["shape"][::-1]])
        case 1:
            header[name]["data_offsets"] = chance.choice(OFFSETS)
        case 2:
            header[name]["dtype"] = chance.choice(DTYPES)
        case 3:
            other = chance.choice(["../../x", "\x1b[31mX", "", "a" * 5000, "norm.weight"])
            header[other] = header.pop(name)
        case 4:
            del header[name]
        case 5:
            end = [len(tensors), len(tensors) + 8]
            header["extra"] = {"dtype": "F32", "shape": [2], "data_offsets": end}
            tensors += bytes(8)
        case 6:
            tensors[:] = bytes(len(tensors))
        case 7:
            wrong = chance.choice([0, 2**63, 2**64 - 1, 1 << 20, len(data), length - 1, length + 1])
            return wrong.to_bytes(8, "little") + data[8:]
        case 8:
            header["__metadata__"] = chance.choice([{"a": "b"}, *VALUES])
        case 9:
            header[name] |= {"shape": [0], "data_offsets": [0, 0]}
        case 10:
            several = {"dtype": "F32", "shape": [0], "data_offsets": [len(tensors)] * 2}
            header |= {f"t{number}": several for number in range(20_000)}
        case 11:
            header = mutated_value(header, chance)
        case _:
            value = chance.choice([float("nan"), float("inf"), -1.0, 1e10, 1e19, 1e30, 3e38])
            stop = chance.choice([place[0] + 4, place[1]])
            for at in range(place[0], min(stop, place[1]), 4):
                tensors[at : at + 4] = struct.pack("<f", value)
    packed = to_json(header)
    return len(packed).to_bytes(8, "little") + packed + bytes(tensors)


def mutated_tokens(data: bytes, chance: Random) -> bytes:
    """A file of token ids."""
    place = 2 * chance.randrange(len(data) // 2)
    match chance.randrange(10):
        case 0:
            return data[:-1]
        case 1:
            return data[: chance.choice([0, 1, 2, 4, 2 * chance.randrange(80)])]
        case 2:
            return data * 50
        case 3:
            return b"\xff\xff" * (len(data) // 2)
        case 4:
            wrong = struct.pack("<H", chance.choice([299, 300, 301, 65_535]))
            return data[:place] + wrong + data[place + 2 :]
        case 5:
            return bytes(len(data))
        case 6:
            return chance.randbytes(len(data))
        case 7:  # no end of a document
            ids = (data[at : at + 2] for at in range(0, len(data), 2))
            return b"".join(id_ for id_ in ids if id_ != b"\0\0")
        case _:
            return mutated_bytes(data, chance)
