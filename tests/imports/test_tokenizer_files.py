"""Ids of an imported tokenizer are those of the file; what is not GPT-2's kind is refused."""

import copy
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.imports.folders import ENTRIES, MERGES, gpt2_folder, legacy, tokenizer_file
from tests.lm.corpus import CORPUS
from tinygpt.errors import InputError
from tinygpt.imports.folder import ModelFolder
from tinygpt.imports.tokenizer_files import read_tokenizer
from tinygpt.lm.tokenizer import ALPHABET, END_OF_TEXT, Tokenizer


def read(folder: Path, content: object = None) -> Tokenizer:
    """The tokenizer of a folder, after its tokenizer.json was replaced."""
    if content is not None:
        text = json.dumps(content, ensure_ascii=False)
        (folder / "tokenizer.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    return read_tokenizer(ModelFolder(folder))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return gpt2_folder(tmp_path / "model")


def shuffled(entries: Sequence[str]) -> list[str]:
    mixed = list(entries)
    random.Random(5).shuffle(mixed)
    return mixed


def odd_texts(count: int) -> list[str]:
    """Texts of all kinds of characters, among them words that merges apply to."""
    chance = random.Random(3)
    pieces = [
        *" ".join(CORPUS).split(" "),
        " ",
        "\n",
        "\t",
        "é",
        "日本",
        "🐈‍⬛",
        "’s",
        "don't",
        "٣",
    ]
    texts = []
    for _ in range(count):
        words = [chance.choice(pieces) for _ in range(chance.randrange(12))]
        words.append(
            chr(chance.choice([chance.randrange(0xD800), chance.randrange(0xE000, 1 << 20)]))
        )
        texts.append(chance.choice([" ", ""]).join(words))
    return texts


LAYOUTS = {
    "end of text last, as in GPT-2": ENTRIES,
    "end of text first, as we train": [END_OF_TEXT, *ENTRIES[:-1]],
    "any order": shuffled(ENTRIES),
}


@pytest.mark.parametrize("entries", LAYOUTS.values(), ids=LAYOUTS)
def test_ids_are_those_of_the_tokenizers_library(folder: Path, entries: list[str]):
    content = tokenizer_file(entries)
    found = read(folder, content)
    native = tokenizers.Tokenizer.from_str(json.dumps(content))
    assert found.end_of_text == native.token_to_id(END_OF_TEXT) == entries.index(END_OF_TEXT)
    assert found.vocab_size == native.get_vocab_size() == len(ENTRIES)
    for text in [*CORPUS, *odd_texts(300)]:
        ids = found.encode(text)
        assert ids == native.encode(text, add_special_tokens=False).ids
        assert found.decode(ids) == text


def test_other_ids_are_noticed(folder: Path):
    """The control: a tokenizer that gave every text other ids would not pass the test above."""
    native = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_file(shuffled(ENTRIES))))
    assert read(folder).encode(CORPUS[0]) != native.encode(CORPUS[0]).ids


def test_the_older_files_give_the_same_tokenizer(folder: Path):
    expected = read(folder).to_bytes()
    legacy(folder)
    assert read(folder).to_bytes() == expected


def test_merges_may_be_pairs_or_texts(folder: Path):
    expected = read(folder).to_bytes()
    content = tokenizer_file()
    content["model"]["merges"] = MERGES
    assert read(folder, content).to_bytes() == expected


def test_an_end_of_text_token_that_is_only_added_has_its_id(folder: Path):
    content = tokenizer_file()
    del content["model"]["vocab"][END_OF_TEXT]
    assert read(folder, content).end_of_text == len(ENTRIES) - 1


def test_what_is_read_is_read_again_from_an_artifact(folder: Path):
    data = read(folder).to_bytes()
    assert Tokenizer.from_bytes(data).to_bytes() == data


