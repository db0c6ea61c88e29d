"""One job: every missing unit is generated, filmed, scored and recorded."""

from __future__ import annotations

import contextlib
import hashlib
import json
import resource
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echo.files import write_atomic
from echo.scene import FPS, Prompt
from jobs.memory.gauge import Gauge
from jobs.spec.plan import Job
from jobs.store import provenance, unwritable
from jobs.store.folder import Attempt, RunFolder
from jobs.work import models, score
from jobs.work.blocks import shots
from jobs.work.video import VideoWriter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from echo.backbone.interface import VideoModel
    from eval.world.scorer import EmbeddedScorer

Report = Callable[[dict[str, Any]], None]


class Film:
    """What becomes of one prompt's blocks: frames for a scorer that there is, the video, the trace, a hash of the latents (else frames)."""

    def __init__(self, folder: RunFolder, prompt: Prompt, stack: ExitStack) -> None:
        video = folder.job.config.video
        self.prompt = prompt
        self.frames: list[NDArray[np.uint8]] | None = [] if folder.job.config.eval.scorer == "embedded" else None
        self.count = 0
        self.trace: list[str] = []
        self.hash = hashlib.sha256()
        self.path = folder.side(prompt, ".mp4")
        self._video = stack.enter_context(VideoWriter(self.path, fps=FPS, height_px=video.height_px, crf=video.crf))

    def add(self, content: bytes, frames_THWC: NDArray[np.uint8], plan: Mapping[str, Any]) -> None:
        """One block: the bytes to be hashed, its frames, and what it attended to."""
        self.hash.update(content)
        self.count += len(frames_THWC)
        if self.frames is not None:  # else memory does not grow with the video
            self.frames.append(frames_THWC)
        self.trace.append(json.dumps(plan))
        self._video.write(frames_THWC)


def work(job: Job, attempt_name: str, argv: Sequence[str], plain: Mapping[str, Any], report: Report, texts: Sequence[str] = ()) -> int:
    """Make all units of a job that are missing.

    Args:
        job: the checked job.
        attempt_name: name of this start in the store.
        argv: the user's command line.
        plain: the full config, kept as provenance.
        report: told of each block and each unit.
        texts: what the whole sweep will ask of the text encoder; whoever loads a large one first reads all of it.

    Returns:
        How many units failed.
    """
    folder = RunFolder(job)
    missing = folder.missing()
    if not missing:
        return 0
    folder.describe()
    with Attempt(folder, attempt_name, provenance.describe(argv, plain), lambda line: report({"note": line})) as attempt:
        if job.config.eval.scorer == score.SCORER:
            return _make_then_score(attempt, missing, report, texts)
        return _make(attempt, missing, report, texts)


def _make_then_score(attempt: Attempt, missing: Sequence[Prompt], report: Report, texts: Sequence[str]) -> int:
    """Videos first, those that are not there, then scores from the files of all; returns how many failed."""
    lost: set[str] = set()

    def hear(event: dict[str, Any]) -> None:
        lost.update([event["prompt"]] if "prompt" in event else ())
        report(event)

    unmade = score.unmade(attempt.folder, missing)
    if unmade:
        score.make_way(attempt.folder.job.config)
        _make(attempt, unmade, hear, texts)
        models.release()  # the networks of the scorer take the place of a large one on the card
    return len(lost) + score.score(attempt, [prompt for prompt in missing if prompt.id not in lost], report)


def _make(attempt: Attempt, missing: Sequence[Prompt], report: Report, texts: Sequence[str]) -> int:
    """All videos of an attempt; returns how many failed. Those that are scored later stay this attempt's until they are."""
    folder, job = attempt.folder, attempt.folder.job
    left = partial(score.unmade, folder) if job.config.eval.scorer == score.SCORER else None
    meter = None if job.config.backbone.parts is None else Gauge(job)
    backbone, scorer = models.load(job)
    if backbone is not None:
        backbone.text.prepare([text for text in texts if _readable(backbone, text)])
    runnable = [prompt for prompt in missing if _runnable(attempt, backbone, prompt, report)]
    failed = len(missing) - len(runnable)
    groups = [(group, wanted) for group in _groups(job, backbone) if (wanted := [prompt for prompt in group if prompt in runnable])]
    if backbone is not None:  # a large text encoder is let go before the network is loaded
        backbone.text.prepare([text for group, _ in groups for prompt in group for text in prompt.scenes])
        backbone.text.release()
    for group, some in attempt.hopeful_first(groups):
        own = attempt.take(some, left)
        if left is None and len(own) < len(some):  # else it is told who scores them
            report({"elsewhere": [prompt.id for prompt in some if prompt not in own]})
        failed += _group(folder, attempt, backbone, scorer, group, own, report, meter) if own else 0
        attempt.release(own if left is None else left(own))
    if meter is not None and groups:
        report({"note": f"{job.title}: {meter.line()}"})
    return failed


def _readable(backbone: VideoModel, text: str) -> bool:
    """Whether the text encoder takes a text whole; where not, its prompt is refused by name later."""
    try:
        backbone.text.check([text])
    except ValueError:
        return False
    return True


def _runnable(attempt: Attempt, backbone: VideoModel | None, prompt: Prompt, report: Report) -> bool:
    """Refuse a prompt before the work starts rather than an hour later; the refusal is recorded."""
    if backbone is None:
        return True  # rendered: the whole job was checked before
    from echo.generate import check

    try:
        check(backbone, attempt.folder.job.policy, prompt)
    except ValueError as error:
        _fail(attempt, prompt, error, report, 0)
        return False
    return True


