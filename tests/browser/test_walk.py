"""Who saw nothing before: the README's own lines, from a fresh clone and a fresh environment to a comparison that plays, timed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from echo.files import ROOT
from tests.helpers.browsing import console_errors, settled, until_true
from tests.helpers.notebooks import cpu_s, overdue

pytestmark = pytest.mark.slow
LIMIT_S = 300


@dataclass(frozen=True)
class Walk:
    """Seconds that installing and all else took, of the clock and of processors, what was printed, and the page that came out."""

    install: tuple[float, float]
    run: tuple[float, float]
    said: str
    page: Path


def lines_of_readme() -> list[str]:
    """The single commands of the README's first block that ends in a report."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, flags=re.M | re.S)
    found = [block for block in blocks if re.search(r"echo-harness report *(#.*)?$", block.strip())]
    assert found, "the README has no block that ends with echo-harness report"
    return [part.strip() for line in found[0].splitlines() for part in line.split("&&")]


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    folder = tmp_path_factory.mktemp("walk") / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "MKL_", "PYTHON", "PYTEST"))}
    times, said = {"install": (0.0, 0.0), "run": (0.0, 0.0)}, ""
    for line in lines_of_readme():
        words = shlex.split(line, comments=True)
        start, used = time.perf_counter(), cpu_s()
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        kind = "install" if "venv" in words or words[0].endswith("pip") else "run"
        times[kind] = (times[kind][0] + time.perf_counter() - start, times[kind][1] + cpu_s() - used)
        said += done.stdout
    return Walk(times["install"], times["run"], said, folder / re.findall(r"^report: (\S+)", said, flags=re.M)[-1])


def test_the_readmes_lines_take_less_than_five_minutes(walk: Walk, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        parts = {"install": walk.install, "run": walk.run}
        told = [f"{name} {wall:.0f} s, {cpu:.0f} s of processor time" for name, (wall, cpu) in parts.items()]
        print(f"\nfrom a fresh clone: {'; '.join(told)}; load {os.getloadavg()[0]:.1f}")
    wall, cpu = (sum(both) for both in zip(*parts.values()))
    assert not (late := overdue(wall, cpu, LIMIT_S)), f"{late}; of this, install {walk.install[0]:.0f} s"
    assert "0 of 6 videos" in walk.said and walk.page.is_file()


def test_the_comparison_plays(walk: Walk, browser) -> None:
    """Space starts all videos in sight."""
    from selenium.webdriver import ActionChains

    browser.get(walk.page.as_uri())
    browser.execute_script("document.getElementById('videos').scrollIntoView({behavior: 'instant'})")
    videos = "[...document.querySelectorAll('video')].filter(video => video.readyState >= 3)"
    until_true(browser, f"return {videos}.length >= 3")
    settled(browser)  # keys are heard where videos are in sight
    ActionChains(browser).send_keys(" ").perform()
    until_true(browser, f"return {videos}.filter(video => video.currentTime > 1).length >= 3")
    assert not console_errors(browser)
