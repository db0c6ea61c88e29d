"""A headless Chromium of the system's packages, driven by selenium; tests that ask for it are skipped where it is not installed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")
SIZE = (1280, 900)
PATIENCE_S = 60.0
"""For what a page does by and by: long on purpose, since nobody waits longer than it takes."""


def console_errors(driver) -> list[str]:
    """What the page has written to its console as an error since the last call, uncaught exceptions and missing files among it."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def until(what: Callable[[], T], told: Callable[[], object] | str = "", seconds: float = PATIENCE_S) -> T:
    """What is there at last. told: what was waited for, in case it never comes."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"waited {seconds} s in vain: {told() if callable(told) else told}"
        time.sleep(0.05)
    return found


def until_true(driver, script: str):
    """Wait for a script's answer to be true; the answer."""
    return until(lambda: driver.execute_script(script), f"never true: {script}")


def settled(driver) -> None:
    """Wait for two frames: by then a page has heard of scrolling, and its observers of what is in sight."""
    frames = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 0)));"
    driver.execute_async_script(frames)


@pytest.fixture(scope="session")
def _chromium(tmp_path_factory):
    selenium = pytest.importorskip("selenium.webdriver", reason="no selenium: pip install -e '.[browser]'")
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("no chromium and chromedriver: apt-get install chromium chromium-driver")
    from selenium.webdriver.chrome.service import Service

    options = selenium.ChromeOptions()
    options.binary_location = program
    profile = tmp_path_factory.mktemp("chromium")
    words = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", f"--window-size={SIZE[0]},{SIZE[1]}"]
    for word in [*words, "--force-device-scale-factor=1", "--hide-scrollbars", f"--user-data-dir={profile}"]:
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = selenium.Chrome(options, Service(driver))
    opened.set_script_timeout(PATIENCE_S)
    yield opened
    opened.quit()


@pytest.fixture
def browser(_chromium):
    """An empty page of 1280 x 900 px, light unless the page says otherwise, its console read and its storage as it comes."""
    _chromium.set_window_size(*SIZE)
    _chromium.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": SIZE[0], "height": SIZE[1], "deviceScaleFactor": 1, "mobile": False}
    )
    _chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "light"}]})
    _chromium.get("about:blank")
    console_errors(_chromium)
    yield _chromium
    _chromium.get("about:blank")
