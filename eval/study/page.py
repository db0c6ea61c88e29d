"""The rating page as a folder: one HTML file and videos whose names, bytes and order do not reveal the methods.

Raters see texts, letters and random names. The key, which is written beside the folder, maps the names to methods.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import msgspec
from av.bitstream import BitStreamFilterContext

from echo.refusals import reading
from eval import metrics, pages
from eval.store.rows import Entry
from eval.study.choice import Choice, Group, StudyRequest
from eval.study.files import PRACTICE, VERSION, KeyGroup, KeyTask, KeyVideo, StudyKey
from eval.study.form import StudyForm
from eval.tables.opinions import POINTS

ENDS = ("worst", "best")
FOCUS = {
    "long": ("Long video", "One scene from beginning to end. Watch whether the end still holds what the beginning showed."),
    "smooth": ("Smooth transition", "What happens changes from scene to scene. Watch whether one scene passes evenly into the next."),
    "hard": ("Hard cut", "The background changes at once where a scene begins. Watch whether the subject stays the same across each cut."),
    "recall": ("Scene recall", "Later scenes return to earlier ones. Watch whether a place that comes back is the one shown before."),
    "interactive": ("Interactive video", "The text changes from scene to scene. Watch whether the video follows each change."),
}
"""Task -> its name for raters, and their instruction (the paper's appendix A.3, paraphrased)."""
ALLOWED = {"major_brand", "minor_version", "compatible_brands", "language", "handler_name"}
"""Metadata that every MP4 of this writer has."""


@dataclass(frozen=True)
class WrittenStudy:
    """A study on disk: the seconds of video that a rater sees, its videos and their bytes, and remarks."""

    seconds: float
    videos: int
    size: int
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Placed:
    """A group on the page; names: the random name of each row's video."""

    group: Group
    names: dict[str, Entry]

    @property
    def key(self) -> KeyGroup:
        """The group's entry in the key."""
        group = self.group
        videos = {name: KeyVideo(row.backbone, row.preset, row.label) for name, row in self.names.items()}
        return KeyGroup(group.task, group.prompt, group.seed, group.seconds, videos, group.check)


def focus(task: str) -> tuple[str, str]:
    """Name and instruction of a task."""
    return FOCUS["long" if metrics.kind_of(task) == "long" else metrics.protocol_of(task)]


def free(folder: Path, key: Path) -> None:
    """Raise ValueError if a study cannot be written: its key or its folder exists, or the key would be in the folder."""
    if key.exists():
        raise ValueError(f"{key}: the key of a study is there, and answers cannot be read without it; give another --output")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"--output={folder}: there is something already; give another name, for example {folder}-2")
    if folder.resolve() in key.resolve().parents:
        raise ValueError(f"key={key}: lies in the folder that raters get; nearest is {folder.with_name(f'{folder.name}.key.json')}")


def write(choices: Sequence[Choice], wanted: StudyRequest, form: StudyForm, folder: Path, key: Path, contact: str = "") -> WrittenStudy:
    """Write the folder and, beside it, its key.

    Args:
        choices: the groups of each task.
        wanted: the settings, for the key.
        form: the page's texts.
        folder: of the page; it must not exist, or be empty.
        key: file of the key.
        contact: where raters send their answers, in words.

    Raises:
        ValueError: like `free`.
    """
    free(folder, key)
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    (part / "videos").mkdir(parents=True)
    try:
        placed, remarks = _placed(choices, part / "videos")
        shown = _shown(choices, placed, form)
        study = secrets.token_hex(8)
        page = hashlib.sha256(_page(shown, form, study, "", contact).encode()).hexdigest()[:12]
        (part / "index.html").write_text(_page(shown, form, study, page, contact), encoding="utf-8")
        content = msgspec.to_builtins(_key(choices, wanted, form, placed, study, page))
        _same_times(part)
        key.parent.mkdir(parents=True, exist_ok=True)
        with key.open("x", encoding="utf-8") as file:  # never overwrite another key
            file.write(json.dumps(content, indent=1) + "\n")
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    files = list((folder / "videos").iterdir())
    seconds = sum(group.seconds for choice in choices for group in choice.groups)
    return WrittenStudy(seconds, len(files), sum(path.stat().st_size for path in files), remarks)


