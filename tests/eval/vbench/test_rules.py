"""Scores of constructed videos, worked out by hand: scopes, borders, pairs, clips, and a real run of VBench-Long."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from echo.geometry import scene_spans
from eval.measures.formulas import consistency, is_dynamic, sampling_step
from eval.protocol import TASKS
from eval.vbench.kit import Kit, Wish
from eval.vbench.measure import FrameLayout, clips, measure, middles
from eval.vbench.records import Record, RecordStore
from eval.vbench.rules import DATA, PAIR_RULES, Measured, fused, mapped
from eval.vbench.scorer import VideoScorer, spans_of
from eval.vbench.video import inspect
from tests.helpers.constructed import BEAUTY, FPS, IMAGE, MOTION, PLACE, SAID, SMOOTH, SUBJECT, WEIGHT, StandIns, film, write

SCENE = 32
KINDS = ("clip_b32", "clip_l14", "viclip", "vbench_text_alignment")


def test_fusion_gives_a_published_run_of_vbench_long():
    """150 rows: 5 videos of 15 clips for subject and background, mapped and fused."""
    with (DATA / "published_run_30s.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 150
    numbers = [{name: float(row[name]) for name in ("inclip", "clip_to_clip", "clip_to_clip_mapped", "fused")} for row in rows]
    ours = np.array(
        [(mapped(r["dimension"], n["clip_to_clip"]), fused(r["dimension"], n["inclip"], n["clip_to_clip"])) for r, n in zip(rows, numbers)]
    )
    apart = np.abs(ours - np.array([(n["clip_to_clip_mapped"], n["fused"]) for n in numbers]))
    assert (apart <= 1e-9).sum() == 2 * 150, f"max {apart.max():.3g}, mean {apart.mean():.3g}"
    means = {d: np.mean([n["fused"] for r, n in zip(rows, numbers) if r["dimension"] == d]) for d in {r["dimension"] for r in rows}}
    assert {d: round(float(m), 5) for d, m in means.items()} == {"subject_consistency": 0.96261, "background_consistency": 0.95922}
    swapped = [
        abs(fused("background_consistency", n["inclip"], n["clip_to_clip"]) - n["fused"])
        for r, n in zip(rows, numbers)
        if r["dimension"][0] == "s"
    ]
    assert min(swapped) > 1e-4  # the other dimension's table gives other numbers


def levels(task: str, scene: int = SCENE) -> np.ndarray:
    """Levels [T, 8] of the task's flawless video: all bands still but what its scenes mean to change, at a constant cost in flicker."""
    places = {"hard": (1, 2, 3, 4, 5, 6), "recall": (1, 2, 3, 1, 2, 3)}.get(task, (1,) * 6)
    shown = np.full((6 * scene, 8), 4)
    shown[:, PLACE] = np.repeat(places, scene)
    shown[:, SAID] = np.repeat((0, 1, 2, 3, 4, 5), scene)
    shown[:, BEAUTY], shown[:, IMAGE] = 6, 7
    shown[:, MOTION] = np.arange(6 * scene) // 2 % 2 * 4  # 8 px between sampled frames, the threshold is 3 px
    return shown


def texts() -> tuple[str, ...]:
    return tuple(f"shows {number}" for number in range(6))


MORE = re.compile(r"frozen_time|looping|coherence_|text_alignment_\d|memory_")
"""What no protocol has: scores of whether a video moves, repeats itself and stays itself, and texts scene by scene."""


