"""Measuring: decoded once, kept as it comes, nothing asked twice after a kill, and refusals by name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from echo.files import ROOT
from eval.vbench import video
from eval.vbench.records import Record, RecordKey, RecordStore
from eval.vbench.scorer import VideoScorer
from eval.vbench.video import chunks, inspect
from jobs import cli
from tests.helpers.command import carried_out
from tests.helpers.constructed import SAID, SPANS, SUBJECT, TEXTS, StandIn, StandIns, film, scorer, write


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Frames 0..199, two texts, a subject that changes now and then."""
    shown = np.full((200, 8), 4)
    shown[:, SAID] = np.arange(200) // 100 + 1
    shown[:, SUBJECT] = np.arange(200) // 23
    return write(tmp_path_factory.mktemp("video") / "clip.mp4", film(shown))


def command(words):
    return carried_out("score", "eval.vbench.folder:score", words)


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_a_video_is_decoded_once_for_everything(path, tmp_path, monkeypatch):
    """All dimensions, both definitions and three texts; then other segments and other scores without a look at the video."""
    decoded = Counter()
    plain = video._decoded

    def counted(facts):
        for index, frame in enumerate(plain(facts)):
            decoded[index] += 1
            yield frame

    monkeypatch.setattr("eval.vbench.video._decoded", counted)
    source = StandIns()
    first = scorer(tmp_path, source)
    outcome = first.score(first.inspect(path), "long60", [(0, 200)], ["shows 1"])
    assert decoded == Counter(range(200)), "each frame once"
    assert source.asked["dino"] == source.asked["musiq"] == source.asked["clip_l14"] == 200
    assert source.asked["raft"] == source.asked["amt"] == 99, "the borrowed clip begins at frame 168, which both grids have"
    asked = dict(source.asked)
    again = scorer(tmp_path, StandIns())
    assert again.score(again.inspect(path), "long60", [(0, 200)], ["shows 1"]) == outcome
    assert again.kit.source.made == [] and sum(decoded.values()) == 200, "nothing is loaded, nothing is decoded"
    more = scorer(tmp_path, source)
    parts = more.score(more.inspect(path), "smooth", SPANS, TEXTS)
    assert {name for name in asked if source.asked[name] != asked[name]} <= {"viclip"}, "other windows, no frame again"
    assert parts.tokens_cut["clip_b32"] == [0, 3] and len(set(parts.texts_blake2b)) == 2


SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from eval.vbench import records
from tests.helpers.constructed import SPANS, TEXTS, StandIns, scorer

log, left = open({log!r}, "a", buffering=1), int(sys.argv[1])
plain = records.RecordStore.keep_part

def keep_part(self, key, start, record):
    global left
    plain(self, key, start, record)
    log.write(f"{{key.name}} {{start}}\\n")
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

