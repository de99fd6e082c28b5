"""What tests of streamed and of generated text share."""

from collections.abc import Sequence


def expected_text(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text up to the stop text that is complete first, and whether there is one."""
    for end in range(1, len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)], True
    return text, False
