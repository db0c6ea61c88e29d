"""Prompt files of others as prompt sets of ours.

released: `scene[10s#] | scene[10s@] ; subtitle | subtitle`, the format of the released interactive files.
lines: one prompt a line, as MovieGenBench's file; each becomes one scene of duration= (60 s unless told otherwise).
csv, json: a column of a table (comma, semicolon or tab), a key of JSON objects in a list or a line each, as VBench's own file.
jsonl: our own format, through the same check. A file that would lose text or keep a broken tag is refused with its line, and so is one
that is of another format than it is said to be.
"""

from __future__ import annotations

import math
import os
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from data import formats
from data.prompt_sets import PromptLine, write_set
from echo.files import read_json
from echo.refusals import shown
from echo.scene import BLOCK_S, LONGEST_S, Prompt, TagMeaning, parse_prompt, says

TAG = re.compile(r"\[(\d+(?:\.\d+)?) *s([#@]?)\]")
"""Seconds and mark of a scene; anywhere in it, the first counts, all are removed."""
BRACKETS = re.compile(r"[\[［【][^\[\]［］【】]*[\]］】]?|[\]］】]")
TAGLIKE = re.compile(
    r"[\[［【]\s*\d{1,3}(?:[.,]\d+)?\s*(?:(?:s|sec\w*|m|min\w*)\s*[\]］】]\s*(?=$|[|;])|(?:s|sec\w*|m|min\w*)?\s*[#@＃＠]\s*[\]］】])"
)
"""A tag, right or wrong, where tags are none: seconds at a scene's end, or a mark. `[1980s]`, `[42]` and `[0-2s]` are text."""
OTHER_TAGS = re.compile(r"[({]\s*\d{1,3}(?:[.,]\d+)?\s*(?:s|sec\w*|m|min\w*)\s*[#@]?\s*[)}]|(?<!\d)\d+(?:\.\d+)? *s[#@]", re.IGNORECASE)
"""What people write for a tag and is none; it would stay in the text."""
LOOKALIKES = {"；": ";", "｜": "|", "￨": "|", "∣": "|", "¦": "|"}
INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u2060\u00ad\u200e\u200f"))
"""Signs that take no room; the text encoder would see them."""
Untagged = Literal["smooth", "automatic"]
DURATION_S = 60.0
"""Of a line that says none: the shorter of the paper's two settings for long video."""


@dataclass(frozen=True)
class Imported:
    """Lines of a prompt set, and how often something was seen that is worth saying."""

    lines: list[PromptLine]
    seen: Counter[str]


@dataclass(frozen=True)
class Options:
    """What the command line says beside the file: meaning of the tags, seconds of an untagged scene, prefix of the ids, whether a
    scene without a tag is smooth (the released code) or has none (the paper's appendix B), and the column that holds the prompts.
    """

    meaning: TagMeaning | None = None
    duration_s: float | None = None
    name: str = ""
    untagged: Untagged = "smooth"
    column: str = ""

    def id(self, index: int) -> str:
        """Of the prompt that stands at a place of the set."""
        return f"{self.name}-{index:03d}"


@dataclass(frozen=True)
class Excerpt:
    """Which prompts of a file are taken: the first ones, or a random draw (appendix A.1); all where neither is said."""

    first: int | None = None
    sample: int | None = None
    seed: int = 0

    def of(self, lines: list[PromptLine], path: Path) -> list[PromptLine]:
        """The prompts that are taken. Raises ValueError for a number that the file cannot give, or for both ways at once."""
        if self.first is not None and self.sample is not None:
            raise ValueError(f"first={self.first} sample={self.sample}: the top or a draw; nearest is sample={self.sample}")
        for name, count in (("first", self.first), ("sample", self.sample)):
            if count is not None and not 1 <= count <= len(lines):
                raise ValueError(f"{name}={count}: {path} has {len(lines)} prompts; nearest is {min(max(count, 1), len(lines))}")
        if self.sample is None:
            return lines[: self.first]
        draw = random.Random(self.seed)  # its `random` is the same in every version of Python, its `sample` is not promised to be
        return sorted(lines, key=lambda _: draw.random())[: self.sample]


