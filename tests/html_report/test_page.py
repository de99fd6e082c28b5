"""The report as a file: text stays text, nothing is loaded, equal runs give equal bytes."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

from tests.html_report.examples import SNAPSHOTS, facts, imported, run_analysis
from tests.proofs.figures import RecordFigure
from tinygpt.html_report import render

DATA_ELEMENT = ("script", [("type", "application/json"), ("id", "data")])
OPENERS = [
    *("", "</script>", "</SCRIPT >", "<!--", "-->", "]]>"),
    *("\u2028", "\u2029", "\0", "\ud800", "\u202e", "\x1b]8;;"),
    *('"', "'", "\\", "{{data}}", "{{style}}"),
]
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


class Skeleton(HTMLParser):
    """The elements and attributes of a page, without its texts; and its data."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, object]] = []
        self.data = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1] == DATA_ELEMENT:
            self.data += data


def test_500_payloads_in_every_field_stay_text(figure: RecordFigure):
    assert len(PAYLOADS) >= 500
    expected = Skeleton(render(run_analysis(), facts())).elements
    for payload in PAYLOADS:
        parsed = Skeleton(render(run_analysis(payload, SNAPSHOTS[:1]), facts(payload)))
        assert parsed.elements == expected, payload
        data = json.loads(parsed.data)
        assert data["labels"][0] == f"{payload}0"
        assert data["curves"]["samples"][0].startswith(payload)
        assert data["plot"]["text"] == payload
        assert data["model_config"]["train"]["sample_prompt"] == payload
        assert data["dataset"]["label"] == payload
        assert payload in data["evaluation"]["baselines"]
        quality = data["evaluation"]["generation_metrics"]
        assert quality["longest"]["text"] == payload
        assert quality["unseen"] == [payload]
    figure("G22", "texts, each in eight places of a report", len(PAYLOADS))


def test_payloads_would_be_elements_without_the_escapes(figure: RecordFigure):
    image = ("img", [("src", "x")])
    page = render(run_analysis("</script><img src=x>"), facts())
    unescaped = page.replace(b"\\u003c", b"<").replace(b"\\u003e", b">")
    assert image in Skeleton(unescaped).elements
    assert image not in Skeleton(page).elements
    figure("G22", "text without the escapes", 1, 1, control=True)


def test_page_may_load_nothing_and_run_only_its_own_script():
    page = render(run_analysis(), facts()).decode()
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="(.*?)">', page)
    assert policy is not None
    assert policy[1].split("; ") == [
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src data:",
        f"script-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_page_names_no_address_but_that_of_the_svg_namespace():
    page = render(run_analysis(), facts()).decode()
    addresses = set(re.findall(r"\w+://[^\"' ]*", page))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\bsrc=|\bhref=|url\(|@import|{{", page)


def test_equal_analyses_give_equal_bytes():
    assert render(run_analysis(), facts()) == render(run_analysis(), facts())


def test_page_of_an_imported_model_has_no_training():
    data = json.loads(Skeleton(render(*imported())).data)
    assert (data["curves"], data["evaluation"], data["dataset"]) == (None, None, None)
    assert [snapshot["step"] for snapshot in data["snapshots"]] == [0]
