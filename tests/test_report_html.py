"""The report: text stays text, nothing is loaded, and in a real browser everything answers to mouse and keyboard."""

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygpt.config import ModelConfig, PlotConfig, TrainConfig
from tinygpt.figures.findings import Curves, Findings
from tinygpt.lm.analysis import HeadWorth, Look, arrays_of, parts
from tinygpt.lm.model import GPT, initialise
from tinygpt.report_html import render

T, L, H = 9, 2, 2
CONFIG = ModelConfig(d_model=8, n_layers=L, n_heads=H, d_ff=16, context_length=16)
IDS = np.random.default_rng(0).integers(0, 70, T).tolist()
MODELS = {step: initialise(GPT(CONFIG, 70), step) for step in (0, 1, 10, 300)}
for _model in MODELS.values():
    for _parameter in _model.parameters():
        _parameter.data.mul_(10)  # untrained models look everywhere alike
LOOKS = [Look.at(model, IDS, step) for step, model in MODELS.items()]
MEASURES = ("distinct_1", "distinct_2", "distinct_3", "ended", "loops", "unseen_words", "longest_match", "memorised")


def metrics(story: str) -> Iterator[dict[str, object]]:
    for step in range(1, 301):
        loss = 2 + 3 / step**0.5
        yield {"kind": "step", "step": step, "tokens": 64 * step, "loss": loss, "learning_rate": 1e-3, "grad_norm": 1 / step}
        if step in (1, 10, 100, 300):
            yield {
                "kind": "eval",
                "step": step,
                "tokens": 64 * step,
                "val_loss": loss + 0.1,
                "story": f"{story} after {step} steps",
            }


def findings(text: str = "Once", looks: list[Look] = LOOKS, *, worth: bool = True) -> Findings:
    change = np.array([[0.1, -0.2], [0.3, 0.0]])
    return Findings(
        labels=[f"{text}{i}" for i in range(T)],
        curves=Curves.from_rows(list(metrics(text))),
        baselines={"uniform": 4.2, "trigram": 2.5},
        weights=(parts(arrays_of(MODELS[300])), parts(arrays_of(MODELS[0]))),
        looks=looks,
        worth=HeadWorth(2.0, change, np.full((L, H), np.nan), 64) if worth else None,
    )


def facts(text: str = "plain") -> dict[str, Any]:
    score = {"loss": 2.2, "perplexity": 9.03, "bits_per_byte": 1.5}
    estimate = {"value": 0.5, "low": 0.4, "high": 0.6}
    card = dict.fromkeys(MEASURES, estimate)
    copy = {"tokens": 3, "text": text, "story": 2, "told": f"a {text} b", "origin": 7, "training": f"c {text} d"}
    quality = {"count": 4, "temperature": 0.8, "max_tokens": 256, "seed": 1337, "unseen": [text], "longest": copy}
    quality |= {"told": card | {"longest_match": {"value": 12.5, "low": 11, "high": 14}}, "validation": card}
    evaluation = {
        **score,
        "report_card": quality,
        "judged": "validation split",
        "stories": 4,
        "tokens": 99,
        "standard_error": 0.01,
    }
    return {
        "card": {
            "model": CONFIG.model_dump(mode="json"),
            "train": TrainConfig(sample_prompt=text).model_dump(mode="json"),
            "step": 300,
            "vocab_size": 70,
        },
        "dataset": {"train": {"stories": 10, "tokens": 200, "bytes": 900}, "label": text},
        "evaluation": evaluation | {"baselines": {text: {"loss": 4.2, "perplexity": 66.7, "bits_per_byte": None}}},
        "plot": PlotConfig(text=text).model_dump(mode="json"),
        "lineage": [("train", "ab" * 32)],
    }


