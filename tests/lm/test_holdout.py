"""What is held out: whole documents by hash, or the end of the text; never nothing."""

import hashlib
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from tinygpt.config.tables import DatasetConfig
from tinygpt.errors import InputError
from tinygpt.lm import holdout
from tinygpt.lm.holdout import Part, cut_near, document_hash, plan_holdout

CHARACTERS = st.one_of(st.sampled_from("ab \n\r\té漢🐶"), st.characters(exclude_categories=["Cs"]))
DOCUMENTS = st.lists(st.text(CHARACTERS, min_size=1, max_size=200), min_size=1, max_size=60)
SHARES = st.floats(1e-9, 0.49)


def config(val: float = 0.05, test: float = 0.0, rule: str = "auto") -> DatasetConfig:
    return DatasetConfig(val_fraction=val, test_fraction=test, holdout=rule)  # type: ignore[arg-type]


def divide(documents: Sequence[str], config: DatasetConfig) -> list[Part]:
    return list(plan_holdout(documents, config).parts(documents))


def texts(parts: Sequence[Part], split: str) -> list[str]:
    return [part.text for part in parts if part.split == split]


def size(documents: Sequence[str]) -> int:
    return len("".join(documents).encode())


def numbered(count: int, length: int = 20) -> list[str]:
    """Documents that differ, of equal length."""
    return [f"{number:0{length}d}" for number in range(count)]


def hash_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


# ---- which rule


@pytest.mark.parametrize(
    ("documents", "unit", "rule", "reason"),
    [
        (["a poem " * 20], None, "end", "auto: it is one document"),
        (["a poem " * 20], "line", "end", "auto: it is one document"),
        (numbered(19), None, "end", "auto: 19 documents, fewer than 20"),
        (numbered(20), None, "hash", "auto: 20 documents, 20 or more"),
        (numbered(5_000), None, "hash", "auto: 5,000 documents, 20 or more"),
        (numbered(19) * 3, None, "end", "auto: 57 documents, 19 without copies, fewer than 20"),
        (["a copy"] * 500, None, "end", "auto: 500 documents, 1 without copies, fewer than 20"),
        (
            numbered(7_222),
            "paragraph",
            "end",
            "auto: 7,222 paragraphs of one text; `--set dataset.holdout=hash` draws from all",
        ),
        (numbered(19), "line", "end", "auto: 19 documents, fewer than 20"),
    ],
)
def test_auto_goes_by_the_number_of_different_documents_and_by_what_they_are(
    documents: list[str], unit: str | None, rule: str, reason: str
) -> None:
    plan = plan_holdout(documents, config(), unit)
    assert (plan.rule, plan.reason) == (rule, reason)
    assert plan.duplicates == len(documents) - len(set(documents))


@pytest.mark.parametrize("rule", ["hash", "end"])
@pytest.mark.parametrize("unit", [None, "line"])
@pytest.mark.parametrize("count", [19, 20])
def test_a_rule_that_is_set_is_taken(rule: str, unit: str | None, count: int) -> None:
    plan = plan_holdout(numbered(count), config(rule=rule), unit)
    assert (plan.rule, plan.reason) == (rule, f"`dataset.holdout` = {rule}")


def test_shares_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(ValidationError, match="leave nothing to train on"):
        config(0.6, 0.4)
    assert config(0.6, 0.39).test_fraction == 0.39


# ---- by hash


def test_many_documents_are_split_by_a_threshold_on_their_hash() -> None:
    documents = [f"story {number}" for number in range(20_000)]
    parts = divide(documents, config(0.05, 0.1))
    for part in parts:
        place = hash_of(part.text) / 2**64
        assert part.split == ("val" if place < 0.05 else "test" if place < 0.15 else "train")
        assert part.is_end
    assert 900 < len(texts(parts, "val")) < 1_100
    assert 1_800 < len(texts(parts, "test")) < 2_200


def test_a_document_keeps_its_split_when_the_corpus_grows_beyond_1000_documents() -> None:
    documents = [f"story {number}" for number in range(3_000)]
    fewer = {part.text: part.split for part in divide(documents[:1_000], config(0.05, 0.05))}
    more = {part.text: part.split for part in divide(documents, config(0.05, 0.05))}
    assert fewer == {text: more[text] for text in documents[:1_000]}


@pytest.mark.parametrize(("count", "exact"), [(999, True), (1_000, False)])
def test_below_1000_documents_the_shares_are_exact(count: int, exact: bool) -> None:
    parts = divide(numbered(count), config(0.05, 0.1))
    lowest = sorted(numbered(count), key=hash_of)
    val, test = int(count * 0.05), int(count * 0.1)
    held_out = [set(texts(parts, "val")), set(texts(parts, "test"))]
    as_asked = [set(lowest[:val]), set(lowest[val : val + test])]
    assert (held_out == as_asked) == exact


