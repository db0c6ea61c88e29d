"""One job: every missing unit is generated, encoded, scored and recorded."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echo.files import write_atomic
from echo.scene import FPS, Prompt
from jobs.memory.job import JobMemory
from jobs.memory.parts import frame_bytes
from jobs.spec import identity, scoring
from jobs.spec.plan import Job
from jobs.store import provenance, unwritable
from jobs.store.folder import Attempt, RunFolder
from jobs.work import models, score, tracking
from jobs.work.blocks import blocks
from jobs.work.events import BlocksMade, Elsewhere, Event, Note, Report, UnitEnded
from jobs.work.recorder import JobRecorder
from jobs.work.video import VideoWriter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from echo.backbone.interface import VideoModel
    from eval.world.scorer import EmbeddedScorer


UNSEEN = 2
"""Difference in steps of 255 up to which colours count as equal, since rounding causes it."""


class Film:
    """Collects one prompt's blocks: frames for the scorer, the video, the trace, a hash of the latents (or of rendered frames)."""

    def __init__(self, folder: RunFolder, prompt: Prompt, stack: ExitStack) -> None:
        video = folder.job.config.video
        self.prompt = prompt
        self.frames: list[NDArray[np.uint8]] | None = [] if folder.job.config.eval.scorer == "embedded" else None
        self.count = self.kept = 0
        self._attended: tuple[bool, float] = False, 0
        self.trace: list[str] = []
        self.hash = hashlib.sha256()
        self._first: NDArray[np.int16] | None = None
        self._varies_in_space = self._varies_in_time = False
        self.path = folder.side(prompt, ".mp4")
        self._video = stack.enter_context(VideoWriter(self.path, fps=FPS, height_px=video.height_px, crf=video.crf))

    def add(self, content: bytes, frames_THWC: NDArray[np.uint8], plan: Mapping[str, Any], kept: int, attended: float) -> None:
        """One block: the bytes to be hashed, its frames, its line of the trace, how many frames were kept then and attended to."""
        self.hash.update(content)
        self.count += len(frames_THWC)
        self._attended = max(self._attended, ("groups" in plan, attended))
        self.kept = max(self.kept, kept)
        if self.frames is not None:  # else memory does not grow with the video
            self.frames.append(frames_THWC)
        self.trace.append(json.dumps(plan))
        self._video.write(frames_THWC)
        self._look(frames_THWC)

    def _look(self, frames_THWC: NDArray[np.uint8]) -> None:
        """Check whether a frame has two colours, and whether a frame differs from the first."""
        if self._first is None:
            self._first = frames_THWC[0].astype("int16")
        for frame in frames_THWC:
            if not self._varies_in_space:
                self._varies_in_space = bool((frame.max((0, 1)).astype(int) - frame.min((0, 1)) > UNSEEN).any())
            if not self._varies_in_time:
                self._varies_in_time = bool((abs(frame - self._first) > UNSEEN).any())

    @property
    def attended(self) -> float:
        """Largest number of frames that a block attended to; with groups of heads, from their formation on."""
        return round(self._attended[1], 4)

    @property
    def dead(self) -> str:
        """The record's `dead`: "space" for a video of one colour, "time" for one without motion, else empty."""
        return "space" if not self._varies_in_space else "" if self._varies_in_time else "time"


def work(job: Job, attempt_name: str, argv: Sequence[str], plain: Mapping[str, Any], report: Report, texts: Sequence[str] = ()) -> int:
    """Make all missing units of a job.

    Args:
        job: the checked job.
        attempt_name: name of this start in the store.
        argv: the user's command line.
        plain: the full config, kept as provenance.
        report: called for each block and each unit.
        texts: all texts of the sweep; the first job that loads a large text encoder encodes all of them.

    Returns:
        Number of failed units.
    """
    folder = RunFolder(job)
    missing = folder.missing()
    if not missing:
        return 0
    folder.describe()
    facts = provenance.describe(argv, plain)
    tracker = tracking.of_attempt(job, attempt_name, facts, lambda line: report(Note(line=line)))
    with closing(tracker), Attempt(folder, attempt_name, facts) as attempt:
        recorder = JobRecorder(attempt, report, tracker)
        if job.config.eval.scorer == scoring.SCORER:
            return _make_then_score(recorder, missing, texts)
        return _made(recorder, missing, texts)


