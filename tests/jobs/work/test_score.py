"""`eval=vbench` in a run: videos first, scores from their files, and no video twice."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from echo.files import ROOT, file_digest, write_atomic
from eval.store.records import line_of
from eval.store.runs import runs
from eval.vbench.borders import borders
from eval.vbench.video import Facts
from jobs.launch import local
from jobs.spec import scoring
from jobs.spec.plan import prepare
from jobs.store.claims import Claims
from jobs.store.folder import RunFolder, new_attempt
from jobs.watch.forecast import briefly
from jobs.work import models, score
from jobs.work.events import BlocksMade, Elsewhere, Note, UnitEnded
from jobs.work.worker import work
from tests.helpers.toy import changed, overrides

TINY = ["backbone=self_forcing", "geometry=tiny", "weights=random", "task=hard", "prompts=1"]
SOME = "eval.vbench.dimensions=subject_consistency+background_consistency+temporal_flickering+aesthetic_quality"


def composed(words):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return OmegaConf.to_container(compose("config", words), resolve=True)


@pytest.fixture
def config(tmp_path, toy):
    """Two videos of the toy, 24 px enlarged to 144 px, by small random networks."""
    plain = composed([*overrides(toy, 2, 1.5), "eval=vbench", "eval.weights=random", SOME, "video.height_px=144", f"store={tmp_path}"])
    return plain | {"prompts": 2}


def told(events):
    return [event.prompt for event in events if isinstance(event, UnitEnded) and event.error is None]


def blocks(events) -> int:
    return sum(event.count for event in events if isinstance(event, BlocksMade))


def test_videos_are_scored_from_their_files_and_made_once(config, tmp_path, monkeypatch):
    job, events = prepare(config), []
    assert work(job, new_attempt(), [], config, events.append) == 0
    (run,) = runs(tmp_path)
    filmed, scored = [[r for r in run.records() if (r.scores is None) is unscored] for unscored in (True, False)]
    assert len(filmed) == len(scored) == len(told(events)) == 2 and blocks(events) == 8
    widths = [max(len(json.loads(line)["keys"]) for line in run.side(record, "trace").read_text().splitlines()) for record in scored]
    assert [record.attended_frames for record in scored] == widths and {record.denoising_steps for record in scored} == {4}
    names = {"subject_consistency", "background_consistency", "temporal_flickering", "aesthetic_quality"}
    told_too = {"frozen_time", "coherence_1", "coherence_2"}  # of videos of 3 s
    assert {name.removesuffix(".vbench") for name in scored[0].metrics} == names | told_too and not scored[0].flags
    told_of = [{name for name, value in msgspec.structs.asdict(one).items() if value} for one in (filmed[0], scored[0])]
    assert scored[0].latents_sha256 == filmed[0].latents_sha256 and told_of[0] <= told_of[1]
    assert all(record.dur_s == round(record.generate_s + record.score_s, 3) for record in scored), "what a video took in all"
    content = json.loads((run.path / "units" / scored[0].files["scores"]).read_text(encoding="utf-8"))
    assert content["segments"] == [[0, 24], [24, 48]] and content["frames"] == 48 and content["height"] == 144
    assert content["metrics"] == scored[0].metrics

    def never(*_: object) -> None:
        raise AssertionError("nothing is to be made")

    finer = changed(config, "video.crf", 1)
    assert prepare(finer).scores_id != job.scores_id and prepare(finer).run_id == job.run_id
    assert not score.filmed(RunFolder(prepare(finer)), job.asked) and len(score.filmed(RunFolder(job), job.asked)) == 2
    monkeypatch.setattr(models, "load", never)
    assert work(prepare(config), new_attempt(), [], config, events.append) == 0 and len(run.records()) == 4
    other = changed(config, "eval.vbench.dimensions", "temporal_flickering")  # other scores of videos that are there
    assert prepare(other).scores_id != job.scores_id and prepare(other).run_id == job.run_id
    assert work(prepare(other), new_attempt(), [], other, events.append) == 0
    assert {name for record in run.records()[4:] for name in record.metrics} == {"temporal_flickering.vbench", "frozen_time.vbench"}


def test_a_start_that_ends_before_the_scores_costs_no_video(config, tmp_path, monkeypatch):
    """Killed between a video and its scores; then a scorer that fails for one video: the next start only scores."""

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(score, "score", killed)
    with pytest.raises(Killed):
        work(prepare(config), new_attempt(), [], config, lambda event: None)
    monkeypatch.undo()
    (run,) = runs(tmp_path)
    films = {path: path.stat().st_mtime_ns for path in run.path.glob("units/*.mp4")}
    assert [record.scores for record in run.records()] == [None, None] and len(films) == 2
    job = prepare(config)
    assert local.lacks(RunFolder(job), None) == [f"{job.title}: 2 of 2 videos are made, not scored; the same command goes on"]
    assert briefly([job]) == "all 2 videos are there; 2 are made, not scored"
    barred = tmp_path / "records" / file_digest(sorted(films)[0])
    write_atomic(barred, b"a file where the folder of what networks say of this video belongs")
    events = []
    assert work(prepare(config), new_attempt(), [], config, events.append) == 1
    errors = [event.error for event in events if isinstance(event, UnitEnded) and event.error is not None]
    assert len(errors) == 1 and barred.name in errors[0] and len(told(events)) == 1
    (line,) = local.lacks(RunFolder(job), None)
    assert " is made, not scored: that failed (1 of 3 tries" in line
    barred.unlink()
    assert work(prepare(config), new_attempt(), [], config, events.append) == 0
    assert len(told(events)) == 2 and {path.stat().st_mtime_ns for path in films} == set(films.values())
    assert sum(record.scores is None for record in run.records()) == 2, "made once each"


@pytest.mark.parametrize("name", ["../../../../../../../outside.mp4", None])
def test_a_record_that_names_no_video_of_its_run_has_none(config, tmp_path, monkeypatch, name):
    """Nothing outside a run's folder is read for its scores, whatever its records say: the video is made again."""
    films_only(config, monkeypatch)
    folder = RunFolder(prepare(config))
    first, second = folder.reader.records()
    (tmp_path / "outside.mp4").write_bytes((folder.path / "units" / first.files["video"]).read_bytes())
    files = {kind: one for kind, one in {**first.files, "video": name}.items() if one}
    (file,) = folder.reader.record_files()
    Path(file).write_bytes(line_of(msgspec.structs.replace(first, files=files, sizes={}, digests={})) + line_of(second))
    assert set(score.filmed(folder, folder.job.asked)) == {second.prompt}


