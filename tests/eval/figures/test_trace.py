"""The trace's command line: one JSON line a block, a picture, clear refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from matplotlib import image, pyplot

from eval.figures import trace
from jobs import cli


def lines(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, object]]:
    assert cli.main(["trace", *list(words)]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_one_line_a_block(capsys: pytest.CaptureFixture[str]) -> None:
    traced = lines(capsys, "method=self_forcing", "task=hard")
    assert len(traced) == 80 and [line["block"] for line in traced] == list(range(80))
    assert list(traced[7]) == ["block", "scene", "keys", "queries"]
    assert traced[7]["keys"] == [[f"f{f}", f] for f in range(3, 24)] and traced[7]["queries"] == [21, 22, 23]
    assert [line["scene"] for line in traced].count(1) == 14


def test_blocks_cut_short_and_run_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(lines(capsys, "method=infinity_rope", "task=smooth", "blocks=5")) == 5
    longer = lines(capsys, "method=infinity_rope", "task=smooth", "blocks=90")
    assert len(longer) == 90 and longer[-1]["scene"] == 5


def test_settings_reach_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    short = lines(capsys, "method=infinity_rope", "task=long60", "blocks=9", "method.window_frames=6", "method.sink_frames=1")
    assert short[-1]["keys"] == [["f0", 0], ["f22", 1], ["f23", 2], ["f24", 3], ["f25", 4], ["f26", 5]]


def test_the_picture_has_every_kind_in_its_colour(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace.png"
    lines(capsys, "method=infinity_rope", "task=hard", "--png", str(path))
    pixels = {tuple(round(255 * float(c)) for c in pixel) for pixel in image.imread(path)[..., :3].reshape(-1, 3)}
    for kind in (trace.Kind.RECENT, trace.Kind.CURRENT):
        colour = kind.colour.removeprefix("#")
        assert tuple(int(colour[i : i + 2], 16) for i in (0, 2, 4)) in pixels
    sink = trace.Kind.SINK.colour.removeprefix("#")
    assert tuple(int(sink[i : i + 2], 16) for i in (0, 2, 4)) not in pixels


def test_slots_and_blocks_are_whole_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyplot, "close", lambda figure: None)
    lines(capsys, "method=self_forcing", "task=hard", "blocks=2", "--png", str(tmp_path / "trace.png"))
    axis = pyplot.gcf().axes[0]
    monkeypatch.undo()
    assert all(float(tick).is_integer() for tick in (*axis.get_xticks(), *axis.get_yticks())), (axis.get_xticks(), axis.get_yticks())
    pyplot.close("all")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method=infinity_rop", "task=hard"], "nearest is 'infinity_rope'"),
        (["method=self_forcing", "task=hards"], "nearest is 'hard'"),
        (["method=self_forcing"], "task=: it is missing"),
        (["method=self_forcing", "task=hard", "blocks=0"], "nearest is 1"),
        (["method=self_forcing", "task=hard", "block=9"], "'block=9': give method=NAME"),
        (["method=self_forcing", "task=hard", "blocks=342"], "longest is 341 blocks"),
        (["method=self_forcing", "task=hard", "method.max_positions=9"], "nearest is 'max_position'"),
        (["method=self_forcing", "task=hard", "prompt=x"], "prompt=x: task hard has none of this id; nearest is hard-0"),
    ],
)
def test_refusals(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trace", *words]) == 2
    assert message in capsys.readouterr().err
