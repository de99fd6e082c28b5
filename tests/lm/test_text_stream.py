"""Text streams out as soon as its bytes settle it, and ends at a stop text."""

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.lm.text import expected_text
from tinygpt.lm.sampling import TextStream


def stream(data: bytes, cuts: Sequence[int], stops: Sequence[str]) -> tuple[str, bool]:
    """The text of a stream that gets its bytes in pieces, and whether a stop text ended it."""
    text_stream = TextStream(stops)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    text = ""
    for begin, end in zip(places, [*places[1:], None], strict=True):
        text += text_stream.push(data[begin:end], final=end is None)
        if text_stream.stopped:
            break
    return text, text_stream.stopped


few = st.text(st.sampled_from("abé🙂\n"), max_size=12)


@given(few, st.lists(st.integers(0, 40), max_size=6), st.lists(few.filter(bool), max_size=3))
@example("aab", [1, 2], ["ab"])
@example("xab", [2], ["abc", "b"])
def test_text_is_the_same_however_its_bytes_are_cut_and_ends_at_the_first_stop(
    text: str, cuts: list[int], stops: list[str]
) -> None:
    assert stream(text.encode(), cuts, stops) == expected_text(text, stops)


@given(st.binary(max_size=30), st.lists(st.integers(0, 30), max_size=6))
@example("é".encode()[:1], [])
def test_bytes_that_are_no_utf_8_become_the_replacement_character(
    data: bytes, cuts: list[int]
) -> None:
    text, _ = stream(data, cuts, ())
    assert text == data.decode("utf-8", "replace")


@pytest.mark.parametrize("stops", [[], ["END"]])
def test_half_a_character_is_held_back_until_the_other_half_comes(stops: list[str]) -> None:
    text_stream = TextStream(stops)
    first, second = "é".encode()[:1], "é".encode()[1:]
    assert text_stream.push(b"a" + first) == "a"
    assert text_stream.push(second) == "é"


def test_text_is_shown_as_soon_as_it_cannot_become_a_stop() -> None:
    text_stream = TextStream(["END"])
    pieces = [b"one E", b"N", b"T", b" E", b"NDless"]
    assert [text_stream.push(piece) for piece in pieces] == ["one ", "", "ENT", " ", ""]
    assert text_stream.stopped
