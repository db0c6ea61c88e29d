"""The page of a live session in a real browser: what is typed is obeyed, as the embedded scorer sees it, and saved to the byte.

LIVE_PNG=docs/live.png writes the picture of the documentation. Console messages that gradio itself writes offline: none.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import av
import numpy as np
import pytest

from data.world.words import KINDS
from echo.files import ROOT
from echo.scene import BLOCK_S
from eval.world.readings import motion_of, read, right_pairs, said
from eval.world.scorer import EmbeddedScorer
from jobs.live.player import KEPT
from tests.helpers.browsing import console_errors
from tests.helpers.command import ECHO_HARNESS
from tests.helpers.interrupts import hear_interrupts
from tests.helpers.waiting import until

pytestmark = pytest.mark.slow
FIRST, CUT, BACK = (
    "a red ball moving left over a plain meadow",
    "the red ball bounces over a striped desert",
    "once more the plain meadow, where the red ball moves up",
)
BLOCKS = 5
"""Of each scene: five blocks are 60 frames, of which the last 48 are read."""
LEGENDS = """
window.legends = {};
const root = document.querySelector('.live'), legend = root.querySelector('.live-legend');
new MutationObserver(() => (legends[root.dataset.scene] ||= []).push([...legend.children].map(item => item.textContent)))
  .observe(legend, { childList: true });
"""


@pytest.fixture
def served(tmp_path):
    """Start a session on a free port; its address, process and store."""
    pytest.importorskip("gradio", reason="no gradio: pip install -e '.[live]'")
    started = []

    def start(*words):
        given = [*ECHO_HARNESS, "live", f"store={tmp_path / 'store'}", *words]
        log = (tmp_path / f"log-{len(started)}").open("w+", encoding="utf-8")
        environment = os.environ | {"OMP_NUM_THREADS": "1", "http_proxy": "", "https_proxy": ""}
        process = subprocess.Popen(
            given, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, text=True, env=environment, preexec_fn=hear_interrupts
        )
        started.append(process)

        def told():
            return Path(log.name).read_text(encoding="utf-8")

        until(lambda: re.search(r"live session of .*\n", told()) or process.poll() is not None, told, 240)
        found = re.search(r"live session of .*: (http://\S+) .*\n", told())
        assert found and process.poll() is None, told()
        return found[1], process

    yield start
    for process in started:
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(120) == 0
        finally:
            process.kill()


class Page:
    """What a user does and sees."""

    def __init__(self, driver, url):
        self.driver = driver
        driver.get(url)
        self.until(lambda: driver.find_elements("css selector", ".live-ideas button"), "the page opens")
        driver.execute_script(LEGENDS)

    def at(self, name):
        return self.driver.find_element("css selector", f'[data-live="{name}"]')

    def said(self, name):
        return self.driver.execute_script("return document.querySelector('.live').dataset[arguments[0]]", name)

    def until(self, truth, what):
        return until(truth, lambda: f"{what}; the page says {self.at('note').text!r}", 120)

    def block(self):
        return int(self.said("block") or -1)

    def send(self, text, button=None):
        from selenium.webdriver.common.keys import Keys

        prompt = self.at("prompt")
        prompt.clear()
        prompt.send_keys(text)
        if button is None:
            prompt.send_keys(Keys.ENTER)
        else:
            self.at(button).click()

    def shown(self, scene, blocks=1):
        """Wait until so many blocks of a scene have begun on the screen, and until the page has heard that it was taken."""
        self.until(lambda: self.said("scene") == str(scene), f"scene {scene} is shown")
        first = self.block()
        self.until(lambda: self.block() >= first + blocks - 1, f"{blocks} blocks of scene {scene}")
        self.until(lambda: len(json.loads(self.said("latencies") or "[]")) > scene, f"scene {scene} is measured")

    def cards(self):
        """Text of each remembered scene's card and width of its picture, by number; all at once, since new blocks change them."""
        script = (
            "return [...document.querySelectorAll('.live-pool button')].map(one =>"
            " [Number(one.dataset.scene), [one.innerText, one.querySelector('img').naturalWidth]])"
        )
        return dict(self.driver.execute_script(script))

    def recall(self, scene):
        """Press a scene's card, which stays the same while new blocks change its picture."""
        self.driver.find_element("css selector", f'.live-pool button[data-scene="{scene}"]').click()

    def legends(self, scene):
        """What the blocks of a scene remembered, as far as they were shown; recalled scenes are soon let go."""
        return self.driver.execute_script("return window.legends[arguments[0]] || []", str(scene))


