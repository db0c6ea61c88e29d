"""What a sweep will take, by hand and from what a store has measured; nothing is written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from baselines.presets import choices
from echo.files import ROOT
from eval.store.records import Provenance
from jobs.launch.slurm import split
from jobs.spec.compose import sweep as composed
from jobs.spec.plan import prepare
from jobs.store.folder import Attempt, RunFolder, new_attempt
from jobs.watch import forecast
from jobs.watch.forecast import loads, plan
from tests.helpers.command import ECHO_HARNESS
from tests.helpers.toy import overrides


@pytest.fixture
def words(toy, tmp_path):
    """Two methods x two seeds of three videos of 8 blocks, nothing scored."""
    kept = [word for word in overrides(toy) if not word.startswith("store=")]
    return [*kept, f"store={tmp_path / 'store'}", "method=echo,self_forcing", "seed=0,1"]


def finish(words, dur_s, count=1):
    """Put finished videos into the first run, with files of 1000 bytes each."""
    folder = RunFolder(prepare(composed(words)[0]))
    folder.describe()
    with Attempt(folder, new_attempt(), Provenance()) as attempt:
        for prompt in folder.job.asked[:count]:
            folder.side(prompt, ".mp4").parent.mkdir(exist_ok=True)
            folder.side(prompt, ".mp4").write_bytes(b"0" * 1000)
            files = {"video": folder.side(prompt, ".mp4").name}
            attempt.ok(prompt, {}, {"latents_sha256": "a", "dur_s": dur_s, "blocks": 8, "files": files})
    return folder


def test_a_sweep_is_every_combination(words):
    found = [(plain["method"]["name"], plain["seed"]) for plain in composed(words)]
    assert found == [("echo", 0), ("echo", 1), ("self_forcing", 0), ("self_forcing", 1)]


def test_an_experiment_is_what_its_file_says_and_the_command_line_overrides(tmp_path):
    rows = composed(["experiment=table1", "seed=7", "task=long60", "eval=none"])
    assert {plain["task"]["name"] for plain in rows} == {"long60"} and {plain["seed"] for plain in rows} == {7}
    assert len(rows) == 10 and all(plain["prompts"] == 32 and plain["experiment"] == "table1" for plain in rows)
    assert {plain["method"]["name"]: plain["backbone"]["name"] for plain in rows}["longlive"] == "tiny_lit", "the table's world"


def test_given_speed_by_hand(words, tmp_path):
    """12 videos x 8 blocks x 12 frames at 4 frames a second: 288 s of one core."""
    lines = plan(words, fps=4)
    assert lines[0] == "echo on tiny: 2 runs, 6 of 6 videos missing, 0.04 processor-hours"
    assert "in all: 4 runs, 12 videos, 0 there, 12 to make (96 blocks)" in lines
    assert "processor-hours: 0.08 (fps=4 as given)" in lines
    assert not (tmp_path / "store").exists(), "nothing is written"


def test_measured_speed_and_disk_come_from_the_store(words):
    folder = finish(words, dur_s=80.0)
    size = (next((folder.path / "records").iterdir()).stat().st_size + 1000) / 8
    found = loads([prepare(plain) for plain in composed(words)], None)
    assert [load.videos for load in found] == [2, 3, 3, 3] and [load.seconds for load in found] == [160.0, 240.0, 240.0, 240.0]
    assert found[0].disk == pytest.approx(16 * size) and found[0].source == f"measured in {folder.job.config.store}"
    assert found[2].disk != pytest.approx(24 * size), "another method may write other films"


def test_what_is_made_again_is_said(words):
    """A record whose line is damaged, and a video of another size than was written."""
    folder = finish(words, 100.0, 2)
    (path,) = map(Path, folder.reader.record_files())
    path.write_bytes(path.read_bytes().replace(b'"blocks":8', b'"blocks":9', 1))
    folder.side(folder.job.asked[1], ".mp4").write_bytes(b"0")
    lines = list(plan(words, fps=4))
    assert f"{folder.job.title}: {path}:1 is damaged and left out" in lines
    assert any("toy-001 is made again: " in line for line in lines)


def test_jobs_are_as_long_as_asked(words):
    finish(words, dur_s=80.0)  # 80 s a video, 11 videos
    found = loads([prepare(plain) for plain in composed(words)], None)
    launcher = forecast.launcher_of(["launcher.target_minutes=4"])
    count, longest, _ = forecast.jobs_of(found, launcher)
    assert (count, longest) == (4, 240.0)
    assert forecast.jobs_of(found, forecast.launcher_of(["launcher.units_per_job=1"]))[0] == 11
    lines = plan([*words, "launcher.target_minutes=4", "launcher.max_parallel=2", "launcher.gpus=1", "hydra/launcher=slurm"])
    assert "jobs with hydra/launcher=slurm: 4 (jobs of 4 minutes, by the speeds measured in this store), the longest 4 min" in lines
    assert "time with 2 jobs at a time: 8 min, waiting left out" in lines
    assert "jobs of 30 minutes" in " ".join(plan([*words, "launcher=cpu"]))
    for word in ("launcher.target_minutes=4", "hydra.launcher.target_minutes=4"):
        assert "jobs of 4 minutes" in " ".join(plan([*words, word, "launcher=cpu"]))


def test_jobs_are_those_that_the_launcher_submits(words):
    """It knows no speed until this store has one, whatever fps is given here."""
    sweep = [*words[:-1], "seed=0,1,2,3,4,5,6"]
    rows = composed(sweep)
    named = [RunFolder(prepare(plain)) for plain in rows]
    for fps in (None, 4.0):
        measure = split.measure([folder.job for folder in named], None, 60.0)
        cuts = [(folder.job, *row) for folder in named for row in split.cut(folder, {}, folder.missing(), measure)]
        count = len(split.packed(cuts, measure.most))
        line = next(line for line in plan(sweep, fps) if line.startswith("jobs"))
        assert count == 3 and line.startswith(f"jobs with hydra/launcher=slurm: {count} (at most 16 a job: this store has no speed")
    assert line.endswith("the longest 6 min"), "15 videos of 24 s"
    assert plan([*sweep, "launcher.units_per_job=1"])[-1].startswith("jobs with hydra/launcher=slurm: 42 (at most 1 a job)")


def test_combinations_come_in_the_order_of_hydra(words):
    found = [(plain["method"]["name"], plain["seed"]) for plain in composed([*words[:-2], "seed=0,1", "method=echo,self_forcing"])]
    assert found == [("echo", 0), ("self_forcing", 0), ("echo", 1), ("self_forcing", 1)]


def test_whatever_hydra_takes_for_a_sweep_is_counted(words):
    found = composed([*words[:-2], "method=glob(echo_lambda_*)", "seed=range(0,3)"])
    names = sorted(name for name in choices("method") if name.startswith("echo_lambda_"))
    assert [(plain["method"]["name"], plain["seed"]) for plain in found] == [(name, seed) for name in names for seed in range(3)]
    with pytest.raises(ValueError, match="backbone=tinny: no such backbone"):
        plan(["method=glob(echo*)", "backbone=tinny"])


def test_what_is_rendered_says_nothing_of_what_is_generated(words, monkeypatch):
    folder = finish(words, dur_s=80.0)
    rows = [prepare(plain) for plain in composed(words)]
    assert loads(rows, None)[2].seconds == 240.0
    path = folder.path / "run.json"
    spec = json.loads(path.read_text(encoding="utf-8"))
    spec["key"]["pixels"]["method.policy"] = "render"
    path.write_text(json.dumps(spec), encoding="utf-8")
    assert loads(rows, None)[2].source == "this project's own measure on one core"


def test_what_is_asked_for_twice_counts_once(words):
    lines = plan([word.replace("prompts=3", "prompts=2,3") for word in words])
    assert "in all: 4 runs, 12 videos, 0 there, 12 to make (96 blocks)" in lines


def test_videos_that_lack_only_scores_are_not_made_again(words, monkeypatch):
    monkeypatch.setattr(forecast.score, "unscored", lambda folder, missing: {missing[0].id} if folder.job.config.seed else set())
    lines = plan(words, fps=4)
    assert lines[0] == "echo on tiny: 2 runs, 5 of 6 videos missing, 0.033 processor-hours"
    assert "in all: 4 runs, 12 videos, 0 there, 2 made and not scored, 10 to make (80 blocks)" in lines


def test_nothing_missing_takes_nothing(words):
    one = [*words[:-2], "method=echo", "seed=0"]
    finish(one, dur_s=1.0, count=3)
    first, last = plan([*one, "-m"])
    assert first == "echo on tiny: 1 run, 0 of 3 videos missing, nothing to make"
    assert last == "in all: 1 run, 3 videos, 3 there, 0 to make (0 blocks)"


REAL = ["backbone=self_forcing", "weights=random", "method=echo", "task=hard", "prompts=2", "seed=0,1", "eval=none"]


def test_a_card_that_nobody_has_measured_has_the_papers_speed_and_says_so(tmp_path):
    """Four videos of 60 s (80 blocks of 12 frames) at the printed 15.71 frames a second of an H100."""
    lines = plan([*REAL, f"store={tmp_path}"])
    assert f"GPU-hours: {4 * 960 / 15.71 / 3600:.2g} ({forecast.PUBLISHED})" in lines
    assert forecast.published_fps("longlive") == 20.7 and forecast.published_fps("memrope") == 15.65, "the slowest that is printed"
    assert lines[-1].startswith("jobs with hydra/launcher=slurm: 1 (at most 16 a job") and lines[-1].endswith(", the longest 5 min")
    assert any(line.startswith("disk: ") for line in lines)
    lines = plan([*REAL, f"store={tmp_path}"], fps=16)  # four videos of 60 s at the speed of showing: 4 minutes
    assert "GPU-hours: 0.067 (fps=16 as given)" in lines
    assert lines[-1].startswith("jobs with hydra/launcher=slurm: 1 (at most 16 a job") and lines[-1].endswith(", the longest 4 min")


@pytest.mark.parametrize(
    ("given", "part"),
    [
        (["table1"], "table1: not understood; settings are those of run.py"),
        (["launcher.units_per_job=1.5"], "launcher.units_per_job=1.5: a whole number is expected"),
        (["launcher.units_per_jb=3"], "launcher.units_per_jb=3: unknown; nearest is launcher.units_per_job"),
        (["launcher=gpus"], "launcher=gpus: no such launcher; nearest is gpu"),
        (["seed=x,y"], "seed=x: a whole number"),
        (["backbone=tinny"], "backbone=tinny: no such backbone; nearest is tiny"),
        (["experiment=tabel1"], "experiment=tabel1: no such experiment; nearest is table1"),
        (["prompts=9999"], "prompts=9999: the set"),
        (["method=glob(long_live*)"], "method=glob(long_live*): matches nothing; nearest is method=longlive"),
    ],
)
def test_mistakes_are_one_line(given, part):
    with pytest.raises(ValueError) as told:
        plan(given)
    assert part in str(told.value) and "\n" not in str(told.value)


def test_command_line_works_and_needs_no_torch(words):
    code = "import sys; from jobs.watch.forecast import plan; print(plan(sys.argv[1:])); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "in all: 4 runs" in done.stdout, done.stderr
    done = subprocess.run([*ECHO_HARNESS, "plan", "fps=0"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "fps=0: a number above 0 is expected, for example fps=20\n"
