"""The common look: its colours follow the system until the switch says otherwise, and the choice is kept."""

from __future__ import annotations

import pytest

from eval.pages import render
from tests.browser.conftest import console_errors

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
    dark = paper(browser)
    assert light != dark
    switch = browser.find_element("id", "theme")
    switch.click()
    assert "light" in switch.text and paper(browser) == light
    switch.click()
    assert "dark" in switch.text and paper(browser) == dark
    browser.get(page.as_uri())
    assert "dark" in browser.find_element("id", "theme").text and not console_errors(browser)
    browser.execute_script("localStorage.clear()")


def test_errors_of_the_console_are_seen(browser, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<script src='missing.js'></script><script>nothing()</script>", encoding="utf-8")
    browser.get(page.as_uri())
    told = console_errors(browser)
    assert any("missing.js" in line for line in told) and any("nothing is not defined" in line for line in told), told