def listening(process):
    """Local addresses of the process's listening sockets."""
    inodes = set()
    for one in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            inodes.add(os.readlink(one))
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}


def refused(url, origin):
    """Whether a page of this origin is turned away."""
    try:
        with urlopen(Request(url, headers={"Origin": origin})):
            return False
    except HTTPError as error:
        return error.code == 403


def frames_of(video):
    """Frames of the world, 48 x 48, out of a stored video, whose pixels are repeated."""
    with av.open(str(video)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    factor = frames.shape[1] // 48
    small = frames.reshape(len(frames), 48, factor, 48, factor, 3).mean((2, 4))
    return np.clip(small + 0.5, 0, 255).astype(np.uint8)


def test_a_prompt_is_switched_live_and_obeyed(browser, served, tmp_path):
    url, process = served("backbone=tiny", "method=echo", "method.routing.pool_scenes=2")
    assert listening(process) == {"0100007F"}, "127.0.0.1 alone"
    page = Page(browser, url)
    assert refused(f"{url}config", "http://evil.example") and not refused(f"{url}config", url.rstrip("/"))
    page.send(FIRST)
    page.shown(0, BLOCKS)
    page.send(CUT, "hard")
    page.shown(1, BLOCKS)
    (card,) = browser.find_elements("css selector", '.live-pool button[data-scene="0"]')
    page.until(lambda: "hard cut" in page.cards()[1][0] and page.cards()[1][1] == 48, "the scene has its card and its picture")
    page.send("a blue zebra")
    page.until(lambda: "unknown word 'zebra'" in page.at("note").text, "the refusal is told")
    page.send(BACK)
    page.shown(2, 2)
    assert page.cards()[2][0] == "3 · recall 1" and "Scene 3 begins" in page.at("note").text
    assert "routed by the texts" in page.at("note").text and page.at("scene").text == "Scene 3", "people count from 1, files from 0"
    assert any({"recalled 1", "decaying 1"} <= set(kinds) for kinds in page.legends(2)), page.legends(2)
    if "LIVE_PNG" in os.environ:
        browser.save_screenshot(os.environ["LIVE_PNG"])
    page.shown(2, BLOCKS)
    assert card.is_displayed(), "a press that began on it would end on it, two scenes later"
    before = page.block()
    page.at("prompt").clear()
    page.recall(0)
    page.until(lambda: "recall of scene 1: the pool holds 2..3" in page.at("note").text, "the refused recall is told")
    page.until(lambda: page.block() > before + 1, "the film goes on")
    assert page.said("scene") == "2"
    page.recall(1)
    page.shown(3, BLOCKS)
    latencies = json.loads(page.said("latencies"))
    told, unit = page.at("latency").text.split()
    assert len(latencies) == 4 and unit == "s" and float(told) == pytest.approx(latencies[-1] / 1000, abs=0.006), (latencies, told)
    assert all(0 < one < 60_000 for one in latencies)
    sys.stdout.write(f"\nkey to first frame, ms: {latencies}; the last: {page.at('latency').get_attribute('title')}\n")

    page.at("pause").click()
    page.until(lambda: page.said("status") == "paused", "it stops")
    page.at("save").click()
    links = page.until(lambda: browser.find_elements("css selector", ".live-files a"), "it is saved")
    files = {link.get_attribute("download"): urlopen(link.get_attribute("href")).read() for link in links}
    assert set(files) == {"live.mp4", "live.jsonl", "live.trace.jsonl", "session.json"}
    obeyed(files, tmp_path)
    same_bytes(page.at("command").text, files, tmp_path / "store")
    assert console_errors(browser) == []
    asked = browser.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert asked and not [one for one in asked if not one.startswith((url, "data:"))]


def obeyed(files, folder):
    """Each scene's place, subject and motion are what was said, read off its last frames by the embedded scorer."""
    (folder / "live.mp4").write_bytes(files["live.mp4"])
    script, frames = json.loads(files["live.jsonl"]), frames_of(folder / "live.mp4")
    ends = np.cumsum([round(16 * seconds) for seconds in script["durations"]])
    assert script["scenes"] == [FIRST, CUT, BACK, CUT] and script["tags"] == ["", "#", "@", "@"]
    assert script["recalls"] == [None, None, 0, 1] and ends[-1] == len(frames)
    encoder = EmbeddedScorer.load(ROOT / "data/weights/scorer/model.safetensors").encoder
    for scene, (text, end) in enumerate(zip(script["scenes"], ends, strict=True)):
        seen, words = read(encoder, frames[end - 48 : end]), said(text)
        assert right_pairs(seen, words) == {"place_right": 1, "subject_right": 1}, (scene, text)
        assert motion_of(seen.centres) == words["motion"], (scene, text)


def same_bytes(command, files, store):
    """The command that the page gives, in a process of its own, makes the same file."""
    words = [sys.executable, *shlex.split(command)[1:]]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)
    (video,) = store.glob("runs/tiny/live/echo/seed=0/*/units/*.mp4")
    assert video.read_bytes() == files["live.mp4"]
    (records,) = store.glob("runs/tiny/live/echo/seed=0/*/records/*.jsonl")
    assert json.loads(records.read_text(encoding="utf-8"))["latents_sha256"] == json.loads(files["session.json"])["latents_sha256"]


