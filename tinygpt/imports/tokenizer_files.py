"""The tokenizer of a GPT-2 folder: tokenizer.json, or the older vocab.json and merges.txt.

The native library never sees these files: what they say is checked here, and the tokenizer is
written anew, with the same entries, ids and merges.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from tinygpt.config.tables import MAX_VOCAB_SIZE
from tinygpt.errors import InputError
from tinygpt.imports.folder import AGAIN, LEGACY_TOKENIZER, TOKEN_SETTINGS, TOKENIZER, ModelFolder
from tinygpt.lm.tokenizer import ALPHABET, END_OF_TEXT, Tokenizer, tokenizer_json

Merges = list[tuple[str, str]]

MODEL_SETTINGS: Mapping[str, tuple[object, ...]] = {
    "type": ("BPE", None),
    "dropout": (None, 0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "byte_fallback": (None, False),
    "ignore_merges": (None, False),
}
"""Settings of the BPE model with the values that GPT-2 has."""

TOKEN_LISTS = ("added_tokens_decoder", "additional_special_tokens", "extra_special_tokens")
"""Keys of tokenizer_config.json that name several tokens."""

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
"""The pre-tokenizer of GPT-2, whose pattern is built in; `use_regex` is newer than some files."""


def read_tokenizer(folder: ModelFolder) -> Tokenizer:
    """The tokenizer of a folder, its ids as they are.

    Raises:
        InputError: it is not GPT-2's kind of byte-level BPE, or damaged; with what differs.
    """
    _refuse_other_tokens(folder)
    if folder.has(TOKENIZER):
        name = TOKENIZER
        content = folder.json(TOKENIZER)
        _check_steps(content)
        vocabulary, merges = _entries_and_merges(content)
    else:
        name = LEGACY_TOKENIZER[0]
        vocabulary, merges = _legacy(folder)
    return Tokenizer.from_bytes(tokenizer_json(_by_id(vocabulary, merges, name), merges))


def _refuse(what: str, name: str = TOKENIZER) -> NoReturn:
    raise InputError(
        f"`{name}` {what}",
        hint="tinygpt reads byte-level BPE with GPT-2's pattern and `<|endoftext|>` as its one "
        "added token",
    )


def _check_steps(content: Mapping[str, Any]) -> None:
    """Refuse a tokenizer that does something else to a text than GPT-2's."""
    if content.get("normalizer"):
        _refuse(f"changes texts before it encodes them: normalizer {_type(content['normalizer'])}")
    splits = content.get("pre_tokenizer")
    match splits:
        case {"type": "Sequence", "pretokenizers": [only]}:
            splits = only
    found = {"use_regex": True, **(splits if isinstance(splits, dict) else {})}
    if any(found.get(key) != value for key, value in BYTE_LEVEL.items()):
        shown = {key: found.get(key) for key in BYTE_LEVEL}
        _refuse(f"splits texts by another pattern than GPT-2's: pre_tokenizer {shown}")
    if content.get("decoder") and _type(content["decoder"]) != "ByteLevel":
        _refuse(f"decodes otherwise: decoder {_type(content['decoder'])}")
    _check_post_processor(content.get("post_processor"))


def _type(step: Any) -> str:
    return str(step.get("type")) if isinstance(step, dict) else repr(step)


def _check_post_processor(step: Any) -> None:
    """Accept one that adds nothing, or the end-of-text token before a text, as `sample` does."""
    is_sequence = _type(step) == "Sequence" and isinstance(step.get("processors"), list)
    for one in step["processors"] if is_sequence else [step]:
        match one:
            case None | {"type": "ByteLevel"}:
                continue
            case {"type": "TemplateProcessing", "single": [{"Sequence": _}]}:
                continue
            case {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": token}}, {"Sequence": _}],
            } if token == END_OF_TEXT:
                continue
        _refuse(f"adds something else to texts than the end-of-text token: {_type(one)}")


def _entries_and_merges(content: Mapping[str, Any]) -> tuple[dict[str, int], Merges]:
    """Entries with their ids, and merges, from the content of a tokenizer.json."""
    model, added = content.get("model"), content.get("added_tokens") or []
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
        _refuse("has no vocabulary of entries and ids, as BPE has one")
    for key, values in MODEL_SETTINGS.items():
        if model.get(key) not in values:
            _refuse(f"has a model with `{key}` = {model[key]!r}; GPT-2's has {values[0]!r}")
    vocabulary = dict(model["vocab"])
    try:
        for token in added:
            _refuse_other_token(token["content"], TOKENIZER)
            if vocabulary.setdefault(token["content"], token["id"]) != token["id"]:
                _refuse(f"gives `{END_OF_TEXT}` two ids")
        merges = [_pair(merge) for merge in model["merges"]]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"`{TOKENIZER}` is damaged: {error!r}", hint=AGAIN) from error
    return vocabulary, merges


