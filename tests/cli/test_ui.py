"""Counts, tables and progress as people read them.

Untrusted text cannot reach the terminal's controls.
"""

import io
import json
import os
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt import ui
from tinygpt.progress import duration


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (ui.count(1, "file"), "1 file"),
        (ui.count(0, "file"), "0 files"),
        (ui.count(3, "document"), "3 documents"),
        (ui.count(9_999, "token"), "9,999 tokens"),
        (ui.count(12_400_000, "token"), "12.4 M tokens"),
        (ui.size(1), "1 byte"),
        (ui.size(7_400_000), "7.4 MB"),
        (duration(0.44), "0.4 s"),
        (duration(20), "20 s"),
        (duration(60), "1 min"),
        (duration(80), "1 min 20 s"),
        (duration(7_500), "2 h 5 min"),
        (duration(86_400 + 3 * 3_600), "1 day 3 h"),
    ],
)
def test_counts_read_like_speech(said, expected):
    assert said == expected


UNSAFE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


@given(st.text())
def test_escaped_text_has_no_control_characters(text):
    assert not UNSAFE.search(ui.escape(text))
    assert json.loads(ui.escape_json(json.dumps({"story": text}, ensure_ascii=False))) == {
        "story": text
    }


def test_controls_are_shown_not_dropped():
    assert ui.escape("\x1b[31mred\u202e\x85\r") == "\\x1b[31mred\\u202e\\x85\\x0d"
    assert ui.escape("tab\tand\nline “fine” 😀") == "tab\tand\nline “fine” 😀"


SEEN = {
    "xray": [
        {
            "token": " \x1b[2J",
            "probability": 0.97,
            "entropy": 0.2,
            "alternatives": [{"token": "\n", "probability": 0.02}],
        },
        {"token": "\u202ecat's", "probability": 0.013, "entropy": 6.25, "alternatives": []},
    ]
}


def test_xray_is_readable_without_color_and_cannot_move_the_cursor(capsys):
    ui.say_xray(SEEN)
    assert capsys.readouterr().out.splitlines() == [
        "token         probability    entropy  alternatives",
        r"' \x1b[2J'          97.0%  0.20 bits  '\n' 2.0%",
        r""""\u202ecat's"        1.3%  6.25 bits""" + "  ",
    ]


