"""A headless Chromium of the system's packages, driven by selenium; tests that ask for it are skipped where it is not installed."""

from __future__ import annotations

import shutil

import pytest

from tests.helpers.browsing import PATIENCE_S, SIZE, console_errors


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