records.RecordStore.keep_part = keep_part
mine = scorer(Path({store!r}), StandIns())
outcome = mine.score(mine.inspect(Path({video!r})), "smooth", SPANS, TEXTS)
log.write(f"frames {{mine.kit.source.asked}}\\n")
"""


def test_a_kill_loses_nothing_that_was_kept(path, tmp_path):
    """kill -9 after the 3rd and the 20th part, then to the end: every part is kept once, and all bytes are those of one run."""
    whole = scorer(tmp_path / "whole", StandIns())
    expected = whole.score(whole.inspect(path), "smooth", SPANS, TEXTS)
    log, store = tmp_path / "log", tmp_path / "store"
    script = SCRIPT.format(root=str(ROOT), log=str(log), store=str(store), video=str(path))
    ends = [subprocess.run([sys.executable, "-c", script, str(after)], cwd=ROOT, check=False).returncode for after in (3, 17, 0)]
    assert ends == [-signal.SIGKILL] * 2 + [0]
    lines = log.read_text(encoding="utf-8").splitlines()
    kept = Counter(line for line in lines if not line.startswith("frames"))
    assert max(kept.values()) == 1, "nothing is measured twice"
    assert len(kept) == 4 * 9, "4 chunks of 9 metrics"
    mine = scorer(store, StandIns())
    assert mine.score(mine.inspect(path), "smooth", SPANS, TEXTS) == expected
    assert mine.kit.source.made == []
    names = {name for name in files(store) if not name.endswith(".lock")}
    assert {name: files(store)[name] for name in names} == {n: b for n, b in files(tmp_path / "whole").items() if not n.endswith(".lock")}


def test_a_metric_that_fails_costs_the_others_nothing(path, tmp_path):
    """One network answers NaN for one frame: named, not kept; the next try asks it alone about what is missing."""

    class Broken(StandIn):
        def quality(self, seen):
            found = super().quality(seen) if self.name == "aesthetic" else super().quality(seen).copy()
            if self.name == "musiq" and self.asked["musiq"] > 100:
                found[3] = np.nan
            return found

    source = StandIns()
    source.make = lambda name, dtype, device: Broken(name, source.asked)
    mine = scorer(tmp_path, source)
    with pytest.raises(ValueError, match=r"clip.mp4: musiq of frame 99 is no number"):
        mine.score(mine.inspect(path), "smooth", SPANS, TEXTS)
    healthy = StandIns()
    mine = scorer(tmp_path, healthy)
    mine.score(mine.inspect(path), "smooth", SPANS, TEXTS)
    assert healthy.asked["musiq"] == 200 - 64 and healthy.asked["dino"] <= 200 - 64


def test_whatever_can_change_a_value_is_in_the_name(tmp_path, monkeypatch):
    base = RecordKey("video", "dino", "weights", 1, "fp32 cpu", {"torch": "2"}, {"units": "u"})
    others = [
        RecordKey("other", "dino", "weights", 1, "fp32 cpu", {"torch": "2"}, {"units": "u"}),
        RecordKey("video", "musiq", "weights", 1, "fp32 cpu", {"torch": "2"}, {"units": "u"}),
        RecordKey("video", "dino", "other", 1, "fp32 cpu", {"torch": "2"}, {"units": "u"}),
        RecordKey("video", "dino", "weights", 2, "fp32 cpu", {"torch": "2"}, {"units": "u"}),
        RecordKey("video", "dino", "weights", 1, "fp16 cuda", {"torch": "2"}, {"units": "u"}),
        RecordKey("video", "dino", "weights", 1, "fp32 cpu", {"torch": "3"}, {"units": "u"}),
        RecordKey("video", "dino", "weights", 1, "fp32 cpu", {"torch": "2"}, {"units": "v"}),
    ]
    store = RecordStore(tmp_path)
    store.keep(base, Record(np.zeros((1, 1), np.int64), np.ones(1)))
    assert store.read(base) is not None and all(store.read(other) is None for other in others)
    assert len({(key.source, key.name) for key in (base, *others)}) == 8
    with monkeypatch.context() as crash:
        crash.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("the machine went down")))
        with pytest.raises(OSError, match="went down"):
            store.keep(others[0], Record(np.zeros((1, 1), np.int64), np.ones(1)))
    assert store.read(others[0]) is None and len(list(tmp_path.rglob("*.safetensors*"))) == 1, "nothing half written"
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(ValueError, match="damaged"):
        store.read(base)
    store.keep(base, Record(np.zeros((1, 1), np.int64), np.full(1, 0.5)))
    content = file.read_bytes()
    place = content.index(np.full(1, 0.5).tobytes(), len(base.text))
    file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])  # one bit of a number
    with pytest.raises(ValueError, match="damaged .other numbers than were written.; away with it, and it is measured again"):
        store.read(base)
    save_file({"units": np.zeros((1, 1), np.int64), "values": np.full(1, 0.5)}, file, metadata={"key": base.text})
    assert store.read(base) is not None, "older files have no checksum"
    store.keep(base, Record(np.zeros((1, 1), np.int64), np.full(1, np.nan)))
    with pytest.raises(ValueError, match="damaged .an answer that is no number.; away with it, and it is measured again"):
        store.read(base)


def damaged(folder: Path) -> dict[str, Path]:
    good = write(folder / "good.mp4", film(np.full((40, 8), 4)))
    content = good.read_bytes()
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "cut.mp4").write_bytes(content[: len(content) // 2])
    (folder / "text.mp4").write_text("no video", encoding="utf-8")
    write(folder / "small.mp4", np.zeros((20, 96, 160, 3), np.uint8))
    write(folder / "one.mp4", film(np.full((1, 8), 4)))
    return {file.stem: file for file in folder.glob("*.mp4")}


def test_bad_videos_are_refused_by_name_before_any_work(tmp_path):
    paths = damaged(tmp_path)
    wrong = {"empty": "empty, 0 bytes", "cut": "truncated", "text": "no video", "small": "160x96 px; RAFT and AMT", "one": "at least 2"}
    for name, part in wrong.items():
        with pytest.raises(ValueError, match=part) as refusal:
            inspect(paths[name], least_side=128)
        assert f"{name}.mp4" in str(refusal.value) and "\n" not in str(refusal.value)
    assert inspect(paths["small"]).height == 96 and inspect(paths["good"], least_side=128).frames == 40
    with pytest.raises(ValueError, match="5 of 6 videos cannot be scored") as refusal:
        command([str(tmp_path), "weights=random", "device=cpu", "--records", str(tmp_path / "records"), "--output", str(tmp_path / "out")])
    assert "cut.mp4" in str(refusal.value) and not (tmp_path / "records").exists() and not (tmp_path / "out").exists()


def test_a_file_cut_off_after_its_index_is_refused(tmp_path):
    """With its index in front a truncated file opens, and says more frames than are there."""
    import av

    generator = np.random.default_rng(0)
    frames = generator.integers(0, 255, (48, 64, 64, 3), np.uint8)
    path = tmp_path / "front.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=16)
        stream.height = stream.width = 64
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    content = path.read_bytes()
    for share in (0.5, 0.9):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match=r"front.mp4: (truncated, \d+ of 48 frames are there|.*damaged)"):
            list(chunks(inspect(path)))


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["task=smoth"], "nearest: smooth"),
        (["dimensions=subject"], "nearest is subject_consistency"),
        (["text=clip_l15"], "nearest is clip_l14"),
        (["backend=vbench"], "backend=vbench: nearest is vbench_package of native"),
        (["shard=3/2"], "1 <= i <= n"),
        (["clip_dtype=half"], "nearest is fp32 of fp32, fp16"),
        (["shards=1/2"], "nearest is shard="),
        (["weights=random", "clip_features=dinov2_dreamsim"], "nearest with weights=random is dino_clip"),
        (["weights=nowhere"], "weights=nowhere: dino_vitbase16_pretrain.pth (dino)"),
    ],
)
def test_command_lines_are_refused_in_one_line(path, tmp_path, words, part):
    with pytest.raises(ValueError) as refusal:
        command(
            [
                str(path),
                "device=cpu",
                "clip_features=dino_clip",
                "dimensions=subject_consistency,temporal_flickering",
                *words,
                "--output",
                str(tmp_path),
            ]
        )
    assert part in str(refusal.value) and "\n" not in str(refusal.value)


def folder_of(tmp_path: Path) -> tuple[Path, Path]:
    """Two prompts of two scenes, three videos."""
    lines = [{"id": f"p-{n}", "scenes": ["shows 1", "shows 2"], "durations": [2.0, 3.0]} for n in range(2)]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    folder = tmp_path / "videos"
    folder.mkdir()
    for number, name in enumerate(("p-0.mp4", "p-0-1.mp4", "p-1-0.mp4")):
        shown = np.full((80, 8), 4)
        shown[:, SAID] = 1 + (np.arange(80) >= 32)
        shown[40:, SUBJECT] = number
        write(folder / name, film(shown))
    return folder, prompts


def test_a_folder_by_the_command_sharded_and_whole(tmp_path, monkeypatch):
    """Two shards, then all: the last command only reads records; a stranger's names are matched with prompts."""
    folder, prompts = folder_of(tmp_path)
    made: list[StandIns] = []

    def source(word: str) -> StandIns:
        made.append(StandIns())
        return made[-1]

    monkeypatch.setattr("eval.vbench.folder.source_of", source)
    monkeypatch.setattr("eval.vbench.networks.packages.check", lambda modules: None)
    words = [
        str(folder),
        str(prompts),
        "task=smooth",
        "device=cpu",
        "--records",
        str(tmp_path / "records"),
        "--output",
        str(tmp_path / "out"),
    ]
    for shard in ("1/2", "2/2"):
        command([*words, f"shard={shard}"])
    lines = command(words)
    assert made[0].asked["dino"] == 160 and made[1].asked["dino"] == 80 and made[2].made == []
    summary = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))
    assert summary["metrics"]["text_alignment.clip_b32"]["mean"] == pytest.approx(100)
    assert (
        summary["metrics"]["subject_consistency.vbench"]["prompts"] == 2 and summary["metrics"]["subject_consistency.vbench"]["videos"] == 3
    )
    assert any(line.startswith("subject_consistency.vbench ") for line in lines) and "3 videos, task=smooth" in lines[-1]
    one = json.loads((tmp_path / "out" / "p-0-1.mp4.json").read_text(encoding="utf-8"))
    assert one["segments"] == [[0, 32], [32, 80]] and one["metrics"]["imaging_quality.vbench"] == 50.0
    (folder / "q-9.mp4").write_bytes((folder / "p-0.mp4").read_bytes())
    with pytest.raises(ValueError, match=r"q-9.mp4: no prompt has this id.*nearest is p-"):
        command(words)
    with pytest.raises(ValueError, match="task=: prompts of several scenes need one of"):
        command([word for word in words if not word.startswith("task")])


