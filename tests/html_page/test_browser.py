"""The page in a real browser: every control answers, text stays text, nothing is loaded."""

from pathlib import Path
from typing import Any

import pytest

from tests.browser import FIND, count, fits_the_window, press, requested, show, text, texts
from tests.helpers import STORIES
from tests.html_page.examples import SMALL, page_model, random_weights, tokenizer_of
from tests.html_page.page_in_browser import call, enter, open_page, wait_until_idle
from tinygpt.config import ModelConfig
from tinygpt.html_page import PageModel, render

pytestmark = pytest.mark.full

TABS = ("attention", "switches", "inside", "training", "facts")
HOSTILE = (
    "<img src=//evil/x onerror=alert(1)></script><script>alert(1)</script>&lt;b&gt;{{weights}}"
)


def with_snapshots() -> PageModel:
    config = ModelConfig(**SMALL)
    snapshots = {step: random_weights(config, 320, step) for step in (1, 20)}
    return page_model(snapshots=snapshots)


def with_ablation() -> PageModel:
    increase = [[0.5, 0.1, 0.0], [0.2, -0.1, 0.3]]
    error = [[0.01, 0.02, None], [0.01, 0.01, 0.01]]
    return page_model(
        ablation={"loss_increase": increase, "standard_error": error, "tokens": 8_192}
    )


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Any:
    """The browser with a page that has snapshots."""
    open_page(browser, with_snapshots(), tmp_path)
    return browser


def click(browser: Any, selector: str) -> None:
    browser.execute_script(f"{FIND}.click()", selector)


def set_value(browser: Any, selector: str, value: object) -> None:
    script = f"{FIND}.value = arguments[1]; {FIND}.dispatchEvent(new Event('input'))"
    browser.execute_script(script, selector, value)


def value(browser: Any, selector: str) -> str:
    return str(browser.execute_script(f"return {FIND}.value", selector))


def open_tab(browser: Any, name: str) -> None:
    click(browser, f"#tab-{name}")
    wait_until_idle(browser)


def generate(browser: Any, tokens: int = 12) -> str:
    set_value(browser, "#count", tokens)
    call(browser, "await generate();")
    return value(browser, "#prompt")


@pytest.mark.parametrize("width", [400, 900, 1600])
def test_page_requests_nothing_logs_nothing_and_fits_the_window(
    browser: Any, tmp_path: Path, width: int
):
    open_page(browser, with_snapshots(), tmp_path, width)
    enter(browser, HOSTILE)
    for tab in TABS:
        open_tab(browser, tab)
        assert fits_the_window(browser), tab
    generate(browser)
    click(browser, "#large")
    assert fits_the_window(browser)
    assert not browser.get_log("browser")
    assert requested(browser) == {(tmp_path / "page.html").as_uri()}


def test_hostile_text_stays_text(browser: Any, tmp_path: Path):
    open_page(browser, page_model({**SMALL, "context_length": 128}), tmp_path)
    enter(browser, HOSTILE)
    for tab in TABS:
        open_tab(browser, tab)
    assert count(browser, "img, iframe, object") == 0
    assert count(browser, "script") == 2  # the data and the script itself
    labels = texts(browser, "#tokens button > span")
    assert "".join(labels[1:]).replace("␣", " ") == HOSTILE


def test_hostile_address_stays_text(browser: Any, tmp_path: Path):
    address = "prompt=%3Cimg%20src%3Dx%3E&off=9.9,constructor,0.1&view=__proto__&seed=x&top_k=-1"
    open_page(browser, page_model(), tmp_path, address=address)
    assert count(browser, "img") == 0
    assert value(browser, "#prompt") == "<img src=x>"
    assert call(browser, "return [...reading.off]") == ["0.1"]
    assert call(browser, "return state.settings.seed") == 1337
    assert not browser.get_log("browser")


def test_changed_script_does_not_run(browser: Any, tmp_path: Path):
    page = render(page_model())
    show(browser, page.replace(b'"use strict";', b'"use  strict";'), tmp_path)
    assert text(browser, "#about") == ""
    messages = [entry["message"] for entry in browser.get_log("browser")]
    assert any("Content Security Policy" in message for message in messages)


