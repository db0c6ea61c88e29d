"""Videos as people have them: turned by a telephone, of a variable rate, GIFs, in folders with other things, scored twice."""

from __future__ import annotations

import json
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageSequence

from echo.scene import Prompt, TagMeaning
from eval.figures.mosaic import stills
from eval.pages.films import form_of
from eval.study.page import strip
from eval.vbench.folder import listed_in
from eval.vbench.naming import prompt_of
from eval.vbench.video import chunks, inspect
from jobs import cli
from tests.helpers.constructed import StandIns, film, write

QUADRANTS = np.zeros((64, 96, 3), np.uint8)
QUADRANTS[:32, :48], QUADRANTS[:32, 48:], QUADRANTS[32:, :48] = 240, 160, 80
"""A picture no turn of which is another: top 240 and 160, bottom 80 and 0."""


def shot(path: Path, codec: str = "libx264", *, degrees: int = 0, mirrored: bool = False, times: list[int] | None = None) -> Path:
    """Eight frames of `QUADRANTS`; times: of frames, in 90ths of a millisecond."""
    with av.open(str(path), "w", format="mp4" if path.suffix == ".m4v" else None) as container:
        stream = container.add_stream(codec, rate=Fraction(16))
        stream.height, stream.width = QUADRANTS.shape[:2]
        stream.pix_fmt = "yuv420p"
        if degrees or mirrored:
            stream.set_display_rotation(degrees, hflip=mirrored)
        if times:
            stream.codec_context.time_base = Fraction(1, 90000)
        for index in range(8):
            frame = av.VideoFrame.from_ndarray(QUADRANTS, format="rgb24")
            if times:
                frame.pts, frame.time_base = times[index], Fraction(1, 90000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("read", [inspect, form_of, partial(stills, every_s=0.1), lambda path: strip(path, path.with_name("copy.mp4"))])
def test_a_codec_that_nothing_decodes_is_one_line(tmp_path, read):
    """One letter of a codec's name: such a stream has neither decoder nor size."""
    path = shot(tmp_path / "damaged.mp4")
    content = path.read_bytes()
    assert content.count(b"avc1") >= 1
    path.write_bytes(content.replace(b"avc1", b"avz1"))
    with pytest.raises(ValueError, match=r"damaged\.mp4: (its video is of a codec that is not known here|cannot be read)") as refusal:
        read(path)
    assert "\n" not in str(refusal.value)


def frames_of(path: Path) -> np.ndarray:
    return np.concatenate([part for _, part in chunks(inspect(path))])


@pytest.mark.parametrize("degrees", [90, -90, 180])
def test_a_telephones_video_is_turned_as_decord_turns_it(tmp_path, degrees):
    """decord 0.6, VBench's reader, shows the top left corner of a frame that is to be turned by 90 at the bottom left; looked at once."""
    facts = inspect(shot(tmp_path / "turned.mp4", degrees=degrees))
    found, plain = frames_of(facts.path), frames_of(shot(tmp_path / "plain.mp4"))
    assert (facts.height, facts.width) == found.shape[1:3] == ((96, 64) if degrees % 180 else (64, 96))
    corner = {90: (-1, 0), -90: (0, -1), 180: (-1, -1)}[degrees]
    assert abs(int(found[0][corner][0]) - 240) < 6, "where the top left corner comes to"
    expected = np.stack([np.rot90(frame, degrees // 90) for frame in plain])
    assert (found == expected).all(), f"largest difference {np.abs(found.astype(int) - expected).max()}"
    assert facts.digest != inspect(tmp_path / "plain.mp4").digest and facts.digest.endswith(f"-turned{degrees % 360}")
    assert "turned" not in inspect(tmp_path / "plain.mp4").digest, "records of all others keep their keys"


def test_a_mirrored_video_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"mirrored.mp4: its header says that it is shown mirrored"):
        inspect(shot(tmp_path / "mirrored.mp4", mirrored=True))


def test_a_variable_rate_is_refused_and_a_clocks_jitter_is_not(tmp_path):
    step = 90000 // 16
    even = shot(tmp_path / "jitter.mp4", times=[index * step + 900 * (index % 2) for index in range(8)])
    assert inspect(even).frames == 8
    with pytest.raises(
        ValueError, match=r"slow.mp4: variable frame rate: frame \d is shown at .* nearest is `ffmpeg -i slow.mp4"
    ) as refusal:
        inspect(shot(tmp_path / "slow.mp4", times=[index * step * (1 if index < 5 else 3) for index in range(8)]))
    assert "\n" not in str(refusal.value)


def test_a_gif_has_pillows_frames(tmp_path):
    """VBench reads a GIF with Pillow, whose frames hold only what changes."""
    pictures = []
    for index in range(9):
        frame = np.full((64, 80, 3), 40, np.uint8)
        frame[10:20, 4 * index : 4 * index + 10] = (200, 40 * (index % 5), 90)
        pictures.append(Image.fromarray(frame))
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=60, loop=0)
    found = frames_of(tmp_path / "a.gif")
    expected = np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(Image.open(tmp_path / "a.gif"))])
    apart = np.abs(found.astype(int) - expected)
    assert found.shape == expected.shape and not apart.any(), f"largest difference {apart.max()}, mean {apart.mean()}"
    assert inspect(tmp_path / "a.gif").fps == pytest.approx(1 / 0.06)
    pictures[0].save(tmp_path / "b.gif", save_all=True, append_images=pictures[1:], duration=[60, 60, 900, *[60] * 6], loop=0)
    with pytest.raises(ValueError, match="variable frame rate"):
        inspect(tmp_path / "b.gif")