def _made(recorder: JobRecorder, missing: Sequence[Prompt], texts: Sequence[str]) -> int:
    """Make videos; returns how many failed: all of them if a file of the backbone or the scorer is damaged."""
    try:
        maker = _Maker(recorder)
    except ValueError as error:
        for prompt in missing:
            recorder.failed(prompt, error, 0)
        return len(missing)
    return maker.make(missing, texts)


def _make_then_score(recorder: JobRecorder, missing: Sequence[Prompt], texts: Sequence[str]) -> int:
    """Make missing videos first, then score the files of all; returns how many failed."""
    lost: set[str] = set()

    def hear(event: Event) -> None:
        lost.update([event.prompt] if isinstance(event, UnitEnded) else ())
        recorder.report(event)

    unmade = score.unmade(recorder.folder, missing)
    if unmade:
        score.make_way(recorder.job.config)
        _made(dataclasses.replace(recorder, report=hear), unmade, texts)
        models.release()  # the scorer's networks need the GPU memory of a large backbone
    return len(lost) + score.score(recorder, [prompt for prompt in missing if prompt.id not in lost])


class Aside:
    """Does things in order on a thread of its own while the next block is made or, if not `threaded`, immediately.

    The host waits for a large network anyway; a block of an embedded one takes less time than its video, and keeps the CPU busy.
    """

    def __init__(self, threaded: bool) -> None:
        self._thread = ThreadPoolExecutor(1, "video") if threaded else None
        self._under_way: list[Future[None]] = []

    def __enter__(self) -> Aside:
        return self

    def do(self, thing: Callable[[], None]) -> None:
        """Begin a thing; `wait` raises its errors."""
        if self._thread is None:
            thing()
        else:
            self._under_way.append(self._thread.submit(thing))

    def wait(self) -> None:
        """Wait until everything is done, so that at most one block's frames are held."""
        under_way, self._under_way = self._under_way, []
        for future in under_way:
            future.result()

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._thread.shutdown()


