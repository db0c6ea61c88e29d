"""What tests ask of a page in a browser, and how they wait for it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from tests.helpers.waiting import until

if TYPE_CHECKING:
    from selenium.webdriver.remote.webdriver import WebDriver

SIZE = (1280, 900)
PATIENCE_S = 60.0
"""For what a page does by and by."""


def lacking() -> str:
    """What a browser needs and this machine lacks, with the command that brings it; "" for nothing."""
    try:
        import selenium.webdriver  # noqa: F401
    except ImportError:
        return "no selenium: pip install -e '.[browser]'"
    there = shutil.which("chromium") and shutil.which("chromedriver")
    return "" if there else "no chromium and chromedriver: apt-get install chromium chromium-driver"


def chromium(profile: Path) -> WebDriver:
    """A headless Chromium of the system's packages with an empty profile; whoever asks for it calls `quit`."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    words = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", f"--window-size={SIZE[0]},{SIZE[1]}"]
    for word in [*words, "--force-device-scale-factor=1", "--hide-scrollbars", f"--user-data-dir={profile}"]:
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    opened.set_script_timeout(PATIENCE_S)
    return opened


def shown(driver: WebDriver, bits: int = 8) -> list[int]:
    """Numbers of the frames that a picture of the window shows, read off the pixels of all videos that are wholly in it.

    bits: of a number, from left to right, each as a black or white bar of the video.
    """
    boxes = driver.execute_script(
        "const bar = document.querySelector('.transport').getBoundingClientRect().top;"
        "return [...document.querySelectorAll('video')].map(video => video.getBoundingClientRect())"
        ".filter(box => box.top >= 0 && box.bottom <= bar).map(box => [box.left, box.top, box.width, box.height])"
    )
    picture = cv2.imdecode(np.frombuffer(driver.get_screenshot_as_png(), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    numbers = []
    for left, top, width, height in boxes:
        bars = [picture[round(top + height / 2), round(left + (bit + 0.5) * width / bits)] for bit in range(bits)]
        numbers.append(sum((int(bar) > 127) << bit for bit, bar in enumerate(bars)))
    return numbers


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
