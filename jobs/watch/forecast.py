"""Forecast of a sweep before anything runs: missing videos, hours, disk and jobs on a cluster."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from baselines.presets import preset
from data import published
from echo.geometry import STEPS
from echo.refusals import suggestion
from echo.scene import FRAMES_PER_BLOCK
from eval.store.records import RENDER
from jobs.launch.slurm import split
from jobs.launch.slurm.submit import SlurmSettings, counted, settings
from jobs.spec.compose import CONF, plain_file, sweep
from jobs.spec.config import Plain
from jobs.spec.mistakes import explained
from jobs.spec.plan import Job, lacking, prepare, told_of
from jobs.store import provenance, speeds
from jobs.store.folder import RunFolder
from jobs.work import score

PIXEL_BYTES = 0.03
"""Bytes per pixel and frame of a video, used until this store has one: measured in the embedded world, H.264 at crf 20."""
SIDECAR_BYTES = 500
"""Bytes per block of trace, scores and record, measured likewise."""
BLOCK_S = {False: 0.037, True: 0.011}
"""Seconds of one core for a block of three latent frames, scores included, used until the store has a speed: False for one generated in
four steps, True for one rendered (an AMD EPYC of 2025)."""
PUBLISHED = "as the paper prints it of an H100, scoring left out; of methods that it does not print its slowest"
OWN_MEASURE = "this project's own measure on one core"
START_S = 6.0
"""Seconds until a worker is ready."""


@dataclass(frozen=True)
class RunForecast:
    """The work that one run still needs.

    asked, videos, unscored: videos that are requested, that are still to be made, and that lack only scores. seconds: device time; None if
    the speed is unknown. disk: bytes.
    """

    folder: RunFolder
    asked: int
    videos: int
    unscored: int
    blocks: int
    seconds: float | None
    disk: float
    source: str  # of the speed

    @property
    def rendered(self) -> bool:
        """Whether it renders its videos instead of generating them."""
        return self.folder.job.config.method.policy == RENDER

    @property
    def on_card(self) -> bool:
        """Whether it is computed on a GPU."""
        parts = self.folder.job.config.backbone.parts
        return parts is not None and parts.device == "cuda"


def loads(jobs: Sequence[Job], fps: float | None) -> list[RunForecast]:
    """The work that each run still needs; a video requested twice counts once.

    Args:
        jobs: the checked jobs.
        fps: pixel frames per second of a generated video, scoring included; None takes what the store has measured.
    """
    named = {folder.piece: folder for folder in map(RunFolder, jobs)}
    counted: dict[Any, set[str]] = {}
    kinds: dict[Any, tuple[float | None, str, float]] = {}
    rows = []
    for folder in named.values():
        job, missing = folder.job, folder.missing()
        before, made = counted.setdefault((folder.path, job.scores_id), set()), score.unscored(folder, missing)
        fresh = {prompt.id for prompt in job.mine} - before
        before |= fresh
        todo = [prompt for prompt in missing if prompt.id in fresh - made]
        config, blocks = job.config, job.blocks(*todo)
        kind = (config.store, config.backbone.name, config.method.name)
        if kind not in kinds:
            kinds[kind] = *_speed(job, fps), _block_bytes(job)
        seconds, source, size = kinds[kind]
        whole_s = None if seconds is None else seconds * blocks
        rows.append(RunForecast(folder, len(fresh), len(todo), len(made & fresh), blocks, whole_s, size * blocks, source))
    return rows


def _speed(job: Job, fps: float | None) -> tuple[float | None, str]:
    """Seconds of a block, scores included, and their source."""
    config = job.config
    rendered = config.method.policy == RENDER
    if fps is not None and not rendered:
        return job.block_frames / fps, f"fps={fps:g} as given"
    measured = speeds.block_s(config.store, config.backbone.name, config.method.name, job.pace, alike=not rendered)
    if measured is not None:
        return measured, f"measured in {config.store}"
    if job.pace != (FRAMES_PER_BLOCK, len(STEPS)):
        return None, "no speed known of such blocks"
    if config.backbone.parts is None:
        return BLOCK_S[rendered], OWN_MEASURE
    if config.backbone.parts.device == "cuda" and config.geometry == "native":
        return job.block_frames / published_fps(config.method.name), PUBLISHED
    return None, "no speed known"


def published_fps(method: str) -> float:
    """Frames per second that the paper prints for a method; for a method that it does not print, its slowest figure."""
    printed = {speed.ours: speed.fps for speed in published.speeds() if speed.fps and speed.remark == "Table 1"}
    return printed.get(method) or min(filter(None, printed.values()))


def _block_bytes(job: Job) -> float:
    """Bytes of a block on disk, from stored videos of this backbone and method if there are any, otherwise from the video's size."""
    config, parts = job.config, job.config.backbone.parts
    measured = speeds.block_bytes(config.store, config.backbone.name, config.method.name, job.pace)
    if measured is not None:
        return measured
    height = config.video.height_px if parts is None else max(config.video.height_px, parts.height_px)
    width = height if parts is None else height * parts.width_px / parts.height_px
    return job.block_frames * height * width * PIXEL_BYTES + SIDECAR_BYTES


