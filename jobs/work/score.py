"""`eval=vbench`: a job's videos are made first, all of them, then their MP4s are scored; a video that is there is not made again.

What networks say is kept below `<store>/records` by the content of the video, so that no second start and no other run asks again.
"""

from __future__ import annotations

import dataclasses
import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echo.clock import scene_spans
from echo.scene import PIXEL_FRAMES_PER_LATENT, Prompt, scene_blocks
from eval.protocol import recalled
from jobs.spec.config import RANDOM, RunConfig, VbenchConfig, located
from jobs.store import unwritable
from jobs.work.progress import LINE_EVERY_S

if TYPE_CHECKING:
    from eval.vbench.kit import Kit, Wish
    from eval.vbench.measure import Span
    from eval.vbench.scorer import VideoScorer
    from jobs.spec.plan import Job
    from jobs.store.folder import Attempt, RunFolder

Report = Callable[[dict[str, Any]], None]
SCORER = "vbench"
OWN = ("v", "unit", "run", "scores", "attempt", "prompt", "seed", "status", "t", "metrics", "flags")
"""What every record says anew."""


def wish(config: RunConfig) -> Wish:
    """What the config asks for. Raises ValueError for an unknown word, naming the setting."""
    from eval.vbench.kit import DIMENSIONS, Wish, listed

    given, parts = _vbench(config), config.backbone.parts
    dimensions = DIMENSIONS if given.dimensions == "all" else listed(given.dimensions)
    device = given.device if given.device != "auto" else "cpu" if parts is None else parts.device
    try:
        return Wish(dimensions, listed(given.text), given.clip_features, given.clip_dtype, device)
    except ValueError as error:
        raise ValueError(f"eval.vbench.{error}") from None


def _vbench(config: RunConfig) -> VbenchConfig:
    if config.eval.vbench is None:
        raise ValueError("eval.vbench is missing: eval.scorer=vbench needs its settings; nearest is eval=vbench")
    return config.eval.vbench


def kit(config: RunConfig) -> Kit:
    """The networks that a config asks for, none of them loaded."""
    from eval.vbench.kit import Files, Kit, Random

    assert config.eval.weights is not None
    return Kit(wish(config), Random() if config.eval.weights == RANDOM else Files(located(config.eval.weights)))


def identity(config: RunConfig) -> dict[str, Any]:
    """Weights, numbers and versions of the networks that have something to do: what a score's name is made of."""
    from eval.vbench.rules import LONG_TASKS

    return kit(config).identity(long=config.task.name in LONG_TASKS, text=True)


def check(config: RunConfig, prompts: Sequence[Prompt]) -> None:
    """Refuse, before any work, what is missing or cannot be scored. Raises ValueError: one line."""
    from eval.vbench.kit import ANY_SIZE
    from eval.vbench.rules import LONG_TASKS

    if config.eval.weights is None:
        raise ValueError("eval.weights=null: eval=vbench needs a folder of weights; nearest is checkpoints/vbench, or weights=random")
    asked, parts = kit(config), config.backbone.parts
    if parts is not None and min(parts.height_px, parts.width_px) < asked.wish.least_side:
        size, others = f"{parts.width_px}x{parts.height_px} px", "+".join(ANY_SIZE)
        rule = f"RAFT and AMT need sides of at least {asked.wish.least_side} px"
        raise ValueError(f"eval=vbench: the videos are {size}, {rule}; nearest is eval.vbench.dimensions={others}")
    if config.task.name == "recall":
        for prompt in prompts:
            try:
                recalled(len(prompt.scenes))
            except ValueError as error:
                raise ValueError(f"prompt {prompt.id!r}: {error}") from None
    asked.check(long=config.task.name in LONG_TASKS, text=True)


def with_random(config: RunConfig) -> RunConfig:
    """The config as it runs where networks are drawn: all of them are, and clips are compared by those that can be.

    So scores are named by what ran. Raises ValueError where other weights of the scorer are asked for beside `weights=random`.
    """
    own = config.eval.weights
    if config.eval.scorer != SCORER or RANDOM not in (own, config.weights):
        return config
    if own not in (None, RANDOM) and Path(own) != Path(config.checkpoints) / "vbench":
        rest = "nearest is eval.weights=random, or weights=trained"
        raise ValueError(f"eval.weights={own}: weights=random draws the scorer's networks too; {rest}")
    given = _vbench(config)
    if given.clip_features == "dinov2_dreamsim":  # the default, and DreamSim has no random weights
        given = dataclasses.replace(given, clip_features="dino_clip")
    asked = dataclasses.replace(config.eval, weights=RANDOM, vbench=given, label=f"{config.eval.label}, random weights")
    return dataclasses.replace(config, eval=asked)


def spans(job: Job, prompt: Prompt) -> list[Span]:
    """Pixel frames of a prompt's scenes in its MP4: Wan's codecs make one frame of the first latent frame, the embedded one four."""
    lengths = scene_blocks(prompt.durations_s, job.policy.durations)
    return scene_spans(lengths, PIXEL_FRAMES_PER_LATENT if job.config.backbone.parts is None else 1)


def filmed(folder: RunFolder, prompts: Sequence[Prompt]) -> dict[str, dict[str, Any]]:
    """Records of videos that are there, by prompt id, however they were scored; those encoded otherwise than asked left out."""
    last = {record["unit"]: record for record in folder.reader.records() if record["status"] == "ok"}
    found = {prompt.id: last[unit] for prompt in prompts if (unit := folder.job.unit_id(prompt)) in last}
    wanted = dataclasses.asdict(folder.job.config.video)
    return {
        name: record
        for name, record in found.items()
        if (folder.path / "units" / record["files"]["video"]).is_file() and _encoding(folder, record["attempt"]) == wanted
    }


