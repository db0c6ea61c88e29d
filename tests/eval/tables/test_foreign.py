"""Other systems in tables beside ours: scores from folders and files, paired where prompts agree; bad files are refused by reason."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from echo.scene import prompt_digest
from jobs import cli
from tests.eval.tables.test_tables import PROMPTS, write  # noqa: F401 - a fixture
from tests.helpers import reports

SUBJECT, MOTION = "subject_consistency.vbench", "dynamic_degree.vbench"


@pytest.fixture
def store(write):  # noqa: F811
    """Echo with 81, 82 and 83 of three prompts, seed 0, and 0.1 more of seed 1; Self-Forcing one less."""
    for seed in (0, 1):
        write("echo", shift=1.0, seed=seed, task="smooth", names=(SUBJECT, MOTION))
        write("self_forcing", seed=seed, task="smooth", names=(SUBJECT, MOTION))
    return write.store


def folder(path: Path, task: str = "smooth", **changes: object) -> Path:
    """What `echo-harness score` leaves: p0 and p1 of our texts, p2 of another one; 70 of the first, and 2 more of each further."""
    path.mkdir()
    units = {f"{prompt.id}.mp4": prompt for prompt in PROMPTS}
    summary = {"v": 1, "label": "Theirs", "task": task, "videos": dict.fromkeys(units, "0"), "identity": {"networks": {}}}
    (path / "scores.json").write_text(json.dumps(summary | changes), encoding="utf-8")
    for index, (name, prompt) in enumerate(units.items()):
        text = prompt_digest(prompt) if index < 2 else "another"
        content = {"prompt": prompt.id, "seed": 7, "text": text, "metrics": {SUBJECT: 70 + 2 * index, MOTION: None}, "v": 1}
        (path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return path


def rows_of(store: Path, output: Path, *words: str) -> dict[str, dict[str, str]]:
    assert cli.main(["tables", "smooth", *words, "--store", str(store), "--output", str(output)]) == 0
    return {row["preset"]: row for row in csv.DictReader((output / "smooth.csv").open(encoding="utf-8"))}


def test_a_scored_folder_stands_beside_ours(store, tmp_path, capsys):
    plain = rows_of(store, tmp_path / "plain")
    rows = rows_of(store, tmp_path / "beside", f"foreign={folder(tmp_path / 'theirs')}")
    theirs = rows.pop("Theirs")
    assert rows == plain, "rows of ours are the same, their ranks and corrections too"
    assert float(theirs["subject_consistency"]) == 71 and theirs["subject_consistency_n"] == "2" and theirs["videos"] == "3"
    assert float(theirs["subject_consistency_gap"]) == pytest.approx(71 - 81.55), "p0 and p1, seeds of ours averaged"
    assert theirs["reference"] == "echo" and theirs["source"] == str(tmp_path / "theirs") and theirs["dynamic_degree"] == ""
    text = (tmp_path / "beside" / "smooth.md").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("| Theirs | `Theirs (foreign)` | 3 |"))
    assert "71.00" in line and "†" in line and " - |" in line
    assert "Foreign, Theirs: videos scored here, by the same networks; 2 of 3 prompts in common" in text
    assert "tex" in capsys.readouterr().out and "(foreign)" in (tmp_path / "beside" / "smooth.tex").read_text(encoding="utf-8")


def test_results_of_others_are_read(store, tmp_path):
    """VBench's shares by the videos' names, and a CSV of two methods in their own words."""
    drawn = (("p0", 0, 0.7), ("p0", 1, 0.8), ("p2", 0, 0.9))
    videos = [{"video_path": f"x/{name}-{draw}.mp4", "video_results": value} for name, draw, value in drawn]
    (tmp_path / "theirs_eval_results.json").write_text(json.dumps({"subject_consistency": [0.8, videos]}), encoding="utf-8")
    lines = ("arm,prompt_id,seed,subject,dynamic,notes", "A,p0,0,0.5,1,x", "A,p1,0,0.6,0,", "B,q9,0,0.1,1,")
    (tmp_path / "runs.csv").write_text("\n".join(lines), encoding="utf-8")
    rows = rows_of(store, tmp_path / "out", f"foreign={tmp_path / 'theirs_eval_results.json'},{tmp_path / 'runs.csv'}")
    theirs, first, other = rows["theirs_eval_results.json"], rows["A"], rows["B"]
    assert float(theirs["subject_consistency"]) == pytest.approx(82.5), "means of prompts: 75 and 90"
    assert float(theirs["subject_consistency_gap"]) == pytest.approx(82.5 - 82.05)
    assert (float(first["subject_consistency"]), float(first["dynamic_degree"])) == (55, 50)
    assert float(other["subject_consistency"]) == 10 and other["subject_consistency_gap"] == "" and other["reference"] == ""


def test_prompts_agree_by_the_text_that_names_a_video(tmp_path):
    """The second of three prompts, whose scenes' texts VBench's file has in other signs; echo has 91 of it."""
    store = reports.store(tmp_path, methods=("echo",), seeds=(0,))
    video = {"video_path": "A red ball 1: then a red ball 1-0.mp4", "video_results": 71.5}
    (tmp_path / "v.json").write_text(json.dumps({"imaging_quality": [0.715, [video]]}), encoding="utf-8")
    row = rows_of(store, tmp_path / "out", f"foreign={tmp_path / 'v.json'}")["v.json"]
    assert (float(row["imaging_quality"]), float(row["imaging_quality_gap"]), row["imaging_quality_n"]) == (71.5, -19.5, "1")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path / "none", "none: No such file or directory"),
        (lambda path: folder(path / "a", task="hard"), "scored as task=hard, the table is of task=smooth"),
        (lambda path: folder(path / "b", label=3), "b/scores.json: Expected `str`, got `int` - at `$.label`"),
        (lambda path: folder(path / "c", videos={"p9.mp4": "0"}), "c/p9.mp4.json: No such file or directory; a text file belongs here"),
        (lambda path: folder(path / "d", videos={"../p9.mp4": "0"}), "leads out of it"),
        (lambda path: csv_of(path, "label,prompt,subject\nA,p0,high\n"), "e.csv:2: subject 'high' is no number"),
        (lambda path: csv_of(path, "label,prompt,subject\nA,p0,1\nA,p0,1\n"), "e.csv:3: prompt 'p0' with seed 0 stands twice"),
        (lambda path: csv_of(path, "label,prompt,beauty\nA,p0,1\n"), "none of the table's scores"),
        (lambda path: csv_of(path, "label,prompt,subject\nA,p0\n"), "e.csv:2: 2 cells, the header has 3"),
    ],
)
def test_bad_files_are_refused_by_reason(store, tmp_path, capsys, make, reason):
    words = ["tables", "smooth", f"foreign={make(tmp_path)}", "--store", str(store), "--output", str(tmp_path / "out")]
    assert cli.main(words) == 2
    told = capsys.readouterr().err
    assert reason in told and told.count("\n") == 1 and not (tmp_path / "out").exists(), told


def csv_of(path: Path, text: str) -> Path:
    """A CSV."""
    (path / "e.csv").write_text(text, encoding="utf-8")
    return path / "e.csv"


def test_one_table_is_meant_and_power_reads_folders_too(store, write, tmp_path, capsys):  # noqa: F811
    write("echo", task="hard", names=(SUBJECT,))
    assert cli.main(["tables", f"foreign={folder(tmp_path / 'theirs')}", "--store", str(store)]) == 2
    assert "one table of one task is meant" in capsys.readouterr().err
    folder(tmp_path / "others", label="Others")
    words = ["plan", "--power", str(tmp_path / "theirs"), f"against={tmp_path / 'others'}", f"metric={SUBJECT}"]
    assert cli.main(words) == 0 and "Theirs minus Others, subject_consistency.vbench: +0 over 3 prompts" in capsys.readouterr().out
