"""Jobs on this machine: make what is missing, wait for videos that other commands are making, and report what is missing then."""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from echo.cache.policy import script_of
from echo.files import write_atomic
from echo.routing import Encoder
from echo.scene import Prompt
from jobs.launch.pool import Pool
from jobs.spec import backbones
from jobs.spec.config import Plain
from jobs.spec.plan import Job
from jobs.store import provenance, unwritable
from jobs.store.claims import Claims
from jobs.store.folder import RunFolder, new_attempt
from jobs.work import models, score
from jobs.work.progress import Progress

POLL_S = 0.5


def run(jobs: Sequence[Job], plain: Sequence[Plain], max_workers: int | None, patience_s: float = math.inf) -> list[str]:
    """Make everything that is missing of some jobs.

    Args:
        jobs: the checked jobs; complete ones are not started.
        plain: their configs, for the workers.
        max_workers: processes at a time; None takes as many as the cores have threads for, or one per GPU.
        patience_s: how long to wait for videos that other living commands are making; those of dead commands are made here.

    Returns:
        One line for each missing or failed thing; empty when every unit is done.

    Raises:
        KeyboardInterrupt: after all workers have left.
    """
    named = {folder.piece: (folder, config) for folder, config in zip(map(RunFolder, jobs), plain)}  # equal ones are one
    folders = [folder for folder, _ in named.values()]
    for folder in folders:
        folder.describe()
    deaths: dict[Path, str] = {}
    while True:
        deaths |= _pass(jobs, list(named.values()), max_workers)
        if not _others_left_some(folders, patience_s):
            break
    gone = [folder for folder in folders if not folder.reader.exists]
    rest = [line for folder in folders if folder not in gone for line in lacks(folder, deaths.get(folder.path))]
    return list(dict.fromkeys([*map(_gone, gone), *rest]))


def _gone(folder: RunFolder) -> str:
    store = folder.job.config.store
    return unwritable.refusal(store, unwritable.StoreGone(Path(store)))


def _pass(jobs: Sequence[Job], named: Sequence[tuple[RunFolder, Plain]], max_workers: int | None) -> dict[Path, str]:
    """One pass over everything that is missing; returns why jobs died, by run folder."""
    waiting = [(folder, config, todo) for folder, config in named if (todo := folder.missing())]
    if not waiting:
        return {}
    blocks = sum(folder.job.blocks(*todo) for folder, _, todo in waiting)
    cards = models.cards([job.config for job in jobs])
    most = len(cards) or max(1, provenance.cores() // max(job.config.backbone.threads for job in jobs))
    if not cards and any(job.config.backbone.parts is not None and job.config.geometry == "native" for job in jobs):
        most = 1  # two networks of full size do not fit into most machines
    places = min(max_workers or most, most) if cards else max_workers or most
    progress = Progress(blocks, sum(len(todo) for *_, todo in waiting))
    texts = _texts([folder.job for folder, *_ in waiting])
    try:
        return Pool(progress, places, cards, texts).work([(folder, config) for folder, config, _ in waiting])
    finally:
        progress.close()


def held(folders: Sequence[RunFolder]) -> dict[tuple[Path, str], str]:
    """Units that other living processes have claimed, by run folder and unit id, each with a description of the process."""
    return {
        (folder.path, unit): who
        for folder in folders
        if (folder.path / "claims").is_dir()
        for unit, who in Claims(folder.path, new_attempt()).holders(map(folder.job.unit_id, folder.unfinished())).items()
    }


def _others_left_some(folders: Sequence[RunFolder], patience_s: float) -> bool:
    """Wait for other commands; True if one of them died or released units, so that there is something to make here."""
    first, end = held(folders), time.monotonic() + patience_s
    now = first
    if first:
        sys.stderr.write(f"{_made_elsewhere(first)}; waiting for it\n")
    while first.keys() & now.keys() and time.monotonic() < end:
        clock = time.monotonic()
        now = held(folders)
        time.sleep(max(POLL_S, 10 * (time.monotonic() - clock)))  # a large store takes a while to read
    missing = {(folder.path, folder.job.unit_id(prompt)) for folder in folders for prompt in (folder.missing() if first else ())}
    return bool(first.keys() & missing - now.keys())


def _made_elsewhere(others: Mapping[tuple[Path, str], str]) -> str:
    number = "1 video is" if len(others) == 1 else f"{len(others)} videos are"
    return f"{number} being made by another command ({next(iter(others.values()))})"


def _texts(jobs: Sequence[Job]) -> Path | None:
    """A file of all texts of a sweep on backbones with a large text encoder; None without such a backbone."""
    real = [job for job in jobs if job.config.backbone.parts is not None]
    if not real:
        return None
    content = json.dumps(texts_of(real)).encode()
    path = Path(backbones.parts_of(real[0].config).text_cache) / f"asked-{hashlib.blake2b(content, digest_size=8).hexdigest()}.json"
    write_atomic(path, content)
    return path


def texts_of(jobs: Sequence[Job]) -> list[str]:
    """All texts that some jobs will encode, so that the text encoder is loaded once for all of them."""
    texts: dict[str, None] = {}

    def embed(asked: list[str]) -> list[list[float]]:
        texts.update(dict.fromkeys(asked))
        return [[1.0]] * len(asked)

    for job in jobs:
        if job.config.backbone.parts is None:
            continue
        asks = Encoder(embed, backbones.tokenizer(job.config).cut)
        for prompt in job.asked:
            texts.update(dict.fromkeys(prompt.scenes))
            tags = tuple("@" if tag is None else tag for tag in prompt.tags)
            for way in (prompt, replace(prompt, tags=tags)):  # a router encodes texts of its own, most of them at a recall
                script_of(way, job.policy, job.config.backbone.frames_per_block, asks)
    return list(texts)


def lacks(folder: RunFolder, death: str | None = None) -> list[str]:
    """A line for each missing or failed thing of a run, and why its process died, if it did."""
    lines = [] if death is None else [f"{folder.job.title}: {death}"]
    missing = folder.unfinished()
    failures = folder.reader.settled(folder.job.scores_id).failures
    made = score.unscored(folder, missing)
    for prompt in missing:
        tries = failures.get(folder.job.unit_id(prompt), 0)
        if tries:
            reason = _last_error(folder, prompt)
            allowed = folder.job.config.max_tries
            again = "" if tries < allowed else f"; max_tries={tries + 1} tries again"
            what = f"{prompt.id} is made, not scored: that" if prompt.id in made else prompt.id
            lines.append(f"{folder.job.title}: {what} failed ({tries} of {allowed} tries{again}): {reason}")
    others = held([folder]) if missing else {}
    if others:
        lines.append(f"{folder.job.title}: {_made_elsewhere(others)}; the same command shows what came of it")
    units = {prompt.id: folder.job.unit_id(prompt) for prompt in missing}
    untried = [name for name, unit in units.items() if not failures.get(unit, 0) and (folder.path, unit) not in others]
    unscored = sum(name in made for name in untried)
    for count, what in ((unscored, "made, not scored"), (len(untried) - unscored, "missing")):
        if count:
            lines.append(f"{folder.job.title}: {count} of {len(folder.job.mine)} videos are {what}; the same command goes on")
    return lines


def _last_error(folder: RunFolder, prompt: Prompt) -> str:
    unit = folder.job.unit_id(prompt)
    errors = [record for record in folder.reader.records() if record.unit == unit and not record.ok]
    said = next(iter(errors[-1].err.splitlines()), "it said nothing")
    return f"{said} (see {folder.path / errors[-1].trace})"
