"""Progress of jobs: one bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from tqdm import tqdm

from data.outgoing import said
from echo.scene import FRAMES_PER_BLOCK, PIXEL_FRAMES_PER_LATENT

LINE_EVERY_S = 15.0


def say(line: str) -> None:
    """Print a line of results on standard output, above a bar if there is one."""
    tqdm.write(said(line), file=sys.stdout)
    sys.stdout.flush()


class Progress:
    """Blocks and videos of all running jobs together."""

    def __init__(self, blocks: int, videos: int, stream: TextIO | None = None) -> None:
        """blocks, videos: numbers to be made. stream: output, standard error by default."""
        self._stream = stream or sys.stderr
        self._blocks, self._videos = blocks, videos
        self._made = self._ended = self._latents = 0
        self._start = self._said = time.monotonic()
        self._bar: tqdm | None = None
        if self._stream.isatty():
            form = "{desc}|{bar}| {n_fmt}/{total_fmt} blocks [{elapsed} < {remaining}{postfix}]"
            desc = f"0/{videos} videos"
            self._bar = tqdm(total=blocks, desc=desc, file=self._stream, bar_format=form, dynamic_ncols=True, mininterval=0.2)

    def block(self, count: int = 1, frames_per_block: int = FRAMES_PER_BLOCK) -> None:
        """Some blocks of `frames_per_block` latent frames are done; a negative number subtracts those of a failed video."""
        self._made += count
        self._latents += count * frames_per_block
        if self._bar is not None:
            self._bar.update(count)
            self._show()
        elif time.monotonic() - self._said >= LINE_EVERY_S:
            self._line()

    def elsewhere(self, blocks: int, videos: int) -> None:
        """Some blocks and videos are made by another process."""
        self._blocks, self._videos = self._blocks - blocks, self._videos - videos
        if self._bar is not None:
            self._bar.total = self._blocks
            self._show()

    def video(self) -> None:
        """A video is done or has failed."""
        self._ended += 1
        if self._bar is not None:
            self._show()

    def note(self, line: str) -> None:
        """Print a note while the work continues."""
        tqdm.write(line, file=self._stream)

    def close(self) -> None:
        """Close the bar; a log gets a last line."""
        if self._bar is not None:
            self._bar.close()
        else:
            self._line()

    @property
    def fps(self) -> float:
        """Pixel frames per second since the start, all jobs together, loading and scoring included."""
        return self._latents * PIXEL_FRAMES_PER_LATENT / max(1e-9, time.monotonic() - self._start)

    def _show(self) -> None:
        assert self._bar is not None
        self._bar.set_description_str(f"{self._ended}/{self._videos} videos", refresh=False)
        self._bar.set_postfix_str(f"{self.fps:.0f} FPS", refresh=False)

    def _line(self) -> None:
        self._said = time.monotonic()
        elapsed = self._said - self._start
        left = elapsed / self._made * (self._blocks - self._made) if self._made else float("nan")
        waiting = f"{left:.0f} s left" if self._made else "starting"
        self._stream.write(
            f"{self._ended}/{self._videos} videos, {self._made}/{self._blocks} blocks, {self.fps:.0f} FPS, "
            f"{elapsed:.0f} s passed, {waiting}\n"
        )
        self._stream.flush()
