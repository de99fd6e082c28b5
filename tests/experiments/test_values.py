"""What `--vary` and `--seeds` mean, and what is refused."""

import pytest

from tinygpt.errors import UsageError
from tinygpt.experiments.values import parse_seeds, parse_values, parse_vary


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pre,post", ["pre", "post"]),
        ("1e-3, none", ["1e-3", "none"]),
        ("2..5", ["2", "3", "4", "5"]),
        ("log:1e-4..1e-2:5", ["0.0001", "0.0003162", "0.001", "0.003162", "0.01"]),
        ("log:1..100:3", ["1", "10", "100"]),
    ],
)
def test_lists_and_ranges(text, expected):
    assert parse_values(text) == expected
    assert parse_vary(f"a.b={text}") == [{"a.b": value} for value in expected]


def test_keys_that_are_joined_change_together():
    assert parse_vary("model.norm+train.learning_rate=pre+1e-2,post+3e-3") == [
        {"model.norm": "pre", "train.learning_rate": "1e-2"},
        {"model.norm": "post", "train.learning_rate": "3e-3"},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model.norm", "has no values"),
        ("=pre,post", "names no key"),
        ("model.norm=pre", "names one value"),
        ("model.norm=", "an empty value"),
        ("model.norm=pre,,post", "an empty value"),
        ("model.norm=pre,post,pre", "two arms have the same key"),
        ("a.b+c.d=1+2,3", "not a value for each of 2 keys"),
        ("a.b+=1+2,3+4", "names no key"),
        ("a.b=5..2", "not a range of integers"),
        ("a.b=0.1..0.5", "not a range of integers"),
        ("a.b=1..99999999", "not a range of integers"),
        ("a.b=log:1..10", "not a logarithmic range"),
        ("a.b=log:0..10:3", "not a logarithmic range"),
        ("a.b=log:10..1:3", "not a logarithmic range"),
        ("a.b=log:1..10:1", "not a logarithmic range"),
        ("a.b=log:1..10:x", "not a logarithmic range"),
    ],
)
def test_other_forms_are_refused_with_a_hint(text, message):
    with pytest.raises(UsageError, match=message) as caught:
        parse_vary(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3", [1, 2, 3]), ("1..6", [1, 2, 3, 4, 5, 6]), ("7..8", [7, 8]), ("3,5,8", [3, 5, 8])],
)
def test_seeds_are_a_number_a_range_or_a_list(text, expected):
    assert parse_seeds(text) == expected


@pytest.mark.parametrize("text", ["0", "", "x", "-1", "1,1", "2..1", "1.5", "99999999", "1,x"])
def test_other_seeds_are_refused(text):
    with pytest.raises(UsageError, match="does not name seeds"):
        parse_seeds(text)