def unscored(folder: RunFolder, missing: Sequence[Prompt]) -> set[str]:
    """Ids of those of some unfinished prompts that need no more than a score; none where scores are made with the video."""
    return set(filmed(folder, missing)) if folder.job.config.eval.scorer == SCORER else set()


def _encoding(folder: RunFolder, attempt: str) -> dict[str, Any]:
    """Settings of the video that an attempt made or, not making it, found as it wanted it; none where it left no word."""
    path = folder.path / "attempts" / f"{attempt}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))["config"]["video"]) if path.is_file() else {}


class Notes:
    """Tells how far scoring is: at first how many videos it has to do with, then a line now and then."""

    def __init__(self, title: str, videos: int, report: Report) -> None:
        self._title, self._videos, self._report = title, videos, report
        self._begun = self._frames = self._done = 0
        self._said = _now()
        if videos:
            report({"note": f"{title}: {videos} video{'s' * (videos > 1)} to be scored"})

    def video(self, frames: int) -> None:
        """The next video has so many frames."""
        self._begun, self._frames, self._done = self._begun + 1, frames, 0
        self.told(0)

    def told(self, frames: int) -> None:
        """So many more frames of it are done with."""
        self._done += frames
        now = _now()
        if now - self._said >= LINE_EVERY_S:
            self._said = now
            far = f"scoring {self._begun}/{self._videos} videos, frame {self._done} of {self._frames}"
            self._report({"note": f"{self._title}: {far}"})


def _now() -> float:
    return time.monotonic()


@lru_cache(maxsize=1)
def _scorer(asked: Kit, records: Path) -> VideoScorer:
    from eval.vbench.records import RecordStore
    from eval.vbench.scorer import VideoScorer

    return VideoScorer(asked, RecordStore(records))


def make_way(config: RunConfig) -> None:
    """Before a backbone is loaded: let the scorer's networks go, and make a torchvision that is half there harmless.

    Beside a torch without CUDA it takes transformers, and the text encoder with it, down.
    """
    _scorer.cache_clear()
    if config.eval.scorer == SCORER:
        from eval.vbench.networks.packages import prepare

        prepare()


def unmade(folder: RunFolder, prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """Those of some prompts that are to be tried and have no video."""
    missing = [prompt for prompt in folder.missing() if prompt in prompts]
    there = filmed(folder, missing)
    return tuple(prompt for prompt in missing if prompt.id not in there)


def score(attempt: Attempt, prompts: Sequence[Prompt], report: Report) -> int:
    """Score the videos of some prompts, one after the other; returns how many failed. Others are not touched by a failure.

    Videos that this attempt made are its own since then; of the others it takes those that nobody else is at or has scored.

    Args:
        attempt: this start.
        prompts: those that have no scores.
        report: told of each unit.
    """
    folder = attempt.folder
    scorer = _scorer(kit(folder.job.config), Path(folder.job.config.store) / "records")
    notes = Notes(folder.job.title, len(filmed(folder, prompts)), report)
    failed = 0
    for prompt in prompts:
        made = attempt.holds(prompt)
        if not made and not attempt.take([prompt]):
            report({"elsewhere": [prompt.id]})
            continue
        record = filmed(folder, [prompt]).get(prompt.id)
        if record is None:  # who was making it when this attempt came by has given up since
            report({"elsewhere": [prompt.id]})
        else:
            failed += not _tried(attempt, prompt, record, made, scorer, report, notes)
        attempt.release([prompt])
    return failed


def _tried(
    attempt: Attempt, prompt: Prompt, record: Mapping[str, Any], made: bool, scorer: VideoScorer, report: Report, notes: Notes
) -> bool:
    """Score one video, or record why it has no scores; whether it has. made: by this attempt, which counted its blocks before."""
    blocks = 0 if made else int(record["blocks"])
    report({"blocks": blocks})
    try:
        _one(attempt, prompt, record, scorer, notes)
    except Exception as error:
        if unwritable.of_store(error):
            raise
        message = f"{type(error).__name__}: {error}"
        attempt.error(prompt, message, traceback.format_exc())
        report({"blocks": -blocks, "prompt": prompt.id, "status": "error", "error": message})
        return False
    report({"prompt": prompt.id, "status": "ok"})
    return True


def _one(attempt: Attempt, prompt: Prompt, record: Mapping[str, Any], scorer: VideoScorer, notes: Notes) -> None:
    from echo.files import write_atomic

    folder, job = attempt.folder, attempt.folder.job
    start = time.perf_counter()
    facts = scorer.inspect(folder.path / "units" / record["files"]["video"])
    notes.video(facts.frames)
    outcome = scorer.score(facts, job.config.task.name, spans(job, prompt), prompt.scenes, notes.told)
    path = folder.side(prompt, f".{job.config.eval.name}-{(job.scores_id or '')[:8]}.json")
    write_atomic(path, json.dumps(outcome.content() | {"scores": job.scores_id}).encode())
    rest = {key: value for key, value in record.items() if key not in OWN}
    rest["files"] = {**record["files"], "scores": path.name}
    score_s = round(time.perf_counter() - start, 3)
    spent = {"score_s": score_s, "dur_s": round(record.get("generate_s", 0.0) + score_s, 3)}  # what the next forecast counts on
    attempt.ok(prompt, outcome.scores.metrics, rest | {"tokens_cut": outcome.cut} | spent)