def briefly(jobs: Sequence[Job]) -> str:
    """How much of a suite is missing and how long it will take, in one line."""
    rows = loads(jobs, None)
    videos, blocks, unscored, whole = (sum(getattr(row, name) for row in rows) for name in ("videos", "blocks", "unscored", "asked"))
    rest = f"; {unscored} more {'is' if unscored == 1 else 'are'} made, not scored" if unscored else ""
    if not videos:
        return f"all {whole} videos are there" + rest.replace(" more", "")
    missing = [row for row in rows if row.videos]
    start = f"{videos} of {whole} videos are missing, {blocks} blocks"
    if any(row.seconds is None for row in missing):
        return f"{start}; how long that takes is not known: this store has no speed of this backbone yet{rest}"
    places = jobs[0].config.max_workers or max(1, provenance.cores() // jobs[0].config.backbone.threads)
    generated = [row for row in missing if not row.rendered] or missing
    own = any(row.source == OWN_MEASURE for row in generated)
    source = "by this project's own measure, none being in this store yet" if own else "as measured in this store"
    rate = 1e3 * sum(row.seconds or 0.0 for row in generated) / sum(row.blocks for row in generated)
    work_s = sum(row.seconds or 0.0 for row in missing)
    return f"{start}; {rate:.0f} ms a generated block {source}, {places} at a time: about {duration(work_s / places + START_S)}{rest}"


def jobs_of(rows: Sequence[RunForecast], launcher: SlurmSettings) -> tuple[int, float | None, str]:
    """Number of cluster jobs that the launcher makes of a sweep, the longest one's seconds (None if no speed is known), and the rule."""
    measure = split.measure([load.folder.job for load in rows], launcher.units_per_job, launcher.target_minutes)
    cuts, seconds = [], dict[int, float | None]()
    for load in rows:
        job, missing = load.folder.job, load.folder.missing()
        places = {prompt.id: index for index, prompt in enumerate(job.asked)}
        per_block = load.seconds / load.blocks if load.seconds and load.blocks else None
        for piece, cost in split.cut(load.folder, {}, missing, measure) if missing else ():
            blocks = job.blocks(*(prompt for prompt in missing if piece.covers(places[prompt.id])))
            seconds[id(piece)] = None if per_block is None else per_block * blocks
            cuts.append((job, piece, cost))
    packed = split.packed(cuts, measure.most)
    lengths = [[seconds[id(piece)] for piece in pieces] for pieces in packed]
    unknown = any(None in length for length in lengths)
    return len(packed), None if unknown else max((sum(filter(None, length)) for length in lengths), default=0.0), measure.line


def lines(rows: Sequence[RunForecast], launcher: SlurmSettings) -> Iterator[str]:
    """The printed lines: one per method and backbone, then the sums."""
    groups: dict[tuple[str, str], list[RunForecast]] = {}
    for load in rows:
        groups.setdefault((load.folder.job.config.method.name, load.folder.job.config.backbone.name), []).append(load)
    for (method, backbone), members in groups.items():
        videos, whole = sum(load.videos for load in members), sum(load.asked for load in members)
        hours = _hours(members) if videos else "nothing to make"
        runs = len({load.folder.path for load in members})
        yield f"{method} on {backbone}: {counted(runs, 'run')}, {videos} of {whole} videos missing, {hours}"
    videos, blocks, unscored = (sum(getattr(load, name) for load in rows) for name in ("videos", "blocks", "unscored"))
    whole, runs = sum(load.asked for load in rows), len({load.folder.path for load in rows})
    rest = f", {unscored} made and not scored" if unscored else ""
    yield f"in all: {counted(runs, 'run')}, {whole} videos, {whole - videos - unscored} there{rest}, {videos} to make ({blocks} blocks)"
    if not videos + unscored:
        return
    for load in rows:
        yield from load.folder.again()
    for on_card, name in ((True, "GPU"), (False, "processor")):
        members = [load for load in rows if load.on_card == on_card and load.videos]
        if members:
            yield f"{name}-hours: {_hours(members, bare=True)} ({'; '.join(dict.fromkeys(load.source for load in members))})"
    yield f"disk: {_size(sum(load.disk for load in rows))}"
    count, longest, rule = jobs_of(rows, launcher)
    tail = "" if longest is None else f", the longest {duration(longest)}"
    yield f"jobs with hydra/launcher=slurm: {count} ({rule}){tail}"
    if launcher.max_parallel and longest is not None:
        rounds = max(sum(load.seconds or 0.0 for load in rows) / launcher.max_parallel, longest)
        yield f"time with {launcher.max_parallel} jobs at a time: {duration(rounds)}, waiting left out"


def _hours(members: Sequence[RunForecast], bare: bool = False) -> str:
    """Hours of device time; for CPUs, hours of cores, which clusters count."""
    missing = [(load.seconds, 1 if load.on_card else load.folder.job.config.backbone.threads) for load in members if load.videos]
    seconds = [None if own is None else own * threads for own, threads in missing]
    if any(one is None for one in seconds):
        return "unknown: give fps=N (pixel frames a second, scoring included)"
    hours = sum(filter(None, seconds)) / 3600
    unit = "" if bare else " GPU-hours" if members[0].on_card else " processor-hours"
    return f"{hours:.1f}{unit}" if hours >= 10 else f"{hours:.2g}{unit}"


def duration(seconds: float) -> str:
    """A time in words, in hours or minutes."""
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{max(1, math.ceil(seconds / 60))} min"


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, math.ceil(count / 1e6))} MB"