def tidy(text: str, where: str) -> str:
    """Text without invisible signs and with single spaces; everything else as written, typographic signs too.

    Raises:
        ValueError: for a control character.
    """
    shown = " ".join(text.translate(INVISIBLE).split())
    for sign in shown:
        if unicodedata.category(sign) == "Cc" or sign == "\ufffd":
            raise ValueError(f"{where}: unreadable character U+{ord(sign):04X}; remove it")
    return shown


def nearest_tag(text: str) -> str:
    """The valid tag that a wrong one looks most like: `[10 sec]` is `[10s]`, `[1 min @]` is `[60s@]`."""
    number = re.search(r"(\d+)(?:[.,](\d+))?\s*(m)?", text, re.IGNORECASE)
    seconds = 10.0 if number is None else min(float(f"{number[1]}.{number[2] or 0}") * (60 if number[3] else 1), LONGEST_S)
    mark = next((sign for sign in unicodedata.normalize("NFKC", text) if sign in "#@"), "")
    return f"[{seconds:g}s{mark}]"


def refuse_tags(text: str, where: str, patterns: Sequence[re.Pattern[str]] = (BRACKETS, OTHER_TAGS)) -> None:
    """Raise ValueError for a bracket or a would-be tag in a scene's text, naming the nearest valid form."""
    for pattern in patterns:
        wrong = pattern.search(text)
        if wrong is None:
            continue
        if not re.search(r"[\d#@＃＠]", wrong[0]) and len(wrong[0]) > 1:
            raise ValueError(f"{where}: {shown(wrong[0])} is no tag; nearest is the text without brackets, or a tag such as '[10s]'")
        raise ValueError(f"{where}: {shown(wrong[0])} is no tag; nearest is {nearest_tag(wrong[0])!r}")


def parse_scene(raw: str, where: str) -> tuple[str, float | None, str, int]:
    """(text, seconds or None, mark, number of tags) of one scene of the released format. Raises ValueError."""
    tags = TAG.findall(raw)
    decade = re.search(r"\[\d{4}s\](?=.*\w)", raw)
    if decade is not None:
        raise ValueError(f"{where}: {decade[0]!r} in a text would make a scene of {decade[0][1:-2]} s; nearest is {decade[0][1:-1]!r}")
    text = tidy(TAG.sub(" ", raw), where)
    refuse_tags(text, where)
    if not text:
        raise ValueError(f"{where}: a tag without a text; nearest is to remove it")
    seconds, mark = tags[0] if tags else (None, "")
    return text, None if seconds is None else float(seconds), mark, len(tags)


def parse_released(line: str, where: str, index: int, options: Options, seen: Counter[str]) -> PromptLine:
    """A line of the released format, whose tags name the transition to the next scene unless told otherwise.

    Raises:
        ValueError: for a wrong tag, a `;` inside a scene, an untagged scene among several without a duration.
    """
    for sign, meant in LOOKALIKES.items():
        if sign in line:
            raise ValueError(f"{where}: {sign!r} does not separate; nearest is {meant!r}")
    body, _, rest = line.partition(";")
    if TAG.search(rest) or BRACKETS.search(rest):
        raise ValueError(f"{where}: a tag after ';', where subtitles stand; nearest for a ';' inside a scene is ','")
    pieces = [piece for piece in body.split("|") if piece.strip()]
    if not pieces:
        raise ValueError(f"{where}: no scene before ';'")
    scenes = [parse_scene(piece, f"{where}, scene {number}") for number, piece in enumerate(pieces, 1)]
    for number, (_, seconds, _, count) in enumerate(scenes, 1):
        if seconds is None and len(scenes) > 1 and options.duration_s is None:
            raise ValueError(f"{where}, scene {number}: no tag; nearest is '[10s]' at its end, or duration=10 for all scenes without one")
        seen["scenes with several tags: the first counts"] += count > 1
        seen["scenes without a tag"] += seconds is None
    seen["empty scenes dropped"] += body.count("|") + 1 - len(pieces)
    usual_s = DURATION_S if options.duration_s is None else options.duration_s
    durations_s = tuple(usual_s if seconds is None else seconds for _, seconds, _, _ in scenes)
    subtitles = tuple(tidy(piece, where) for piece in rest.split("|") if piece.strip())
    seen["lines whose subtitles are not one a scene"] += len(subtitles) not in (0, len(scenes))
    texts = tuple(text for text, *_ in scenes)
    tags = tuple(tag if count or options.untagged == "smooth" else None for _, _, tag, count in scenes)
    return PromptLine(Prompt(options.id(index), texts, durations_s, tags, options.meaning or TagMeaning.to_next), None, subtitles)


