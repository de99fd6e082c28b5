"""A page in a real browser: open it, read what it shows, use its mouse and keyboard."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
FIND = "document.querySelector(arguments[0])"
FIND_ALL = "[...document.querySelectorAll(arguments[0])]"


def start_browser() -> Iterator[Any]:
    """A headless Chromium that logs its messages and its requests to the network, and its end."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium (extra `test`)")
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver (apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


def show(browser: Any, page: bytes, folder: Path, width: int = 1400) -> None:
    """Open a page from a file, and forget what was logged before."""
    path = folder / "page.html"
    path.write_bytes(page)
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(path.as_uri())


def text(browser: Any, selector: str) -> str:
    return str(browser.execute_script(f"return {FIND}.textContent", selector))


def texts(browser: Any, selector: str) -> list[str]:
    script = f"return {FIND_ALL}.map(element => element.textContent)"
    found: list[str] = browser.execute_script(script, selector)
    return found


def count(browser: Any, selector: str) -> int:
    return int(browser.execute_script(f"return {FIND_ALL}.length", selector))


def press(browser: Any, selector: str, *keys: str) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.execute_script(f"{FIND}.focus()", selector)
    for key in keys:
        browser.switch_to.active_element.send_keys(getattr(Keys, key))


def hover(browser: Any, selector: str, x: float, y: float) -> None:
    """Move the mouse to a place of an element, given as parts of its width and height."""
    browser.execute_script(f"{FIND}.scrollIntoView({{block: 'center'}})", selector)
    box = browser.execute_script(f"return {FIND}.getBoundingClientRect().toJSON()", selector)
    place = {"x": box["left"] + x * box["width"], "y": box["top"] + y * box["height"]}
    browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", **place})


def requested(browser: Any) -> set[str]:
    """The addresses that the browser has asked for."""
    addresses = set()
    for entry in browser.get_log("performance"):
        event = json.loads(entry["message"])["message"]
        if event["method"] == "Network.requestWillBeSent":
            addresses.add(event["params"]["request"]["url"])
    return addresses


def fits_the_window(browser: Any) -> bool:
    script = "return document.documentElement.scrollWidth <= window.innerWidth"
    return bool(browser.execute_script(script))