def plan(words: Sequence[str], /, fps: float | None = None, *, power: Path | None = None) -> list[str]:
    """Forecast a sweep before anything runs: missing videos, hours of device time, disk, and jobs on a cluster.

        echo-harness plan experiment=table1
        echo-harness plan backbone=self_forcing method=echo,rolling_sink task=recall seed=0,1 fps=16 launcher=gpu
        echo-harness plan --power results task=recall method=echo,longlive metric=world.recall_fidelity difference=5
        echo-harness plan --power vbench_long_60s.csv method=longlive,sf metric=quality difference=0.005

    Args:
        words: settings of run.py, KEY=VALUE, including launcher.target_minutes= and the like.
        fps: pixel frames per second, scoring included; by default as measured in the store.
        power: forecast instead how many prompts and seeds a difference needs, from a store or from scores of other systems (VBench's
            *_eval_results.json with against= another, or a CSV with methods, prompts and seeds): metric=, method=A,B, task=, difference=.
    """
    if power is not None:
        from jobs.watch.power import told  # with pandas and SciPy, which a forecast does not need

        return list(told(power, words))
    launcher, rest = launcher_of(words), []
    if fps is not None and not 0 < fps < math.inf:
        raise ValueError(f"fps={fps:g}: a number above 0 is expected, for example fps=20")
    for word in words:
        key, equals, _ = word.lstrip("+").partition("=")
        if word in ("-m", "--multirun") or key.startswith(("launcher", "hydra")):
            continue
        if not equals:
            raise ValueError(f"{word}: not understood; settings are those of run.py, for example experiment=table1 fps=20")
        rest.append(word)
    with explained(["-m", *rest]):
        return list(foretold(sweep(rest), launcher, fps))


def foretold(plain: Sequence[Plain], launcher: SlurmSettings, fps: float | None) -> Iterator[str]:
    """The printed lines for composed configs. If files are missing, runs that need them are counted as if none of their videos existed."""
    absent = told_of(lacking(plain))
    chosen = [_without_files(one) if absent and one["backbone"].get("parts") else one for one in plain]
    yield from lines(loads([prepare(one, elsewhere=bool(absent)) for one in chosen], fps), launcher)
    if absent:
        yield f"this machine lacks {absent}: counted as though nothing was made"


def _without_files(plain: Plain) -> Plain:
    """A config with as many videos that needs no file: random weights at the same sizes, this project's own prompts, no scores."""
    own = Path(plain["task"]["prompt_set"]).name
    task = plain["task"] | {"prompts": "own", "prompt_set": f"{plain['backbone']['prompt_folder']}/{own}"}
    return plain | {"weights": "random", "task": task, "eval": preset("eval", "none")}


def launcher_of(words: Sequence[str]) -> SlurmSettings:
    """The launcher settings in words: `launcher=NAME` of `conf/launcher`, then `launcher.x=y`. Raises ValueError: one line."""
    known = plain_file(CONF / "hydra" / "launcher" / "slurm.yaml")
    del known["_target_"]
    chosen = dict(known)
    for word in sorted(words, key=lambda word: "launcher." in word.partition("=")[0]):
        key, _, value = word.lstrip("+").removeprefix("hydra.").partition("=")
        if key == "launcher" and value != "null":
            path = CONF / "launcher" / f"{value}.yaml"
            if not path.is_file():
                raise ValueError(f"{word}: no such launcher; {suggestion(value, (file.stem for file in path.parent.glob('*.yaml')))}")
            chosen |= plain_file(path)
        elif key.startswith("launcher."):
            if (name := key.removeprefix("launcher.")) not in known:
                raise ValueError(f"{word}: unknown; {suggestion(key, (f'launcher.{other}' for other in known))}")
            put: Any = OmegaConf.to_container(OmegaConf.from_dotlist([f"{name}={value}"]))
            chosen |= put
    return settings(chosen)