@pytest.mark.parametrize("harm", ["cut", "one bit", "gone"])
def test_a_video_that_is_no_longer_what_was_written_is_made_again_before_it_is_scored(config, monkeypatch, harm):
    films_only(config, monkeypatch)
    folder, events = RunFolder(prepare(config)), []
    films = {path: path.read_bytes() for path in sorted((folder.path / "units").glob("*.mp4"))}
    path, content = next(iter(films.items()))
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-9] if harm == "cut" else content[:900] + bytes([content[900] ^ 1]) + content[901:])
    assert work(folder.job, new_attempt(), [], config, events.append) == 0 and len(told(events)) == 2
    assert {path: path.read_bytes() for path in films} == films
    made = [record for record in folder.reader.records() if record.scores is None]
    assert len(made) == 3 and not folder.reader.settled(folder.job.scores_id).conflicts, "one again, to the same latents"


def films_only(config, monkeypatch, seen=lambda recorder: None):
    """A start that ends when all videos are there."""

    def killed(recorder, *_: object) -> None:
        seen(recorder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(score, "score", killed)
        with pytest.raises(KeyboardInterrupt):
            work(prepare(config), new_attempt(), [], config, lambda event: None)


def test_two_commands_score_no_video_twice(config, monkeypatch):
    job, kept, events = prepare(config), [], []
    folder, (first, second) = RunFolder(job), job.asked
    films_only(config, monkeypatch, lambda recorder: kept.extend(map(recorder.attempt.holds, job.asked)))
    assert kept == [True, True], "who made a video scores it"
    assert not list((folder.path / "claims").iterdir()), "and lets go of it, however it ends"
    other = Claims(folder.path, "another command")
    assert other.take(job.unit_id(first))
    assert work(job, new_attempt(), [], config, events.append) == 0
    assert told(events) == [second.id] and [event.prompts for event in events if isinstance(event, Elsewhere)] == [[first.id]]
    other.release([job.unit_id(first)])
    assert work(job, new_attempt(), [], config, events.append) == 0 and told(events) == [second.id, first.id]
    assert [record.prompt for record in folder.reader.records() if record.scores] == [second.id, first.id]


def test_videos_that_another_command_has_made_meanwhile_are_only_scored(config, monkeypatch):
    job, events, load = prepare(config), [], models.load

    def late(*given):
        monkeypatch.setattr(models, "load", load)
        films_only(config, monkeypatch)
        return load(*given)

    monkeypatch.setattr(models, "load", late)
    assert work(job, new_attempt(), [], config, events.append) == 0
    scores = [record.scores for record in RunFolder(job).reader.records()]
    assert scores == [None, None, job.scores_id, job.scores_id] and len(told(events)) == 2
    assert blocks(events) == 8 and not any(isinstance(event, Elsewhere) for event in events)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (
            [*TINY, "eval=vbench", "video.height_px=64"],
            "96x64 px, RAFT and AMT need sides of at least 128 px; nearest is eval.vbench.dimensions=",
        ),
        ([*TINY, "eval=vbench", "eval.vbench.dimensions=subject"], "eval.vbench.dimensions=subject: one of"),
        ([*TINY, "eval=vbench", SOME, "eval.vbench.long_for=every"], "eval.vbench.long_for=every: one of one_scene, all"),
        (
            [*TINY, "eval=vbench", SOME, "eval.vbench.static_filter=true", "video.height_px=64"],
            "RAFT and AMT need sides of at least 128 px",
        ),
        ([*TINY, "eval=vbench", SOME, "eval.vbench.clip_dtype=half"], "eval.vbench.clip_dtype=half: one of fp32, fp16"),
        (["eval=vbench", SOME, "checkpoints=/nowhere"], "weights=/nowhere/vbench: dino_vitbase16_pretrain.pth (dino)"),
        (["eval=embedded", "eval.scorer=vbench"], "eval.vbench is missing"),
        ([*TINY, "eval=vbench", SOME, "eval.weights=/elsewhere"], "eval.weights=/elsewhere: weights=random draws the scorer's"),
        ([*TINY, "eval=vbench", SOME, "eval.vbench.clip_features=dino"], "eval.vbench.clip_features=dino: one of"),
        (["eval=vbench", "eval.weights=null"], "eval.weights=null: eval=vbench needs a folder of weights"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_line(words, part):
    with pytest.raises(ValueError) as refusal:
        prepare(composed(words))
    assert part in str(refusal.value) and "\n" not in str(refusal.value)


def test_wan_videos_are_cut_where_wan_puts_scenes(tmp_path):
    """60 s: the first latent frame is one pixel frame, so 957 frames and odd borders."""
    job = prepare(composed([*TINY, "eval=vbench", SOME]))
    spans = job.spans(job.asked[0])
    assert spans[0] == (0, 153) and spans[-1][1] == 957 and len(spans) == 6
    facts, lengths = Facts(tmp_path / "x.mp4", "", 957, 16.0, 480, 832), job.lengths(job.asked[0])
    assert borders(facts, job.asked[0].durations_s)[0][0] == (0, 160)
    trace = [json.dumps({"scene": scene}) + "\n" for scene, blocks in enumerate(lengths) for _ in range(blocks)]
    (tmp_path / "x.trace.jsonl").write_text("".join(trace), encoding="utf-8")
    assert borders(facts, job.asked[0].durations_s) == (spans, "trace"), "`eval.vbench.folder` cuts as the run did"
    assert job.config.eval.label.endswith("random weights") and job.scores_key["scores"]["eval.weights"]["firsts"] == "dino_clip"


def test_vbench_long_of_several_scenes_is_another_way_of_scoring():
    """They enter the name together with the networks that compare clips; at the default the name does not change."""
    plain, long = (prepare(composed([*TINY, "eval=vbench", SOME, f"eval.vbench.long_for={word}"])) for word in ("one_scene", "all"))
    assert plain.run_id == long.run_id and plain.scores_id != long.scores_id
    assert not {"eval.vbench.long_for", "eval.vbench.static_filter"} & set(plain.scores_key["scores"])
    assert scoring.kit(long.config).wish.long("hard") and not scoring.kit(plain.config).wish.long("hard")


@pytest.mark.parametrize("random", ["weights=random", "eval.weights=random"])
def test_the_scores_are_named_by_what_ran(toy, random):
    """Random networks compare clips by DINO and CLIP: asked for or not, that is in the key, and the same scores have one name."""
    words = [*(TINY if random in TINY else overrides(toy, 2, 1.5)), "eval=vbench", SOME, "video.height_px=144", random]
    asked, other = (prepare(composed([*words, f"eval.vbench.clip_features={name}"])) for name in ("dinov2_dreamsim", "dino_clip"))
    assert asked.scores_key["scores"]["eval.vbench.clip_features"] == asked.scores_key["scores"]["eval.weights"]["firsts"] == "dino_clip"
    assert asked.scores_id == other.scores_id and scoring.kit(asked.config).wish.firsts == "dino_clip"
    assert asked.config.eval.label.endswith("random weights")


def test_a_run_says_how_far_its_scoring_is(config, monkeypatch):
    """One line with the number, then a note for each 15 s that have passed, none between."""
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(score, "time", SimpleNamespace(monotonic=lambda: next(clock), perf_counter=time.perf_counter))
    events = []
    assert work(prepare(config), new_attempt(), [], config, events.append) == 0
    notes = [event.line for event in events if isinstance(event, Note)]
    title = prepare(config).title
    assert notes == [f"{title}: 2 videos to be scored", f"{title}: scoring 2/2 videos, frame 0 of 48"]
