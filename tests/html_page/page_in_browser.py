"""A page of a model, opened in a browser, and what its script computes."""

import time
from pathlib import Path
from typing import Any

from tests.browser import show
from tinygpt.html_page import PageModel, render


def open_page(
    browser: Any, model: PageModel, folder: Path, width: int = 1400, address: str = ""
) -> None:
    """Open the page of a model, and wait until it has shown its first text.

    Args:
        address: what follows # in the address.
    """
    page = render(model)
    show(browser, page, folder, width)
    if address:
        browser.get("about:blank")
        browser.get(f"{(folder / 'page.html').as_uri()}#{address}")
    wait_until_idle(browser)


def wait_until_idle(browser: Any, seconds: float = 60) -> None:
    """Wait until the page has shown all it has to, its check included."""
    script = "return $('page').ariaBusy === 'false' && $('check').textContent !== ''"
    end = time.monotonic() + seconds
    while not browser.execute_script(script):
        assert time.monotonic() < end, browser.get_log("browser")
        time.sleep(0.02)


def call(browser: Any, body: str, *arguments: object) -> Any:
    """What the body of an async function gives in the page; `a`, `b`, ... are its arguments."""
    names = ", ".join("abcde"[: len(arguments)])
    script = f"""
        const [{names}{", " if names else ""}done] = arguments;
        (async () => {{ {body} }})().then(done, (error) => done({{ error: String(error) }}));
    """
    browser.set_script_timeout(120)
    result = browser.execute_async_script(script, *arguments)
    assert not (isinstance(result, dict) and "error" in result), result
    return result


def enter(browser: Any, text: str) -> None:
    """Type a text at once, as pasting does, and wait for what the page shows."""
    call(browser, "$('prompt').value = a; await typed(a);", text)
