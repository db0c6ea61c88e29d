"""Contact sheets from a real store of short videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from eval.figures import mosaic, moving, sheets, style
from eval.figures.mosaic import Strip, marks, native, stills
from eval.store.reading import LeftOut
from jobs import cli
from jobs.launch.sweep import carry_out
from jobs.spec.compose import sweep
from jobs.spec.plan import prepare
from jobs.store.folder import new_attempt
from jobs.work.worker import work
from tests.helpers.stores import put, write
from tests.helpers.toy import TEXTS, overrides


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods, two prompts, two scenes of 3 s."""
    folder = tmp_path_factory.mktemp("sheet")
    configs = sweep([*overrides(folder, 2), "method=self_forcing,infinity_rope"])
    for config in configs:
        assert work(prepare(config), new_attempt(), [], config, lambda event: None) == 0
    carry_out(configs, [None, None])
    return folder / "store"


def test_rows_videos_and_borders(store: Path) -> None:
    rows = sheets.arrange(sheets.rows_of(store, "hard", 0), ())
    assert [row.label for row in rows] == ["Infinity-RoPE", "Self-Forcing"]
    shot = rows[0].videos["toy-000"]
    assert shot.borders == [3.0] and shot.duration_s == 6.0
    frames = stills(shot.path, 1.0)
    assert frames.shape[0] == 6 and frames.dtype == np.uint8 and frames.shape[3] == 3
    assert sheets.sentences(rows, "toy-000") == TEXTS


def test_a_prompt_set_that_was_damaged_since_costs_its_texts(store: Path, tmp_path: Path) -> None:
    rows, damaged = sheets.rows_of(store, "hard", 0), tmp_path / "set.jsonl"
    damaged.write_bytes(b'{"id": "toy-000", "scenes": ["\xff"]}\n')
    with pytest.warns(LeftOut, match=r"set.jsonl:1: byte 0xff is not UTF-8.*; its texts are left out"):
        assert sheets.sentences([replace(row, prompt_set=str(damaged)) for row in rows], "toy-000") == ()


@pytest.mark.parametrize("content", [b"no video", b""])
def test_stills_of_what_is_no_video_are_one_line(content: bytes, store: Path, tmp_path: Path) -> None:
    shot = sheets.rows_of(store, "hard", 0)[0].videos["toy-000"].path.read_bytes()
    (tmp_path / "v.mp4").write_bytes(content or shot.replace(b"trak", b"free"))
    with pytest.raises(ValueError, match=r"^\S*/v.mp4: cannot be read .*; run its command again$"):
        stills(tmp_path / "v.mp4", 1.0)


def test_a_sheet_is_drawn(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["figures", "sheet", "task=hard", "--store", str(store), "every_s=1", "prompt=toy-001"]) == 0
    path = Path(capsys.readouterr().out.split(" (")[0])
    assert path.name == "hard-toy-001-seed0.png" and path.stat().st_size > 2000


