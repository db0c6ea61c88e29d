"""What a sweep will take, said before anything runs: videos, hours, disk and jobs on a cluster (`python -m jobs.spec.plan`)."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from echo.files import ROOT
from echo.refusals import suggestion
from eval.store.records import RENDER, Run
from jobs.launch import sweep
from jobs.launch.slurm import split
from jobs.spec.plan import Job, prepare
from jobs.store.folder import RunFolder
from jobs.watch.suite import BLOCK_S
from jobs.work import score
from jobs.work.progress import FRAMES

CONF = ROOT / "conf"
LAUNCHER = {"units_per_job", "target_minutes", "max_parallel"}
"""Settings of the launcher that say how many jobs there are."""
PIXEL_BYTES = 0.03
"""Of a stored video, by pixel and frame, before this store has one: measured of the embedded world, H.264 at crf 20."""
BESIDE_BYTES = 500
"""Of trace, scores and record, by block, likewise."""
SAMPLE = 64
"""Videos whose files are weighed."""


@dataclass(frozen=True)
class Load:
    """What one run still takes.

    asked, videos, unscored: how many are wanted, are to be made, and are made and lack only scores. seconds: of its device; None where
    its speed is unknown. disk: bytes.
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
    def on_card(self) -> bool:
        """Whether it is computed on a graphics card."""
        parts = self.folder.job.config.backbone.parts
        return parts is not None and parts.device == "cuda"


def composed(words: Sequence[str]) -> list[dict[str, Any]]:
    """The config of every run that `python run.py WORDS -m` stands for, as plain values."""
    params: dict[str, list[str]] = {}
    fixed: list[str] = []
    experiment = next((word.partition("=")[2] for word in reversed(words) if word.startswith("experiment=")), None)
    file = CONF / "experiment" / f"{experiment}.yaml"
    swept: dict[str, Any] = {}
    if experiment is not None and file.is_file():
        content: Any = OmegaConf.to_container(OmegaConf.load(file))
        swept = content.get("hydra", {}).get("sweeper", {}).get("params", {})
    known: dict[tuple[str, ...], dict[str, Any]] = {}  # by all but the seed, which nothing else is made of
    with initialize_config_dir(str(CONF), version_base="1.3"):
        parser = OverridesParser.create(GlobalHydra.instance().config_loader())  # it knows the groups, for glob(...)
        for word in (*(f"{key}={value}" for key, value in swept.items()), *words):
            (override,) = parser.parse_overrides([word])  # parse_override does not tell it
            params.pop(override.key_or_group, None)
            if override.is_sweep_override():
                params[override.key_or_group] = [str(value) for value in override.sweep_string_iterator()]
            elif word in words:
                fixed.append(word)
            else:  # an experiment's only value, which the command line may replace
                params[override.key_or_group] = [word.partition("=")[2]]
        found = []
        for values in itertools.product(*params.values()):  # in Hydra's order, by which jobs are packed
            pairs = dict(zip(params, values))
            seed = {"seed": _whole(pairs.pop("seed"))} if "seed" in pairs else {}
            chosen = tuple(f"{'++' if key.startswith('method.') else ''}{key}={value}" for key, value in pairs.items())
            if chosen not in known:
                known[chosen] = sweep.plain_of(compose("config", [*fixed, *chosen])) | {"experiment": experiment}
            found.append(known[chosen] | seed)
    return found


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"seed={text}: a whole number of 0 or more, for example seed=0")
    return int(text)


def loads(jobs: Sequence[Job], fps: float | None) -> list[Load]:
    """What each run still takes; what is asked for again counts once.

    Args:
        jobs: the checked jobs.
        fps: pixel frames per second of a generated video, scoring included; None takes what the store has measured.
    """
    named = {((folder := RunFolder(job)).path, job.scores_id, job.config.shard, len(job.asked)): folder for job in jobs}
    counted: dict[Any, set[str]] = {}
    speeds: dict[Any, tuple[float | None, str]] = {}
    weights: dict[Any, float] = {}
    found = []
    for folder in named.values():
        job, missing = folder.job, folder.missing()
        before, made = counted.setdefault((folder.path, job.scores_id), set()), score.unscored(folder, missing)
        fresh = {prompt.id for prompt in job.mine} - before
        before |= fresh
        todo = [prompt for prompt in missing if prompt.id in fresh - made]
        config, blocks = job.config, sum(split.blocks_of(job, prompt) for prompt in todo)
        kind = (config.store, config.backbone.name, config.method.name)
        if kind not in speeds:
            speeds[kind], weights[kind] = _speed(job, fps), _block_bytes(job)
        seconds, source = speeds[kind]
        whole_s = None if seconds is None else seconds * blocks
        found.append(Load(folder, len(fresh), len(todo), len(made & fresh), blocks, whole_s, weights[kind] * blocks, source))
    return found


