"""Another code's block times beside ours: a program of its own is run, read, and refused in one line."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from echo.backbone.sizes import SIZES, geometry
from jobs import cli
from jobs.bench import flops, reference, sizing
from jobs.bench.card import CardBench, CardFile
from tests.jobs.bench.test_card import METHODS


def program(folder: Path, *lines: str) -> Path:
    """A shell script as a lab would put it into a checkout."""
    path = folder / "checkout" / "blocks.sh"
    path.parent.mkdir()
    path.write_text("\n".join(("#!/bin/sh", *lines)) + "\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_its_last_line_is_read_and_it_runs_in_its_own_folder(tmp_path: Path) -> None:
    own = program(tmp_path, "echo loading", "pwd >&2", """echo '{"method": "theirs", "frames": 21, "block_ms": [5, 4.5]}'""", "pwd > where")
    assert reference.timed(own) == reference.Told("theirs", 21.0, [5.0, 4.5])
    assert (own.parent / "where").read_text(encoding="utf-8").strip() == str(own.parent.resolve())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("echo no such weights >&2; exit 3", "blocks.sh: ended with status 3: no such weights"),
        ("true", "blocks.sh: its last line is not as docs/performance.md says"),
        ("""echo '{"method": "theirs", "block_ms": [5]}'""", "missing required field `frames`"),
        ("""echo '{"method": "theirs", "frames": 21, "block_ms": []}'""", "of length >= 1 - at `$.block_ms`"),
        ("""echo '{"method": "theirs", "frames": 21, "block_ms": [0]}'""", "Expected `float` > 0"),
    ],
)
def test_what_tells_nothing_is_one_line(line: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as told:
        reference.timed(program(tmp_path, line))
    assert words in str(told.value) and "\n" not in str(told.value)


def test_one_that_hangs_is_stopped_with_its_children(tmp_path: Path) -> None:
    own, begun = program(tmp_path, "sleep 60 &", "echo $! > child", "wait"), time.monotonic()
    with pytest.raises(RuntimeError, match=r"blocks.sh: was stopped after 1 s"):
        reference.timed(own, limit_s=1.0)
    assert time.monotonic() - begun < 30, "a child that is left alive holds the output until it ends by itself"
    child = Path("/proc") / (own.parent / "child").read_text(encoding="utf-8").strip() / "stat"
    for _ in range(50):
        if not child.exists() or " Z " in child.read_text():
            return
        time.sleep(0.1)
    pytest.fail("its child is alive")


def test_it_is_refused_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = program(tmp_path, "true")
    own.chmod(0o644)
    for path, words in ((tmp_path / "none.sh", "no such file"), (own, "is not executable; nearest is: chmod +x")):
        assert cli.main(["bench", "card", "--dry-run", "--reference", str(path)]) == 2
        shown = capsys.readouterr()
        assert words in shown.err and shown.err.count("\n") == 1 and not shown.out


def test_its_blocks_stand_beside_ours_by_the_same_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real plan on a processor, ended behind the first block and the program."""
    done = CardBench.do

    def begun(self: CardBench, row: sizing.Measurement) -> sizing.Values:
        if row.way.kernel == "cudnn":
            raise KeyboardInterrupt
        return done(self, row)

    monkeypatch.setattr(CardBench, "do", begun)
    own = program(tmp_path, """echo '{"method": "theirs", "frames": 12, "block_ms": [250, 260, 240]}'""")
    assert cli.main(["bench", "card", "--dry-run", "--reference", str(own)]) == 0
    plan = capsys.readouterr().out.splitlines()
    assert "reference  blocks.sh" in plan[len(METHODS)] and f"{reference.FORECAST_S:6.1f} s" in plan[len(METHODS)]
    path = tmp_path / "c.json"
    words = ["method=echo", "blocks=3", "device=cpu", "--reference", str(own), "--output", str(path)]
    assert cli.main(["bench", "card", *words]) == 130
    file = msgspec.json.decode(path.read_bytes(), type=CardFile)
    ours, theirs = (file.rows[place].values for place in (0, 1))
    assert ours and theirs and file.rows[1].kind == "reference" and file.provenance.argv[-2:] == ["--reference", str(own)]
    assert (theirs.way.method, theirs.block_ms, theirs.p95_ms, theirs.fps) == ("theirs", 250, 260, 48.0)
    tiny = SIZES["tiny"]
    work = flops.block(tiny.network, geometry(tiny.network, tiny.height_px, tiny.width_px, 21), 12, 4).total
    assert theirs.tflops == pytest.approx(work / 0.25 / 1e12, abs=1e-3)
    assert "| theirs | - | - | - | 12 | 250.0 | 260.0 | 48.00 |" in path.with_suffix(".md").read_text(encoding="utf-8")


def test_its_time_does_not_correct_the_forecast_of_ours() -> None:
    """A program that is done in a second must not make the others look ninety times faster than they are."""
    way, now = sizing.Variant("echo"), 0.0
    rows = [sizing.Measurement("block", way, 10.0), sizing.Measurement("reference", way, 90.0), sizing.Measurement("block", way, 105.0)]

    def do(row: sizing.Measurement) -> sizing.Values:
        nonlocal now
        now += 1.0 if row.kind == "reference" else row.forecast_s
        return sizing.Values(row.way)

    sizing.carry_out(rows, 112.0, do, lambda row: None, lambda: now)
    assert [row.reason for row in rows] == ["", "", "left out: 105 s are forecast, 101 s are left"]
