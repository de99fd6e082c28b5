"""A tokenizer.json is read back as it was, and a foreign one never reaches the native library."""

import json
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from tests.lm.corpus import CORPUS, TOKENIZER
from tinygpt.errors import InputError
from tinygpt.lm import tokenizer as module
from tinygpt.lm.tokenizer import END_OF_TEXT, MAX_FILE_BYTES, Tokenizer

FILE = TOKENIZER.to_bytes()
CONTENT: Any = json.loads(FILE)
VOCABULARY: dict[str, int] = CONTENT["model"]["vocab"]
MERGES: list[list[str]] = CONTENT["model"]["merges"]


def test_a_tokenizer_survives_being_written_and_read() -> None:
    again = Tokenizer.from_bytes(FILE)
    assert [again.encode(text) for text in CORPUS] == [TOKENIZER.encode(text) for text in CORPUS]
    assert again.to_bytes() == FILE


def test_the_tokenizers_library_reads_the_file_and_encodes_alike() -> None:
    native = tokenizers.Tokenizer.from_str(FILE.decode())
    for text in CORPUS:
        assert native.encode(text).ids == TOKENIZER.encode(text)
        assert native.decode(native.encode(text).ids) == text
    assert native.encode(END_OF_TEXT).ids == [0]


@pytest.mark.parametrize("order", [1, -1], ids=["end of text last", "reversed"])
def test_ids_may_be_in_any_order_as_in_imported_files(order: int) -> None:
    entries = [*list(VOCABULARY)[1:], END_OF_TEXT][::order]
    merges = [(left, right) for left, right in MERGES]
    tokenizer = Tokenizer(entries, merges)
    again = Tokenizer.from_bytes(tokenizer.to_bytes())
    assert again.end_of_text == entries.index(END_OF_TEXT)
    native = tokenizers.Tokenizer.from_str(tokenizer.to_bytes().decode())
    for text in CORPUS:
        assert again.encode(text) == native.encode(text).ids
        assert again.decode(again.encode(text)) == text
    assert native.encode(END_OF_TEXT).ids == [again.end_of_text]
    assert again.decode([again.end_of_text]) == ""


# ---- files that tinygpt did not write


