"""How fluent a report of real size is: 64 prompts x 6 methods of 832x480, 60 s each, opened in headless Chromium from file://.

    python -m tests.load.report [--prompts 64] [--window 1920x1080] [--folder DIR] [--output FILE.json]

makes six films with the product's writer (each shows its frame's number as ten bars), a store that names each film once for every prompt
(hard links), and the report of it by `echo-harness report`, and measures: sizes; the first paint and the time until the first videos can
play; seeks and a drag of the slider over one row of six and over all rows in sight, and playing of both; memory of the browser; and how
many videos are attached, also on the way through all rows. A folder that is named is kept and used again; otherwise it is removed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from echo.files import ROOT
from echo.scene import FPS
from eval.store.origin import ROOMS, commit
from jobs.work.video import VideoWriter
from tests.helpers import reports
from tests.helpers.browsing import chromium, lacking, settled, shown, until_true
from tests.helpers.command import ECHO_HARNESS

if TYPE_CHECKING:
    from selenium.webdriver.remote.webdriver import WebDriver

SHAPE = reports.Shape(scenes=5, each=16)
FRAMES = 12 * SHAPE.blocks
BITS = 10
HEIGHT, WIDTH = 480, 832
CRF = 20
"""As in conf/config.yaml."""
WATCH = """
const { fps, films } = report.transport, draw = CanvasRenderingContext2D.prototype.drawImage, drawn = new WeakMap();
const presented = ({ shown }) => (shown === null ? -1 : Math.round(shown * fps));
CanvasRenderingContext2D.prototype.drawImage = function (video, ...at) {
  if (films.has(video)) drawn.set(this.canvas, presented(films.get(video)));
  return draw.call(this, video, ...at);
};
window.frames = () => [...films.values()].map((film) => (film.cover?.isConnected ? drawn.get(film.cover) : presented(film)));
"""
"""Says which frame of each attached video is on the screen: the one presented last, or the one that a canvas over it keeps."""
SEEK = """
const [to, done] = arguments, begin = performance.now();
report.transport.seek(to);
const look = () => (window.frames().every((frame) => frame === to) ? done(performance.now() - begin) : requestAnimationFrame(look));
look();
"""
DRAG = """
const [from, to, lasts, done] = arguments, slider = document.getElementById("seek"), begin = performance.now(), seen = [];
const move = (at) => { if (Number(slider.value) !== at) { slider.value = at; slider.dispatchEvent(new Event("input")); } };
const look = () => {
  const passed = performance.now() - begin, at = Math.round(from + (to - from) * Math.min(1, passed / lasts));
  seen.push([passed, at, ...window.frames()]);
  move(at);
  if (passed >= lasts && window.frames().every((frame) => frame === to)) done(seen); else requestAnimationFrame(look);
};
look();
"""
"""A slider moved at a steady speed, and at each picture the milliseconds passed, where the slider is, and the frame of each video."""
AWAY = """
const [from, to, lasts] = arguments, slider = document.getElementById("seek"), begin = performance.now();
const move = () => {
  const at = Math.round(from + (to - from) * Math.min(1, (performance.now() - begin) / lasts));
  if (Number(slider.value) !== at) { slider.value = at; slider.dispatchEvent(new Event("input")); }
  if (at !== to) requestAnimationFrame(move);
};
move();
"""
"""The same without waiting for its end, so that pictures of the window can be taken on the way."""
PLAY = """
const [lasts, done] = arguments, begin = performance.now(), seen = [];
const look = () => {
  seen.push([performance.now() - begin, report.transport.position, ...window.frames()]);
  if (performance.now() - begin < lasts) requestAnimationFrame(look); else { report.transport.pause(); done(seen); }
};
report.transport.play();
look();
"""
READY = """
const all = [...report.live].map((figure) => figure.video);
return all.length >= {least} && all.every((video) => video.readyState >= 3);
"""


def pictures(seed: int, frames: int) -> Iterator[NDArray[np.uint8]]:
    """A clip's frames uint8 [16, 480, 832, 3] at a time: a scene that pans, with grain and what moves in it, cut every twelve seconds."""
    rng = np.random.default_rng(seed)
    grain = rng.normal(0, 1, (8, HEIGHT, WIDTH, 1)).astype(np.float32)
    for first in range(0, frames, 16):
        if first % (FPS * 12) == 0:
            octaves = [cv2.resize(rng.normal(0, 1, (n, 2 * n, 3)).astype(np.float32), (1600, 800)) * (160 / n) for n in (4, 16, 64, 256)]
            scene = np.clip(128 + sum(octaves), 0, 255)
        batch = []
        for frame in range(first, min(frames, first + 16)):
            top, left = int(160 + 150 * np.sin(frame / 60)), int(384 + 380 * np.sin(frame / 90 + seed))
            picture = scene[top : top + HEIGHT, left : left + WIDTH] + grain[rng.integers(8)]
            cv2.circle(picture, (int(416 + 300 * np.sin(frame / 20)), int(120 + 60 * np.cos(frame / 13))), 50, (220, 60, 40), -1)
            bars = np.repeat((frame >> np.arange(BITS) & 1) * 255, -(-WIDTH // BITS))[:WIDTH]
            picture[200:280] = bars[None, :, None]
            batch.append(np.clip(picture, 0, 255).astype(np.uint8))
        yield np.stack(batch)


def film(path: Path, seed: int) -> Path:
    """A film of 60 s as a run leaves it, unless it is there."""
    if not path.exists():
        with VideoWriter(path, fps=FPS, height_px=HEIGHT, crf=CRF) as writer:
            for frames_THWC in pictures(seed, FRAMES):
                writer.write(frames_THWC)
    return path


def written(folder: Path, prompts: int) -> dict[str, float]:
    """The store and its report in a folder, unless they are there; their sizes, and the seconds of the report."""
    places = [folder / f"film{seed}.mp4" for seed in range(len(reports.METHODS))]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        films = list(pool.map(film, places, range(len(places))))
    if not (folder / "store").exists():
        (folder / "store").mkdir()
        reports.store(folder / "store", prompts, (0,), methods=tuple(reports.METHODS), shape=SHAPE, films=dict(zip(reports.METHODS, films)))
    out, begin = folder / "report", time.monotonic()
    words = ["report", "--store", str(folder / "store"), "--output", str(out)]
    subprocess.run([*ECHO_HARNESS, *words], cwd=ROOT, check=True, capture_output=True)
    passed = time.monotonic() - begin
    sizes = {path: path.stat().st_size for path in out.rglob("*") if path.is_file()}
    beside = sum(size for path, size in sizes.items() if path.suffix != ".mp4")
    return {
        "film_mb": round(statistics.mean(path.stat().st_size for path in films) / 1e6, 2),
        "report_s": round(passed, 1), "index_html_kb": round(sizes[out / "index.html"] / 1e3),
        "report_without_videos_mb": round(beside / 1e6, 2), "videos": sum(path.suffix == ".mp4" for path in sizes),
        "videos_gb": round((sum(sizes.values()) - beside) / 1e9, 2),
    }  # fmt: skip


def processes(driver: WebDriver) -> list[int]:
    """Ids of the browser's processes and of what drives it."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    own, before = {driver.service.process.pid}, 0  # type: ignore[attr-defined]
    while len(own) != before:
        before = len(own)
        own |= {process for process, parent in parents.items() if parent in own}
    return sorted(own)


def memory_mb(driver: WebDriver) -> int:
    """Memory of all processes of the browser; pages that several share are divided among them (PSS)."""
    total_kb = 0
    for process in processes(driver):
        with suppress(OSError):
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            total_kb += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return round(total_kb / 1024)


def processor_s(driver: WebDriver) -> float:
    """Processor time that all processes of the browser have taken, user and system; the one figure that a busy machine does not change."""
    ticks = 0
    for process in processes(driver):
        with suppress(OSError):
            ticks += sum(map(int, Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def opened(driver: WebDriver, page: Path, fragment: str, least: int) -> dict[str, float]:
    """Open a page and wait until all videos in sight can play; milliseconds since the address was entered."""
    driver.get("about:blank")
    driver.get(page.as_uri() + fragment)
    until_true(driver, READY.format(least=least))
    ready = driver.execute_script("return performance.now()")
    driver.execute_script(WATCH)
    paint = until_true(driver, "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
    attached = driver.execute_script("return report.transport.films.size")
    return {"first_paint_ms": round(paint), "videos_ready_ms": round(ready), "videos_attached": attached}


def sought(driver: WebDriver, count: int) -> dict[str, float]:
    """Jumps to frames all over the films: how long until all videos have presented the frame, and whether the pixels agree."""
    rng, times, wrong = random.Random(0), [], 0
    driver.execute_async_script(SEEK, 1)
    begin = processor_s(driver)
    targets = rng.sample(range(2, FRAMES - 1), count)
    for to in targets:
        times.append(driver.execute_async_script(SEEK, to))
    spent = processor_s(driver) - begin
    for to in targets[: count // 4]:
        driver.execute_async_script(SEEK, to)
        settled(driver)
        wrong += any(number != to for number in shown(driver, BITS))
    times.sort()
    return {
        "seeks": count, "median_ms": round(statistics.median(times)), "p90_ms": round(times[int(0.9 * count)]), "max_ms": round(times[-1]),
        "processor_ms": round(1000 * spent / count), "pictures_compared": count // 4, "pictures_of_another_frame": wrong,
    }  # fmt: skip


def spread(seen: Sequence[Sequence[float]]) -> dict[str, float]:
    """How far apart the frames of the videos were over all pictures, and how many pictures were within one frame of each other."""
    apart = [max(frames) - min(frames) for _, _, *frames in seen]
    within = sum(one <= 1 for one in apart) / len(apart)
    return {"frames_apart_at_most": max(apart), "pictures_within_one_frame_percent": round(100 * within, 1)}


def dragged(driver: WebDriver, begin: int, end: int, lasts_ms: int = 3000) -> dict[str, float]:
    """Two drags of the slider: a slow one, frames apart by pictures of the window; and one watched by the page.

    By the page: frames apart again, frames that a video shows a second, how far it is behind, and when all are there.
    """
    driver.execute_async_script(SEEK, begin)
    driver.execute_script(AWAY, begin, end, 3 * lasts_ms)
    pictures, last = [], time.monotonic() + 3 * lasts_ms / 1000
    while time.monotonic() < last:
        pictures.append(shown(driver, BITS))
    apart = [max(numbers) - min(numbers) for numbers in pictures]
    pixels = {"pictures_compared": len(apart), "frames_apart_by_pixels_at_most": max(apart)}
    driver.execute_async_script(SEEK, begin)
    seen = driver.execute_async_script(DRAG, begin, end, lasts_ms)
    during = [line for line in seen if line[0] < lasts_ms]
    shows = statistics.mean(len(set(column)) for column in list(zip(*during, strict=True))[2:])
    behind = statistics.median(abs(at - statistics.mean(frames)) for _, at, *frames in during)
    there = round(seen[-1][0] - lasts_ms)
    behind_ms = round(lasts_ms * behind / abs(end - begin))
    speed = round(1000 * shows / lasts_ms, 1)
    return spread(seen) | pixels | {"frames_shown_a_second": speed, "behind_ms": behind_ms, "there_after_ms": there}


def played(driver: WebDriver, lasts_ms: int = 8000) -> dict[str, float]:
    """Playing from the start: when all move; after a second frames apart, speed of the clock, share of frames presented."""
    driver.execute_async_script(SEEK, 0)
    begin = processor_s(driver)
    seen = driver.execute_async_script(PLAY, lasts_ms)
    spent = processor_s(driver) - begin
    steady = [line for line in seen if line[0] > 1000]
    passed, position, *columns = zip(*steady, strict=True)
    frames = position[-1] - position[0]
    first = next((passed for passed, _, *frames in seen if min(frames) > 0), lasts_ms)
    return {
        "all_move_after_ms": round(first), **spread(steady), "speed": round(1000 * frames / FPS / (passed[-1] - passed[0]), 3),
        "frames_presented_percent": round(100 * statistics.mean(len(set(column)) for column in columns) / (frames + 1), 1),
        "processors": round(1000 * spent / lasts_ms, 2),
    }  # fmt: skip


def measure(driver: WebDriver, page: Path, prompts: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """All figures of a report that is there, by what is looked at."""
    for name, fragment, least in (("one row of six", "#prompt=p00", 6), ("all rows in sight", "", 12)):
        told: dict[str, Any] = dict(opened(driver, page, fragment, least))
        told |= {
            "seek": sought(driver, 16),
            "drag": dragged(driver, 100, 700),
            "drag_back": dragged(driver, 900, 300),
            "play": played(driver),
        }
        heap = driver.execute_script("return performance.memory.usedJSHeapSize")
        yield name, told | {"memory_mb": memory_mb(driver), "javascript_mb": round(heap / 1e6, 1)}
    most = 0
    for row in range(0, prompts, 4):
        driver.execute_script("document.querySelectorAll('.prompt')[arguments[0]].scrollIntoView({behavior: 'instant'})", row)
        until_true(driver, f"return document.querySelectorAll('.prompt')[{row}].querySelectorAll('video').length === 6")
        most = max(most, driver.execute_script("return document.querySelectorAll('video').length"))
    begin = time.monotonic()
    until_true(driver, READY.format(least=6))
    passed_ms = round(1000 * (time.monotonic() - begin))
    yield "scrolled through", {"videos_attached_at_most": most, "last_ready_after_ms": passed_ms, "memory_mb": memory_mb(driver)}


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--window", default="1920x1080")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    if lack := lacking():
        raise SystemExit(lack)
    folder = (given.folder or Path(tempfile.mkdtemp())).absolute()
    folder.mkdir(exist_ok=True)
    try:
        told: dict[str, Any] = {"commit": commit(ROOMS), "window": given.window, **written(folder, given.prompts)}
        print(told, flush=True)
        width, height = map(int, given.window.split("x"))
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, chromium(Path(profile)) as driver:
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            for name, figures in measure(driver, folder / "report" / "index.html", given.prompts):
                told[name] = figures | {"load": os.getloadavg()[0]}
                print(name, json.dumps(told[name], indent=1), flush=True)
    finally:
        if not given.folder:
            shutil.rmtree(folder)
    if given.output:
        given.output.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