def test_tokens_appear_as_they_are_typed(page: Any):
    enter(page, "Tom saw")
    page.execute_script(f"{FIND}.focus()", "#prompt")
    page.switch_to.active_element.send_keys(" a cat")
    wait_until_idle(page)
    labels = texts(page, "#tokens button > span")
    assert labels == ["<|endoftext|>", "Tom", "␣saw", "␣a", "␣cat"]
    chances = texts(page, "#tokens small")
    assert chances[0] == "start"
    assert all(chance.endswith("\u00a0%") for chance in chances[1:])
    assert text(page, "#length") == "5 of 48 tokens"


def test_last_token_that_may_still_grow_is_grey(page: Any):
    enter(page, "Tom s")  # saw, sad
    assert texts(page, ".may-grow span") == ["s"]
    enter(page, "Tom")
    assert texts(page, ".may-grow span") == []


def test_half_a_character_is_shown_by_its_bytes(page: Any):
    enter(page, "\U0010fffd")
    assert texts(page, "#tokens button > span")[1:] == [r"\xf4", r"\x8f", r"\xbf", r"\xbd"]


def test_text_longer_than_the_context_is_read_from_its_end(page: Any):
    story = " ".join(STORIES[:20])
    enter(page, story)
    unread = len(tokenizer_of(320).encode(story)) + 1 - 48
    assert text(page, "#length") == f"48 of 48 tokens; the first {unread} are not read"
    assert page.execute_script(f"return {FIND}.disabled", "#generate")
    enter(page, "Tom")
    assert not page.execute_script(f"return {FIND}.disabled", "#generate")


def test_empty_text_is_shown_by_every_view(page: Any):
    enter(page, "")
    for tab in TABS:
        open_tab(page, tab)
    assert texts(page, "#tokens button > span") == ["<|endoftext|>"]
    assert len(texts(page, "#bars .token")) == 20
    assert not page.get_log("browser")


def test_chosen_token_is_appended(page: Any):
    enter(page, "Tom saw")
    chosen = texts(page, "#bars .token")[2]
    click(page, "#bars > :nth-child(3) .token")
    wait_until_idle(page)
    assert texts(page, "#tokens button > span")[-1] == chosen


def test_token_in_the_text_can_be_chosen_and_followed_by_another(page: Any):
    enter(page, "Tom saw a cat")
    click(page, "#tokens button:nth-of-type(2)")
    assert text(page, "#next-about").startswith("After “Tom”:")
    assert text(page, "#next-about").endswith("In your text “␣saw” follows.")
    assert text(page, "#generate") == "Generate again from here"
    click(page, "#bars > :nth-child(1) .token")
    wait_until_idle(page)
    assert count(page, "#tokens button") == 3


@pytest.mark.parametrize(
    ("control", "low", "high"),
    [("temperature", 0.1, 2), ("top_k", 2, 200), ("top_p", 0.1, 1), ("min_p", 0.9, 0.01)],
)
def test_sampling_controls_decide_how_many_tokens_are_left(
    page: Any, control: str, low: float, high: float
):
    kept = []
    for setting in (low, high):
        set_value(page, f"#{control}", setting)
        kept.append(int(text(page, "#next-about").split(": ")[1].split(" of ")[0]))
    assert kept[0] < kept[1]
    filled = "return document.querySelector('#bars .filled').style.width"
    assert page.execute_script(filled)


def test_same_seed_generates_the_same_text_and_another_one_another(page: Any):
    found = []
    for seed in (1, 2, 1):
        enter(page, "Tom saw a cat.")
        set_value(page, "#temperature", 1.5)
        set_value(page, "#seed", seed)
        found.append(generate(page))
    assert found[0] == found[2] != found[1]
    assert all(text.startswith("Tom saw a cat.") for text in found)


def test_generation_can_be_stopped_and_undone(browser: Any, tmp_path: Path):
    slow = {**SMALL, "d_model": 384, "d_ff": 1_536}
    open_page(browser, page_model(slow), tmp_path)
    page = browser
    enter(page, "Tom")
    set_value(page, "#count", 40)
    call(page, "const done = generate(); $('stop').click(); await done;")
    assert count(page, "#tokens button") < 42
    click(page, "#undo")
    wait_until_idle(page)
    assert value(page, "#prompt") == "Tom"


def test_generation_ends_where_the_context_is_full(page: Any):
    enter(page, "Tom")
    set_value(page, "#temperature", 2)
    set_value(page, "#top_p", 1)
    generate(page, 1_000)
    said = text(page, "#generated")
    full = count(page, "#tokens button") == 48 and "the context is full" in said
    assert full or "the model ended the text" in said