def _pair(merge: Any) -> tuple[str, str]:
    """A merge, which older files write as "left right"."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(left, str) or not isinstance(right, str):
        raise TypeError(f"a merge of {left!r} and {right!r}")
    return left, right


def _legacy(folder: ModelFolder) -> tuple[dict[str, int], Merges]:
    """Entries with their ids, and merges, from vocab.json and merges.txt."""
    vocabulary_file, merges_file = LEGACY_TOKENIZER
    if not (folder.has(vocabulary_file) and folder.has(merges_file)):
        raise InputError(
            f"`{folder.path}` has no tokenizer: neither `{TOKENIZER}`, nor `{vocabulary_file}` "
            f"and `{merges_file}`",
            hint=AGAIN,
        )
    try:
        lines = folder.read(merges_file).decode().split("\n")
        first = 1 if lines[0].startswith("#version") else 0
        merges = [_pair(line.rstrip("\r")) for line in lines[first:] if line.strip()]
    except ValueError as error:
        raise InputError(f"`{merges_file}` is damaged: {error}", hint=AGAIN) from error
    return folder.json(vocabulary_file), merges


def _by_id(vocabulary: Mapping[str, int], merges: Merges, name: str) -> list[str]:
    """The entries in the order of their ids, once it is sure that they are GPT-2's kind."""
    ids = list(vocabulary.values())
    if not all(type(token_id) is int for token_id in ids) or sorted(ids) != [*range(len(ids))]:
        _refuse(f"has {len(ids):,} entries whose ids are not 0 to {len(ids) - 1:,}", name)
    if len(ids) > MAX_VOCAB_SIZE:
        _refuse(f"has {len(ids):,} entries; ids are stored in 16 bits, {MAX_VOCAB_SIZE:,}", name)
    if END_OF_TEXT not in vocabulary:
        _refuse(f"has no `{END_OF_TEXT}`", name)
    lacking = [character for character in ALPHABET if character not in vocabulary]
    if lacking:
        _refuse(f"lacks {len(lacking)} of the 256 bytes, so that it cannot encode any text", name)
    made = {left + right for left, right in merges}
    unmade = vocabulary.keys() - made - {END_OF_TEXT, *ALPHABET}
    if unmade:
        first = min(unmade, key=vocabulary.__getitem__)
        _refuse(f"has the entry {first!r}, which no merge makes", name)
    entries = {*ALPHABET, *made}
    for left, right in merges:
        if left + right not in vocabulary or left not in entries or right not in entries:
            _refuse(f"has the merge {left!r} {right!r}, which joins or makes no entry", name)
    if len(set(merges)) < len(merges) or not made.isdisjoint((END_OF_TEXT, *ALPHABET)):
        _refuse("has a merge twice, or one that makes a byte or the end-of-text token", name)
    return sorted(vocabulary, key=vocabulary.__getitem__)


def _refuse_other_tokens(folder: ModelFolder) -> None:
    """Refuse settings that add tokens or a space when transformers loads them."""
    for name in TOKEN_SETTINGS:
        if not folder.has(name):
            continue
        content = folder.json(name)
        if content.get("add_prefix_space"):
            _refuse("puts a space before every text (`add_prefix_space`)", name)
        for token in _named_tokens(content, is_list=name == TOKEN_SETTINGS[-1]):
            _refuse_other_token(token, name)


def _named_tokens(content: Mapping[str, Any], *, is_list: bool) -> Iterator[object]:
    """The tokens that a file of TOKEN_SETTINGS names.

    Args:
        is_list: each of its keys is one.
    """
    yield from content if is_list else ()
    for key, value in content.items():
        if key.endswith("_token") and isinstance(value, str | dict):
            yield value
        elif key in TOKEN_LISTS and isinstance(value, list | dict):
            yield from value.values() if isinstance(value, dict) else value


def _refuse_other_token(token: object, name: str) -> None:
    text = token.get("content") if isinstance(token, dict) else token
    if text and text != END_OF_TEXT:
        _refuse(f"adds the token {text!r}", name)
