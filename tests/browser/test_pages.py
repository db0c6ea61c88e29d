"""The common look: its colours follow the system until the switch says otherwise, and the choice is kept."""

from __future__ import annotations

import pytest

from eval.pages import render
from tests.helpers.browsing import console_errors
from tests.helpers.waiting import until

pytestmark = pytest.mark.slow


def paper(driver) -> str:
    return driver.execute_script("return getComputedStyle(document.body).backgroundColor")


def test_colours_are_switched_and_kept(browser, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(render("base.html"), encoding="utf-8")
    browser.get(page.as_uri())
    browser.execute_script("localStorage.clear()")
    browser.get(page.as_uri())
    light = paper(browser)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
    dark = until(lambda: (now := paper(browser)) != light and now, "another colour for a dark system")
    switch = browser.find_element("id", "theme")
    switch.click()
    until(lambda: "light" in switch.text and paper(browser) == light, "the switch wins over the system")
    switch.click()
    until(lambda: "dark" in switch.text and paper(browser) == dark, "dark by the switch")
    browser.get(page.as_uri())
    assert "dark" in browser.find_element("id", "theme").text and not console_errors(browser)
    browser.execute_script("localStorage.clear()")


def test_what_is_kept_is_not_asked_for_too_early(browser, tmp_path):
    """Else Chromium now and then gives a file an empty storage that keeps nothing: an answer about cookies is waited for first."""
    page = tmp_path / "page.html"
    page.write_text(render("base.html"), encoding="utf-8")
    watch = """
        window.asked = [];
        for (const [owner, name] of [[Document.prototype, "cookie"], [window, "localStorage"]]) {
          const own = Object.getOwnPropertyDescriptor(owner, name);
          Object.defineProperty(owner, name, { ...own, get() { asked.push(name); return own.get.call(this); } });
        }"""
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": watch})
    try:
        browser.get(page.as_uri())
        assert browser.execute_script("return asked") == ["cookie", "localStorage"]
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_errors_of_the_console_are_seen(browser, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<script src='missing.js'></script><script>nothing()</script>", encoding="utf-8")
    browser.get(page.as_uri())
    told = []

    def both():
        told.extend(console_errors(browser))
        return all(any(words in line for line in told) for words in ("missing.js", "nothing is not defined"))

    until(both, lambda: told)
