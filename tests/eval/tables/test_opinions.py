"""Tables 4 and 5: what a file of ratings must hold, means and intervals, agreement, and the table in all forms."""

from __future__ import annotations

import csv
import json
import os

import numpy as np
import pytest

from eval.tables import opinions
from jobs import cli
from tests.helpers import raters
from tests.helpers.stores import put

HEAD = "rater,task,video,method,criterion,rating"


def lines(points, criterion="text_alignment", task="long60", method="echo"):
    """Ratings [raters, videos] as lines of a file."""
    return [
        f"r{rater},{task},v{video},{method},{criterion},{int(value)}" for rater, row in enumerate(points) for video, value in enumerate(row)
    ]


@pytest.fixture
def ratings(tmp_path):
    """A file of two methods; the second gets a point less, the strictest rater too."""
    points = np.array([[4, 3, 5], [3, 3, 4], [4, 4, 5], [2, 3, 3]])
    content = [HEAD, *lines(points), *lines(points - 1, method="self_forcing"), *lines(points[:3], "video_quality")]
    path = tmp_path / "ratings.csv"
    path.write_text("\n".join(content) + "\n", encoding="utf-8")
    return path


def test_table_of_ratings(ratings, tmp_path, capsys):
    assert cli.main(["tables", "table4", f"ratings={ratings}", "--store", str(tmp_path), "compare=published"]) == 0
    told = capsys.readouterr().out
    for part in ("4 raters", "3 prompts with 1 seed each", "clustered by rater and by video", "1 (worst) to 5 (best)", "alpha"):
        assert part in told, part
    rows = list(csv.DictReader((tmp_path / "tables" / "table4.csv").open(encoding="utf-8")))
    assert [row["preset"] for row in rows] == ["echo", "echo", "self_forcing"] and rows[1]["text_alignment"] == "3.5200"
    assert float(rows[0]["text_alignment"]) == pytest.approx(43 / 12, abs=1e-4) and rows[0]["text_alignment_n"] == "12"
    assert (rows[2]["text_alignment_gap"], rows[2]["text_alignment_gap_ci95"]) == ("-1.0000", "0.0000")
    text = (tmp_path / "tables" / "table4.md").read_text(encoding="utf-8")
    assert "†" in text.split("`echo`")[1].splitlines()[0], "one rater lacks in video quality"
    behind = json.loads((tmp_path / "tables" / "table4.meta.json").read_text(encoding="utf-8"))
    assert behind["columns"][0]["unit"].startswith("points") and set(behind["agreement"]) == {"text_alignment", "video_quality"}
    assert (tmp_path / "tables" / "table4.tex").exists()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda text: text.replace("criterion,", "", 1), "no column criterion; the first line names rater,task"),
        (lambda text: text.replace(",4\n", ",7\n", 1), "line 2: rating 7: a whole number from 1 (worst) to 5 (best)"),
        (lambda text: text + text.splitlines()[1] + "\n", "r0 rated this in line 2; each rates a video once"),
        (lambda text: text.replace("long60", "lang60", 1), "task lang60: nearest is long60"),
        (lambda text: text.replace("r0,", ",", 1), "line 2: rater is empty"),
        (lambda text: text.replace("r1,", "Ren\xe9,", 1).encode("latin-1"), "line 5: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        (lambda text: text.encode("utf-16"), "line 1: byte 0xff is not UTF-8"),
        (lambda text: text.replace("\n", "\n\n\n", 1).replace(",4\n", ",7\n", 1), "line 4: rating 7: a whole number"),
        (lambda text: text.replace("\n", "\n\n", 2) + text.splitlines()[1] + "\n", "rated this in line 3; each rates a video once"),
        (lambda text: text.replace(",4\n", ",4,good\n", 1), "line 2: 7 values for 6 columns; a value with a comma in it"),
        (lambda text: text.replace("rating\n", "rating,rating\n", 1), "column rating is there twice"),
        (lambda text: text.replace("r1,", '"r1,', 1) + "x" * 140_000, "field larger than field limit"),
        (lambda text: text.replace("long60", "hard"), "no rating of long60 or long120"),
    ],
)
def test_wrong_files_are_refused_in_one_line(ratings, tmp_path, capsys, change, part):
    content = change(ratings.read_text(encoding="utf-8"))
    ratings.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert cli.main(["tables", "table4", f"ratings={ratings}", "--store", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert part in told and told.count("\n") == 1 and not (tmp_path / "tables").exists()


@pytest.mark.parametrize("between", [";", "\t"])
def test_a_spreadsheets_own_separator_is_read(ratings, between):
    """As one saves it where a comma stands in numbers."""
    plain = opinions.read(ratings)
    ratings.write_text("\ufeff" + ratings.read_text(encoding="utf-8").replace(",", between).replace("\n", "\r\n"), encoding="utf-8")
    assert opinions.read(ratings).equals(plain)


def test_ratings_must_be_given(tmp_path, capsys):
    cases = ((["table5"], "give ratings=FILE.csv"), (["ratings=x.csv"], "nearest is table4"), (["table4", "ratings=x"], "No such"))
    for words, part in cases:
        assert cli.main(["tables", *words, "--store", str(tmp_path)]) == 2
        assert part in capsys.readouterr().err


def test_simulated_raters_follow_the_scores(tmp_path):
    for preset, shift in (("echo", 5.0), ("self_forcing", 0.0)):
        values = {f"p{i}": dict.fromkeys(("proxy.text_alignment", "proxy.imaging_quality"), 80 + shift + i) for i in range(6)}
        put(tmp_path, "recall", preset, values)
    raters.write("table5", tmp_path)
    page = (tmp_path / "tables" / "table5.md").read_text(encoding="utf-8")
    assert "18 simulated raters, no people (noise on the scores of: embedded)" in page
    rows = {row["preset"]: row for row in csv.DictReader((tmp_path / "tables" / "table5.csv").open(encoding="utf-8"))}
    assert float(rows["self_forcing"]["text_alignment_gap"]) < -0.5 and float(rows["self_forcing"]["text_alignment_gap_p"]) < 0.05
    assert len(opinions.read(tmp_path / "tables" / "table5-ratings-simulated.csv"))
    with pytest.raises(ValueError, match="run.py experiment=table1 -m"):
        raters.write("table4", tmp_path)


def test_blank_lines_say_nothing(ratings):
    whole = opinions.read(ratings)
    ratings.write_text(ratings.read_text(encoding="utf-8").replace("\n", "\r\n\r\n") + "\n\n", encoding="utf-8")
    assert opinions.read(ratings).equals(whole)


def test_a_pipe_is_not_waited_for(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    assert cli.main(["tables", "table4", f"ratings={tmp_path / 'pipe'}", "--store", str(tmp_path)]) == 2
    assert "no file; give a file whose first line is" in capsys.readouterr().err