class Skeleton(HTMLParser):
    """The elements and attributes of a page, without its texts."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, object]] = []
        self.data = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1] == ("script", [("type", "application/json"), ("id", "data")]):
            self.data += data


OPENERS = ["", "</script>", "</SCRIPT >", "<!--", "-->", "]]>", "\u2028", "\u2029", "\0", "\ud800", "\u202e", "\x1b]8;;"]
OPENERS += ['"', "'", "\\", "{{data}}", "{{style}}"]
ATTACKS = r"""<script>alert(1)</script>
<img src=x onerror=alert(1)>
<svg onload=alert(1)>
<a href=javascript:alert(1)>
<style>*{}
<base href=//evil>
<meta http-equiv=refresh content=0>
<iframe srcdoc=x>
<!--<script>
&lt;b&gt;
&#60;b&#62;
</body>
</title><b>
<textarea>
<plaintext>
<math><mtext>
<template>
javascript:alert(1)
url(//evil)
@import '//evil'
<?php
<![CDATA[
<object data=x>
<embed src=x>
<form action=//evil>
<link rel=stylesheet href=//evil>
$x$
\u003cb\u003e
\x3cb\x3e
"onload="
<b""".splitlines()
PAYLOADS = [opener + attack for opener in OPENERS for attack in ATTACKS]


def test_500_payloads_in_every_field_are_text():
    assert len(PAYLOADS) >= 500
    expected = Skeleton(render(findings(), facts())).elements
    for payload in PAYLOADS:
        parsed = Skeleton(render(findings(payload, LOOKS[:1]), facts(payload)))
        assert parsed.elements == expected, payload
        data = json.loads(parsed.data)
        assert data["labels"][0] == f"{payload}0"
        assert data["curves"]["stories"][0].startswith(payload)
        assert data["plot"]["text"] == data["card"]["train"]["sample_prompt"] == payload
        assert data["dataset"]["label"] == payload
        assert payload in data["evaluation"]["baselines"]
        assert data["evaluation"]["report_card"]["longest"]["text"] == payload


def test_without_the_escapes_payloads_would_be_elements():
    page = render(findings("</script><img src=x>"), facts())
    naked = page.replace(b"\\u003c", b"<").replace(b"\\u003e", b">")
    assert ("img", [("src", "x")]) in Skeleton(naked).elements
    assert ("img", [("src", "x")]) not in Skeleton(page).elements


def test_the_page_may_load_nothing_and_run_only_its_own_script():
    page = render(findings(), facts()).decode()
    script = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="(.*?)">', page)
    assert policy is not None
    assert policy[1].split("; ") == [
        *("default-src 'none'", "style-src 'unsafe-inline'", "img-src data:"),
        *(f"script-src 'sha256-{digest}'", "base-uri 'none'", "form-action 'none'"),
    ]
    assert set(re.findall(r"\w+://[^\"' ]*", page)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not re.search(r"\bsrc=|\bhref=|url\(|@import|{{", page)


def test_equal_findings_give_equal_bytes():
    assert render(findings(), facts()) == render(findings(), facts())


# --- in Chromium ---

full = pytest.mark.full


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium that notes what it logs and what it asks the network for."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium, of the extra `test`")
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver (Debian: apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


def show(browser: Any, page: bytes, folder: Path, width: int = 1400) -> Any:
    """Open a page from a file, and forget what was logged before."""
    path = folder / "report.html"
    path.write_bytes(page)
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(path.as_uri())
    return browser


def text(browser: Any, selector: str) -> str:
    return str(browser.execute_script("return document.querySelector(arguments[0]).textContent", selector))


def press(browser: Any, selector: str, *keys: str) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.execute_script("document.querySelector(arguments[0]).focus()", selector)
    for key in keys:
        browser.switch_to.active_element.send_keys(getattr(Keys, key))


def hover(browser: Any, selector: str, x: float, y: float) -> None:
    """Move the mouse to a place of an element, given in parts of its width and height."""
    browser.execute_script("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
    box = browser.execute_script("return document.querySelector(arguments[0]).getBoundingClientRect().toJSON()", selector)
    at = {"x": box["left"] + x * box["width"], "y": box["top"] + y * box["height"]}
    browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", **at})


@full
@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_asked_of_the_network_and_nothing_goes_wrong(browser: Any, tmp_path: Path, width: int):
    show(
        browser,
        render(findings("<img src=//evil/x onerror=alert(1)>"), facts("</script><script>alert(1)</script>")),
        tmp_path,
        width,
    )
    press(browser, "#step", "ARROW_LEFT")
    assert not browser.get_log("browser")
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    assert asked == {(tmp_path / "report.html").as_uri()}
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.execute_script("return document.images.length + document.scripts.length") == 2


@full
def test_a_script_that_was_tampered_with_does_not_run(browser: Any, tmp_path: Path):
    show(browser, render(findings(), facts()).replace(b'"use strict";', b'"use  strict";'), tmp_path)
    assert text(browser, "#about") == ""
    assert any("Content Security Policy" in entry["message"] for entry in browser.get_log("browser"))


@full
def test_the_sliders_move_through_stories_and_steps(browser: Any, tmp_path: Path):
    show(browser, render(findings(), facts()), tmp_path)
    assert text(browser, "#story") == "Once after 300 steps"
    press(browser, "#told", "ARROW_LEFT")
    assert text(browser, "#story") == "Once after 100 steps"
    assert text(browser, "#told-at").startswith("step 100, validation perplexity")
    press(browser, "#told", "HOME")
    assert text(browser, "#story") == "Once after 1 steps"
    before = {name: text(browser, name) for name in ("#head-about", "#looking", "#losing", "#head-table")}
    press(browser, "#step", "HOME")
    assert text(browser, "#step-at") == "step 0: the initialisation"
    for name, content in before.items():
        assert text(browser, name) != content
    assert "step 0" in text(browser, "#values figcaption")


@full
def test_the_report_card_stands_beside_the_held_out_stories_and_shows_the_longest_copy(browser: Any, tmp_path: Path):
    show(browser, render(findings(), facts("<b>plain</b>")), tmp_path)
    cells = browser.execute_script("return [...document.querySelectorAll('#report-card td')].map(cell => cell.textContent)")
    assert len(cells) == 3 * len(MEASURES)
    assert cells[:3] == ["distinct-1", *["50.0 % (40.0 – 60.0)"] * 2]
    assert "12.5 (11.0 – 14.0)" in cells
    assert text(browser, "#made-up") == "Told, but never seen in training: <b>plain</b>."
    assert text(browser, "#copy-about").startswith("Story 2 of those told has 3 tokens in one piece")
    assert [text(browser, f"#{name}") for name in ("copy", "origin")] == ["a <b>plain</b> b", "c <b>plain</b> d"]
    assert [text(browser, f"#{name} mark") for name in ("copy", "origin")] == ["<b>plain</b>"] * 2


@full
def test_what_changes_over_training_has_its_charts(browser: Any, tmp_path: Path):
    """They have no picture of their own: scores and entropy of a head, the loss of a token."""
    show(browser, render(findings(), facts()), tmp_path)
    look = LOOKS[1]
    scores = {name.replace("_", " "): value[1, 0] for name, value in vars(look.scores).items()}
    entropy = scores.pop("entropy")
    courses = {"head-course": scores, "entropy-course": {"entropy": entropy}, "loss-course": {"loss": look.losses[0]}}
    for chart, lines in courses.items():
        browser.execute_script("document.querySelectorAll('#heads button')[arguments[0]].click()", H)
        press(browser, f"#{chart} svg[role=img]", "ARROW_RIGHT")
        said = text(browser, f"#{chart} output").removeprefix("step 1: ").split(" · ")
        assert {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in said} == pytest.approx(lines, rel=1e-3)


@full
@pytest.mark.parametrize(("layer", "head"), [(0, 0), (1, 1)])
def test_every_head_and_token_tells_its_weight(browser: Any, tmp_path: Path, layer: int, head: int):
    show(browser, render(findings(), facts()), tmp_path)
    browser.execute_script("document.querySelectorAll('#heads button')[arguments[0]].click()", H * layer + head)
    assert text(browser, "#head-name") == f"Layer {layer}, head {head} at step 300"
    row, column = 6, 4
    cell = browser.execute_script("return document.querySelectorAll('#map .cell').length")
    assert cell == T * (T + 1) // 2
    hover(browser, f"#map .cell:nth-of-type({row * (row + 1) // 2 + column + 1})", 0.5, 0.5)
    weight = LOOKS[-1].maps[layer, head, row, column]
    said = text(browser, "#looking")
    assert said.startswith(f"“Once{row}” (token {row}) looks at “Once{column}” (token {column}) with weight ")
    assert float(said.split("weight ")[1].split(";")[0]) == pytest.approx(weight, abs=0.01)
    press(browser, "#map svg", "ARROW_UP", "ARROW_LEFT")
    assert "(token 5) looks at “Once3”" in text(browser, "#looking")
    hover(browser, "#losses button:nth-of-type(4)", 0.5, 0.5)
    assert text(browser, "#losing").startswith(f"“Once3”: loss {LOOKS[-1].losses[2]:.2f} nats")


@full
def test_charts_tell_their_values(browser: Any, tmp_path: Path):
    show(browser, render(findings(), facts()), tmp_path)
    hover(browser, "#loss svg[role=img]", 0.999, 0.5)
    assert text(browser, "#loss output").startswith("step 300: train 2.173 (perplexity 8.8) · train, smoothed")
    press(browser, "#loss svg[role=img]", "ARROW_LEFT")
    assert text(browser, "#loss output").startswith("step 299:")
    browser.execute_script("const s = document.querySelector('#kind'); s.value = 'key'; s.dispatchEvent(new Event('change'))")
    press(browser, "#norms svg[role=img]", "ARROW_RIGHT")
    norms = [look.spectra[part].spectral_norm for look in LOOKS[1:2] for part in look.spectra if part.kind == "key"]
    assert text(browser, "#norms output") == f"step 1: layer 0 {norms[0]:.4g} · layer 1 {norms[1]:.4g}"


@full
def test_the_keyboard_reaches_everything_that_the_mouse_does(browser: Any, tmp_path: Path):
    show(browser, render(findings(), facts()), tmp_path)
    reachable = browser.execute_script("return document.querySelectorAll('input, select, button, svg[tabindex]').length")
    seen = set()
    for _ in range(reachable + 5):
        press(browser, "body", "TAB") if not seen else browser.switch_to.active_element.send_keys("\ue004")
        seen.add(browser.execute_script("return [...document.querySelectorAll('*')].indexOf(document.activeElement)"))
    assert len(seen) >= reachable


@full
def test_a_run_of_one_look_without_stories_or_ablation_is_shown(browser: Any, tmp_path: Path):
    found = findings("", LOOKS[-1:], worth=False)
    silent = Findings(**{**vars(found), "curves": Curves(**{**vars(found.curves), "stories": ("",) * 4})})
    told = facts()
    show(browser, render(silent, told | {"evaluation": told["evaluation"] | {"report_card": None}}), tmp_path, 400)
    assert not browser.get_log("browser")
    assert not browser.execute_script("return document.querySelector('#stories, #quality')")
    assert browser.execute_script("return document.querySelector('#step').disabled")
    assert "change of loss" not in text(browser, "#head-table")