@pytest.mark.parametrize(("name", "codec"), [("a.m4v", "libx264"), ("a.webm", "libvpx"), ("a.mkv", "libx264"), ("a.MOV", "libx264")])
def test_other_containers_are_read(tmp_path, name, codec):
    path = shot(tmp_path / name, codec)
    (found,), _ = listed_in(tmp_path)
    assert found == path and abs(int(frames_of(path)[3, 5, 5, 0]) - 240) < 8


def words_for(monkeypatch, tmp_path: Path, *words: str) -> list[str]:
    monkeypatch.setattr("eval.vbench.folder.source_of", lambda word: StandIns())
    monkeypatch.setattr("eval.vbench.networks.packages.check", lambda modules: None)
    fixed = ["device=cpu", "dimensions=temporal_flickering,imaging_quality", "--records", str(tmp_path / "records")]
    return ["score", *words, *fixed, "--output", str(tmp_path / "out")]


def test_what_lies_beside_the_videos_is_left_out_and_said(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "videos"
    (folder / "deep" / "deeper").mkdir(parents=True)
    good = write(folder / "a.mp4", film(np.full((40, 8), 4)))
    (folder / "._a.mp4").write_bytes(b"\0\5\26\7 a Mac's")
    (folder / ".b.12ab34cd.mp4").write_bytes(good.read_bytes()[:900])
    (folder / "a.trace.jsonl.tmp").touch()
    (folder / "a.json").write_text("{}", encoding="utf-8")
    (folder / "deep" / "deeper" / "c.mp4").write_bytes(good.read_bytes())
    (folder / "d.mp4").mkdir()
    assert cli.main(words_for(monkeypatch, tmp_path, str(folder))) == 0
    lines = capsys.readouterr().out.splitlines()
    aside = [line for line in lines if line.startswith("left out: ")]
    assert [line.split()[2] for line in aside] == ["2", "1", "1"], aside
    assert "._a.mp4, .b.12ab34cd.mp4" in aside[0] and "a.trace.jsonl.tmp" in aside[1] and "deep" in aside[2]
    assert any(line.startswith("imaging_quality.vbench ") and line.endswith("n=1") for line in lines), lines
    summary = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))
    assert summary["left_out"] == aside and list(summary["videos"]) == ["a.mp4"]
    good.unlink()
    assert cli.main(words_for(monkeypatch, tmp_path, str(folder))) == 2
    refusal = capsys.readouterr().err
    assert refusal.count("\n") == 1 and f"{folder}: no video" in refusal and f"nearest is {folder / 'deep'}" in refusal


def test_a_second_score_never_takes_the_place_of_the_first(tmp_path, monkeypatch, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, level in ((first, 3), (second, 6)):
        folder.mkdir()
        write(folder / "a.mp4", film(np.full((40, 8), level)))
    words = words_for(monkeypatch, tmp_path, str(first))
    place = tmp_path / "out" / "scores.json"
    assert cli.main(words) == 0
    kept = place.read_bytes()
    capsys.readouterr()
    asked = [
        (words_for(monkeypatch, tmp_path, str(second)), "of other videos (a.mp4)"),
        ([*words, "task=smooth"], "of task=long60"),
        ([word.replace("temporal_flickering,", "") for word in words], "by other networks, versions or settings"),
    ]
    for other, reason in asked:
        assert cli.main(other) == 2
        refusal = capsys.readouterr().err
        assert refusal.count("\n") == 1 and f"scores are there, {reason}" in refusal and f"--output {tmp_path / 'out'}-2" in refusal, (
            refusal
        )
        assert place.read_bytes() == kept
    write(first / "b.mp4", film(np.full((40, 8), 5)))
    assert cli.main(words) == 0 and "n=2" in capsys.readouterr().out, "a folder that has grown goes on"
    (first / "b.mp4").unlink()
    assert cli.main(words) == 2 and "of other videos (b.mp4)" in capsys.readouterr().err
    place.write_text("{", encoding="utf-8")
    assert cli.main(words) == 2 and "that cannot be read" in capsys.readouterr().err


def test_names_that_runs_write_find_their_prompts():
    """A run writes the video of `a_b c` as `a-b-c-1234abcd.mp4`."""
    prompts = [Prompt(name, ("x",), (3.0,), ("",), TagMeaning.enter) for name in ("a_b c", "a_b", "a", "q_1", "q 1")]
    found = {"a-b-c-1234abcd": "a_b c", "a-b-1234abcd": "a_b", "a-7": "a", "a": "a", "a_b c-2": "a_b c", "q_1": "q_1", "q 1-0": "q 1"}
    for stem, name in found.items():
        assert prompt_of(Path(f"{stem}.mp4"), prompts).id == name, stem
    with pytest.raises(ValueError, match="of 'q_1' or of 'q 1'"):
        prompt_of(Path("q-1-1234abcd.mp4"), prompts)