def test_a_terminal_shades_the_tokens_unless_asked_not_to(monkeypatch, capsys):
    for environment, colored in (
        ({"TERM": "xterm"}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
    ):
        with monkeypatch.context() as patch:
            patch.delenv("NO_COLOR", raising=False)
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.setattr(sys.stdout, "isatty", lambda: True)
            ui.say_xray(SEEN)
        _, likely, unlikely = capsys.readouterr().out.splitlines()
        assert (
            likely.startswith("\x1b[38;5;16;48;5;120m")
            == unlikely.startswith("\x1b[38;5;16;48;5;203m")
            == colored
        )


def training(monkeypatch, capsys, width: int | None) -> list[str]:
    """The lines of 600 steps of half a second."""
    now = 0.0
    monkeypatch.setattr(ui.time, "monotonic", lambda: now)
    monkeypatch.setattr(ui, "columns", lambda stream: width)
    screen = ui.Screen("plain", quiet=False)
    screen.task("train", 1_500, unit="steps", done=40)
    for _ in range(600):
        now += 0.5
        screen.advance(loss=2.3123, perplexity=10.098, tokens_per_second=16_123.4)
    screen.close()
    return capsys.readouterr().err.splitlines()


def test_plain_progress_is_a_line_every_few_seconds_that_says_what_it_can(monkeypatch, capsys):
    lines = training(monkeypatch, capsys, None)
    assert len(lines) == 60
    assert lines[-1].startswith("train  640/1,500 steps  ETA 7 min")
    assert lines[-1].endswith("  loss 2.312  perplexity 10.1  16.1 k tokens/s")


@pytest.mark.parametrize(("seconds_left", "shown"), [(0.0, None), (61.0, "1 min 1 s")])
def test_a_stage_that_knows_how_much_time_is_left_is_believed(
    monkeypatch, capsys, seconds_left, shown
):
    now = 0.0
    monkeypatch.setattr(ui.time, "monotonic", lambda: now)
    monkeypatch.setattr(ui, "columns", lambda stream: None)
    screen = ui.Screen("plain", quiet=False)
    screen.task("train", 1_500, unit="steps")
    for _ in range(20):  # by the speed of the bar, it would take 2 h
        now += 5.0
        screen.advance(loss=2.5, seconds_left=seconds_left)
    screen.close()
    last = capsys.readouterr().err.splitlines()[-1]
    eta = f"ETA {shown}  " if shown else ""
    assert last == f"train  20/1,500 steps  {eta}loss 2.5"


@pytest.mark.parametrize("width", [22, 40, 80, 200])
def test_a_progress_line_never_wraps(monkeypatch, capsys, width):
    lines = training(monkeypatch, capsys, width)
    assert max(map(len, lines)) <= width
    assert all(re.match(r"train  \d+/1,500 steps", line) for line in lines)


def test_progress_without_an_end_counts(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(ui.time, "monotonic", lambda: now)
    screen = ui.Screen("plain", quiet=False)
    screen.task("read", unit="stories")
    now = 6.0
    screen.advance(5)
    assert capsys.readouterr().err == "read  5 stories\n"


def test_a_quiet_screen_prints_only_the_output(capsys):
    reporter = ui.Screen("auto", quiet=True, stream=True)
    reporter.task("train", 10)
    reporter.advance(loss=1.0)
    reporter.note("something")
    reporter.result("train 0123", [("loss", "1")])
    reporter.output("Once upon\x1b")
    out, err = capsys.readouterr()
    assert (out, err) == ("Once upon\\x1b", "")


def test_a_table_fits_a_narrow_terminal():
    rows = [
        ("validation perplexity", "8,012.3 -> 34.12"),
        ("best", "perplexity 34.12 at step 10,000 of 10,000 steps"),
    ]
    text = ui.table("train 3f9a1c0b2d4e", rows, 40)
    assert max(map(len, text.splitlines())) <= 40
    assert "34.12" in text
    assert len(ui.table("train 3f9a1c0b2d4e", rows).splitlines()) == 3


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("no_color", [None, "1"])
def test_the_bar_appears_on_a_terminal_and_is_removed(monkeypatch, no_color):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    if no_color:
        monkeypatch.setenv("NO_COLOR", no_color)
    reporter = ui.Screen("auto", quiet=False)
    assert reporter.mode == "bar"
    reporter.task("train [bold]", 100, unit="steps")
    reporter.advance(50, loss=1.5)
    reporter.note("[red]not markup[/red] \x1b[2J")
    reporter.close()
    shown = terminal.getvalue()
    assert "train [bold]" in shown
    assert "[red]not markup[/red] \\x1b[2J" in shown
    assert "\x1b[31m" not in shown
    assert shown.endswith("\x1b[?25h") or "\x1b[?25h" in shown  # the cursor is back


@pytest.mark.parametrize("width", [20, 40, 80])
def test_the_bar_never_wraps(monkeypatch, width):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(ui, "BAR_SECONDS", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))
    screen = ui.Screen("auto", quiet=False)
    screen.task("build-dataset", 123_456, unit="documents")
    for _ in range(20):
        screen.advance(1_234, loss=2.3123, perplexity=10.098, tokens_per_second=16_123.4)
        screen.progress.refresh()
    screen.close()
    visible = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert max(map(len, re.split(r"[\r\n]+", visible))) <= width
    assert f"{1_234 * 20:,}/123,456"[: width // 4] in visible


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_plain_lines_have_no_color_even_where_color_is_forced(monkeypatch, capsys, variable):
    monkeypatch.setenv(variable, "1")
    screen = ui.Screen("auto", quiet=False)
    screen.task("train", 10)
    screen.note("a note")
    screen.close()
    assert capsys.readouterr().err == "a note\n"


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "dumb")
    assert ui.Screen("auto", quiet=False).mode == "plain"


def test_columns_ask_the_stream_then_give_up(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert ui.columns(io.StringIO()) is None
    with open(os.devnull) as stream:  # noqa: PTH123
        assert ui.columns(stream) is None
    monkeypatch.setenv("COLUMNS", "40")
    assert ui.columns(io.StringIO()) == 40