def parse_line(line: str, where: str, index: int, options: Options, seen: Counter[str]) -> PromptLine:
    """One scene a line; no sign of a line has a meaning but the quotes of a CSV field, and one with a tag is refused."""
    text = tidy(line, where)
    field = re.fullmatch(r'"((?:[^"]|"")*)"', text)
    if field is not None:
        text = tidy(field[1].replace('""', '"'), where)
        seen["lines in the quotes of a CSV field, which are gone"] += 1
    return parse_text(text, where, index, options, seen)


def parse_text(line: str, where: str, index: int, options: Options, seen: Counter[str]) -> PromptLine:
    """One scene of a text that stood by itself, a cell or a JSON text: no sign of it has a meaning, and quotes are speech."""
    text = tidy(line, where)
    if not says(text):
        raise ValueError(f"{where}: holds nothing but signs that take no room; nearest is to remove it")
    tag = TAGLIKE.search(text)
    if tag is not None and TAG.match(tag[0]):
        raise ValueError(f"{where}: holds the tag {tag[0]!r}; nearest is format=released")
    refuse_tags(text, where, (TAGLIKE,))
    seconds = DURATION_S if options.duration_s is None else options.duration_s
    return PromptLine(Prompt(options.id(index), (text,), (seconds,), ("",), options.meaning or TagMeaning.enter))


def parse_record(line: str, where: str, index: int, options: Options, seen: Counter[str]) -> PromptLine:
    """A record of our own format, checked; a given name replaces the ids, a given meaning stands where a record says none."""
    prompt, record = parse_prompt(line, where), read_json(line, where)
    scenes = tuple(tidy(scene, f"{where}, scene {number}") for number, scene in enumerate(prompt.scenes, 1))
    for number, scene in enumerate(scenes, 1):
        refuse_tags(scene, f"{where}, scene {number}", (TAGLIKE,))
    name = options.id(index) if options.name else prompt.id
    prompt = replace(prompt, id=name, scenes=scenes, tag_meaning=prompt.tag_meaning or options.meaning)
    return PromptLine(prompt, record.get("version"), tuple(record.get("subtitles", ())))


FORMATS: dict[str, Callable[[str, str, int, Options, Counter[str]], PromptLine]] = {
    "released": parse_released, "lines": parse_line, "jsonl": parse_record, "csv": parse_text, "json": parse_text,
}  # fmt: skip
"""How a line is read: the line, where it stands, its prompt's place in the set, what the command says, what is worth saying."""


def read(path: Path, form: str, options: Options = Options(), excerpt: Excerpt | None = None) -> Imported:
    """The prompts of a file.

    Args:
        path: the file.
        form: one of FORMATS.
        options: what the command line says.
        excerpt: which of them, all by default.

    Raises:
        ValueError: in one line with the file's line.
    """
    if not options.name and form != "jsonl":
        options = replace(options, name=re.sub(r"[^A-Za-z0-9.-]+", "-", path.stem).strip("-") or "prompt")
    if form == "jsonl" and options.duration_s is not None:
        raise ValueError("duration=: a JSONL record says its own durations; nearest is to leave it out")
    seen: Counter[str] = Counter()
    lines = []
    for index, (number, line) in enumerate(formats.texts(path, form, options.column)):
        try:
            lines.append(FORMATS[form](line, f"{path}:{number}", index, options, seen))
        except ValueError as error:
            raise ValueError(str(error) if str(error).startswith(f"{path}:") else f"{path}:{number}: {error}") from None
    if not lines:
        raise ValueError(f"{path}: no prompts")
    imported = Imported((excerpt or Excerpt()).of(lines, path), seen)
    texts = Counter(line.prompt.scenes for line in imported.lines)
    ids = Counter(line.prompt.id for line in imported.lines)
    imported.seen["prompts that say what an earlier one says"] += sum(texts.values()) - len(texts)
    doubled = next((name for name, count in ids.items() if count > 1), None)
    if doubled is not None:
        raise ValueError(f"{path}: prompt id {doubled!r} stands twice; nearest is name=PREFIX, which counts them anew")
    return imported