def scored(
    folder: Path,
    shown: np.ndarray,
    task: str,
    wish: Wish | None = None,
    spans: list | None = None,
    recalls: tuple[int | None, ...] = (),
    more: bool = False,
) -> Mapping[str, float | None]:
    path = folder / f"{hashlib.sha256(shown.tobytes()).hexdigest()[:16]}.mp4"
    facts = inspect(path if path.exists() else write(path, film(shown)))
    scene = len(shown) // 6
    spans = spans or ([(0, len(shown))] if task in ("long60", "long120") else [(n * scene, (n + 1) * scene) for n in range(6)])
    scorer = VideoScorer(Kit(wish or Wish(kinds=("clip_b32",)), StandIns()), RecordStore(folder / "records"))
    said = texts() if len(spans) == 6 else ("shows 4",)
    found = scorer.score(facts, task, spans, said, recalls=recalls).metrics
    return {name: value for name, value in found.items() if more is (MORE.match(name) is not None)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Shared, so that a video that several tests begin with is made and measured once."""
    return tmp_path_factory.mktemp("constructed")


def plain_flicker(shown: np.ndarray) -> float:
    """From the levels alone: a band is an eighth of the frame, a level 25 greys."""
    return 100 * (1 - np.abs(np.diff(shown, axis=0)).sum(1).mean() / 8 * 25 / 255)


FLAWLESS = {
    "aesthetic_quality.vbench": 75.0, "imaging_quality.vbench": 87.5, "motion_smoothness.vbench": 100.0, "dynamic_degree.vbench": 100.0,
    "text_alignment.clip_b32": 100.0, "quality_drift.vbench": 0.0,
}  # fmt: skip


@pytest.mark.parametrize("task", ["smooth", "hard", "recall"])
def test_flawless_videos_have_the_scores_they_must(folder, task):
    """A place that changes where it should costs nothing; all names are there, and no others."""
    found = scored(folder, levels(task), task)
    names = {f"{d}.vbench": 100.0 for d in ("subject_consistency", "background_consistency")}
    if task == "recall":
        pairs = {f"{d}_consistency.pair_mean": 100.0 for d in ("subject", "background")}
        names = pairs | {"subject_consistency.pair_joined": 100.0, "background_consistency.pair_joined": 100.0}
    expected = FLAWLESS | names | {"temporal_flickering.vbench": plain_flicker(levels(task))}
    assert set(found) == set(expected)
    apart = {name: abs(found[name] - expected[name]) for name in expected}
    assert max(apart.values()) < 0.02, apart


JOINED = 100 * (31 + 31 * 0.5) / 63
"""Two segments of 32 frames end to end, each of one kind: neighbours agree but once, the second half never with the first frame."""
HALF = 100 * (15 + 15 * 0.5) / 31
"""One segment that changes in its middle, likewise."""
WHOLE = 100 * (95 + 96 * 0.5 - 0.5) / 191
"""192 frames that change for good at frame 96."""
BREAKS = [
    ("smooth", SUBJECT, slice(96, None), {"subject_consistency.vbench": WHOLE}),
    ("smooth", PLACE, slice(96, None), {"background_consistency.vbench": WHOLE}),
    ("hard", SUBJECT, slice(96, None), {"subject_consistency.vbench": WHOLE}),
    ("hard", PLACE, slice(80, 96), {"background_consistency.vbench": (500 + HALF) / 6}),
    ("recall", SUBJECT, slice(96, None), {"subject_consistency.pair_mean": 0.0, "subject_consistency.pair_joined": JOINED}),
    (
        "recall",
        PLACE,
        slice(128, 160),
        {"background_consistency.pair_mean": 200 / 3, "background_consistency.pair_joined": (200 + JOINED) / 3},
    ),
    ("hard", IMAGE, slice(0, 96), {"imaging_quality.vbench": (87.5 + 0) / 2, "quality_drift.vbench": 87.5}),
    ("recall", BEAUTY, slice(0, 48), {"aesthetic_quality.vbench": 0.75 * 75.0}),
    ("smooth", SAID, slice(32, 64), {"text_alignment.clip_b32": 500 / 6}),
    ("hard", SAID, slice(0, 32), {"text_alignment.clip_b32": 500 / 6}),
]


def test_pairs_are_those_that_the_prompt_names(folder):
    """Scenes 4 to 6 show the places of 1 to 3: named otherwise they have nothing in common."""
    right = scored(folder, levels("recall"), "vmem", recalls=(None, None, None, 0, 1, 2))
    assert right == scored(folder, levels("recall"), "recall")
    wrong = scored(folder, levels("recall"), "vmem", recalls=(None, None, None, 1, None, None))
    assert wrong["background_consistency.pair_mean"] == pytest.approx(0.0, abs=0.02) and wrong["subject_consistency.pair_mean"] > 99
    with pytest.raises(ValueError, match="none of 6 scenes says which one it recalls"):
        scored(folder, levels("recall"), "layerrecall")


TWELVE_S = 192
MOTIONS = {  # frozen time, looping, coherence at 1, 2 and 5 s, quality drift; of the 176 pairs 1 s apart 64 lie within one subject
    "perfect": (0.0, 0.0, (100.0, 100.0, 100.0), 0.0),
    "frozen": (100.0, 0.0, (100.0, 100.0, 100.0), 0.0),
    "looped": (0.0, 100.0, (0.0, 100.0, 0.0), 0.0),
    "drifting": (0.0, 0.0, (100 * 64 / 176, 0.0, 0.0), 87.5),
}


@pytest.mark.parametrize("kind", MOTIONS)
def test_known_answers_of_whether_a_video_moves_and_stays_itself(folder, kind):
    """12 s. Looped: eight subjects of a quarter second each, again and again. Drifting: eight of 1.5 s, and the picture decays."""
    shown = np.full((TWELVE_S, 8), 4)
    shown[:, SAID], shown[:, IMAGE] = 4, 8
    time = np.arange(TWELVE_S)
    if kind != "frozen":
        shown[:, MOTION] = time % 2 * 4
    if kind == "looped":
        shown[:, SUBJECT] = time // 4 % 8
    if kind == "drifting":
        shown[:, SUBJECT] = time // 24
        shown[:, IMAGE] = 8 - time // 24
    frozen, looping, coherence, drift = MOTIONS[kind]
    found = scored(folder, shown, "long60", more=True)
    assert found["frozen_time.vbench"] == frozen and found["looping.vbench"] == pytest.approx(looping, abs=1e-4)
    assert [found[f"coherence_{lag}.vbench"] for lag in (1, 2, 5)] == pytest.approx(list(coherence), abs=1e-4)
    plain = scored(folder, shown, "long60")
    assert (plain["quality_drift.vbench"] > 50) is (drift > 50) and (kind == "drifting") is (plain["quality_drift.vbench"] > 0.1)
    if kind == "frozen":
        assert plain["subject_consistency.vbench"] == pytest.approx(100) == plain["motion_smoothness.vbench"]


@pytest.mark.parametrize(
    ("places", "fidelity", "leakage"),
    [((1, 2, 3, 1, 2, 3), 100, 0), ((1, 2, 3, 3, 3, 3), 0, 100), ((1, 2, 3, 4, 5, 6), 0, 0)],
    ids=["perfect return", "stays in the scene just left", "a third place"],
)
def test_known_answers_of_memory(folder, places, fidelity, leakage):
    """Returns are recognized by DINO's features; no other task has this score."""
    shown = levels("recall")
    shown[:, SUBJECT] = np.repeat(places, SCENE)
    found = scored(folder, shown, "recall", Wish(("subject_consistency",)), more=True)
    assert [found[f"memory_{name}.vbench"] for name in ("fidelity", "leakage")] == pytest.approx([fidelity, leakage], abs=1e-4)
    assert not [name for name in scored(folder, shown, "smooth", Wish(("subject_consistency",)), more=True) if name.startswith("memory")]


def test_texts_are_told_scene_by_scene(folder):
    shown = levels("smooth")
    shown[32:64, SAID] = 8
    found = scored(folder, shown, "smooth", more=True)
    said = [found[f"text_alignment_{scene}.clip_b32"] for scene in range(1, 7)]
    assert said == pytest.approx([100, 0, 100, 100, 100, 100], abs=1e-4)


@pytest.mark.parametrize(("task", "band", "where", "moved"), BREAKS, ids=lambda value: str(value)[:24])
def test_a_break_of_one_dimension_moves_its_own_cells_alone(folder, task, band, where, moved):
    """The spare band jumps where the broken one does not, so that flicker sees the same sum of jumps."""
    flawless = levels(task)
    broken = flawless.copy()
    broken[where, band] = 8 if band not in (IMAGE, BEAUTY) else 0
    spent, saved = (np.abs(np.diff(shown, axis=0)).sum() for shown in (broken, flawless))
    if spent > saved:
        flawless[1 : 1 + (spent - saved), WEIGHT] = 4 + np.arange(spent - saved) % 2  # jumps of one level, one a frame
        flawless[1 + (spent - saved) :, WEIGHT] = flawless[spent - saved, WEIGHT]
    base, found = scored(folder, flawless, task), scored(folder, broken, task)
    apart = {name: found[name] - base[name] for name in base}
    for name, value in moved.items():
        assert abs(found[name] - value) < 0.01 and abs(apart[name]) > 1, (name, found[name], value)
    still = {name: round(value, 6) for name, value in apart.items() if name not in moved and name != "temporal_flickering.vbench"}
    assert not any(still.values()), still
    assert abs(apart["temporal_flickering.vbench"]) < 0.15, apart["temporal_flickering.vbench"]  # only the first jump's remainder


def test_motion_and_smoothness_move_alone(folder):
    """Still: no pair of sampled frames moves. Jerky: odd frames off by four levels of eight, so that the middle is wrong by a half."""
    still = levels("hard")
    still[:, MOTION] = 4
    found, base = scored(folder, still, "hard"), scored(folder, levels("hard"), "hard")
    assert {name for name in base if abs(found[name] - base[name]) > 1e-9} == {"dynamic_degree.vbench", "temporal_flickering.vbench"}
    assert found["dynamic_degree.vbench"] == 0
    jerky = levels("hard")
    jerky[1::2, SMOOTH] = 8
    found = scored(folder, jerky, "hard")
    assert {name for name in base if abs(found[name] - base[name]) > 1e-9} == {"motion_smoothness.vbench", "temporal_flickering.vbench"}
    assert abs(found["motion_smoothness.vbench"] - 50) < 1e-4


def test_dynamic_degree_asks_for_a_quarter_of_sampled_pairs(folder):
    """96 sampled frames need 24 moving pairs: one fewer is not dynamic."""
    for moving, expected in ((24, 100.0), (23, 0.0)):
        shown = levels("hard")
        shown[:, MOTION] = np.minimum(np.arange(192) // 2, moving) % 2 * 4
        assert scored(folder, shown, "hard")["dynamic_degree.vbench"] == expected, moving


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_text_alignment(folder, kind):
    """Half of scene 2's frames show another text: eight middle frames, four of them wrong; ViCLIP's feature is of all eight together."""
    shown = levels("smooth")
    shown[:, BEAUTY] = shown[:, SAID]  # what CLIP L/14 reads
    shown[48:64, [SAID, BEAUTY]] = 8
    together = 100 / np.sqrt(2)
    share = {"clip_b32": 50.0, "clip_l14": 50.0, "viclip": together, "vbench_text_alignment": (50 + together) / 2}[kind]
    found = scored(folder, shown, "smooth", Wish(kinds=(kind,)))
    assert abs(found[f"text_alignment.{kind}"] - (500 + share) / 6) < 1e-4
    assert [name for name in found if name.startswith("text")] == [f"text_alignment.{kind}"]


def test_segments_are_cut_where_the_codec_puts_scenes(folder):
    """Wan's first latent frame is one pixel frame, so borders are odd; a border that is one frame off shows in the score."""
    spans = scene_spans((2,) * 6, 1, 3)
    assert spans[:2] == [(0, 21), (21, 45)] and spans[-1][1] == 141
    shown = np.full((141, 8), 4)
    shown[:, [PLACE, SAID]] = np.concatenate([np.full((end - start, 2), number) for number, (start, end) in enumerate(spans)])
    right = scored(folder, shown, "hard", spans=spans)
    assert right["background_consistency.vbench"] == pytest.approx(100, abs=1e-6) and right["text_alignment.clip_b32"] == pytest.approx(
        100, abs=1e-6
    )
    shifted = [(max(0, start - 1), end - 1 if end < 141 else end) for start, end in spans]
    wrong = scored(folder, shown, "hard", spans=shifted)
    assert wrong["background_consistency.vbench"] < 80


def test_long_videos_have_both_definitions(folder):
    """80 frames: two clips and one that borrows. The subject changes at frame 48, where the borrowed clip begins: no clip sees it inside,
    but the third first frame is another."""
    shown = np.full((80, 8), 4)
    shown[48:, SUBJECT] = 7
    shown[:, MOTION] = np.minimum(np.arange(80) // 2, 20) % 2 * 4  # nothing moves after frame 41
    found = scored(folder, shown, "long60")
    inside = (1 + (15 + 15 * 0.5) / 31 + 1) / 3  # frames 32..63 hold the change
    between = (1 + 0) / 2
    expected = 100 * (0.5 * inside + 0.5 * mapped("subject_consistency", between))
    assert abs(found["subject_consistency.vbench_long"] - expected) < 1e-4
    assert abs(found["subject_consistency.vbench"] - 100 * (47 + 31 * 0.5) / 79) < 1e-4
    assert abs(found["background_consistency.vbench_long"] - 100 * (0.5 + 0.5 * mapped("background_consistency", 1.0))) < 1e-4
    assert abs(found["dynamic_degree.vbench_long"] - 200 / 3) < 1e-9, "two of three clips move"
    whole = {name.removesuffix(".vbench") for name in found if name.endswith(".vbench")}
    assert whole == {name.removesuffix(".vbench_long") for name in found if name.endswith(".vbench_long")} and len(whole) == 7


@pytest.mark.parametrize("task", ["smooth", "hard", "recall"])
def test_vbench_long_of_several_scenes_by_another_way(folder, task):
    """As a whole: as of a video of one scene. Scene by scene: each scene is cut out, written as a video of its own and scored as such."""
    shown = levels(task, 80)  # two clips and one that borrows in each scene, none of which begins where one of the whole video's does
    shown[100:180, SUBJECT], shown[250:, BEAUTY], shown[33::2, SMOOTH], shown[400:, MOTION] = 7, 3, 8, 4
    found, plain = scored(folder, shown, task, Wish(kinds=("clip_b32",), long_for="all")), scored(folder, shown, task)
    assert plain == {name: found[name] for name in plain}, "what was there before is what it was"
    whole = scored(folder, shown, "long60")
    alone = [scored(folder, shown[80 * scene : 80 * scene + 80], "long60") for scene in range(6)]
    for name in [name for name in whole if name.endswith(".vbench_long")]:
        assert found[name] == pytest.approx(whole[name], abs=1e-9), name
        by_hand = [video[name] for video in alone]
        apart = abs(found[f"{name}_scenes"] - np.mean(by_hand))
        assert apart < (0.02 if "flickering" in name else 1e-6), f"{name}: {apart}, scenes {by_hand}"
    assert set(found) - set(plain) == {name for name in found if "vbench_long" in name} and len(found) == len(plain) + 14
    assert abs(found["subject_consistency.vbench_long"] - found["subject_consistency.vbench_long_scenes"]) > 0.1


def test_the_static_filter_leaves_moving_clips_out(folder):
    """Six clips: of four, none, few, many and all neighbours move; of the fifth only the last frame is far from the first."""
    shown = np.full((6 * SCENE, 8), 4)
    limit_px, allowed = 3.0 * 128 / 256, round(2 * SCENE / 16)
    for clip, moves in enumerate((0, allowed, allowed + 1, SCENE - 1)):
        shown[clip * SCENE : (clip + 1) * SCENE, MOTION] = (
            3 + np.minimum(np.arange(SCENE), moves) % 2
        )  # 2 px between levels: over the limit
    shown[4 * SCENE : 5 * SCENE, MOTION] = 1
    shown[5 * SCENE - 4 : 5 * SCENE, MOTION] = (3, 5, 6, 8)  # four moves are few, but 14 px from end to end are over 12 px
    shown[5 * SCENE :, MOTION] = 1
    found = scored(folder, shown, "smooth", Wish(kinds=("clip_b32",), static_filter=True))
    clip_flicker = [plain_flicker(shown[clip * SCENE : (clip + 1) * SCENE]) for clip in range(6)]
    radii = [2.0 * np.abs(np.diff(shown[clip * SCENE : (clip + 1) * SCENE, MOTION])) for clip in range(6)]
    tips = [2.0 * abs(int(shown[(clip + 1) * SCENE - 1, MOTION]) - int(shown[clip * SCENE, MOTION])) for clip in range(6)]
    still = [clip for clip in range(6) if sum(px > limit_px for px in radii[clip]) <= allowed and tips[clip] <= 2 * allowed * limit_px]
    assert still == [0, 1, 5]
    expected = np.mean([clip_flicker[clip] for clip in still])
    assert abs(found["temporal_flickering.vbench_static"] - expected) < 0.02 < abs(np.mean(clip_flicker) - expected)
    moving = np.full((2 * SCENE, 8), 4)
    moving[:, MOTION] = np.arange(2 * SCENE) % 2 * 4
    assert scored(folder, moving, "long60", Wish(kinds=("clip_b32",), static_filter=True))["temporal_flickering.vbench_static"] is None


def test_a_single_clip_has_no_long_consistency(folder):
    found = scored(folder, np.full((24, 8), 4), "long60")
    assert found["subject_consistency.vbench_long"] is None and found["imaging_quality.vbench_long"] == 50.0
    assert scored(folder, np.full((24, 8), 4), "smooth", spans=[(0, 24)]).keys().isdisjoint({"imaging_quality.vbench_long"})


@pytest.mark.parametrize(("frames", "fps"), [(960, 16.0), (957, 16.0), (81, 24.0), (50, 29.97), (31, 16.0), (9, 8.0)])
def test_clips_by_another_way(frames, fps):
    """Whole clips one after the other, and a rest that is filled up from before; every frame is in some clip."""
    length, expected = 2 * int(fps), []
    left = list(range(frames))
    while len(left) >= length:
        expected.append((left[0], left[length - 1] + 1))
        left = left[length:]
    if left:
        expected.append((max(0, frames - length), frames))
    assert clips(frames, fps) == expected


@pytest.mark.parametrize("fps", [8.0, 12.0, 16.0, 20.5, 24.0, 30.0])
def test_layouts_hold_what_the_plain_rules_ask_for(fps):
    """Lists as VBench builds them, of the whole video and of every clip as if it were a file of its own."""
    frames = 157
    layout = FrameLayout(frames, fps, long=True)
    parts = [(0, frames, fps), *((start, end, int(fps)) for start, end in clips(frames, fps))]
    pairs, triples = set(), set()
    for start, end, rate in parts:
        taken = list(range(start, end))[:: sampling_step(rate)]
        pairs |= set(zip(taken[:-1], taken[1:]))
        even = list(range(start, end))[::2]
        triples |= {(a, a + 1, b) for a, b in zip(even[:-1], even[1:])}
    assert set(map(tuple, layout.sampled().tolist())) == pairs and len(layout.sampled()) == len(pairs)
    assert set(map(tuple, layout.triples().tolist())) == triples and len(layout.triples()) == len(triples)
    assert len(FrameLayout(frames, fps, long=False).triples()) == (frames - 1) // 2


def test_middles_by_another_way():
    for start, end in ((0, 8), (5, 37), (0, 160), (157, 321)):
        borders = [start + int(part * (end - start) / 8) for part in range(9)]
        assert middles((start, end)) == [(low + high - 1) // 2 for low, high in zip(borders[:-1], borders[1:])]
    with pytest.raises(ValueError, match="frames 3..10: .* at least 8"):
        middles((3, 10))


def test_pair_rules_by_loops():
    generator = np.random.default_rng(0)
    a, b = (
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        for vectors in (generator.normal(size=(5, 4)), generator.normal(size=(7, 4)))
    )
    mean = np.mean([x @ y for x in a for y in b])
    joined = [*a, *b]
    plain = np.mean([(max(0, joined[i] @ joined[i - 1]) + max(0, joined[i] @ joined[0])) / 2 for i in range(1, len(joined))])
    assert abs(PAIR_RULES["pair_mean"](a, b) - mean) < 1e-12 and abs(PAIR_RULES["pair_joined"](a, b) - plain) < 1e-12


def test_records_do_not_depend_on_chunks(tmp_path, monkeypatch):
    """Chunks of 64 and of 7 frames against all frames at once."""
    shown = levels("recall")[:150]
    facts = inspect(write(tmp_path / "video.mp4", film(shown)))
    kit = Kit(Wish(kinds=KINDS), StandIns())
    metrics = kit.queries(FrameLayout(facts.frames, facts.fps, True, ((0, 70), (70, 150))))
    found = measure(facts, metrics, RecordStore(tmp_path / "a"))
    monkeypatch.setattr("eval.vbench.video.chunks.__defaults__", (7,))
    again = measure(facts, metrics, RecordStore(tmp_path / "b"))
    pixels = film(shown)
    for metric in metrics:
        at_once = metric.ask(pixels[metric.units])
        for record in (found[metric.name], again[metric.name]):
            assert np.array_equal(record.units, metric.units)
            apart = np.abs(record.values - at_once)
            assert apart.max() < 2, (metric.name, apart.max(), apart.mean())  # greys of the conversion of colours, in "difference" alone
            assert metric.name == "difference" or not apart.any(), (metric.name, apart.max(), apart.mean())


def test_durations_say_where_segments_are(tmp_path):
    facts = inspect(write(tmp_path / "video.mp4", film(np.full((96, 8), 4))))
    assert spans_of(facts, (2.0, 2.0, 2.0)) == [(0, 32), (32, 64), (64, 96)]
    assert spans_of(facts, (2.6, 4.0)) == [(0, 42), (42, 96)]
    with pytest.raises(ValueError, match=r"video.mp4: lasts 6.00 s, its prompt 60.00 s"):
        spans_of(facts, (10.0,) * 6)


def test_formulas_bite():
    """A change of the formulas that these tests rest on would show here."""
    assert consistency(np.eye(3, dtype=np.float32)) == 0 and set(TASKS) >= {"smooth", "hard", "recall", "long60", "long120"}
    assert is_dynamic(np.array([4.0] * 4), 16, SIDE_PX, SIDE_PX) and not is_dynamic(np.array([4.0] * 3 + [2.9]), 16, SIDE_PX, SIDE_PX)
    assert FPS == 16


SIDE_PX = 128


def test_a_span_takes_all_that_lies_within_it_and_nothing_else():
    """Pairs and triples by their first and last frames; one that was not measured is named."""
    layout = FrameLayout(40, 16.0, long=False)
    values = {"difference": layout.neighbours(), "amt": layout.triples(), "raft": layout.sampled()}
    records = {name: Record(units, units[:, 0].astype(np.float64)) for name, units in values.items()}
    measured = Measured(40, 16.0, SIDE_PX, SIDE_PX, records)
    assert measured.within("difference", (3, 8), 1).tolist() == [3, 4, 5, 6]
    assert measured.within("amt", (4, 11), 2).tolist() == [4, 6, 8] == measured.within("raft", (4, 11), 2).tolist()
    assert len(measured.within("difference", (0, 40), 1)) == 39 and len(measured.within("amt", (0, 40), 2)) == 19
    with pytest.raises(ValueError, match="amt was not measured between frames 5 and 7: span 5..11 begins on no grid"):
        measured.within("amt", (5, 11), 2)