def test_a_document_too_long_for_the_share_of_a_split_is_passed_over() -> None:
    by_hash = sorted(numbered(50), key=hash_of)
    novel = by_hash[0] = next(
        text for n in itertools.count() if hash_of(text := f"{n} " * 400) < hash_of(by_hash[1])
    )
    parts = divide(by_hash[::-1], config(0.05, 0.05))
    assert novel in texts(parts, "train")
    share = int(0.05 * size(by_hash)) // 20  # documents of 20 bytes
    assert set(texts(parts, "val")) == set(by_hash[1 : 1 + share])
    assert set(texts(parts, "test")) == set(by_hash[1 + share : 1 + 2 * share])


@given(
    st.lists(st.text(CHARACTERS, min_size=1, max_size=300), min_size=20, max_size=60, unique=True),
    st.floats(0.001, 0.3),
    st.floats(0.001, 0.3),
)
def test_by_hash_each_split_is_off_by_at_most_one_document(
    documents: list[str], val: float, test: float
) -> None:
    parts = divide(documents, config(val, test, "hash"))
    total, longest = size(documents), max(map(size, ([text] for text in documents)))
    assert abs(size(texts(parts, "val")) - val * total) <= longest
    assert abs(size(texts(parts, "test")) - test * total) <= longest


@given(DOCUMENTS, st.integers(1, 4), SHARES, st.one_of(st.just(0.0), SHARES))
def test_by_hash_equal_documents_are_in_one_split(
    documents: list[str], copies: int, val: float, test: float
) -> None:
    assume(len(set(documents)) >= 3)
    split_of: dict[str, str] = {}
    for part in divide(documents * copies, config(val, test, "hash")):
        assert split_of.setdefault(part.text, part.split) == part.split
    assert split_of.keys() == set(documents)


@pytest.mark.parametrize("val", [1e-12, 1 - 1e-9])
@pytest.mark.parametrize("count", [2, 20, 1_000, 1_500])
def test_a_share_of_almost_nothing_is_one_document(val: float, count: int) -> None:
    parts = divide(numbered(count), config(val, rule="hash"))
    assert min(len(texts(parts, "train")), len(texts(parts, "val"))) == 1
    assert len(parts) == count


def test_too_few_different_documents_for_hashes_are_an_input_error() -> None:
    message = "val and test cannot be held out of 2 different documents"
    with pytest.raises(InputError, match=message) as caught:
        plan_holdout(["one", "two"] * 50, config(0.1, 0.1, "hash"))
    assert caught.value.hint == "`--set dataset.holdout=end` holds out the end of the text"


# ---- the end


def test_the_end_is_cut_at_a_line_end_in_the_order_train_val_test() -> None:
    lines = [f"line {number} of a poem\n" for number in range(1_000, 2_000)]
    parts = divide(["".join(lines)], config(0.1, 0.05))
    assert [(part.split, part.is_end) for part in parts] == [
        ("train", False),
        ("val", False),
        ("test", True),
    ]
    assert [part.text for part in parts] == [
        "".join(lines[:850]),
        "".join(lines[850:950]),
        "".join(lines[950:]),
    ]


@pytest.mark.parametrize(
    ("text", "at", "slack", "expected"),
    [
        ("one two\nthree four", 10, 4, "one two\n"),  # the line end before
        ("one two three\nfour", 10, 4, "one two three\n"),  # and after
        ("one two\r\nthree four", 8, 3, "one two\r\n"),
        ("one two\rthree four", 10, 4, "one two\r"),
        ("one two\n\n\nthree", 8, 3, "one two\n\n\n"),  # not between blank lines
        ("one two three four", 10, 4, "one two"),  # no line end: before the nearest space
        ("one two three four", 11, 4, "one two three"),
        ("one\u3000two\u3000three", 6, 3, "one"),
        ("one two\nthree four five", 14, 5, "one two\nthree"),  # the line end is too far
        ("onetwothreefour", 9, 4, "onetwothr"),  # neither
        ("漢" * 10, 10, 4, "漢漢漢"),  # never inside a character
        ("🐶" * 10, 19, 4, "🐶🐶🐶🐶"),
        ("žluť" * 5, 7, 4, "žluť"),
        ("\r\n" * 10, 9, 2, "\r\n" * 5),  # nor inside a CR-LF
        ("one two three", 2, 5, ""),  # the document's own beginning
        ("one two three", 11, 4, "one two three"),  # and its end
        ("one\ntwo three", 6, 8, ""),  # rather than a line end that is nearer
    ],
)
def test_a_cut_is_at_a_line_end_else_a_space_else_a_character(
    text: str, at: int, slack: int, expected: str
) -> None:
    assert text[: cut_near(text, at, slack)] == expected