def summary(imported: Imported, output: Path) -> list[str]:
    """What was written, and what was seen on the way."""
    prompts = [line.prompt for line in imported.lines]
    scenes = Counter(len(prompt.scenes) for prompt in prompts)
    lengths = Counter(sum(prompt.durations_s) for prompt in prompts)
    subtitles = sum(len(line.subtitles) for line in imported.lines)
    lines = [
        f"{output}: {len(prompts)} prompts; scenes {_counted(scenes)}; seconds {_counted(lengths)}; "
        f"tags mean {_meaning(prompts)}; {subtitles} subtitles kept"
    ]
    return lines + [f"note: {count} {what}" for what, count in imported.seen.items() if count]


def _counted(counts: Counter[int] | Counter[float]) -> str:
    """`6` where all are alike, else `1 (x2), 6 (x3)`."""
    if len(counts) == 1:
        return f"{next(iter(counts)):g}"
    return ", ".join(f"{value:g} (x{count})" for value, count in sorted(counts.items()))


def _meaning(prompts: Sequence[Prompt]) -> str:
    meanings = {prompt.tag_meaning for prompt in prompts}
    return " and ".join(sorted("what the method's preset says" if one is None else one.value for one in meanings))


def check_duration(seconds: float | None) -> None:
    """Raise ValueError for a duration that no scene can have; None is none given."""
    if seconds is not None and LONGEST_S < seconds < math.inf:
        raise ValueError(f"duration={seconds:g}: a video is {LONGEST_S} s at most; nearest is duration={LONGEST_S}")
    if seconds is not None and not BLOCK_S / 2 <= seconds < math.inf:
        raise ValueError(f"duration={seconds:g}: seconds, half a block or more; nearest is duration={BLOCK_S:g}")


def import_prompts(
    file: Path,
    /,
    format: Literal["released", "lines", "jsonl", "csv", "json"],
    tag_meaning: TagMeaning | None = None,
    duration: float | None = None,
    first: int | None = None,
    sample: int | None = None,
    seed: int = 0,
    name: str = "",
    untagged: Untagged = "smooth",
    column: str = "",
    *,
    output: Path,
) -> list[str]:
    """Make a prompt set of another's prompt file, without losing text or keeping a broken tag.

        echo-harness data import prompts_hard.txt format=released tag_meaning=to_next --output hard.jsonl
        echo-harness data import moviegen.txt format=lines sample=64 seed=0 duration=120 --output long120.jsonl
        echo-harness data import prompts.csv format=csv column=prompt --output set.jsonl
        echo-harness data import VBench_full_info.json format=json column=prompt_en --output vbench.jsonl

    Args:
        file: the file to read.
        format: released: `scene[10s#] | scene[10s@] ; subtitle | subtitle`; lines: a prompt a line; csv, json: one column of a table or
            of JSON objects; jsonl: our own, checked.
        tag_meaning: what a tag says; files of the release say to_next.
        duration: seconds of a scene that says none; 60 for a line of one scene.
        first: only so many prompts, from the top.
        sample: only so many prompts, drawn at random (the paper's A.1) and in the order of the draw; ids count the file's lines.
        seed: of the draw; a smaller draw by it is the first part of a larger one.
        untagged: what a scene without any tag says: smooth, as the released code reads it, or automatic, the texts (appendix B).
        column: of csv and json, the one with the prompts; found by its name where only one is called prompt, text or caption.
        name: ids are NAME-000 and so on; the file's name by default.
        output: the prompt set, JSONL.
    """
    if output.suffix != ".jsonl":
        raise ValueError(f"--output {output}: a prompt set is JSONL; nearest is {output.with_suffix('.jsonl')}")
    if os.path.realpath(output) == os.path.realpath(file):  # which a loop of links does not stop
        raise ValueError(f"--output {output}: is the file that is read; nearest is {output.with_suffix('')}-checked.jsonl")
    if name and not re.fullmatch(r"[A-Za-z0-9.-]+", name):
        raise ValueError(f"name={name}: letters, digits, '.' and '-'; nearest is {re.sub('[^A-Za-z0-9.-]+', '-', name)}")
    check_duration(duration)
    if column and format not in ("csv", "json"):
        raise ValueError(f"column={column}: is of format=csv and format=json; nearest is format=csv")
    imported = read(file, format, Options(tag_meaning, duration, name, untagged, column), Excerpt(first, sample, seed))
    write_set(output, imported.lines)
    return summary(imported, output)
