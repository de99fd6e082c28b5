"""The page as a file: nothing is loaded, equal models give equal bytes, characters are known."""

import base64
import hashlib
import json
import re

import pytest

from tests.html_page.examples import page_model, random_weights
from tinygpt.html_page import render, size
from tools import unicode_classes


def test_equal_models_give_equal_bytes():
    assert render(page_model()) == render(page_model())


def test_page_may_load_nothing_and_run_only_its_own_script():
    page = render(page_model()).decode()
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
    page = render(page_model()).decode()
    addresses = set(re.findall(r"\w+://[^\"' ]*", page))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\bsrc=|href=(?!\"#\")|url\(|@import", page)


def test_browser_without_javascript_is_named_the_reason():
    assert b"<noscript>" in render(page_model())


def test_tokenizer_cannot_end_its_element():
    model = page_model()
    content = json.loads(model.tokenizer)
    content["model"]["vocab"]["</script><img>{{weights}}"] = 0
    page = render(model._replace(tokenizer=json.dumps(content).encode())).decode()
    assert "<img" not in page
    assert page.count("</script>") == render(model).decode().count("</script>")
    assert "{{weights}}" in page  # text, and not replaced


@pytest.mark.parametrize("dtype", ["f32", "f16", "int8"])
def test_size_is_about_that_of_the_page(dtype):
    model = page_model(dtype=dtype)
    with_snapshots = model._replace(snapshots={1: random_weights(model.config, 320)})
    added = len(render(with_snapshots)) - len(render(model))
    assert size(with_snapshots) - size(model) == pytest.approx(added, abs=200)


@pytest.mark.full
def test_characters_have_the_classes_that_the_tokenizers_library_gives_them():
    expected = unicode_classes.script(unicode_classes.classes())
    assert unicode_classes.TARGET.read_text("utf-8") == expected