def test_the_cut_may_fall_into_one_of_several_documents() -> None:
    documents = ["a line\n" * 40 + str(number) for number in range(12)]
    parts = divide(documents, config(0.05))
    assert texts(parts, "train")[:11] == documents[:11]
    assert [part.is_end for part in parts] == [True] * 11 + [False, True]
    assert parts[11].text + parts[12].text == documents[11]
    assert parts[12] == Part("a line\n" * 24 + "11", "val", is_end=True)


def test_the_end_of_a_document_is_a_place_to_cut() -> None:
    documents = ["a long document without a line end " * 30] * 4
    for val, expected in [(0.25, [3, 1]), (0.24, [3, 1]), (0.26, [3, 1]), (0.5, [2, 2])]:
        parts = divide(documents, config(val, rule="end"))
        assert [len(texts(parts, split)) for split in ("train", "val")] == expected
        assert all(part.is_end for part in parts)


def test_two_cuts_may_fall_into_one_document() -> None:
    text = "".join(f"{number}\n" for number in range(1_000, 9_000))
    parts = divide(["first\n", text], config(0.1, 0.2))
    assert [part.split for part in parts] == ["train", "train", "val", "test"]
    assert [part.is_end for part in parts] == [True, False, False, True]
    assert [round(size([part.text]) / size([text]), 2) for part in parts[1:]] == [0.7, 0.1, 0.2]


@pytest.mark.parametrize(("test", "needed"), [(0.0, 64), (0.05, 96)])
def test_a_text_too_small_to_hold_out_a_part_is_an_input_error(test: float, needed: int) -> None:
    too_small = ["x" * (needed - 1)]
    message = f"the text has {needed - 1} bytes; at least {needed} are needed to hold out a part"
    with pytest.raises(InputError, match=message) as caught:
        plan_holdout(too_small, config(test=test))
    assert caught.value.hint == "give more text"
    parts = divide(["x" * needed], config(test=test))
    assert {len(part.text) for part in parts} == {32}


# ---- both


@given(DOCUMENTS, SHARES, st.one_of(st.just(0.0), SHARES), st.sampled_from(["auto", "hash", "end"]))
@example(["\r\n" * 48], 0.3, 0.3, "end")
@example(["🐶" * 24], 1e-9, 1e-9, "end")
@example(["=" * 96], 0.49, 0.49, "end")
def test_parts_join_to_the_documents_and_no_split_is_empty(
    documents: list[str], val: float, test: float, rule: str
) -> None:
    settings = config(val, test, rule)
    splits = ("train", "val", "test") if test else ("train", "val")
    try:
        plan = plan_holdout(documents, settings)
    except InputError:
        different = len(set(documents))
        assert size(documents) < 32 * len(splits) if rule != "hash" else different < len(splits)
        return
    parts = list(plan.parts(iter(documents)))
    assert plan.splits == splits
    assert all(texts(parts, split) for split in splits)
    assert all(part.text for part in parts)
    joined = [""]
    for part in parts:
        joined[-1] += part.text
        if part.is_end:
            joined.append("")
    assert joined == [*documents, ""]
    if plan.rule == "hash":
        assert all(part.is_end for part in parts)
        assert plan.train_bytes == size(texts(parts, "train"))
    else:
        order = [splits.index(part.split) for part in parts]
        assert order == sorted(order)
        assert not any(
            a.text.endswith("\r") and b.text.startswith("\n") and not a.is_end
            for a, b in itertools.pairwise(parts)
        )


@given(st.text(CHARACTERS, min_size=200, max_size=4_000), st.floats(0.02, 0.4))
def test_the_end_has_its_share_within_a_quarter(text: str, share: float) -> None:
    parts = divide([text], config(share))
    asked = max(share * size([text]), holdout.LEAST)
    # A character has up to 4 bytes
    assert abs(size(texts(parts, "val")) - asked) <= asked / 4 + 4


@given(st.text(st.characters()))
def test_any_text_has_a_hash_lone_surrogates_too(text: str) -> None:
    """The tokenizer refuses them later, and says where they are."""
    data = text.encode("utf-8", "surrogatepass")
    assert document_hash(text) == int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