def told_by(monkeypatch, tmp_path, folder, prompts):
    """The command on stand-in networks; its words, too."""
    monkeypatch.setattr("eval.vbench.folder.source_of", lambda word: StandIns())
    monkeypatch.setattr("eval.vbench.networks.packages.check", lambda modules: None)
    words = [str(folder), str(prompts), "task=smooth", "device=cpu", "dimensions=temporal_flickering,text_alignment"]
    return [*words, "--records", str(tmp_path / "records"), "--output", str(tmp_path / "out")]


def test_scenes_are_cut_where_a_run_has_put_them(tmp_path, monkeypatch):
    """A trace goes first, then a scores file, then durations; the answer says which."""
    folder, prompts = folder_of(tmp_path)
    write(folder / "p-0.mp4", film(np.full((81, 8), 2)))  # 7 blocks, one frame of the first latent frame
    (folder / "p-0.trace.jsonl").write_text("".join(f'{{"scene": {n // 4}}}\n' for n in range(7)), encoding="utf-8")
    scores = {"v": 1, "segments": [[0, 36], [36, 80]], "metrics": {}}
    (folder / "p-1-0.vbench-12ab34cd.json").write_text(json.dumps(scores), encoding="utf-8")
    (folder / "p-0-1.info.json").write_text('{"title": "a stranger\'s file"}', encoding="utf-8")
    words = told_by(monkeypatch, tmp_path, folder, prompts)
    assert "borders of scenes taken from (videos): durations (1), trace (1), scores file (1)" in command(words)
    found = {name: json.loads((tmp_path / "out" / f"{name}.mp4.json").read_text(encoding="utf-8")) for name in ("p-0", "p-0-1", "p-1-0")}
    assert {name: (one["segments"], one["borders"]) for name, one in found.items()} == {
        "p-0": ([[0, 45], [45, 81]], "trace"),
        "p-0-1": ([[0, 32], [32, 80]], "durations"),
        "p-1-0": ([[0, 36], [36, 80]], "scores file"),
    }
    assert json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))["borders"]["p-0.mp4"] == "trace"
    folder = folder.rename(tmp_path / "seed=0")  # as a run's folder is called
    assert "3 videos, task=smooth" in command([str(folder), *words[1:]])[-1]
    monkeypatch.chdir(tmp_path)
    words[0] = "seed=0"
    assert "3 videos, task=smooth" in command(words)[-1]
    for content, part in (('{"scene": 0}\n' * 7, "1 scenes, its prompt has 2"), ('{"scene": 0}\n', "of another video"), ("no", "no trace")):
        (folder / "p-0.trace.jsonl").write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=part) as refusal:
            command(words)
        assert "p-0.trace.jsonl" in str(refusal.value) and "\n" not in str(refusal.value)
    (folder / "p-0.trace.jsonl").unlink()
    (folder / "p-0.trace.jsonl").symlink_to("p-0.trace.jsonl")
    with pytest.raises(ValueError, match=r"p-0.trace.jsonl: no trace"):
        command(words)