def test_every_head_token_and_cell_of_attention_can_be_chosen(page: Any):
    enter(page, "Tom saw a cat. Tom saw")
    open_tab(page, "attention")
    click(page, "#heads button:nth-of-type(5)")
    assert text(page, "#head-name") == "Layer 1, head 1"
    before = text(page, "#attention-readout")
    click(page, "#attention-tokens button:nth-of-type(3)")
    assert text(page, "#attention-readout") != before
    assert text(page, "#attention-readout").startswith("“␣saw” (token 3) reads most from")
    press(page, "#map", "ARROW_RIGHT", "ARROW_DOWN")
    assert text(page, "#attention-readout").startswith("“␣a” (token 4) reads most from")
    assert "In the frame: “Tom” (token 2)" in text(page, "#attention-readout")
    click(page, "#strongest button:nth-of-type(2)")
    assert texts(page, "#strongest button")[1].startswith("most first token: ")


def test_switches_change_the_model_and_can_be_undone(page: Any):
    enter(page, "Tom saw a cat.")
    open_tab(page, "switches")
    before = texts(page, "#bars .numbers")
    click(page, "[data-part='0.mlp']")
    wait_until_idle(page)
    assert texts(page, "#bars .numbers") != before
    assert text(page, "#warning-text").startswith("Switched off: layer 0, MLP.")
    assert text(page, "#off-about").startswith("1 off. The loss of the text is")
    click(page, "#all-on")
    wait_until_idle(page)
    assert texts(page, "#bars .numbers") == before
    assert page.execute_script(f"return {FIND}.hidden", "#warning")


def test_effects_of_parts_are_sorted_beside_those_that_plot_measured(browser: Any, tmp_path: Path):
    open_page(browser, with_ablation(), tmp_path)
    enter(browser, "Tom saw a cat.")
    open_tab(browser, "switches")
    assert count(browser, "#ranking tbody tr") == 8
    cells = texts(browser, "#ranking td")
    effects = [float(cell.replace("−", "-")) for cell in cells[1::3]]
    assert effects == sorted(effects, reverse=True)
    assert cells[cells.index("layer 0, head 0") + 2] == "+0.5000 ± 0.0100"
    assert cells[cells.index("layer 0, head 2") + 2] == "+0.0000"
    assert "over 8,192 validation tokens" in text(browser, "#ranking-about")


def test_inside_shows_lens_votes_and_neighbors_of_the_chosen_token(page: Any):
    enter(page, "Tom saw a cat.")
    open_tab(page, "inside")
    assert texts(page, "#lens tbody td:first-child") == ["embedding", "layer 0", "layer 1"]
    final = texts(page, "#lens tbody tr:last-child b")
    assert final == texts(page, "#bars .token")[:5]
    sums = text(page, "#votes-sum")
    assert sums.split("Sum of the parts ")[1].split(";")[0] == sums.rsplit(" ", 1)[1].rstrip(".")
    change = f"{FIND}.selectedIndex = 5; {FIND}.dispatchEvent(new Event('change'))"
    page.execute_script(change, "#vote-against")
    assert text(page, "#votes-sum") != sums
    assert texts(page, "#neighbors td")[0] == "."


@pytest.mark.parametrize("tie", [True, False])
def test_lens_says_what_the_first_rows_are_worth(browser: Any, tmp_path: Path, tie: bool):
    open_page(browser, page_model({**SMALL, "tie_embeddings": tie}), tmp_path)
    open_tab(browser, "inside")
    assert ("echo" in text(browser, "#lens-help")) == tie


def test_post_norm_models_get_the_reason_why_they_have_no_lens(browser: Any, tmp_path: Path):
    open_page(browser, page_model({**SMALL, "norm": "post"}), tmp_path)
    open_tab(browser, "inside")
    for panel in ("lens", "votes"):
        assert "normalizes after adding" in text(browser, f"#{panel}-help")
        assert page_hides(browser, f"#{panel}")
    assert count(browser, "#neighbors td") == 22


def page_hides(browser: Any, selector: str) -> bool:
    return bool(browser.execute_script(f"return {FIND}.hidden", selector))