def test_as_many_and_as_long_entries_as_gpt2_has_fit(folder: Path):
    pairs = [(left, right) for left in ALPHABET for right in ALPHABET][: 50_000 - 7]
    spaces = [("\u0120" * 2**n, "\u0120" * 2**n) for n in range(7)]  # up to 128 bytes
    merges = [*pairs, *spaces]
    entries = [*ALPHABET, *("".join(merge) for merge in merges), END_OF_TEXT]
    found = read(folder, tokenizer_file(entries, merges))
    assert (found.vocab_size, found.end_of_text) == (50_257, 50_256)
    assert max(found.byte_lengths) == 128
    assert found.encode(" " * 128) == [50_255]
    assert found.decode([50_255, 50_256]) == " " * 128


def test_a_template_that_puts_the_end_of_text_first_is_accepted(folder: Path):
    template = {"type": "TemplateProcessing", "pair": [], "special_tokens": {}}
    prefix = {"SpecialToken": {"id": END_OF_TEXT, "type_id": 0}}
    sequence = {"Sequence": {"id": "A", "type_id": 0}}
    expected = read(folder).to_bytes()
    for single in ([sequence], [prefix, sequence]):
        one = {**template, "single": single}
        for step in (one, {"type": "Sequence", "processors": [one]}, None):
            content = {**tokenizer_file(), "post_processor": step}
            assert read(folder, content).to_bytes() == expected
    other = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}
    for single in ([other, sequence], [sequence, prefix], [prefix], []):
        content = {**tokenizer_file(), "post_processor": {**template, "single": single}}
        with pytest.raises(InputError, match="adds something else to texts"):
            read(folder, content)


PATTERN = {"type": "Split", "pattern": {"Regex": r"\p{L}+"}, "behavior": "Isolated"}
PAD = {"id": len(ENTRIES), "content": "<pad>", "special": True}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "normalizer": ({"normalizer": {"type": "NFC"}}, "normalizer NFC"),
    "pattern": ({"pre_tokenizer": PATTERN}, "another pattern"),
    "no pattern": ({"pre_tokenizer": None}, "another pattern"),
    "space": (
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}},
        "'add_prefix_space': True",
    ),
    "no words": (
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}},
        "'use_regex': False",
    ),
    "two steps": (
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [PATTERN, PATTERN]}},
        "another pattern",
    ),
    "decoder": ({"decoder": {"type": "WordPiece"}}, "decoder WordPiece"),
    "token": ({"added_tokens": [*tokenizer_file()["added_tokens"], PAD]}, "adds the token '<pad>'"),
    "two ids": ({"added_tokens": [{"id": 3, "content": END_OF_TEXT}]}, "two ids"),
}


@pytest.mark.parametrize(("change", "said"), REFUSED.values(), ids=REFUSED)
def test_another_kind_of_tokenizer_is_refused_with_what_differs(folder, change, said):
    with pytest.raises(InputError) as caught:
        read(folder, {**tokenizer_file(), **change})
    assert said in caught.value.message
    assert "GPT-2's pattern" in str(caught.value.hint)


MODEL = tokenizer_file()["model"]
VOCABULARY = MODEL["vocab"]
TOO_MANY = {f"x{i}": i for i in range(65_537)}
REFUSED_MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "WordPiece": ({"type": "WordPiece"}, "`type` = 'WordPiece'"),
    "dropout": ({"dropout": 0.1}, "`dropout` = 0.1"),
    "suffix": ({"end_of_word_suffix": "</w>"}, "`end_of_word_suffix`"),
    "fallback": ({"byte_fallback": True}, "`byte_fallback`"),
    "ignored merges": ({"ignore_merges": True}, "`ignore_merges`"),
    "unigram": ({"vocab": [["a", 0.1]]}, "no vocabulary"),
    "a gap": ({"vocab": {**VOCABULARY, "!": 9_999}}, "ids are not 0 to"),
    "ids as text": ({"vocab": {**VOCABULARY, "!": "0"}}, "ids are not 0 to"),
    "an id twice": ({"vocab": {**VOCABULARY, "!": 1}}, "ids are not 0 to"),
    "too many": ({"vocab": TOO_MANY}, "stored in 16 bits"),
    "no byte": ({"vocab": {}}, "256 bytes"),
    "unmade": (
        {"merges": MODEL["merges"][:-1]},
        f"the entry {''.join(MERGES[-1])!r}, which no merge makes",
    ),
    "no entry": ({"merges": [*MODEL["merges"], "~ ~"]}, "the merge '~' '~'"),
    "twice": ({"merges": [*MODEL["merges"], MODEL["merges"][0]]}, "a merge twice"),
    "no merges": ({"merges": None}, "damaged"),
    "numbers": ({"merges": [[1, 2]]}, "damaged"),
    "three": ({"merges": ["a b c"]}, "damaged"),
}