def written(content: object) -> bytes:
    """JSON in the layout of Tokenizer.to_bytes."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n"
    return text.encode("utf-8", "surrogatepass")


def changed(*path: object, value: object) -> bytes:
    """The file with another value at one place."""
    content = json.loads(FILE)
    place = content
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return written(content)


def with_vocabulary(entries: dict[str, int]) -> bytes:
    return changed("model", "vocab", value=VOCABULARY | entries)


def with_merge(*merge: str) -> bytes:
    return changed("model", "merges", value=[*MERGES, list(merge)])


def with_entry_and_merge(entry: str, *merge: str) -> bytes:
    model = CONTENT["model"] | {
        "vocab": VOCABULARY | {entry: len(VOCABULARY)},
        "merges": [*MERGES, list(merge)],
    }
    return changed("model", value=model)


def with_entry_of(doublings: int) -> bytes:
    """The file with an entry of 2^doublings bytes, and those that it is made of."""
    halves = ["~" * 2**n for n in range(doublings)]
    vocabulary = VOCABULARY | {half * 2: len(VOCABULARY) + n for n, half in enumerate(halves)}
    merges = [*MERGES, *([half, half] for half in halves)]
    return changed("model", value=CONTENT["model"] | {"vocab": vocabulary, "merges": merges})


def test_entries_may_be_as_long_as_their_length_can_be_stored() -> None:
    tokenizer = Tokenizer.from_bytes(with_entry_of(15))
    assert max(tokenizer.byte_lengths) == 2**15


TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "[X]", "type_id": 0}}],
    "pair": [],
    "special_tokens": {},
}
REGEX = {
    "type": "Split",
    "pattern": {"Regex": "(a+)+$"},
    "behavior": "Isolated",
    "invert": False,
}
STRIDE = {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 9}
PADDING = {"strategy": {"Fixed": 2**40}, "direction": "Left", "pad_id": 0}
CHARSMAP = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}

NATIVE_PANICS = {
    "merge past the longest entry": with_entry_and_merge("x" * 100, "x" * 100, "x" * 100),
    "charsmap": changed("normalizer", value=CHARSMAP),
    "fixed length": changed("pre_tokenizer", value={"type": "FixedLength", "length": 0}),
    "regex": changed("pre_tokenizer", value=REGEX),
    "template": changed("post_processor", value=TEMPLATE),
    "stride": changed("truncation", value=STRIDE),
    "padding": changed("padding", value=PADDING),
    "dropout": changed("model", "dropout", value=0.5),
    "byte fallback": changed("model", "byte_fallback", value=True),
    "unknown token": changed("model", "unk_token", value="[UNK]"),
}
"""Files for which the native parser panics, hangs or encodes at random."""

OTHER_JSON = {
    "empty": b"",
    "no json": b"tokenizer",
    "no table": b"[]",
    "no model": b"{}",
    "model is text": b'{"model":"BPE"}',
    "pickle": b"\x80\x04N.",
    "nul": b"\0" * 64,
    "not utf-8": b"\xff\xfe\x00",
    "deep list": b"[" * 200_000,
    "deep object": b'{"model":' * 100_000,
    "deep version": b'{"version":' + b"[" * 900 + b"]" * 900 + b',"model":{}}',
    "long number": b'{"model":{},"version":' + b"9" * 10_000 + b"}",
    "lone surrogate": changed("version", value="\ud800"),
    "nan": FILE.replace(b'"version":"1.0"', b'"version":NaN'),
    "duplicate key": FILE.replace(b'"version":"1.0"', b'"version":"1.0","version":"1.0"'),
    "duplicate vocab": FILE.replace(b'"!":1,', b'"!":1,"!":1,'),
    "unknown key": written(CONTENT | {"plugin": "os.system"}),
    "zero is false": FILE.replace(b'"id":0', b'"id":false'),
    "other layout": json.dumps(CONTENT).encode(),
    "too long": FILE + b" " * MAX_FILE_BYTES,
}

OTHER_VOCABULARY = {
    "no vocab": changed("model", "vocab", value=None),
    "vocab is a list": changed("model", "vocab", value=list(VOCABULARY)),
    "small vocab": changed("model", "vocab", value={"a": 0}),
    "huge vocab": with_vocabulary({f"x{i}": i + len(VOCABULARY) for i in range(66_000)}),
    "negative id": with_vocabulary({"!": -1}),
    "id past uint32": with_vocabulary({"!": 2**32}),
    "id is true": with_vocabulary({"!": True}),
    "id is a list": changed("model", "vocab", "!", value=[[1]]),
    "ids exchanged": with_vocabulary({"!": 2, '"': 1}),
    "entry without merge": with_vocabulary({"zzzz": len(VOCABULARY)}),
    "empty entry": with_entry_and_merge("", "", ""),
    "entry that is no bytes": with_entry_and_merge("€€", "€", "€"),
}

HALVES = ("<|endof", "text|>")
OTHER_MERGES = {
    "merge makes the end": with_merge(*HALVES),
    "merge makes a byte": with_merge("", "!"),
    "no end of text": changed(
        "model", "vocab", value={name: VOCABULARY[name] for name in VOCABULARY if VOCABULARY[name]}
    ),
    "entry of 65,536 bytes": with_entry_of(16),
    "entry of control": with_merge("<|endoftext|", ">"),
    "merges as text": changed("model", "merges", 0, value="h e"),
    "merge of three": changed("model", "merges", 0, value=["h", "e", "y"]),
    "merge of numbers": changed("model", "merges", 0, value=[1, 2]),
    "merge twice": with_merge(*MERGES[0]),
    "merge of an end": changed("model", "merges", 0, value=[END_OF_TEXT, "a"]),
    "too many merges": changed("model", "merges", value=[[]] * 200_000),
    "merges missing": changed("model", "merges", value=None),
}

FOREIGN = NATIVE_PANICS | OTHER_JSON | OTHER_VOCABULARY | OTHER_MERGES


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_tokenizer_is_refused_before_the_native_library_sees_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "tokenizers", None)
    monkeypatch.setattr(module, "models", None)
    with pytest.raises(InputError, match=r"not a tokenizer\.json that tinygpt wrote") as caught:
        Tokenizer.from_bytes(FOREIGN[name])
    assert len(caught.value.message) < 200


def test_without_the_check_the_native_library_panics() -> None:
    """The control of the test above: the native parser, given the same file."""
    with pytest.raises(BaseException) as caught:
        tokenizers.Tokenizer.from_str(NATIVE_PANICS["charsmap"].decode())
    assert not isinstance(caught.value, Exception)


def read_or_none(data: bytes) -> Tokenizer | None:
    """The tokenizer of a file, None if it is refused."""
    try:
        return Tokenizer.from_bytes(data)
    except InputError:
        return None


@given(st.data())
def test_a_file_with_a_changed_byte_is_refused_or_is_one_that_tinygpt_could_have_written(
    data: st.DataObject,
) -> None:
    file = bytearray(FILE)
    place = data.draw(st.integers(0, len(file) - 1))
    file[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != file[place]))
    again = read_or_none(bytes(file))
    assert again is None or again.to_bytes() == bytes(file)