def test_training_slider_shows_then_and_now(page: Any):
    enter(page, "Tom saw a cat.")
    open_tab(page, "training")
    assert text(page, "#snapshot-at") == "step 1"
    then, now = text(page, "#then"), text(page, "#now")
    set_value(page, "#snapshot", 1)
    wait_until_idle(page)
    assert text(page, "#snapshot-at") == "step 20"
    assert text(page, "#then") != then
    assert text(page, "#now") == now
    set_value(page, "#snapshot", 2)
    wait_until_idle(page)
    assert text(page, "#then h3") == "Then: step 300"
    assert texts(page, "#then .numbers") == texts(page, "#now .numbers")


def test_page_without_snapshots_says_so(browser: Any, tmp_path: Path):
    open_page(browser, page_model(), tmp_path)
    open_tab(browser, "training")
    assert "holds no earlier weights" in text(browser, "#training-help")
    assert page_hides(browser, "#training-body")


def test_page_says_what_it_holds_and_whether_it_computes_what_tinygpt_did(page: Any):
    assert "largest difference to tinygpt" in text(page, "#check")
    facts = dict(zip(texts(page, "#facts-table th"), texts(page, "#facts-table td"), strict=True))
    assert facts["model"] == "0123456789ab"
    assert facts["format"] == "f32"
    assert facts["weights"] == "last, step 300 of 300"
    assert facts["snapshots"] == "step 1, 20 in int8"


def test_copy_that_a_browser_saved_says_that_the_model_is_missing(page: Any, tmp_path: Path):
    source = page.execute_script("return document.documentElement.outerHTML")
    show(page, f"<!DOCTYPE html>{source}".encode(), tmp_path)
    assert text(page, "#check").startswith("This copy was saved by a browser, without the model.")


def test_unfinished_run_is_named(browser: Any, tmp_path: Path):
    open_page(browser, page_model(step=120), tmp_path)
    assert "Trained for 120 steps (the run was not finished)" in text(browser, "#about")


def test_address_holds_text_settings_switches_and_view(page: Any, tmp_path: Path):
    enter(page, "Tom & 50 % \U0001f642")
    set_value(page, "#seed", 5)
    set_value(page, "#top_p", 1)
    open_tab(page, "switches")
    click(page, "[data-part='1.2']")
    wait_until_idle(page)
    call(page, "writeAddress();")
    address = page.current_url
    bars = texts(page, "#bars .numbers")
    page.get("about:blank")
    page.get(address)
    wait_until_idle(page)
    assert value(page, "#prompt") == "Tom & 50 % \U0001f642"
    assert texts(page, "#bars .numbers") == bars
    assert call(page, "return [state.settings.seed, state.settings.top_p]") == [5, None]
    assert call(page, "return [[...reading.off], state.view]") == [["1.2"], "switches"]


def test_every_view_can_be_saved_as_a_picture(page: Any):
    enter(page, "Tom\x00 saw\uffff a cat")  # not allowed in XML
    for tab in TABS:
        open_tab(page, tab)
        for section in {"typing", "next", tab}:
            png = call(page, "return await toPng(pictureOf($(a)))", section)
            assert png.startswith("data:image/png;base64,")
            assert len(png) > 10_000
    assert not page.get_log("browser")


def test_keyboard_reaches_every_control(page: Any):
    from selenium.webdriver.common.keys import Keys

    open_tab(page, "attention")
    shown = "input, select, textarea, button:not([tabindex='-1']), canvas[tabindex], a[href]"
    controls = page.execute_script(
        "return [...document.querySelectorAll(arguments[0])]"
        ".filter(element => element.offsetParent && !element.disabled).length",
        shown,
    )
    focused = "return [...document.querySelectorAll('*')].indexOf(document.activeElement)"
    press(page, "body", "TAB")
    reached = {page.execute_script(focused)}
    for _ in range(controls + 4):
        page.switch_to.active_element.send_keys(Keys.TAB)
        reached.add(page.execute_script(focused))
    assert len(reached) >= controls


def test_arrow_keys_move_from_tab_to_tab(page: Any):
    press(page, "#tab-attention", "ARROW_RIGHT")
    wait_until_idle(page)
    assert not page_hides(page, "#switches")
    press(page, "#tab-switches", "ARROW_LEFT", "ARROW_LEFT")
    wait_until_idle(page)
    assert not page_hides(page, "#facts")


def test_large_type_enlarges_the_text(page: Any):
    size = "return parseFloat(getComputedStyle(document.querySelector('#prompt')).fontSize)"
    before = page.execute_script(size)
    click(page, "#large")
    assert page.execute_script(size) >= 1.4 * before