class _Maker:
    """Makes the videos of one start of a job; loads backbone and scorer at the beginning."""

    def __init__(self, recorder: JobRecorder) -> None:
        self._recorder, self._attempt, self._report = recorder, recorder.attempt, recorder.report
        self._job, self._folder = recorder.job, recorder.folder
        self._scored_later = self._job.config.eval.scorer == scoring.SCORER  # videos stay this attempt's until then
        self._memory = None if self._job.config.backbone.parts is None else JobMemory(self._job)
        window = self._memory.computed.setup.window if self._memory else "shared"
        self._backbone, self._scorer = models.load(self._job, window, lambda line: self._report(Note(line=f"{self._job.title}: {line}")))

    def make(self, missing: Sequence[Prompt], texts: Sequence[str]) -> int:
        """All videos that are missing; returns how many failed."""
        left = partial(score.unmade, self._folder) if self._scored_later else None
        backbone, attempt = self._backbone, self._attempt
        if backbone is not None:
            backbone.text.prepare([text for text in texts if _readable(backbone, text)])
        runnable = [prompt for prompt in missing if self._runnable(prompt)]
        failed = len(missing) - len(runnable)
        groups = [(group, wanted) for group in self._groups(runnable) if (wanted := [prompt for prompt in group if prompt in runnable])]
        if backbone is not None:  # a large text encoder is let go before the network is loaded
            backbone.text.prepare([text for group, _ in groups for prompt in group for text in prompt.scenes])
            backbone.text.release()
        for group, some in attempt.hopeful_first(groups):
            own = attempt.take(some, left)
            if left is None and len(own) < len(some):  # else scoring says who makes them
                self._report(Elsewhere(prompts=[prompt.id for prompt in some if prompt not in own]))
            failed += self._group(group, own) if own else 0
            attempt.release(own if left is None else left(own))
        if self._memory is not None and groups:
            self._report(Note(line=f"{self._job.title}: {self._memory.line()}"))
        return failed

    def _runnable(self, prompt: Prompt) -> bool:
        """Check a prompt before the work starts; a refusal is recorded as a failure."""
        if self._backbone is None:
            return True  # rendered: the whole job was checked before
        from echo.generate import check

        try:
            check(self._backbone, self._job.policy, prompt)
        except ValueError as error:
            self._recorder.failed(prompt, error, 0)
            return False
        return True

    def _groups(self, runnable: Sequence[Prompt]) -> Iterator[tuple[Prompt, ...]]:
        """Prompts in batches of equal scripts: those that can be made or, if the others in a batch change a pixel (`identity.mixes`), all
        valid ones of the set, whichever are requested or done. A refused prompt is in no batch, so that it does not affect others."""
        job, backbone = self._job, self._backbone
        if job.config.batch == 1 or backbone is None:
            yield from ((prompt,) for prompt in runnable)
            return
        from echo.generate import check

        alike: dict[Any, list[Prompt]] = {}
        for prompt in job.prompt_set if identity.mixes(job.config) else runnable:
            with contextlib.suppress(ValueError):  # reported if it was requested
                alike.setdefault(check(backbone, job.policy, prompt), []).append(prompt)
        for prompts in alike.values():
            yield from (tuple(prompts[start : start + job.config.batch]) for start in range(0, len(prompts), job.config.batch))

    def _group(self, group: tuple[Prompt, ...], wanted: Sequence[Prompt]) -> int:
        """Make one batch; returns how many of its wanted units failed. The units of one that fails are made singly, unless batches mix."""
        made = 0

        def count() -> None:
            nonlocal made
            made += 1
            self._report(BlocksMade(count=len(wanted)))

        try:
            films, speeds = self._films(group, wanted, count)
        except Exception as error:
            if len(wanted) > 1 and not identity.mixes(self._job.config) and not unwritable.of_store(error):
                self._report(BlocksMade(count=-made * len(wanted)))
                return sum(self._group((prompt,), [prompt]) for prompt in wanted)
            for prompt in wanted:
                self._recorder.failed(prompt, error, made)
            return len(wanted)
        failed = 0
        for film in films:
            try:
                self._finish(film, speeds)
            except Exception as error:
                self._recorder.failed(film.prompt, error, made)
                failed += 1
        return failed

    def _films(self, group: tuple[Prompt, ...], wanted: Sequence[Prompt], count: Callable[[], None]) -> tuple[list[Film], dict[str, float]]:
        """Make all blocks of a batch; returns the videos of the wanted prompts and the speeds."""
        start = time.perf_counter()
        gaps_ms: list[float] = []
        switches: list[int] = []
        decode_s = 0.0
        with ExitStack() as stack, Aside(self._memory is not None) as aside:
            films = [Film(self._folder, prompt, stack) for prompt in wanted]
            clock = time.perf_counter()
            for part in blocks(self._job, self._backbone, group, wanted):
                gaps_ms.append((time.perf_counter() - clock) * 1e3)
                if part.scene > len(switches):
                    switches.append(part.index)
                clock = time.perf_counter()
                made = list(zip(films, part.content(), part.frames(), strict=True))
                aside.wait()
                for film, content, frames in made:
                    aside.do(partial(film.add, content, frames, part.plan, part.kept, part.attended))
                count()
                decode_s += time.perf_counter() - clock
                clock = time.perf_counter()
            aside.wait()
        total_s = time.perf_counter() - start
        return films, _speeds(gaps_ms, switches, films[0].count * len(group), total_s, decode_s, len(group))

    def _costs(self, film: Film) -> dict[str, float]:
        """What this video cost besides time, for its record: `eval.store.records.Outcome`."""
        assert self._backbone is not None
        kept_mb = film.kept * frame_bytes(self._backbone.geometry, 1, self._backbone.dtype.itemsize) / 1e6
        steps = len(self._backbone.schedule.timesteps)
        return {"attended_frames": film.attended, "kept_frames": film.kept, "denoising_steps": steps, "kept_mb": kept_mb}

    def _finish(self, film: Film, speeds: Mapping[str, float]) -> None:
        """Write trace, scores and, last, the record."""
        start = time.perf_counter()
        trace = self._folder.side(film.prompt, ".trace.jsonl")
        write_atomic(trace, "".join(line + "\n" for line in film.trace).encode())
        files = {"video": film.path.name, "trace": trace.name}
        metrics: Mapping[str, float] = {}
        if self._scorer is not None:
            metrics, scores = _score(self._folder, self._scorer, film)
            files["scores"] = scores.name
        facts = {
            "latents_sha256": film.hash.hexdigest(),
            "blocks": len(film.trace),
            **({"dead": film.dead} if film.dead else {}),
            "files": files,
            **speeds,
            **({} if self._backbone is None else self._costs(film)),
            **({} if self._memory is None else {"memory": self._memory.facts()}),
            "score_s": round(time.perf_counter() - start, 3),
            "dur_s": round(time.perf_counter() - start + speeds["generate_s"], 3),
            "process_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        }
        if self._scored_later:
            self._attempt.filmed(film.prompt, facts)
        else:
            self._recorder.done(film.prompt, metrics, facts)


def _readable(backbone: VideoModel, text: str) -> bool:
    """Whether the text encoder accepts a text; if not, its prompt is refused by name later."""
    try:
        backbone.text.check([text])
    except ValueError:
        return False
    return True


def _speeds(gaps_ms: Sequence[float], switches: list[int], frames: int, total_s: float, decode_s: float, videos: int) -> dict[str, float]:
    """A video's share of its batch's times, for its record. switches: blocks that begin a scene. frames: pixel frames of all of them."""
    gaps_ms = [gap / videos for gap in gaps_ms]
    speeds = {
        "block_ms": round(statistics.median(gaps_ms), 3),
        "block_ms_p95": round(sorted(gaps_ms)[int(0.95 * (len(gaps_ms) - 1))], 3),
        "fps_dit": round(frames / videos / (sum(gaps_ms) / 1e3), 2),
        "fps": round(frames / total_s, 2),
        "generate_s": round(total_s / videos, 3),
        "decode_s": round(decode_s / videos, 3),
    }
    if switches:  # shows the cost of a recache
        speeds["switch_block_ms"] = round(statistics.median([gaps_ms[block] for block in switches]), 3)
    return speeds


def _score(folder: RunFolder, scorer: EmbeddedScorer, film: Film) -> tuple[Mapping[str, float], Path]:
    import numpy as np

    job = folder.job
    spans = job.spans(film.prompt)
    assert film.frames is not None
    frames, stretches, joined = np.concatenate(film.frames), job.stretches(film.prompt), job.config.eval.pairs == "joined"
    task, recalls = job.config.task.name, film.prompt.recalls
    scores = scorer.score(frames, film.prompt.scenes, spans, task, stretches=stretches, joined=joined, recalls=recalls)
    path = folder.side(film.prompt, f".{job.config.eval.name}-{(job.scores_id or '')[:8]}.json")
    content = {
        "v": 1,
        "scores": job.scores_id,
        "segments": [list(span) for span in spans],
        "metrics": dict(scores.metrics),
        "per_segment": scores.per_segment,
        "per_block": scores.per_block,
    }
    write_atomic(path, json.dumps(content).encode())
    return scores.metrics, path
