"""Prompt files of others as prompt sets of ours.

released: `scene[10s#] | scene[10s@] ; subtitle | subtitle`, the format of the released interactive files.
lines: one prompt a line, as MovieGenBench's file; each becomes one scene of duration= (60 s unless told otherwise).
csv, json: columns of a table (comma, semicolon or tab), keys of JSON objects in a list or a line each, as VBench's own file.
memflow, helios, vmem, layerrecall, rollf200: sets of other people, as `data.sets.known` has them.
jsonl: our own format, through the same check. A file that would lose text or keep a broken tag is refused with its line, and so is one
that is of another format than it is said to be.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from data import formats
from data.prompt_sets import PromptLine, write_set
from data.sets.columns import FOUND, LONE_S, Columns, prompt_of
from data.sets.known import SETS, TABLES, rows
from data.sets.texts import BRACKETS, TAG, TAGLIKE, plain, refuse_tags, tidy
from echo.files import read_json
from echo.scene import BLOCK_S, LONGEST_S, Prompt, TagMeaning, parse_prompt

LOOKALIKES = {"；": ";", "｜": "|", "￨": "|", "∣": "|", "¦": "|"}
Untagged = Literal["smooth", "automatic"]


@dataclass(frozen=True)
class Imported:
    """Lines of a prompt set, how often something was seen that is worth saying, and what its rule adds."""

    lines: list[PromptLine]
    seen: Counter[str]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Options:
    """What the command line says beside the file: meaning of the tags, seconds of an untagged scene, prefix of the ids, whether a
    scene without a tag is smooth (the released code) or has none (the paper's appendix B), how scenes of a table without a word of that
    are entered, and which columns of it hold what.
    """

    meaning: TagMeaning | None = None
    duration_s: float | None = None
    name: str = ""
    untagged: Untagged = "smooth"
    tags: tuple[str, ...] = ()
    columns: Columns = FOUND

    def id(self, index: int) -> str:
        """Of the prompt that stands at a place of the set."""
        return f"{self.name}-{index:03d}"


@dataclass(frozen=True)
class Excerpt:
    """Which prompts of a file are taken: the first ones, a random draw (appendix A.1), or those that a file of line numbers from 0 names,
    which are then counted anew; all where none is said.
    """

    first: int | None = None
    sample: int | None = None
    seed: int = 0
    lines: Path | None = None

    def named(self, texts: formats.Numbered, path: Path) -> formats.Numbered:
        """The lines that the file of numbers names, in its order. Raises ValueError, with its line, for one that holds no prompt."""
        if self.lines is None:
            return texts
        there = {number - 1: (number, text) for number, text in texts}
        wanted = formats.line_numbers(self.lines)
        for where, number in wanted:
            if number not in there:
                raise ValueError(
                    f"{where}: line {number} of {path}, counted from 0, holds no prompt; nearest is {nearest_number(number, there)}"
                )
        return [there[number] for _, number in wanted]

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


def nearest_number(number: int, there: Iterable[int]) -> int:
    """The number that is nearest to one."""
    return min(there, key=lambda other: abs(other - number))


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
    usual_s = LONE_S if options.duration_s is None else options.duration_s
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
    seconds = LONE_S if options.duration_s is None else options.duration_s
    return PromptLine(Prompt(options.id(index), (plain(text, where),), (seconds,), ("",), options.meaning or TagMeaning.enter))


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
    "released": parse_released, "lines": parse_line, "jsonl": parse_record,
}  # fmt: skip
"""How a line is read: the line, where it stands, its prompt's place in the set, what the command says, what is worth saying."""


ENTERED: Mapping[str | None, str] = {"": "smoothly", "#": "by a cut", "@": "by a recall", None: "as their texts say"}
"""Tags of tables in words."""


def _parsed(path: Path, form: str, options: Options, excerpt: Excerpt, seen: Counter[str]) -> Iterator[PromptLine]:
    """The prompts of a file, one after the other. Raises ValueError in one line with the file's line."""
    if form in TABLES:
        for index, row in enumerate(rows(path, form, options.columns)):
            name = "-".join(filter(None, (options.name, row.id))) if row.id else options.id(index)
            with placed(row.where, row.where):
                prompt = prompt_of(row, name, options.tags, options.duration_s)
            seen.update(row.seen)
            seen.update(f"scenes entered {ENTERED[tag]}" for tag in prompt.tags[1:])
            yield PromptLine(prompt)
        return
    for index, (number, line) in enumerate(excerpt.named(formats.texts(path, form), path)):
        with placed(f"{path}:{number}", f"{path}:"):
            yield FORMATS[form](line, f"{path}:{number}", index, options, seen)


@contextlib.contextmanager
def placed(where: str, told: str) -> Iterator[None]:
    """Put file and line before a refusal that does not begin with them."""
    try:
        yield
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith(told) else f"{where}: {error}") from None


