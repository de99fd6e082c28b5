"""The report in a real browser: everything answers to mouse and keyboard, at any width."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.browser import FIND, count, fits_the_window, hover, press, requested, show, text, texts
from tests.html_report.examples import MEASURES, SNAPSHOTS, H, T, facts, imported, run_analysis
from tinygpt.html_report import render

pytestmark = pytest.mark.full


def values_at_step_1(browser: Any, chart: str) -> dict[str, float]:
    """What a chart says below it, e.g., "step 1: layer 0 1.082 · layer 1 0.7525"."""
    step, _, lines = text(browser, f"#{chart} output").partition(": ")
    assert step == "step 1"
    values = {}
    for line in lines.split(" · "):
        name, _, value = line.rpartition(" ")
        values[name] = float(value)
    return values


def choose_head(browser: Any, layer: int, head: int) -> None:
    script = "document.querySelectorAll('#heads button')[arguments[0]].click()"
    browser.execute_script(script, H * layer + head)


@pytest.mark.parametrize("width", [400, 1400])
def test_page_requests_nothing_logs_nothing_and_fits_the_window(
    browser: Any, tmp_path: Path, width: int
):
    analysis = run_analysis("<img src=//evil/x onerror=alert(1)>")
    show(browser, render(analysis, facts("</script><script>alert(1)</script>")), tmp_path, width)
    press(browser, "#step", "ARROW_LEFT")
    assert not browser.get_log("browser")
    assert requested(browser) == {(tmp_path / "page.html").as_uri()}
    assert fits_the_window(browser)
    assert browser.execute_script("return document.images.length") == 0
    assert browser.execute_script("return document.scripts.length") == 2


def test_changed_script_does_not_run(browser: Any, tmp_path: Path):
    page = render(run_analysis(), facts())
    show(browser, page.replace(b'"use strict";', b'"use  strict";'), tmp_path)
    assert text(browser, "#about") == ""
    messages = [entry["message"] for entry in browser.get_log("browser")]
    assert any("Content Security Policy" in message for message in messages)


def test_page_says_what_was_trained_and_how_it_was_measured(browser: Any, tmp_path: Path):
    show(browser, render(run_analysis(), facts()), tmp_path)
    about = text(browser, "#about")
    assert "trained for 300 steps of 64 tokens on 10 documents" in about
    assert about.endswith("Note: plain.")
    measured = "Measured on the validation split: 4 documents, 99 tokens."
    assert text(browser, "#judged").startswith(measured)
    assert "lowest loss on the validation split" in text(browser, "#judged")
    cells = texts(browser, "#scores td")
    assert cells[:2] == ["this model, best weights (step 250)", "9.03"]
    assert cells[5:7] == ["its last weights (step 300)", "9.97"]


def test_sliders_move_through_samples_and_steps(browser: Any, tmp_path: Path):
    show(browser, render(run_analysis(), facts()), tmp_path)
    assert text(browser, "#sample") == "Once after 300 steps"
    press(browser, "#evaluation", "ARROW_LEFT")
    assert text(browser, "#sample") == "Once after 100 steps"
    assert text(browser, "#evaluation-at").startswith("step 100, validation perplexity")
    press(browser, "#evaluation", "HOME")
    assert text(browser, "#sample") == "Once after 1 steps"
    changing = ("#head-about", "#attention-readout", "#loss-readout", "#head-table")
    before = {selector: text(browser, selector) for selector in changing}
    press(browser, "#step", "HOME")
    assert text(browser, "#step-at") == "step 0: the initialization"
    for selector, content in before.items():
        assert text(browser, selector) != content
    assert "step 0" in text(browser, "#values figcaption")


def test_generation_quality_is_compared_with_validation_documents(browser: Any, tmp_path: Path):
    show(browser, render(run_analysis(), facts("<b>plain</b>")), tmp_path)
    cells = texts(browser, "#quality-table td")
    assert len(cells) == 3 * len(MEASURES)
    assert cells[:3] == ["distinct-1", *["50.0 % (40.0 – 60.0)"] * 2]
    assert "12.5 (11.0 – 14.0)" in cells
    unseen = "Generated but never seen in training: <b>plain</b>."
    assert text(browser, "#unseen-words") == unseen


def test_longest_copy_is_marked_in_the_sample_and_in_its_source(browser: Any, tmp_path: Path):
    show(browser, render(run_analysis(), facts("<b>plain</b>")), tmp_path)
    about = text(browser, "#copy-about")
    assert about.startswith("Sample 2 shares 3 consecutive tokens with training document 7;")
    assert text(browser, "#copy") == "a <b>plain</b> b"
    assert text(browser, "#origin") == "c <b>plain</b> d"
    assert texts(browser, "#copy mark, #origin mark") == ["<b>plain</b>"] * 2


def test_copy_that_is_cut_within_a_character_is_shown_without_a_mark(browser: Any, tmp_path: Path):
    report_facts = facts()
    quality = report_facts["evaluation"]["generation_metrics"]
    assert quality is not None
    quality["longest"]["text"] = "\ufffd plain"
    show(browser, render(run_analysis(), report_facts), tmp_path)
    assert text(browser, "#copy") == "a plain b"
    assert count(browser, "mark") == 0


def test_scores_entropy_and_token_loss_have_charts_over_training(browser: Any, tmp_path: Path):
    show(browser, render(run_analysis(), facts()), tmp_path)
    first = SNAPSHOTS[1]
    scores = {name: value[1, 0] for name, value in vars(first.scores).items()}
    expected = {
        "head-history": {
            "previous token": scores["previous_token"],
            "first token": scores["first_token"],
            "induction": scores["induction"],
        },
        "entropy-history": {"entropy": scores["entropy"]},
        "loss-history": {"loss": first.losses[0]},
    }
    choose_head(browser, layer=1, head=0)
    for chart, lines in expected.items():
        press(browser, f"#{chart} svg[role=img]", "ARROW_RIGHT")
        assert values_at_step_1(browser, chart) == pytest.approx(lines, rel=1e-3)


def test_most_important_head_is_chosen_at_first(browser: Any, tmp_path: Path):
    show(browser, render(run_analysis(), facts()), tmp_path)
    assert text(browser, "#head-name") == "Layer 1, head 0 at step 300"
    increase = "loss increase of the final model without this head +0.3000 nats/token"
    assert text(browser, "#head-about").endswith(increase)


@pytest.mark.parametrize(("layer", "head"), [(0, 0), (1, 1)])
def test_every_cell_and_token_shows_its_value(browser: Any, tmp_path: Path, layer: int, head: int):
    show(browser, render(run_analysis(), facts()), tmp_path)
    choose_head(browser, layer, head)
    assert text(browser, "#head-name") == f"Layer {layer}, head {head} at step 300"
    assert count(browser, "#map .cell") == T * (T + 1) // 2
    query, key = 6, 4
    cell = query * (query + 1) // 2 + key + 1
    hover(browser, f"#map .cell:nth-of-type({cell})", 0.5, 0.5)
    start, _, rest = text(browser, "#attention-readout").partition("attention weight ")
    assert start == "Query token “Once6” (position 6), key token “Once4” (position 4): "
    weight = SNAPSHOTS[-1].maps[layer, head, query, key]
    assert float(rest.split(". ")[0]) == pytest.approx(weight, abs=0.01)
    press(browser, "#map svg", "ARROW_UP", "ARROW_LEFT")
    moved = "Query token “Once5” (position 5), key token “Once3” (position 3): "
    assert text(browser, "#attention-readout").startswith(moved)
    hover(browser, "#loss-tokens button:nth-of-type(4)", 0.5, 0.5)
    loss = f"“Once3”: loss {SNAPSHOTS[-1].losses[2]:.2f} nats"
    assert text(browser, "#loss-readout").startswith(loss)


def test_charts_show_values_by_mouse_and_keyboard(browser: Any, tmp_path: Path):
    show(browser, render(run_analysis(), facts()), tmp_path)
    hover(browser, "#loss svg[role=img]", 0.999, 0.5)
    last = "step 300: train 2.173 (perplexity 8.8) · train, smoothed"
    assert text(browser, "#loss output").startswith(last)
    press(browser, "#loss svg[role=img]", "ARROW_LEFT")
    assert text(browser, "#loss output").startswith("step 299:")


def test_matrix_menu_selects_whose_norms_are_shown(browser: Any, tmp_path: Path):
    show(browser, render(run_analysis(), facts()), tmp_path)
    change = f"{FIND}.value = 'key'; {FIND}.dispatchEvent(new Event('change'))"
    browser.execute_script(change, "#kind")
    press(browser, "#norms svg[role=img]", "ARROW_RIGHT")
    expected = {
        f"layer {group.layer}": spectrum.spectral_norm
        for group, spectrum in SNAPSHOTS[1].spectra.items()
        if group.kind == "key"
    }
    assert values_at_step_1(browser, "norms") == pytest.approx(expected, rel=1e-3)


def test_keyboard_reaches_every_control(browser: Any, tmp_path: Path):
    from selenium.webdriver.common.keys import Keys

    show(browser, render(run_analysis(), facts()), tmp_path)
    controls = count(browser, "input, select, button, svg[tabindex]")
    focused = "return [...document.querySelectorAll('*')].indexOf(document.activeElement)"
    press(browser, "body", "TAB")
    reached = {browser.execute_script(focused)}
    for _ in range(controls + 4):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        reached.add(browser.execute_script(focused))
    assert len(reached) >= controls


def test_run_with_one_snapshot_and_without_samples_or_ablation_is_shown(
    browser: Any, tmp_path: Path
):
    analysis = run_analysis("", SNAPSHOTS[-1:], ablation=False)
    no_samples = replace(analysis.curves, samples=("",) * 4)
    report_facts = facts()
    report_facts["evaluation"]["generation_metrics"] = None
    page = render(replace(analysis, curves=no_samples), report_facts)
    show(browser, page, tmp_path, width=400)
    assert not browser.get_log("browser")
    assert count(browser, "#samples, #quality") == 0
    assert browser.execute_script("return document.querySelector('#step').disabled")
    assert "loss increase" not in text(browser, "#head-table")


def test_page_of_an_imported_model_leaves_its_training_out(browser: Any, tmp_path: Path):
    show(browser, render(*imported()), tmp_path)
    assert not browser.get_log("browser")
    assert text(browser, "#about").endswith("imported; its training is not known.")
    assert texts(browser, "h2") == ["Inside the model", "Configuration and lineage", "Terms"]
    assert count(browser, "#step") == 0
    choose_head(browser, 1, 0)
    assert text(browser, "#head-name") == "Layer 1, head 0"
    assert "initialization" not in text(browser, "#values")
    # The control: a run has all of it
    show(browser, render(run_analysis(), facts()), tmp_path)
    assert {"How well it predicts", "Training curves"} <= set(texts(browser, "h2"))
    assert "initialization" in text(browser, "#values")