def test_a_method_that_recalls_nothing_says_so_and_starts_anew(browser, served):
    from selenium.webdriver.support.expected_conditions import alert_is_present

    url, _ = served("backbone=tiny", "method=self_forcing")
    page = Page(browser, url)
    page.until(lambda: browser.find_elements("css selector", ".live-words button"), "words that the world knows")
    chips = {chip.text: chip for chip in browser.find_elements("css selector", ".live-words button")}
    assert list(chips) == [word for kind in KINDS.values() for word in kind]
    for word in ("red", "ball", "meadow"):
        chips[word].click()
    assert page.at("prompt").get_attribute("value") == "red ball meadow "
    page.send(FIRST)
    page.shown(0, 2)
    page.recall(0)
    page.until(lambda: "method=self_forcing: keeps no ended scene to recall" in page.at("note").text, "why is told")
    page.at("restart").click()
    page.until(lambda: alert_is_present()(browser), "it asks before").accept()
    page.until(lambda: page.said("status") == "waiting" and not page.cards(), "nothing is left")
    page.send(CUT)
    page.shown(0, 2)
    assert page.at("text").text == CUT and console_errors(browser) == []


def test_from_the_key_to_the_first_frame(browser, served):
    """LIVE_PRESSES=N with -s measures longer. The bound is for a loaded machine: the length of all blocks by which a page may be late."""
    url, _ = served("backbone=tiny", "method=echo")
    page, presses = Page(browser, url), int(os.environ.get("LIVE_PRESSES", "3"))
    page.send(FIRST)
    page.shown(0, 2)
    for scene in range(1, presses + 1):
        page.send((CUT, FIRST)[scene % 2], "hard")
        page.shown(scene, 2)
        time.sleep(0.19 * (scene % 4))  # other moments of a block
    latencies = sorted(json.loads(page.said("latencies"))[1:])
    sys.stdout.write(f"\n{len(latencies)} presses, ms: median {np.median(latencies):.0f}, {latencies[0]} to {latencies[-1]}\n")
    assert len(latencies) == presses and np.median(latencies) < KEPT * BLOCK_S * 1000
    told = page.at("latencies").text.removeprefix(f"median of {presses + 1}: ").removesuffix(" s")
    assert float(told) == pytest.approx(np.median(json.loads(page.said("latencies"))) / 1000, abs=0.007), "the mean of the middle two"