def read(path: Path, form: str, options: Options = Options(), excerpt: Excerpt | None = None) -> Imported:
    """The prompts of a file.

    Args:
        path: the file.
        form: one of FORMATS, of TABLES or of SETS.
        options: what the command line says.
        excerpt: which of them, all by default.

    Raises:
        ValueError: in one line with the file's line.
    """
    rule = SETS.get(form)
    if rule is not None:
        usual_s = rule.duration_s if options.duration_s is None else options.duration_s
        options = replace(options, name=options.name or form, duration_s=usual_s, tags=options.tags or rule.tags)
    elif not options.name and form != "jsonl" and not options.columns.id_column:
        options = replace(options, name=re.sub(r"[^A-Za-z0-9.-]+", "-", path.stem).strip("-") or "prompt")
    if form == "jsonl" and options.duration_s is not None:
        raise ValueError("duration=: a JSONL record says its own durations; nearest is to leave it out")
    seen: Counter[str] = Counter()
    excerpt = excerpt or Excerpt()
    lines = list(_parsed(path, "lines" if rule is not None and rule.form == "lines" else form, options, excerpt, seen))
    if not lines:
        raise ValueError(f"{path}: no prompts")
    notes = (
        [rule.note] * bool(rule.note) + [f"{form} has {rule.count} prompts, here are {len(lines)}"] * (len(lines) != rule.count)
        if rule
        else []
    )
    imported = Imported(excerpt.of(lines, path), seen, [f"note: {line}" for line in notes])
    texts = Counter(line.prompt.scenes for line in imported.lines)
    ids = Counter(line.prompt.id for line in imported.lines)
    imported.seen["prompts that say what an earlier one says"] += sum(texts.values()) - len(texts)
    doubled = next((name for name, count in ids.items() if count > 1), None)
    if doubled is not None:
        rest = (
            "to leave out id_column"
            if options.columns.id_column
            else "one place for it"
            if form in SETS
            else "name=PREFIX, which counts them anew"
        )
        raise ValueError(f"{path}: prompt id {doubled!r} stands twice; nearest is {rest}")
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
    return [*lines, *imported.notes, *(f"note: {count} {what}" for what, count in imported.seen.items() if count)]


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
    format: Literal["released", "lines", "jsonl", "csv", "json", "memflow", "helios", "vmem", "layerrecall", "rollf200"],
    tag_meaning: TagMeaning | None = None,
    duration: float | None = None,
    first: int | None = None,
    sample: int | None = None,
    seed: int = 0,
    name: str = "",
    untagged: Untagged = "smooth",
    tags: tuple[str, ...] = (),
    asked: Columns = FOUND,
    lines: Path | None = None,
    *,
    output: Path,
) -> list[str]:
    """Make a prompt set of another's prompt file, without losing text or keeping a broken tag.

        echo-harness data import prompts_hard.txt format=released tag_meaning=to_next --output hard.jsonl
        echo-harness data import moviegen.txt format=lines sample=64 seed=0 duration=120 --output long120.jsonl
        echo-harness data import prompts.csv format=csv column=prompt --output set.jsonl
        echo-harness data import VBench_full_info.json format=json column=prompt_en --output vbench.jsonl
        echo-harness data import memflow_100.jsonl format=memflow --output checkpoints/prompts/memflow.jsonl
        echo-harness data import stories.json format=json scenes_column=shots duration_column=seconds tags=hard --output stories.jsonl

    Args:
        file: the file to read.
        format: released: `scene[10s#] | scene[10s@] ; subtitle | subtitle`; lines: a prompt a line; csv, json: columns of a table, or keys
            of JSON objects; jsonl: our own, checked; the others are sets of other people, in docs/prompt_sets.md.
        tag_meaning: what a tag says; files of the release say to_next.
        duration: seconds of a scene that says none; 60 for a line of one scene.
        first: only so many prompts, from the top.
        sample: only so many prompts, drawn at random (the paper's A.1) and in the order of the draw; ids count the file's lines.
        seed: of the draw; a smaller draw by it is the first part of a larger one.
        untagged: what a scene without any tag says: smooth, as the released code reads it, or automatic, the texts (appendix B).
        tags: of tables, how the scenes after the first are entered where no column says it, a word for all or one for each: smooth, hard,
            recall, recall:N of scene N, counted from 1, automatic.
        lines: of format=lines and rollf200, a file of line numbers, counted from 0: which lines of the file are the prompts.
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
    for key, value in (*asdict(asked).items(), ("tags", ",".join(tags))):
        if value and format not in TABLES:
            raise ValueError(f"{key}={value}: is of format={' and format='.join(TABLES)}; nearest is format=csv")
    if lines is not None and format not in ("lines", "rollf200"):
        raise ValueError(f"lines={lines}: is of format=lines and format=rollf200; nearest is format=lines")
    imported = read(file, format, Options(tag_meaning, duration, name, untagged, tags, asked), Excerpt(first, sample, seed, lines))
    write_set(output, imported.lines)
    return summary(imported, output)