def _groups(job: Job, backbone: VideoModel | None) -> Iterator[tuple[Prompt, ...]]:
    """All readable prompts of the set in batches of equal scripts, whatever is asked or done of it.

    A prompt that is refused has no place in a batch, so it takes nothing from its mates.
    """
    if job.config.batch == 1 or backbone is None:
        yield from ((prompt,) for prompt in job.mine)
        return
    from echo.generate import check

    alike: dict[Any, list[Prompt]] = {}
    for prompt in job.prompt_set:
        with contextlib.suppress(ValueError):  # told where it was asked for
            alike.setdefault(check(backbone, job.policy, prompt), []).append(prompt)
    for prompts in alike.values():
        for start in range(0, len(prompts), job.config.batch):
            yield tuple(prompts[start : start + job.config.batch])


def _group(
    folder: RunFolder,
    attempt: Attempt,
    backbone: VideoModel | None,
    scorer: EmbeddedScorer | None,
    group: tuple[Prompt, ...],
    wanted: Sequence[Prompt],
    report: Report,
    meter: Gauge | None,
) -> int:
    """One batch; returns how many of its wanted units failed. An error of one unit never reaches another batch."""
    made = 0

    def count() -> None:
        nonlocal made
        made += len(wanted)
        report({"blocks": len(wanted)})

    try:
        films, speeds = _generate(folder, backbone, group, wanted, count)
    except Exception as error:
        for prompt in wanted:
            _fail(attempt, prompt, error, report, made // len(wanted))
        return len(wanted)
    failed = 0
    for film in films:
        try:
            _finish(folder, attempt, scorer, film, speeds if meter is None else speeds | {"memory": meter.facts()})
            if folder.job.config.eval.scorer != score.SCORER:  # else it is told when it is scored
                report({"prompt": film.prompt.id, "status": "ok"})
        except Exception as error:
            _fail(attempt, film.prompt, error, report, made // len(wanted))
            failed += 1
    return failed


def _fail(attempt: Attempt, prompt: Prompt, error: Exception, report: Report, blocks: int) -> None:
    if unwritable.of_store(error):
        raise error
    message = f"{type(error).__name__}: {error}"
    attempt.error(prompt, message, traceback.format_exc())
    report({"blocks": -blocks, "prompt": prompt.id, "status": "error", "error": message})


def _generate(
    folder: RunFolder, backbone: VideoModel | None, group: tuple[Prompt, ...], wanted: Sequence[Prompt], count: Callable[[], None]
) -> tuple[list[Film], dict[str, float]]:
    """All blocks of a batch; films of the wanted prompts and the speeds."""
    start = time.perf_counter()
    gaps_ms: list[float] = []
    switches: list[int] = []
    decode_s = 0.0
    with ExitStack() as stack:
        films = [Film(folder, prompt, stack) for prompt in wanted]
        clock = time.perf_counter()
        for shot in shots(folder.job, backbone, group, wanted):
            gaps_ms.append((time.perf_counter() - clock) * 1e3)
            if shot.scene > len(switches):
                switches.append(shot.index)
            clock = time.perf_counter()
            for film, content, frames in zip(films, shot.content(), shot.frames(), strict=True):
                film.add(content, frames, shot.plan)
            count()
            decode_s += time.perf_counter() - clock
            clock = time.perf_counter()
    total_s = time.perf_counter() - start
    shown = films[0].count * len(group)
    speeds = {
        "block_ms": round(statistics.median(gaps_ms), 3),
        "block_ms_p95": round(sorted(gaps_ms)[int(0.95 * (len(gaps_ms) - 1))], 3),
        "fps_dit": round(shown / (sum(gaps_ms) / 1e3), 2),
        "fps": round(shown / total_s, 2),
        "generate_s": round(total_s / len(group), 3),  # a video's share
        "decode_s": round(decode_s, 3),
    }
    if switches:  # what a recache costs shows here
        speeds["switch_block_ms"] = round(statistics.median([gaps_ms[block] for block in switches]), 3)
    return films, speeds


def _finish(folder: RunFolder, attempt: Attempt, scorer: EmbeddedScorer | None, film: Film, speeds: Mapping[str, Any]) -> None:
    """Trace, scores and, last of all, the record."""
    prompt = film.prompt
    start = time.perf_counter()
    trace = folder.side(prompt, ".trace.jsonl")
    write_atomic(trace, "".join(line + "\n" for line in film.trace).encode())
    files = {"video": film.path.name, "trace": trace.name}
    metrics: Mapping[str, float] = {}
    if scorer is not None:
        metrics, scores = _score(folder, scorer, film)
        files["scores"] = scores.name
    facts = {
        "latents_sha256": film.hash.hexdigest(),
        "blocks": len(film.trace),
        "files": files,
        **speeds,
        "score_s": round(time.perf_counter() - start, 3),
        "dur_s": round(time.perf_counter() - start + speeds["generate_s"], 3),
        "process_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }
    if folder.job.config.eval.scorer == score.SCORER:
        attempt.filmed(prompt, facts)
    else:
        attempt.ok(prompt, metrics, facts)


def _score(folder: RunFolder, scorer: EmbeddedScorer, film: Film) -> tuple[Mapping[str, float], Path]:
    import numpy as np

    job = folder.job
    spans = score.spans(job, film.prompt)
    assert film.frames is not None
    scores = scorer.score(np.concatenate(film.frames), film.prompt.scenes, spans, job.config.task.name)
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
