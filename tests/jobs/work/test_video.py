"""Videos that can be watched anywhere and appear only when whole."""

from __future__ import annotations

import os

import av
import numpy as np
import pytest

from jobs.work.video import VideoWriter


def frames(count: int, side: int = 24) -> np.ndarray:
    """Flat colours in quarters, moving; uint8 [T, H, W, 3]."""
    picture = np.zeros((side, side, 3), np.uint8)
    picture[: side // 2, : side // 2] = (220, 40, 40)
    picture[side // 2 :, side // 2 :] = (40, 60, 220)
    return np.stack([np.roll(picture, index, axis=1) for index in range(count)])


def read(path) -> tuple[av.VideoStream, np.ndarray]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream, np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_all_frames_at_their_speed_and_size(tmp_path):
    path = tmp_path / "deep" / "v.mp4"
    with VideoWriter(path, fps=16, height_px=256, crf=18) as video:
        video.write(frames(12)[:5])
        assert not path.exists()
        video.write(frames(12)[5:])
    stream, shown = read(path)
    assert (stream.codec_context.name, stream.codec_context.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 16)
    assert shown.shape == (12, 240, 240, 3)
    assert [p.name for p in path.parent.iterdir()] == ["v.mp4"]


def test_enlarged_without_blur(tmp_path):
    """The middle of every enlarged pixel keeps the pixel's colour; colour is stored at half resolution, hence the slack."""
    with VideoWriter(tmp_path / "v.mp4", fps=16, height_px=240, crf=10) as video:
        video.write(frames(4))
    _, shown = read(tmp_path / "v.mp4")
    middles = shown[:, 5::10, 5::10].astype(int)
    assert np.abs(middles - frames(4)).mean() < 6
    inside = shown[0, 2:8, 2:8].astype(int)
    assert np.abs(inside - inside.mean((0, 1))).max() < 12


def test_a_jump_into_frames_of_their_own_size_decodes_few(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", fps=16, height_px=24, crf=18) as video:
        video.write(frames(70))
    with av.open(str(tmp_path / "v.mp4")) as container:
        keys = [index for index, frame in enumerate(container.decode(video=0)) if frame.key_frame]
    assert keys[0] == 0 and max(np.diff([*keys, 70])) <= 24, keys


def test_colours_of_both_ways_agree(tmp_path):
    """Path 1: converted small, then repeated. Path 2: the library's conversion of frames at their own size."""
    shown = {}
    for px in (24, 48):
        with VideoWriter(tmp_path / f"{px}.mp4", fps=16, height_px=px, crf=1) as video:
            video.write(np.full((3, 24, 24, 3), (220, 140, 40), np.uint8))
        shown[px] = read(tmp_path / f"{px}.mp4")[1].astype(int)
    assert shown[24].shape[1] == 24 and shown[48].shape[1] == 48
    difference = np.abs(shown[24][:, :1, :1] - shown[48])
    assert difference.max() <= 3, f"max {difference.max()}, mean {difference.mean():.2f}"


def test_odd_frames_get_even_sides(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", fps=16, height_px=75, crf=18) as video:
        video.write(frames(2, side=25))
    assert read(tmp_path / "v.mp4")[1].shape[1] % 2 == 0


def test_failure_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "v.mp4", fps=16, height_px=64, crf=18) as video:
        video.write(frames(3))
        raise RuntimeError("stopped")
    assert list(tmp_path.iterdir()) == []


def test_a_video_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Whatever the machine does afterwards: bytes, then the name, then the folder that holds it."""
    told, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: told.append(os.readlink(f"/proc/self/fd/{handle}")) or sync(handle))
    monkeypatch.setattr(os, "replace", lambda part, path: told.append("renamed") or replace(part, path))
    with VideoWriter(tmp_path / "a" / "b" / "v.mp4", fps=16, height_px=64, crf=18) as video:
        video.write(frames(2))
    *folders, part, renamed, last = told
    assert folders == [str(tmp_path), str(tmp_path / "a")] and renamed == "renamed" and last == str(tmp_path / "a" / "b")
    assert part.startswith(str(tmp_path / "a" / "b" / ".v.mp4.")) and [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["v.mp4"]
