"""What a sweep will take, said before anything runs: videos, hours, disk and jobs on a cluster (`python -m jobs.plan`)."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eval.records import RENDER
from jobs import command, split
from jobs.config import ROOT, nearest
from jobs.plan import Job, prepare
from jobs.progress import FRAMES
from jobs.store import RunFolder
from jobs.tables import BLOCK_S

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
    """What one run still takes. seconds: of its device; None where its speed is unknown. disk: bytes."""

    folder: RunFolder
    videos: int
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
    if experiment is not None and file.is_file():
        content: Any = OmegaConf.to_container(OmegaConf.load(file))
        swept = content.get("hydra", {}).get("sweeper", {}).get("params", {})
        params = {str(key): [part.strip() for part in str(value).split(",")] for key, value in swept.items()}
    for word in words:
        override = OverridesParser.create().parse_override(word)
        params.pop(override.key_or_group, None)
        if override.is_sweep_override():
            params[override.key_or_group] = [str(value) for value in override.sweep_string_iterator()]
        else:
            fixed.append(word)
    seeds = params.pop("seed", None)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        found = []
        for values in itertools.product(*params.values()):
            chosen = [f"{'++' if key.startswith('method.') else ''}{key}={value}" for key, value in zip(params, values)]
            plain = command.plain_of(compose("config", [*fixed, *chosen])) | {"experiment": experiment}
            found += [plain] if seeds is None else [plain | {"seed": _whole(seed)} for seed in seeds]
    return found


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"seed={text}: a whole number of 0 or more, for example seed=0")
    return int(text)


def loads(jobs: Sequence[Job], fps: float | None) -> list[Load]:
    """What each run still takes; equal runs are one.

    Args:
        jobs: the checked jobs.
        fps: pixel frames per second of a generated video, scoring included; None takes what the store has measured.
    """
    folders = {folder.path: folder for folder in map(RunFolder, jobs)}
    speeds: dict[Any, tuple[float | None, str]] = {}
    weights: dict[Any, float] = {}
    found = []
    for folder in folders.values():
        job, missing = folder.job, folder.missing()
        config, blocks = folder.job.config, sum(split.blocks_of(job, prompt) for prompt in missing)
        kind = (config.store, config.backbone.name, config.method.name)
        if kind not in speeds:
            speeds[kind], weights[kind] = _speed(job, fps), _block_bytes(job)
        seconds, source = speeds[kind]
        whole_s = None if seconds is None else seconds * blocks
        found.append(Load(folder, len(missing), blocks, whole_s, weights[kind] * blocks, source))
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
        measured = split.seconds_per_block(*place, "*")
    if measured is not None:
        return measured, f"measured in {config.store}"
    if config.backbone.parts is None:
        return BLOCK_S[rendered], "this project's own measure on one core"
    return None, "no speed known"


def _block_bytes(job: Job) -> float:
    """Bytes of disk that a block takes, by what the store has of this backbone and method, else by the video's size."""
    config = job.config
    size = blocks = seen = 0
    for path in sorted(Path(config.store).glob(f"runs/{config.backbone.name}/*/{config.method.name}/seed=*/*/records/*.jsonl")):
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


def jobs_of(found: Sequence[Load], launcher: Mapping[str, Any]) -> tuple[int, float, str] | None:
    """How many cluster jobs a sweep is cut into, the longest's cost, and by what rule; None where no speed is known and none given.

    Args:
        found: all runs.
        launcher: `units_per_job`, `target_minutes` and `max_parallel`.
    """
    per_block = {id(load.folder.job): load.seconds / load.blocks for load in found if load.seconds and load.blocks}
    units, minutes = launcher["units_per_job"], float(launcher["target_minutes"])
    if units is None and any(load.videos and load.seconds is None for load in found):
        return None
    if units is not None:
        measure = split.Measure(lambda job, prompt: 1.0, units, f"{units} videos each at most")
    else:
        measure = split.Measure(
            lambda job, prompt: per_block[id(job)] * split.blocks_of(job, prompt), 60 * minutes, f"about {minutes:g} min each at most"
        )
    cuts = [
        (load.folder.job, piece, cost)
        for load in found
        if load.videos
        for piece, cost in split.cut(load.folder, {}, load.folder.missing(), measure)
    ]
    costs = {id(piece): cost for _, piece, cost in cuts}
    packed = split.packed(cuts, measure.most)
    return len(packed), max((sum(costs[id(piece)] for piece in job) for job in packed), default=0.0), measure.line