def test_one_failure_stops_no_other(tmp_path, monkeypatch, capsys):
    """The second of three videos fails: the others are scored and summarized, the failure is reported at the end, and the status is 1."""
    folder, prompts = folder_of(tmp_path)
    words, plain = told_by(monkeypatch, tmp_path, folder, prompts), VideoScorer.score

    def score(self, facts, *rest):
        if facts.path.name == "p-0.mp4":
            raise RuntimeError("the card is full")
        return plain(self, facts, *rest)

    monkeypatch.setattr(VideoScorer, "score", score)
    assert cli.main(["score", *words]) == 1
    told = capsys.readouterr()
    failure, count = told.err.splitlines()[-2:]
    assert failure.endswith("p-0.mp4: RuntimeError: the card is full") and "1 of 3 videos failed" in count
    summary = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))
    assert sorted(summary["videos"]) == ["p-0-1.mp4", "p-1-0.mp4"] and list(summary["failed"]) == ["p-0.mp4"]
    assert "2 videos, task=smooth" in told.out and summary["metrics"]["temporal_flickering.vbench"]["videos"] == 2
    monkeypatch.setattr(VideoScorer, "score", plain)
    assert cli.main(["score", *words]) == 0 and "3 videos, task=smooth" in capsys.readouterr().out