def test_one_command_makes_the_sheets_of_all_tasks(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["figures", "sheet", "task=all", "--store", str(store), "method=self_forcing", "--output", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["hard.png"] and "hard.png (" in capsys.readouterr().out
    image = cv2.imread(str(tmp_path / "hard.png"))
    assert image.shape[1] <= mosaic.WIDTH, "twelve columns by default"


def test_a_sheet_that_moves(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["figures", "sheet", "task=hard", "--store", str(store), "every_s=0.5", "prompt=toy-001", "--output", str(tmp_path / "m.gif")]
    assert cli.main(words) == 0 and "m.gif (" in capsys.readouterr().out
    rows = sheets.arrange(sheets.rows_of(store, "hard", 0), ())
    films = [stills(row.videos["toy-001"].path, 0.5) for row in rows]
    with Image.open(tmp_path / "m.gif") as picture:
        assert picture.n_frames == 12 and picture.info["loop"] == 0
        scale = mosaic.TILE // films[0].shape[2]
        top = picture.height - moving.BAR - mosaic.MARGIN - mosaic.LINE - mosaic.GAP - scale * films[0].shape[1]
        done = list[int]()
        for column in range(picture.n_frames):
            picture.seek(column)
            shown = np.asarray(picture.convert("RGB")).astype(int)
            for number, film in enumerate(films):
                left = mosaic.MARGIN + number * (film.shape[2] * scale + mosaic.GAP)
                tile = shown[top : top + film.shape[1] * scale : scale, left : left + film.shape[2] * scale : scale]
                differ = np.abs(tile - film[column])
                assert differ.mean() < 8, f"frame {column}, row {number}: differs by {differ.max()} at most, {differ.mean():.2f} mean"
            bar = shown[-mosaic.MARGIN - 1]
            done.append(int((np.abs(bar - moving.DONE).sum(-1) < 60).sum()))
    assert done == sorted(done) and done[0] > 0 and done[-1] > 11 * done[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task=hard", "prompt=toy-009"], "prompt 'toy-009' lacks a video"),
        (["task=recall"], "no videos of task 'recall'"),
        (["task=hard", "sed=1"], "sed=1: not understood; nearest is seed="),
        (["task=hard", "method=echo"], "method=echo: no videos of it at seed 0; nearest is"),
        (["task=hard,hard", "--output", "x.png"], "--output x.png: one file for several tasks"),
        ([], "task=: it is missing"),
        (["task=hard", "seed=x"], "seed=x: a whole number is expected, for example 0"),
        (["task=hard", "every_s=0"], "every_s=0: seconds between stills"),
        (["task=hard", "every_s=100"], "every_s=100: toy-000"),
        (["task=hard", "every_s=often"], "every_s=often: a number is expected"),
        (["task=hard", "hard"], "hard: not understood"),
    ],
)
def test_refusals(store: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["figures", "sheet", *words, "--store", str(store)]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1


def fake(store: Path, preset: str, at: int, settings: dict[str, object], weights: str, epoch: int = 1) -> str:
    """A run of one video, its files empty but for what a sheet reads before it draws; the run's name."""
    run = put(store, "hard", preset, {"p": {}}, scores=None, at=at, settings=settings, weights=weights, epoch=epoch)
    write(run / "units" / "p.trace.jsonl", {"scene": 0})
    return run.name


def names(rows: Sequence[sheets.SheetRow]) -> dict[str, str]:
    """Of the run that each row's video is of, by label."""
    return {row.label: row.videos["p"].path.parent.parent.name for row in rows}


def test_newest_run_of_each_preset_and_settings_has_a_row(tmp_path: Path) -> None:
    newest = fake(tmp_path, "echo", 2, {"drift_gate_lambda": 3.0}, "new")
    fake(tmp_path, "echo", 1, {"drift_gate_lambda": 3.0}, "old")
    other = fake(tmp_path, "echo", 1, {"drift_gate_lambda": 1.0}, "new")
    paper = fake(tmp_path, "echo_paper", 1, {"drift_gate_lambda": 3.0}, "new")
    rows = sheets.arrange(sheets.rows_of(tmp_path, "hard", 0), ())
    assert names(rows) == {"Echo\ndrift_gate_lambda=3.0": newest, "Echo\ndrift_gate_lambda=1.0": other, "Echo Paper": paper}


def test_runs_of_an_older_version_of_the_code_are_left_out(tmp_path: Path) -> None:
    """Whatever their settings: their frames may have another size."""
    newest = fake(tmp_path, "echo", 2, {}, "w", epoch=2)
    fake(tmp_path, "echo", 1, {"gone": 1}, "w", epoch=1)
    fake(tmp_path, "memrope", 1, {}, "w", epoch=1)
    assert names(sheets.rows_of(tmp_path, "hard", 0)) == {"Echo": newest}


def test_frames_of_several_sizes_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets, "stills", lambda path, every: np.zeros((2, *((48, 48) if path.stem == "a" else (24, 40)), 3), np.uint8))
    rows = [sheets.SheetRow(name, name, videos={"p": sheets.SheetVideo(Path(name), [], 6.0)}) for name in ("a", "b")]
    with pytest.raises(ValueError, match=r"^hard: frames of several sizes \(a 48x48 px, b 40x24 px\)"):
        sheets.section(rows, "p", None, "hard")


def test_rendered_rows_stand_last_and_named_ones_in_their_order(tmp_path: Path) -> None:
    for preset in ("render_truth", "oracle", "echo", "self_forcing"):
        fake(tmp_path, preset, 1, {}, "w")
    rows = sheets.rows_of(tmp_path, "hard", 0)
    assert [row.preset for row in sheets.arrange(rows, ())] == ["echo", "self_forcing", "oracle", "render_truth"]
    assert [row.preset for row in sheets.arrange(rows, ("render_truth", "self_forcing", "echo"))] == [
        "self_forcing",
        "echo",
        "render_truth",
    ]


def test_enlarged_frames_are_made_small_again() -> None:
    small = np.random.default_rng(0).integers(0, 256, size=(48, 48, 3)).astype(np.uint8)
    assert (native(small.repeat(5, axis=0).repeat(5, axis=1)) == small).all() and (native(small) == small).all()
    assert native(np.zeros((490, 840, 3), np.uint8)).shape == (96, 165, 3)


def test_stills_lie_pixel_by_pixel_on_the_sheet(tmp_path: Path) -> None:
    """Frames of one colour each are found again, whole, in their places; a scene begins before the third still of the first row."""
    colours = [[(25 * (4 * row + column + 1), 250, 10) for column in range(4)] for row in range(2)]
    frames = [np.stack([np.full((48, 48, 3), colour, np.uint8) for colour in row]) for row in colours]
    strips = [Strip("One", frames[0], marks([5.0], 2.5)), Strip("Two", frames[1], apart=True)]
    section = mosaic.Section(strips, [1.25, 3.75, 6.25, 8.75], [(0, "a red ball"), (2, "a blue ring")], "title")
    style.save(mosaic.compose([section]), tmp_path / "s.png", dpi=mosaic.DPI)
    image = cv2.imread(str(tmp_path / "s.png"))[..., ::-1]
    for colour in colours[0] + colours[1]:
        found = np.argwhere((image == colour).all(axis=2))
        assert len(found) == mosaic.TILE**2 and (found.max(axis=0) - found.min(axis=0) + 1 == mosaic.TILE).all(), colour
    red = np.argwhere((image == mosaic.MARK).all(axis=2))
    third = np.argwhere((image == colours[0][2]).all(axis=2))
    assert len(red) == mosaic.TILE * (mosaic.GAP - 1) and third[:, 1].min() - mosaic.GAP <= red[:, 1].min() < third[:, 1].min()