def _placed(choices: Sequence[Choice], folder: Path) -> tuple[dict[str, Placed], tuple[str, ...]]:
    """Copy the videos. Returns groups by random name, in the order of the choices, and remarks on identical videos."""
    placed: dict[str, Placed] = {}
    twins: Counter[str] = Counter()
    for choice in choices:
        for group in choice.groups:
            one = placed[secrets.token_hex(8)] = Placed(group, {secrets.token_hex(8): row for row in choice.rows})
            first: dict[str, str] = {}
            for name, row in one.names.items():
                source = group.videos[row.name]
                assert source is not None
                strip(source, folder / f"{name}.mp4")
                other = first.setdefault(hashlib.sha256((folder / f"{name}.mp4").read_bytes()).hexdigest(), row.name)
                if other != row.name:
                    twins[f"{choice.task}: {other} and {row.name} show the very same video"] += 1
    return placed, tuple(f"{text} in {count} group{'s' * (count != 1)}" for text, count in twins.items())


def strip(source: Path, target: Path) -> None:
    """Copy an H.264 video without its metadata and its encoder's comments in the stream; no pixel changes.

    Raises:
        ValueError: if the copy still has metadata.
    """
    quiet = {"movflags": "+faststart", "fflags": "+bitexact"}
    with (
        reading(source, "run its command again"),
        av.open(str(source)) as read,
        av.open(str(target), "w", format="mp4", options=quiet) as written,
    ):
        stream = read.streams.video[0]
        copy = written.add_stream_from_template(stream)
        copy.metadata.clear()
        written.metadata.clear()
        silence = BitStreamFilterContext("filter_units=remove_types=6", in_stream=stream, out_stream=copy)  # 6: the encoder's comments
        packets = (packet for packet in read.demux(stream) if packet.dts is not None)
        for packet in (*packets, None):  # None flushes the filter
            for quiet_packet in silence.filter(packet):
                quiet_packet.stream = copy
                written.mux(quiet_packet)
    with av.open(str(target)) as container:
        left = dict(container.metadata) | dict(container.streams.video[0].metadata)
    extra = set(left) - ALLOWED
    if extra or left.get("handler_name", "VideoHandler") != "VideoHandler":
        raise ValueError(f"{source}: its copy would still tell raters {', '.join(sorted(extra)) or left['handler_name']}")


def _shown(choices: Sequence[Choice], placed: Mapping[str, Placed], form: StudyForm) -> dict[str, Any]:
    """The page's data, sorted by random name, so that no order reveals a method."""
    tasks = []
    kinds = {choice.task: focus(choice.task) for choice in choices}
    kinds |= {PRACTICE: ("Practice", form.practice)} if form.practice else {}
    for kind, (name, look) in kinds.items():
        own = []
        for key in sorted(placed):
            group, video = placed[key].group, placed[key].group.form
            if group.task == kind:
                scenes = [{"at": start, "text": text} for start, text in group.scenes]
                size = {"frames": video.frames, "fps": video.fps, "width": video.width, "height": video.height}
                own.append({"id": key, "scenes": scenes, "videos": sorted(placed[key].names), "check": group.check} | size)
        tasks.append({"id": kind, "name": name, "focus": look, "groups": own})
    criteria = [{"id": name, "name": name.replace("_", " ").capitalize(), "asked": question} for name, question in form.asked.items()]
    named = {"rater": form.rater, "practice": PRACTICE}
    return {"v": VERSION, "points": list(POINTS), "ends": list(ENDS), "criteria": criteria, "tasks": tasks} | named


def _page(shown: Mapping[str, Any], form: StudyForm, study: str, page: str, contact: str) -> str:
    data = {**shown, "study": study, "page": page}
    minutes = sum(group["frames"] / group["fps"] for task in shown["tasks"] for group in task["groups"]) / 60
    return pages.render("study.html", data=data, form=form, contact=contact, minutes=minutes)


def _key(choices: Sequence[Choice], wanted: StudyRequest, form: StudyForm, placed: Mapping[str, Placed], study: str, page: str) -> StudyKey:
    lot = (
        f"numpy default_rng([draw, crc32(task)]).permutation over sorted (prompt, seed), the first {wanted.groups} prompts of one form; "
        "further ones for checks, then for practice"
    )
    return StudyKey(
        v=VERSION,
        made=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        store=str(wanted.store.resolve()),
        seeds=wanted.seeds,
        draw=wanted.draw,
        lot=lot,
        criteria=tuple(form.asked),
        tasks={choice.task: KeyTask([row.name for row in choice.rows], list(choice.absent), choice.candidates) for choice in choices},
        groups={name: one.key for name, one in placed.items()},
        study=study,
        page=page,
        consent=bool(form.consent),
    )


def _same_times(folder: Path) -> None:
    """Give all files the same time, since they were written in the order of the methods."""
    now = time.time()
    for path in folder.rglob("*"):
        os.utime(path, (now, now))
