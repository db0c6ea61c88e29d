"""What tests ask of a page in a browser, and how they wait for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.helpers.waiting import until

if TYPE_CHECKING:
    from selenium.webdriver.remote.webdriver import WebDriver

SIZE = (1280, 900)
PATIENCE_S = 60.0
"""For what a page does by and by."""


def console_errors(driver: WebDriver) -> list[str]:
    """What the page has written to its console as an error since the last call, uncaught exceptions and missing files among it."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def until_true(driver: WebDriver, script: str) -> Any:
    """Wait for a script's answer to be true; the answer."""
    return until(lambda: driver.execute_script(script), script, PATIENCE_S)


def settled(driver: WebDriver) -> None:
    """Wait for two frames: by then a page has heard of scrolling, and its observers of what is in sight."""
    frames = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 0)));"
    driver.execute_async_script(frames)
