"""`eval=vbench`: first all videos of a job are made, then their MP4s are scored; existing videos are not made again.

Network outputs are kept below `<store>/records` by the content of the video, so that no restart and no other run computes them again.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from echo.files import file_digest, write_atomic
from echo.scene import Prompt
from eval.store.records import UnitRecord
from jobs.spec import scoring
from jobs.spec.config import RunConfig
from jobs.store.folder import RunFolder
from jobs.work.events import BlocksMade, Elsewhere, Note, Report
from jobs.work.progress import LINE_EVERY_S
from jobs.work.recorder import JobRecorder

if TYPE_CHECKING:
    from eval.vbench.kit import Kit
    from eval.vbench.scorer import VideoScorer

OWN = ("v", "unit", "run", "scores", "attempt", "prompt", "seed", "status", "t", "metrics", "flags")
"""Fields that are not copied from an earlier record."""


def filmed(folder: RunFolder, prompts: Sequence[Prompt]) -> dict[str, UnitRecord]:
    """Records of existing videos, by prompt id, whatever their scores, without those of another encoding.

    A video exists if it and its trace have the recorded sizes.
    """
    records = folder.reader.records()
    last, wrong = {record.unit: record for record in records if record.ok}, folder.reader.amiss(records)
    wanted = dataclasses.asdict(folder.job.config.video)
    return {
        prompt.id: record
        for prompt in prompts
        if (record := last.get(folder.job.unit_id(prompt))) is not None
        and folder.reader.side(record, "video") is not None
        and not {record.files["video"], record.files.get("trace")} & wrong.keys()
        and folder.reader.attempt(record.attempt).config.get("video") == wanted
    }


def _video(folder: RunFolder, record: UnitRecord) -> Path:
    """The video of a record of `filmed`. Raises ValueError if it names no video inside its run."""
    path = folder.reader.side(record, "video")
    if path is None:
        raise ValueError(f"{folder.path}: the record of {record.prompt} names no video of the run")
    return path


def unscored(folder: RunFolder, missing: Sequence[Prompt]) -> set[str]:
    """Ids of unfinished prompts that only need a score; empty if scores are made with the video."""
    return set(filmed(folder, missing)) if folder.job.config.eval.scorer == scoring.SCORER else set()


class ScoringNotes:
    """Reports the progress of scoring: the number of videos at first, then occasional lines."""

    def __init__(self, title: str, videos: int, report: Report) -> None:
        self._title, self._videos, self._report = title, videos, report
        self._begun = self._frames = self._done = 0
        self._said = time.monotonic()
        if videos:
            report(Note(line=f"{title}: {videos} video{'s' * (videos > 1)} to be scored"))

    def video(self, frames: int) -> None:
        """Begin the next video, of `frames` frames."""
        self._begun, self._frames, self._done = self._begun + 1, frames, 0
        self.frames_done(0)

    def frames_done(self, frames: int) -> None:
        """Count frames of it as done."""
        self._done += frames
        now = time.monotonic()
        if now - self._said >= LINE_EVERY_S:
            self._said = now
            far = f"scoring {self._begun}/{self._videos} videos, frame {self._done} of {self._frames}"
            self._report(Note(line=f"{self._title}: {far}"))


@lru_cache(maxsize=1)
def _scorer(asked: Kit, records: Path) -> VideoScorer:
    from eval.vbench.records import RecordStore
    from eval.vbench.scorer import VideoScorer

    return VideoScorer(asked, RecordStore(records))


def make_way(config: RunConfig) -> None:
    """Before a backbone is loaded: free the scorer's networks, and work around an incomplete torchvision.

    With a CPU build of torch, it would break transformers and the text encoder.
    """
    _scorer.cache_clear()
    if config.eval.scorer == scoring.SCORER:
        from eval.vbench.networks.packages import prepare

        prepare()


def unmade(folder: RunFolder, prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """Prompts that are to be tried and have no video, or a damaged one."""
    missing = [prompt for prompt in folder.missing() if prompt in prompts]
    there = filmed(folder, missing)
    return tuple(prompt for prompt in missing if prompt.id not in there or not _as_written(folder, there[prompt.id]))


def _as_written(folder: RunFolder, record: UnitRecord) -> bool:
    """Whether a video's content matches the digest in its record, if there is one."""
    return record.digests.get("video") in (None, file_digest(_video(folder, record)))


def score(recorder: JobRecorder, prompts: Sequence[Prompt]) -> int:
    """Score the videos of some prompts without scores, one after the other; returns how many failed. A failure does not affect others.

    This attempt already owns the videos that it made; it claims others unless another process has claimed or scored them.
    """
    folder, attempt = recorder.folder, recorder.attempt
    scorer = _scorer(scoring.kit(folder.job.config), Path(folder.job.config.store) / "records")
    notes = ScoringNotes(folder.job.title, len(filmed(folder, prompts)), recorder.report)
    failed = 0
    for prompt in prompts:
        made = attempt.holds(prompt)
        if not made and not attempt.take([prompt]):
            recorder.report(Elsewhere(prompts=[prompt.id]))
            continue
        record = filmed(folder, [prompt]).get(prompt.id)
        if record is None:  # another process was making it and has given up since
            recorder.report(Elsewhere(prompts=[prompt.id]))
        else:
            blocks = 0 if made else record.blocks  # this attempt counted its own before
            recorder.report(BlocksMade(count=blocks))
            try:
                recorder.done(prompt, *_scores(recorder, prompt, record, scorer, notes))
            except Exception as error:
                recorder.failed(prompt, error, blocks)
                failed += 1
        attempt.release([prompt])
    return failed


def _scores(
    recorder: JobRecorder, prompt: Prompt, record: UnitRecord, scorer: VideoScorer, notes: ScoringNotes
) -> tuple[Mapping[str, float | None], dict[str, Any]]:  # fmt: skip
    """Score one video; returns its metrics, and the other fields of its new record."""
    folder, job = recorder.folder, recorder.job
    start = time.perf_counter()
    facts = scorer.inspect(_video(folder, record))
    notes.video(facts.frames)
    outcome = scorer.score(facts, job.config.task.name, job.stretches(prompt), prompt.scenes, notes.frames_done, prompt.recalls)
    path = folder.side(prompt, f".{job.config.eval.name}-{(job.scores_id or '')[:8]}.json")
    write_atomic(path, json.dumps(msgspec.to_builtins(outcome) | {"scores": job.scores_id}).encode())
    rest = {key: value for key, value in msgspec.to_builtins(record).items() if key not in OWN}
    before = {kind: name for kind, name in record.files.items() if kind != "scores"}
    rest["files"] = {**before, "scores": path.name}
    rest |= {
        key: {kind: known[kind] for kind in before if kind in known} for key in ("sizes", "digests") if (known := getattr(record, key))
    }
    score_s = round(time.perf_counter() - start, 3)
    spent = {"score_s": score_s, "dur_s": round((record.generate_s or 0.0) + score_s, 3)}  # used by forecasts
    return outcome.metrics, rest | {"tokens_cut": outcome.tokens_cut} | spent
