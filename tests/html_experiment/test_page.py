"""The page of an experiment: text stays text, nothing is loaded, all of the answer is shown."""

import json
import re
from typing import Any

import numpy as np
import pytest

from tests.browser import count, fits_the_window, press, requested, show, text, texts
from tests.experiments.made_up import cell, diverged, made_up_plan
from tests.html_report.test_page import PAYLOADS, Skeleton
from tinygpt.experiments.answer import Answer
from tinygpt.experiments.plan import NthLook
from tinygpt.html_experiment import render

SEEDS = range(1, 7)


def contents(arm: str = "post", *, fails: bool = False) -> dict[str, object]:
    rng = np.random.default_rng(0)
    cells = [cell(0, seed, 1 + rng.normal(0, 0.01)) for seed in SEEDS]
    cells += [cell(1, seed, 0.9 + rng.normal(0, 0.01)) for seed in SEEDS]
    cells += [cell(2, seed, 0.8 + rng.normal(0, 0.01)) for seed in SEEDS]
    if fails:
        cells[-1] = diverged(2, 6)
    plan = made_up_plan(("pre 1", f"{arm} 1", "post 2"), seeds=6)
    result = Answer(plan, NthLook(1), cells).result()
    curves = [
        {"arm": one.arm, "seed": one.seed, "tokens": [10, 100, 1000], "bits": [3.0, 2.0, 1.0]}
        for one in cells
        if one.parts is not None
    ]
    return {
        "plan": plan,
        "result": result,
        "curves": curves,
        "lineage": [("plan", "d" * 64)],
        "command": f"tinygpt run --vary {arm}",
    }


def test_payloads_in_names_and_commands_stay_text():
    expected = Skeleton(render(contents())).elements
    for payload in PAYLOADS[::7]:
        parsed = Skeleton(render(contents(payload.replace(" ", "_"))))
        assert parsed.elements == expected, payload
        assert json.loads(parsed.data)["command"].endswith(payload.replace(" ", "_"))


def test_page_names_no_address_but_that_of_the_svg_namespace():
    page = render(contents()).decode()
    assert set(re.findall(r"\w+://[^\"' ]*", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\bsrc=|\bhref=|url\(|@import|{{", page)
    assert render(contents()) == render(contents())


@pytest.mark.full
@pytest.mark.parametrize("width", [400, 1200])
def test_page_shows_the_answer_requests_nothing_and_fits_the_window(
    browser: Any, tmp_path: Any, width: int
):
    show(browser, render(contents("<img/src=//evil>", fails=True)), tmp_path, width)
    assert not browser.get_log("browser")
    assert requested(browser) == {(tmp_path / "page.html").as_uri()}
    assert fits_the_window(browser)
    assert text(browser, "#question") == "model.norm: pre or post"
    assert len(texts(browser, "#answers li")) == 2
    assert texts(browser, "#arms tbody td")[0] == "pre 1"
    assert texts(browser, "#arms tbody td")[-1] == "1 of 6"
    assert texts(browser, "#failures tbody td")[:3] == ["post 2", "6", "not finite"]
    assert count(browser, "#cells tbody tr") == 18
    assert count(browser, "#differences circle") == 6 + 5
    assert count(browser, "#curves polyline.curve") == 17 + 3
    assert "tinygpt run --vary" in text(browser, "#command")
    press(browser, "body", "TAB")


@pytest.mark.full
def test_page_without_failures_has_no_section_about_them(browser: Any, tmp_path: Any):
    show(browser, render(contents()), tmp_path)
    assert count(browser, "#failed") == 0
    assert count(browser, "#differences circle") == 12
