"""Token labels are short and can be seen."""

from hypothesis import given
from hypothesis import strategies as st

from tinygpt.analysis.run_analysis import token_labels


@given(st.binary(max_size=30))
def test_every_token_has_a_short_label_without_white_space(token: bytes):
    (label,) = token_labels([token])
    assert 1 <= len(label) <= 12
    assert not any(character in label for character in " \n\t\r")


def test_labels_show_spaces_line_breaks_and_broken_characters():
    tokens = [b" was", b"\n\n", b"\xf0\x9f", b"", "é".encode(), b"extraordinarily"]
    labels = ["␣was", "↵↵", "\\xf0\\x9f", "<end>", "é", "extraordina…"]
    assert token_labels(tokens) == labels
