"""Time arithmetic against counting: every pixel frame up to a million, every border of prompts up to an hour, no model."""

from __future__ import annotations

from fractions import Fraction

import pytest

from echo.geometry import pixel_frames, scene_spans, span
from echo.scene import DurationRule, scene_blocks

MILLION = 1_000_000
FIRST = (1, 4)
"""Pixel frames of the first latent frame: Wan's codec, the embedded one."""
SIZES = (3, 1)
"""Latent frames of a block: chunk-wise, frame-wise."""
PROMPTS = {
    "10 s": [10.0],
    "60 s": [60.0],
    "120 s": [120.0],
    "one hour": [3600.0],
    "six of 10 s": [10.0] * 6,
    "one hour of 10 s": [10.0] * 360,
    "one hour, uneven": [7.3, 0.4, 12.9, 5.0, 33.1, 1.3] * 60,
    "halves of a block": [1.125] * 40,
    "one hour of 0.7 s": [0.7] * 5143,
}


def counted(first: int, limit: int) -> tuple[list[int], list[int]]:
    """Latent frame of each pixel frame up to `limit`, and the first pixel frame of each latent frame, by emitting them one by one."""
    latents: list[int] = []
    starts: list[int] = []
    latent = 0
    while len(latents) < limit:
        starts.append(len(latents))
        latents.extend([latent] * (first if latent == 0 else 4))
        latent += 1
    return latents, [*starts, len(latents)]


@pytest.fixture(scope="module", params=FIRST)
def count(request):
    return request.param, *counted(request.param, MILLION)


def test_a_million_pixel_frames_lie_where_counting_puts_them(count):
    first, _, starts = count
    assert [pixel_frames(latent, first) for latent in range(len(starts))] == starts


@pytest.mark.parametrize("size", SIZES)
def test_blocks_of_a_million_pixel_frames(count, size):
    """At both sides of every border of a latent frame, where alone a block could change."""
    first, latents, starts = count
    seen, blocks = 0, (len(starts) - 1) // size
    for block in range(blocks):
        begin, end = span(block, block + 1, first, size)
        assert begin == seen and end - begin == 4 * size - (3 if first == 1 and block == 0 else 0)
        assert latents[begin] == size * block and latents[end - 1] == size * block + size - 1
        seen = end


def exact_blocks(durations: list[float], rule: DurationRule, size: int) -> list[int]:
    """Blocks of each scene in exact fractions, by the words of the two rules; decimals mean what is written."""
    block, exact = Fraction(size, 4), [Fraction(str(duration)) for duration in durations]
    if rule is DurationRule.floor_each:
        frames = int(sum(exact) * 16) // 4
        blocks = [max(1, int(duration / block)) for duration in exact[:-1]]
        return [*blocks, max(1, -(-frames // size) - sum(blocks))]
    borders, total = [0], Fraction(0)
    for duration in exact:
        total += duration
        borders.append(max(borders[-1] + 1, int(total / block + Fraction(1, 2))))
    return [end - begin for begin, end in zip(borders[:-1], borders[1:])]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rule", DurationRule)
@pytest.mark.parametrize("name", PROMPTS)
def test_borders_of_scenes_up_to_an_hour(name, rule, size, count):
    """Blocks from exact fractions; borders by walking the video pixel frame by pixel frame."""
    first, latents, _ = count
    lengths = scene_blocks(PROMPTS[name], rule, size)
    assert list(lengths) == exact_blocks(PROMPTS[name], rule, size)
    spans = scene_spans(lengths, first, size)
    owner = [scene for scene, blocks in enumerate(lengths) for _ in range(size * blocks)]
    walked: dict[int, list[int]] = {}
    for pixel in range(spans[-1][1]):
        walked.setdefault(owner[latents[pixel]], [pixel, pixel])[1] = pixel
    assert spans == [(begin, last + 1) for begin, last in walked.values()] and len(walked) == len(lengths)
    assert spans[-1][1] == 4 * size * sum(lengths) - (3 if first == 1 else 0)
    asked_s = sum(PROMPTS[name])
    if rule is DurationRule.cumulative and len(lengths) < 1000:
        assert abs(spans[-1][1] / 16 - asked_s) <= size / 8 + 3 / 16, "rounded borders add up to the whole"


@pytest.mark.parametrize(("seconds", "blocks", "wan", "embedded"), [(10, 13, 153, 156), (60, 80, 957, 960), (120, 160, 1917, 1920)])
def test_lengths_that_people_know(seconds, blocks, wan, embedded):
    assert scene_blocks([seconds], DurationRule.cumulative, 3) == (blocks,)
    assert scene_spans([blocks], 1, 3) == [(0, wan)] and scene_spans([blocks], 4, 3) == [(0, embedded)]


def test_an_hour_has_4800_blocks():
    assert all(scene_blocks([3600.0], rule, 3) == (4800,) and scene_blocks([3600.0], rule, 1) == (14_400,) for rule in DurationRule)
    assert span(0, 4800, 1, 3) == (0, 57597) and span(4799, 4800, 1, 3) == (57585, 57597)


def test_frames_of_another_block_length():
    assert span(2, 3, 1, 1) == (5, 9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pixel_frames(3, 0), "first_frames 0: within 1..4; nearest is 1"),
        (lambda: pixel_frames(-1, 1), "latent_frames -1: 0 or more; nearest is 0"),
        (lambda: pixel_frames(2, 5), "first_frames 5: within 1..4; nearest is 4"),
        (lambda: span(2, 2, 1, 3), "blocks 2..2: at least one block"),
        (lambda: scene_spans([3, 0], 1, 3), "scene 2 has 0 blocks"),
    ],
)
def test_what_is_no_time_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