@pytest.mark.parametrize(("change", "said"), REFUSED_MODELS.values(), ids=REFUSED_MODELS)
def test_another_vocabulary_is_refused_with_what_differs(folder, change, said):
    content = tokenizer_file()
    content["model"].update(change)
    if change == {"vocab": TOO_MANY} or change == {"vocab": {}}:
        content["added_tokens"][0]["id"] = len(change["vocab"])
    with pytest.raises(InputError) as caught:
        read(folder, content)
    assert said in caught.value.message


def test_a_tokenizer_without_end_of_text_is_refused(folder: Path):
    content = tokenizer_file()
    del content["model"]["vocab"][END_OF_TEXT]
    content["added_tokens"] = []
    with pytest.raises(InputError, match=r"has no `<\|endoftext\|>`"):
        read(folder, content)


SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "decoder": ("tokenizer_config.json", {"added_tokens_decoder": {"9": {"content": "[PAD]"}}}),
    "pad": ("tokenizer_config.json", {"pad_token": "[PAD]"}),
    "pad as table": ("special_tokens_map.json", {"pad_token": {"content": "[PAD]"}}),
    "more": ("special_tokens_map.json", {"additional_special_tokens": ["[PAD]"]}),
    "old list": ("added_tokens.json", {"[PAD]": 400}),
    "space": ("tokenizer_config.json", {"add_prefix_space": True}),
}


@pytest.mark.parametrize(("name", "content"), SETTINGS.values(), ids=SETTINGS)
def test_settings_that_transformers_adds_when_it_loads_are_refused(folder, name, content):
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"\[PAD\]|add_prefix_space"):
        read(folder)


def test_settings_that_name_the_end_of_text_alone_are_accepted(folder: Path):
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    content = {
        **dict.fromkeys(names, END_OF_TEXT),
        "added_tokens_decoder": {"399": {"content": END_OF_TEXT}},
        "additional_special_tokens": [],
        "add_prefix_space": False,
        "add_bos_token": True,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": END_OF_TEXT}))
    assert read(folder).end_of_text == len(ENTRIES) - 1


def test_a_folder_without_a_whole_tokenizer_is_refused(folder: Path):
    legacy(folder)
    (folder / "merges.txt").unlink()
    with pytest.raises(InputError, match="has no tokenizer"):
        read(folder)


DAMAGED = {
    "empty": b"",
    "list": b"[]",
    "deep": b'{"model":' * 100_000,
    "not utf-8": b"\xff\xfe",
    "pickle": b"\x80\x04N.",
    "no model": b"{}",
    "too long": b" " * ((32 << 20) + 1),
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_an_error_with_a_sentence(folder: Path, data: bytes):
    (folder / "tokenizer.json").write_bytes(data)
    with pytest.raises(InputError):
        read(folder)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
PLACES: list[list[Any]] = [
    *([key] for key in tokenizer_file()),
    *(["model", key] for key in MODEL),
    *([key, part] for key in ("pre_tokenizer", "decoder", "post_processor") for part in ("type",)),
    *(["added_tokens", 0, key] for key in ("id", "content")),
    *(["model", "merges", 3], ["model", "vocab", "!"], ["added_tokens", 0]),
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(place=st.sampled_from(PLACES), value=JSON)
def test_any_value_at_any_place_is_read_or_refused(folder: Path, place: list[Any], value: object):
    content = copy.deepcopy(tokenizer_file())
    inner: Any = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    try:
        found = read(folder, content)
    except InputError:
        return
    assert found.decode(found.encode(CORPUS[0])) == CORPUS[0]