def _speed(job: Job, fps: float | None) -> tuple[float | None, str]:
    """Seconds of a block, scores included, and where they come from."""
    config = job.config
    rendered = config.method.policy == RENDER
    if fps is not None and not rendered:
        return FRAMES / fps, f"fps={fps:g} as given"
    place = config.store, config.backbone.name
    measured = split.seconds_per_block(*place, config.method.name)
    if measured is None and not rendered:
        measured = _alike(*place)
    if measured is not None:
        return measured, f"measured in {config.store}"
    if config.backbone.parts is None:
        return BLOCK_S[rendered], "this project's own measure on one core"
    return None, "no speed known"


def _alike(store: str, backbone: str) -> float | None:
    """Seconds of a block by the other methods of a backbone, those left out that render and generate nothing."""
    there = {run.path.parts[-3]: run for run in (Run(path.parent) for path in Path(store).glob(f"runs/{backbone}/*/*/seed=*/*/run.json"))}
    speeds = [split.seconds_per_block(store, backbone, method) for method, run in there.items() if not run.calibration]
    return statistics.median(known) if (known := [speed for speed in speeds if speed is not None]) else None


def _block_bytes(job: Job) -> float:
    """Bytes of disk that a block takes, by what the store has of this backbone and method, else by the video's size."""
    config = job.config
    size = blocks = seen = 0
    for path in sorted(Path(config.store).glob(f"runs/{config.backbone.name}/*/{config.method.name}/seed=*/*/records/*.jsonl")):
        if seen >= SAMPLE:
            break
        for line in path.read_bytes().splitlines(keepends=True):
            record = _parsed(line)
            if record.get("status") == "ok" and seen < SAMPLE:
                files = [path.parents[1] / "units" / name for name in record["files"].values()]
                size += len(line) + sum(file.stat().st_size for file in files if file.exists())
                blocks, seen = blocks + record["blocks"], seen + 1
    if blocks:
        return size / blocks
    height = config.video.height_px if config.backbone.parts is None else max(config.video.height_px, config.backbone.parts.height_px)
    width = height if config.backbone.parts is None else height * config.backbone.parts.width_px / config.backbone.parts.height_px
    return FRAMES * height * width * PIXEL_BYTES + BESIDE_BYTES


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def jobs_of(found: Sequence[Load], launcher: Mapping[str, Any]) -> tuple[int, float | None, str]:
    """How many cluster jobs the launcher cuts a sweep into, the longest's seconds, None where no speed is known, and by what rule.

    Args:
        found: all runs.
        launcher: `units_per_job`, `target_minutes` and `max_parallel`.
    """
    measure = split.measure([load.folder.job for load in found], launcher["units_per_job"], float(launcher["target_minutes"]))
    cuts, seconds = [], dict[int, float | None]()
    for load in found:
        job, missing = load.folder.job, load.folder.missing()
        places = {prompt.id: index for index, prompt in enumerate(job.asked)}
        per_block = load.seconds / load.blocks if load.seconds and load.blocks else None
        for piece, cost in split.cut(load.folder, {}, missing, measure) if missing else ():
            blocks = sum(split.blocks_of(job, prompt) for prompt in missing if piece.covers(places[prompt.id]))
            seconds[id(piece)] = None if per_block is None else per_block * blocks
            cuts.append((job, piece, cost))
    packed = split.packed(cuts, measure.most)
    lengths = [[seconds[id(piece)] for piece in pieces] for pieces in packed]
    unknown = any(None in length for length in lengths)
    return len(packed), None if unknown else max((sum(filter(None, length)) for length in lengths), default=0.0), measure.line