def test_records_and_rules_do_without_torch():
    """Rules, records and the check of a config load no torch, and neither OpenCV nor scipy."""
    script = "import sys, eval.vbench.scorer, jobs.work.score; sys.exit(any(name in sys.modules for name in ('torch', 'cv2', 'scipy')))"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False).returncode == 0


def test_memory_does_not_grow_with_the_video(tmp_path):
    """Peak of all arrays at three times the length; frames themselves would be three times as much."""
    import tracemalloc

    peaks = []
    for count in (192, 576):
        shown = np.full((count, 8), 4)
        shown[:, SAID] = 1 + (np.arange(count) >= count // 2)
        facts = inspect(write(tmp_path / f"{count}.mp4", film(shown)))
        mine = scorer(tmp_path / str(count), StandIns())
        tracemalloc.start()
        mine.score(facts, "smooth", [(0, count // 2), (count // 2, count)], TEXTS)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.15 * peaks[0], peaks
    assert peaks[1] < 576 * 128 * 128 * 3, "less than the video's frames"


def test_what_was_measured_of_a_minute_at_480p_holds():
    """`python -m tests.load.vbench_cost` on this machine; its lines are kept with the documents."""
    rows = [json.loads(line) for line in (ROOT / "docs" / "data" / "vbench_cost.jsonl").read_text(encoding="utf-8").splitlines()]
    minute = next(row for row in rows if row["networks"] == "tiny")
    assert (minute["frames"], minute["height_px"], minute["width_px"]) == (960, 480, 832)
    for row in rows:
        assert row["decoded_most"] == 1 and row["decoded_frames"] == row["frames"] and row["same"] and row["dimensions"] == 8
    assert minute["peak_bytes"] < 4e9, minute
