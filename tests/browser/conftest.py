"""A headless Chromium of the system's packages, driven by selenium; tests that ask for it are skipped where it is not installed."""

from __future__ import annotations

import pytest

from tests.helpers.browsing import SIZE, chromium, console_errors, lacking


@pytest.fixture(scope="session")
def _chromium(tmp_path_factory):
    if lack := lacking():
        pytest.skip(lack)
    opened = chromium(tmp_path_factory.mktemp("chromium"))
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