def lines(found: Sequence[Load], launcher: Mapping[str, Any]) -> Iterator[str]:
    """What people are told: a line for each method and backbone, then the sums."""
    groups: dict[tuple[str, str], list[Load]] = {}
    for load in found:
        groups.setdefault((load.folder.job.config.method.name, load.folder.job.config.backbone.name), []).append(load)
    for (method, backbone), members in groups.items():
        videos, whole = sum(load.videos for load in members), sum(len(load.folder.job.mine) for load in members)
        hours = _hours(members) if videos else "nothing to do"
        yield f"{method} on {backbone}: {_count(len(members), 'run')}, {videos} of {whole} videos missing, {hours}"
    videos, blocks = sum(load.videos for load in found), sum(load.blocks for load in found)
    whole = sum(len(load.folder.job.mine) for load in found)
    yield f"in all: {_count(len(found), 'run')}, {whole} videos, {whole - videos} there, {videos} to make ({blocks} blocks)"
    if not videos:
        return
    for on_card, name in ((True, "GPU"), (False, "processor")):
        members = [load for load in found if load.on_card == on_card and load.videos]
        if members:
            yield f"{name}-hours: {_hours(members, bare=True)} ({'; '.join(dict.fromkeys(load.source for load in members))})"
    yield f"disk: {_size(sum(load.disk for load in found))}"
    made = jobs_of(found, launcher)
    if made is None:
        yield "jobs: unknown without a speed; give fps=N, or launcher.units_per_job=N"
        return
    count, longest, rule = made
    tail = "" if launcher["units_per_job"] else f", the longest {longest / 60:.0f} min"
    yield f"jobs with hydra/launcher=slurm: {count}, {rule}{tail}"
    total = [load.seconds for load in found if load.videos]
    if launcher["max_parallel"] and None not in total:
        rounds = max(sum(filter(None, total)) / launcher["max_parallel"], longest if not launcher["units_per_job"] else 0.0)
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
    """Lines for `python -m jobs.plan WORDS`.

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
        from jobs.mistakes import explain

        raise ValueError(explain(error, ["-m", *rest])) from error
    return list(lines(found, launcher))


def _launcher(words: Sequence[str]) -> dict[str, Any]:
    """What words say of the cluster's jobs: `launcher=NAME` of `conf/launcher`, then `launcher.x=y`. Raises ValueError: one line."""
    known: Any = OmegaConf.to_container(OmegaConf.load(CONF / "hydra" / "launcher" / "slurm.yaml"))
    found = {key: value for key, value in known.items() if key in LAUNCHER}
    for word in sorted(words, key=lambda word: word.startswith("launcher.")):
        key, _, value = word.partition("=")
        name = key.removeprefix("launcher.")
        if key == "launcher" and value != "null":
            path = CONF / "launcher" / f"{value}.yaml"
            if not path.is_file():
                raise ValueError(f"{word}: no such launcher; {nearest(value, (file.stem for file in path.parent.glob('*.yaml')))}")
            preset: Any = OmegaConf.to_container(OmegaConf.load(path))
            found |= {name: value for name, value in preset.items() if name in LAUNCHER}
        elif key.startswith("launcher.") and name not in known:
            raise ValueError(f"{word}: unknown; {nearest(key, (f'launcher.{other}' for other in known))}")
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