def lines(found: Sequence[Load], launcher: Mapping[str, Any]) -> Iterator[str]:
    """What people are told: a line for each method and backbone, then the sums."""
    groups: dict[tuple[str, str], list[Load]] = {}
    for load in found:
        groups.setdefault((load.folder.job.config.method.name, load.folder.job.config.backbone.name), []).append(load)
    for (method, backbone), members in groups.items():
        videos, whole = sum(load.videos for load in members), sum(load.asked for load in members)
        hours = _hours(members) if videos else "nothing to make"
        runs = len({load.folder.path for load in members})
        yield f"{method} on {backbone}: {_count(runs, 'run')}, {videos} of {whole} videos missing, {hours}"
    videos, blocks, unscored = (sum(getattr(load, name) for load in found) for name in ("videos", "blocks", "unscored"))
    whole, runs = sum(load.asked for load in found), len({load.folder.path for load in found})
    rest = f", {unscored} made and not scored" if unscored else ""
    yield f"in all: {_count(runs, 'run')}, {whole} videos, {whole - videos - unscored} there{rest}, {videos} to make ({blocks} blocks)"
    if not videos + unscored:
        return
    for on_card, name in ((True, "GPU"), (False, "processor")):
        members = [load for load in found if load.on_card == on_card and load.videos]
        if members:
            yield f"{name}-hours: {_hours(members, bare=True)} ({'; '.join(dict.fromkeys(load.source for load in members))})"
    yield f"disk: {_size(sum(load.disk for load in found))}"
    count, longest, rule = jobs_of(found, launcher)
    tail = "" if longest is None else f", the longest {_time(longest)}"
    yield f"jobs with hydra/launcher=slurm: {count} ({rule}){tail}"
    if launcher["max_parallel"] and longest is not None:
        rounds = max(sum(load.seconds or 0.0 for load in found) / launcher["max_parallel"], longest)
        yield f"time with {launcher['max_parallel']} jobs at a time: {_time(rounds)}, waiting left out"


def _hours(members: Sequence[Load], bare: bool = False) -> str:
    """Hours of device time: of processors by core, since that is what a cluster counts."""
    seconds = [load.seconds if load.on_card or load.seconds is None else load.seconds * _threads(load) for load in members if load.videos]
    if any(one is None for one in seconds):
        return "unknown: give fps=N (pixel frames a second, scoring included)"
    hours = sum(filter(None, seconds)) / 3600
    unit = "" if bare else " GPU-hours" if members[0].on_card else " processor-hours"
    return f"{hours:.1f}{unit}" if hours >= 10 else f"{hours:.2g}{unit}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _threads(load: Load) -> int:
    return load.folder.job.config.backbone.threads


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{max(1, math.ceil(seconds / 60))} min"


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, math.ceil(count / 1e6))} MB"


def command_line(words: Sequence[str]) -> list[str]:
    """Lines for `python -m jobs.spec.plan WORDS`.

    Raises:
        ValueError: one line for a word that is not understood or a config that is refused.
    """
    launcher, fps, rest = _launcher(words), None, []
    for word in words:
        key, equals, value = word.lstrip("+").partition("=")
        if word in ("-m", "--multirun") or key.startswith(("launcher", "hydra")):
            continue
        if not equals:
            raise ValueError(f"{word}: not understood; settings are those of run.py, for example experiment=table1 fps=20")
        if key == "fps":
            fps = _positive(key, value)
        else:
            rest.append(f"++{word}" if word.startswith("method.") else word)
    try:
        found = loads([prepare(plain) for plain in composed(rest)], fps)
    except (HydraException, OmegaConfBaseException) as error:
        from jobs.spec.mistakes import explain

        raise ValueError(explain(error, ["-m", *rest])) from error
    return list(lines(found, launcher))


def _launcher(words: Sequence[str]) -> dict[str, Any]:
    """What words say of the cluster's jobs: `launcher=NAME` of `conf/launcher`, then `launcher.x=y`. Raises ValueError: one line."""
    known: Any = OmegaConf.to_container(OmegaConf.load(CONF / "hydra" / "launcher" / "slurm.yaml"))
    found = {key: value for key, value in known.items() if key in LAUNCHER}
    for word in sorted(words, key=lambda word: "launcher." in word.partition("=")[0]):
        key, _, value = word.lstrip("+").removeprefix("hydra.").partition("=")
        name = key.removeprefix("launcher.")
        if key == "launcher" and value != "null":
            path = CONF / "launcher" / f"{value}.yaml"
            if not path.is_file():
                raise ValueError(f"{word}: no such launcher; {suggestion(value, (file.stem for file in path.parent.glob('*.yaml')))}")
            preset: Any = OmegaConf.to_container(OmegaConf.load(path))
            found |= {name: value for name, value in preset.items() if name in LAUNCHER}
        elif key.startswith("launcher.") and name not in known:
            raise ValueError(f"{word}: unknown; {suggestion(key, (f'launcher.{other}' for other in known))}")
        elif key.startswith("launcher.") and name in LAUNCHER:
            found[name] = None if value == "null" else _positive(key, value) if name == "target_minutes" else int(_positive(key, value))
    return found


def _positive(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (value > 0 and math.isfinite(value)) or (key.rpartition(".")[2] in ("units_per_job", "max_parallel") and value % 1):
        raise ValueError(f"{key}={text}: a number above 0 is expected, for example {key}=20")
    return value
