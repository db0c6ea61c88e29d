"""A rater's whole way in a real browser: keys and mouse, a reload in the middle, the file, and the tables that it fills."""

from __future__ import annotations

import csv
import functools
import http.server
import json
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from eval.study.order import order_of
from eval.tables import opinions
from jobs import cli
from tests.helpers import studies
from tests.helpers.browsing import console_errors
from tests.helpers.waiting import until

pytestmark = pytest.mark.slow
CRITERIA = list(opinions.CRITERIA)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, dict]:
    """A study of one group in each task, and its key."""
    store = studies.store(tmp_path, 2)
    folder = tmp_path / "page"
    assert cli.main(["study", "build", "--store", str(store), "groups=1", "contact=<lab@example.org>", "--output", str(folder)]) == 0
    return folder, json.loads((tmp_path / "page.key.json").read_text(encoding="utf-8"))


@pytest.fixture
def served(made: tuple[Path, dict]) -> Iterator[str]:
    """The same folder on a host that cannot send parts of files."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(made[0]))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Rater:
    """Hands and eyes at the page."""

    def __init__(self, browser, folder: Path) -> None:
        self.browser, self.given = browser, {}
        browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})

    def js(self, script: str, *values):
        return self.browser.execute_script(f"return {script}", *values)

    def press(self, keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.browser).send_keys(keys).perform()

    def click(self, name: str) -> None:
        button = self.browser.find_element("id", name)
        self.browser.execute_script("arguments[0].scrollIntoView({behavior: 'instant', block: 'center'})", button)
        button.click()

    def text(self, name: str) -> str:
        return self.browser.find_element("id", name).text

    def videos(self) -> list[str]:
        """Random names from left to right."""
        return self.js("[...document.querySelectorAll('#videos .video')].map(card => card.dataset.video)")

    def times(self) -> list[float]:
        return self.js("[...document.querySelectorAll('video')].map(video => video.currentTime)")

    def loaded(self) -> None:
        """Waits until every video of the group shows a frame."""
        still = "[...document.querySelectorAll('video')].every(video => video.readyState >= 2 && !video.seeking)"
        until(lambda: self.videos() and self.js(f"!document.getElementById('play').disabled && {still}"), "videos are there")

    def in_step(self) -> None:
        """Waits until all videos play on one clock, and stops them right there; a busy machine may come to their end before."""
        seen = (
            "const times = [...document.querySelectorAll('video')].map(video => video.currentTime);"
            "const together = document.getElementById('playing').textContent === 'Pause'"
            " && Math.min(...times) > 0.4 && Math.max(...times) < 1.3 && Math.max(...times) - Math.min(...times) < 0.15;"
            "if (together) document.body.dispatchEvent(new KeyboardEvent('keydown', { key: 'p', bubbles: true }));"
            "return together"
        )

        def together() -> bool:
            if self.text("playing") == "Play all":
                self.press("p")
            return self.browser.execute_script(seen)

        until(together, self.times)

    def watched(self, group: str) -> None:
        """Waits until the page has counted long enough for a group not to count as hasty; its clock runs while videos are paused."""
        spent = "JSON.parse(localStorage.getItem('study-' + STUDY.study)).groups[arguments[0]].spent_s"
        until(lambda: self.js(f"dispatchEvent(new Event('pagehide')) && {spent} > 0.8", group), "time is counted")

    def checked(self) -> dict[tuple[str, str], int]:
        """What the page shows as given."""
        script = (
            "[...document.querySelectorAll('.line')].map(l => [l.dataset.video, l.dataset.criterion, l.querySelector(':checked')?.value])"
        )
        return {(video, criterion): int(value) for video, criterion, value in self.js(script) if value}

    def due(self) -> list[tuple[str, str, int]]:
        """Lines of this group and what this rater will give."""
        return [(v, c, 1 + zlib.crc32(f"{v}{c}".encode()) % 5) for v in self.videos() for c in CRITERIA]

    def by_keys(self, count: int | None = None) -> None:
        for video, criterion, points in self.due()[:count]:
            self.press(str(points))
            self.given[video, criterion] = points

    def by_mouse(self) -> None:
        for video, criterion, points in self.due():
            line = self.browser.find_element("css selector", f'.line[data-video="{video}"][data-criterion="{criterion}"]')
            label = line.find_elements("css selector", "label")[points - 1]
            self.browser.execute_script("arguments[0].scrollIntoView({behavior: 'instant', block: 'center'})", label)
            label.click()
            self.given[video, criterion] = points


def test_a_whole_study(browser, made, tmp_path, capsys):
    folder, key = made
    sent = tmp_path / "sent"
    sent.mkdir()
    rater = Rater(browser, sent)
    browser.get((folder / "index.html").as_uri())
    assert "4 groups with 44 ratings" in browser.find_element("id", "intro").text
    seen = browser.page_source
    rater.click("begin")
    rater.loaded()
    state = kept(rater)
    order = order_of(state["rater"], studies.tasks_of(key))
    assert rater.videos() == order[0]["videos"], "this rater's own order, as computed here"

    # All videos on one clock.
    rater.in_step()
    rater.loaded()
    times = rater.times()
    assert len(set(times)) == 1 and 0.4 < times[0] < 1.5 and rater.text("playing") == "Play all", times
    rater.press(",")
    rater.loaded()
    assert rater.times() == [pytest.approx(times[0] - 1 / 16, abs=1e-6)] * len(times)
    browser.execute_script("const s = document.getElementById('seek'); s.value = 20; s.dispatchEvent(new Event('input'))")
    rater.loaded()
    assert set(rater.times()) == {20.5 / 16}
    if order[0]["task"] != "long60":
        assert browser.find_element("css selector", "#scenes .now").text.split()[0] == "2"

    # Keys, then a reload in the middle.
    rater.by_keys()
    assert rater.checked() == rater.given and "This group is complete" in rater.text("lack")
    assert browser.switch_to.active_element.get_attribute("id") == "next", "keys lead on"
    rater.press("n")
    rater.by_keys(5)
    browser.refresh()
    rater.loaded()
    assert "Group 2 of 4" in rater.text("place") and rater.videos() == order[1]["videos"]
    assert rater.checked() == {line: points for line, points in rater.given.items() if line[0] in rater.videos()}
    assert len(rater.checked()) == 5 and kept(rater)["rater"] == state["rater"]

    # The mouse; a changed mind; what is missing is found.
    seen += browser.page_source
    rater.by_mouse()
    rater.watched(order[1]["group"])
    rater.click("next")
    seen += browser.page_source
    rater.watched(order[2]["group"])
    rater.click("next")
    rater.by_mouse()
    rater.watched(order[3]["group"])
    seen += browser.page_source
    assert rater.text("next") == "Finish"
    rater.click("next")
    assert rater.text("thanks") == "Not finished yet" and "of 44 ratings are still missing" in rater.text("whole")
    rater.click("fill")
    assert "Group 3 of 4" in rater.text("place")
    rater.by_keys()
    rater.press("n")
    rater.press("n")
    assert rater.text("whole") == "All 44 ratings are given." and "<lab@example.org>" in rater.text("end")
    seen += browser.page_source
    rater.click("save")
    (path,) = until(lambda: list(sent.glob("answers-*.json")))
    until(lambda: path.stat().st_size, "the file is written")
    assert console_errors(browser) == []
    hidden(seen, folder)
    into_tables(rater, sent, key, tmp_path, capsys)
    hand_over(rater, state["rater"])


def kept(rater: Rater) -> dict:
    """What the browser keeps for this study."""
    return json.loads(rater.js("localStorage.getItem('study-' + STUDY.study)"))


def points_kept(rater: Rater) -> list[int]:
    """All points that the browser keeps, as this tab sees them."""
    videos = [own for group in kept(rater)["groups"].values() for own in group["ratings"].values()]
    return sorted(points for own in videos for points, _ in own.values())


def hidden(seen: str, folder: Path) -> None:
    """Nothing that was ever in the document names a method; texts of scenes name prompts here, and are shown."""
    for word in (*studies.COLOURS, "echo", "forcing", "longlive", "tiny", "backbone"):
        assert word not in seen.lower(), word
    assert seen.count("videos/") and all(path.stem.isalnum() and len(path.stem) == 16 for path in (folder / "videos").iterdir())


def into_tables(rater: Rater, sent: Path, key: dict, tmp_path: Path, capsys) -> None:
    """The very ratings that were typed and clicked stand in the file, the CSV and both tables."""
    (path,) = sent.glob("*.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    found = {(v, c): one[0] for group in content["groups"].values() for v, own in group["ratings"].items() for c, one in own.items()}
    assert found == rater.given and len(found) == 44 and content["complete"]
    ratings = tmp_path / "ratings.csv"
    assert cli.main(["study", "collect", str(sent), "--output", str(ratings)]) == 0, "the key beside the folder is found"
    told = capsys.readouterr().out
    assert "1 rater counted, 0 files left out, 44 ratings" in told and "44/44" in told, told
    for table in opinions.TABLES:
        assert cli.main(["tables", table, f"ratings={ratings}", "--store", str(tmp_path)]) == 0
        rows = list(csv.DictReader((tmp_path / "tables" / f"{table}.csv").open(encoding="utf-8")))
        assert len(rows) == (2 if table == "table4" else 3)
        for row in rows:
            own = [
                video
                for group in key["groups"].values()
                if group["task"] in opinions.TASKS[table]
                for video, shown in group["videos"].items()
                if shown["method"] == row["preset"]
            ]
            for criterion in CRITERIA:
                mean = sum(rater.given[video, criterion] for video in own) / len(own)
                assert float(row[criterion]) == pytest.approx(mean, abs=1e-4)
    capsys.readouterr()


def hand_over(rater: Rater, first: str) -> None:
    """The next person at the same computer begins with a fresh page."""
    rater.click("another")
    rater.browser.find_element("css selector", '#sure button[value="no"]').click()
    assert kept(rater)["rater"] == first
    rater.click("another")
    rater.browser.find_element("css selector", '#sure button[value="yes"]').click()
    until(lambda: rater.browser.find_element("id", "begin").is_displayed(), "the page begins anew")
    rater.click("begin")
    assert kept(rater)["rater"] != first and rater.checked() == {} and "0 of 44" in rater.text("count")


def test_from_a_plain_web_host_and_in_two_tabs(browser, made, served, tmp_path):
    rater = Rater(browser, tmp_path)
    browser.get(served)
    rater.click("begin")
    rater.loaded()
    rater.press("3")
    browser.execute_script("const s = document.getElementById('seek'); s.value = 9; s.dispatchEvent(new Event('input'))")
    rater.loaded()
    assert set(rater.times()) == {9.5 / 16}, "a host without ranges"
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    browser.get(served)
    rater.loaded()
    assert list(rater.checked().values()) == [3]
    rater.press("4")
    second = browser.current_window_handle
    browser.switch_to.window(first)
    until(lambda: browser.find_element("id", "here").is_displayed(), "the other tab is seen")
    until(lambda: points_kept(rater) == [3, 4], "and what was rated there")
    rater.press("5")
    rater.click("here")
    rater.loaded()
    assert list(rater.checked().values()) == [3, 4], "nothing of the other tab is lost"
    assert console_errors(browser) == []
    browser.switch_to.window(second)
    browser.close()
    browser.switch_to.window(first)


SPACE, ENTER, CONTROL, ARROWS = "\ue00d", "\ue007", "\ue009", "\ue012\ue013\ue014\ue015"
"""As WebDriver names keys."""


def test_only_a_digit_rates_and_space_plays(browser, made, tmp_path):
    rater = Rater(browser, tmp_path)
    browser.get((made[0] / "index.html").as_uri())
    rater.click("begin")
    rater.loaded()
    for focus in ("", "next", "seek", "theme"):
        if focus:
            browser.execute_script(f"document.getElementById('{focus}').focus()")
        rater.press(SPACE)
        until(lambda: rater.text("playing") == "Pause", f"Space plays, with the focus at {focus or 'the first line'}")
        rater.press(SPACE)
        until(lambda: rater.text("playing") == "Play all", "and pauses")
        assert rater.checked() == {} and "Group 1 of 4" in rater.text("place"), focus
    due = [(video, criterion) for video, criterion, _ in rater.due()]
    browser.execute_script("document.querySelector('.line input').focus()")
    for keys in (*ARROWS, *(CONTROL + arrow for arrow in ARROWS), ENTER, "\ue010", "\ue011", "0", "6", "9", "x", "l"):
        rater.press(keys)
        assert rater.checked() == {}, repr(keys)
    rater.press("l")
    browser.execute_script("document.querySelector('.line input').focus()")
    rater.press("3")
    rater.press(SPACE)
    rater.press(SPACE)
    assert rater.checked() == {due[0]: 3}, "neither Space nor what it does gives a second rating"
    held = "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key: '2', repeat: true, bubbles: true }))"
    browser.execute_script(held)
    assert rater.checked() == {due[0]: 3}, "a digit that is held down rates one line"
    browser.find_element("id", "task").click()
    rater.press("4")
    assert rater.checked() == {due[0]: 3, due[1]: 4}, "after a click on a heading"
    last = due[-len(CRITERIA)]
    browser.find_element("css selector", f'.video[data-video="{last[0]}"] video').click()
    assert browser.find_element("css selector", ".line.at").get_attribute("data-video") == last[0], "the line is marked before it is rated"
    rater.press("5")
    assert rater.checked() == {due[0]: 3, due[1]: 4, last: 5}, "after a click on a picture, the first open line of that video"
    browser.execute_script("scrollTo(0, document.body.scrollHeight)")
    top = rater.js("document.getElementById('keys').getBoundingClientRect().top")
    assert 0 <= top < 900 and all(word in rater.text("keys") for word in ("Space play", "1 to 5 rate")), "keys are in sight wherever one is"
    assert console_errors(browser) == []


def test_what_a_finger_touches_is_large_enough(browser, made, tmp_path):
    rater = Rater(browser, tmp_path)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": False})
    browser.get((made[0] / "index.html").as_uri())
    sizes = (
        "[...document.querySelectorAll('button, .points label, summary, input[type=range]')].map(one => [one, one.getBoundingClientRect()])"
        ".filter(([one, box]) => box.width && (box.width < 44 || box.height < 44)).map(([one, box]) => one.outerHTML.slice(0, 80))"
    )
    assert rater.js(sizes) == []
    rater.click("begin")
    rater.loaded()
    assert rater.js(sizes) == [] and rater.js("document.documentElement.scrollWidth <= innerWidth")


def test_looks(browser, made, tmp_path):
    """Dark by the system and by the switch, no sideways scrolling on a telephone, every control reached by Tab with a visible ring."""
    rater = Rater(browser, tmp_path)
    browser.get((made[0] / "index.html").as_uri())
    rater.click("begin")
    rater.loaded()
    paper = "getComputedStyle(document.body).backgroundColor"
    light = rater.js(paper)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
    dark = until(lambda: (now := rater.js(paper)) != light and now, "another colour for a dark system")
    rater.click("theme")
    until(lambda: rater.js(paper) == light, "the switch wins")
    rater.click("theme")
    until(lambda: rater.js(paper) == dark, "the switch says dark")
    rater.click("theme")
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": False})
    until(lambda: rater.js("innerWidth === 390"), "the window is as narrow as a telephone")
    assert rater.js("document.documentElement.scrollWidth <= innerWidth")
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False})
    until(lambda: rater.js("innerWidth === 1280"), "the window is wide again")
    browser.execute_script("document.activeElement.blur()")
    reached = set()
    for _ in range(60):
        rater.press("\ue004")
        reached.add(rater.js("document.activeElement.id || document.activeElement.closest('.line')?.ariaLabel || 'x'"))
        ring = "getComputedStyle(document.activeElement.closest('label') || document.activeElement).outlineStyle"
        assert rater.js(ring) != "none" or rater.js("document.activeElement === document.body"), rater.js(
            "document.activeElement.outerHTML"
        )
    assert {"theme", "play", "seek", "next", "back"} <= reached and sum(", video " in name for name in reached) == len(rater.due())
    assert console_errors(browser) == []


def test_a_study_of_its_own_words_asks_who_rates_and_for_consent_and_checks_attention(browser, tmp_path):
    (tmp_path / "study.yaml").write_text(
        "title: Our study\nconsent: I take part of my own will.\nrater: PROLIFIC_PID\npractice: Try it out here.\nchecks: 1\n"
        "criteria: {camera: Is the camera steady?}\nfinish: https://app.prolific.com/submissions/complete?cc=C0FFEE\n",
        encoding="utf-8",
    )
    made = studies.store(tmp_path, 3, methods={"hard": ("echo", "longlive")})
    words = ["task=hard", "groups=1", "--form", str(tmp_path / "study.yaml"), "--output", str(tmp_path / "page")]
    assert cli.main(["study", "build", "--store", str(made), *words]) == 0
    key = json.loads((tmp_path / "page.key.json").read_text(encoding="utf-8"))
    sent = tmp_path / "sent"
    sent.mkdir()
    rater, page = Rater(browser, sent), (tmp_path / "page" / "index.html").as_uri()

    def begins() -> bool:
        return browser.find_element("id", "begin").is_enabled()

    browser.get(page)
    assert rater.text("title") == "Our study" and "does not say who you are (PROLIFIC_PID)" in rater.text("person")
    rater.click("agreed")
    assert not begins(), "nobody is known by this address"
    browser.get(f"{page}?PROLIFIC_PID=5f3a&STUDY_ID=x")
    assert rater.text("person") == "You take part as 5f3a." and not begins()
    rater.click("agreed")
    browser.refresh()
    assert begins(), "what was agreed to is kept"
    rater.click("begin")
    heads = []
    for _ in range(3):
        rater.loaded()
        heads.append((rater.text("task"), rater.text("focus")))
        group = rater.js("[...STUDY.tasks.flatMap(task => task.groups)].find(g => g.videos.includes(arguments[0])).id", rater.videos()[0])
        rater.press("2" if key["groups"][group].get("check") else "5")
        rater.press("2" if key["groups"][group].get("check") else "4")
        rater.press("n")
    assert heads[0] == ("Practice", "Try it out here.") and {head[0] for head in heads[1:]} == {"Hard cut"}
    asked = "This group checks that texts are read: please give every video here 2 points in every respect."
    assert [head[1] == asked for head in heads].count(True) == 1, heads
    assert rater.text("whole") == "All 6 ratings are given." and "the id of the link" in rater.text("end")
    assert not browser.find_element("id", "finish").is_displayed()
    rater.click("save")
    (path,) = until(lambda: list(sent.glob("answers-*.json")))
    until(lambda: path.stat().st_size, "the file is written")
    link = browser.find_element("css selector", "#finish a")
    assert link.is_displayed() and link.get_attribute("href") == "https://app.prolific.com/submissions/complete?cc=C0FFEE"
    answers = json.loads(path.read_text(encoding="utf-8"))
    assert answers["participant"] == "5f3a" and answers["consented"] and console_errors(browser) == []
    assert cli.main(["study", "collect", str(sent), "keep=all", "--output", str(tmp_path / "ratings.csv")]) == 0
    assert sorted(opinions.read(tmp_path / "ratings.csv")["points"]) == [4, 5], "two videos of the one group that counts"
