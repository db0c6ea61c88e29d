"""Import of prompt files.

released: `scene[10s#] | scene[10s@] ; subtitle | subtitle`, the format of the released interactive files.
lines: one prompt per line, as in MovieGenBench's file; each becomes one scene of duration= (60 s by default).
csv, json: columns of a table (comma, semicolon or tab), or keys of JSON objects in a list or one per line, as in VBench's own file.
memflow, helios, vmem, layerrecall, rollf200: sets of other benchmarks (`data.sets.known`).
jsonl: our own format, through the same checks. A file that would lose text or keep a broken tag is refused with its line, as is a file
of another format than `format=` says.
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
    """Lines of a prompt set, counts of observations for the summary, and the notes of the set's rule."""

    lines: list[PromptLine]
    seen: Counter[str]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Options:
    """The command line's options: meaning of the tags, seconds of an untagged scene, prefix of the ids, whether a
    scene without a tag is smooth (the released code) or stays untagged (the paper's appendix B), transitions of scenes for which a
    table has none, and the names of its columns.
    """

    meaning: TagMeaning | None = None
    duration_s: float | None = None
    name: str = ""
    untagged: Untagged = "smooth"
    tags: tuple[str, ...] = ()
    columns: Columns = FOUND

    def id(self, index: int) -> str:
        """The id of the prompt at an index of the set."""
        return f"{self.name}-{index:03d}"


@dataclass(frozen=True)
class Excerpt:
    """Selection of a file's prompts: the first ones, a random sample (appendix A.1), or the lines whose numbers, from 0, are in a file,
    which are then renumbered; all by default.
    """

    first: int | None = None
    sample: int | None = None
    seed: int = 0
    lines: Path | None = None

    def named(self, texts: formats.Numbered, path: Path) -> formats.Numbered:
        """The selected lines, in the order of the file of numbers. Raises ValueError, with the line, for a number without a prompt."""
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
        """The selected prompts. Raises ValueError for more prompts than the file has, or for both `first` and `sample`."""
        if self.first is not None and self.sample is not None:
            raise ValueError(f"first={self.first} sample={self.sample}: the top or a draw; nearest is sample={self.sample}")
        for name, count in (("first", self.first), ("sample", self.sample)):
            if count is not None and not 1 <= count <= len(lines):
                raise ValueError(f"{name}={count}: {path} has {len(lines)} prompts; nearest is {min(max(count, 1), len(lines))}")
        if self.sample is None:
            return lines[: self.first]
        draw = random.Random(self.seed)  # only its `random`, not its `sample`, is guaranteed to be the same in every version of Python
        return sorted(lines, key=lambda _: draw.random())[: self.sample]


def nearest_number(number: int, there: Iterable[int]) -> int:
    """The nearest of some numbers."""
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
    """A line of the released format, whose tags by default name the transition to the next scene.

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
    """One scene per line; only the quotes of a CSV field have a meaning, and a line with a tag is refused."""
    text = tidy(line, where)
    field = re.fullmatch(r'"((?:[^"]|"")*)"', text)
    if field is not None:
        text = tidy(field[1].replace('""', '"'), where)
        seen["lines in the quotes of a CSV field, which are gone"] += 1
    seconds = LONE_S if options.duration_s is None else options.duration_s
    return PromptLine(Prompt(options.id(index), (plain(text, where),), (seconds,), ("",), options.meaning or TagMeaning.enter))


def parse_record(line: str, where: str, index: int, options: Options, seen: Counter[str]) -> PromptLine:
    """A checked record of our own format; `name` replaces the ids, `tag_meaning` applies to records without one."""
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
"""Parsers of lines: (line, FILE:LINE, index of the prompt, options, counts for the summary)."""


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
    """Prefix an error with file and line unless it begins with them."""
    try:
        yield
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith(told) else f"{where}: {error}") from None


def read(path: Path, form: str, options: Options = Options(), excerpt: Excerpt | None = None) -> Imported:
    """The prompts of a file.

    Args:
        path: the file.
        form: one of FORMATS, of TABLES or of SETS.
        options: of the command line.
        excerpt: the selection, all by default.

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
    """Lines that summarise what was written, with counts of observations."""
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
    """`6` if all are equal, else `1 (x2), 6 (x3)`."""
    if len(counts) == 1:
        return f"{next(iter(counts)):g}"
    return ", ".join(f"{value:g} (x{count})" for value, count in sorted(counts.items()))


def _meaning(prompts: Sequence[Prompt]) -> str:
    meanings = {prompt.tag_meaning for prompt in prompts}
    return " and ".join(sorted("what the method's preset says" if one is None else one.value for one in meanings))


def check_duration(seconds: float | None) -> None:
    """Raise ValueError for a duration that no scene can have; None is always valid."""
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
    """Make a prompt set from a prompt file, without losing text or keeping a broken tag.

        echo-harness data import prompts_hard.txt format=released tag_meaning=to_next --output hard.jsonl
        echo-harness data import moviegen.txt format=lines sample=64 seed=0 duration=120 --output long120.jsonl
        echo-harness data import prompts.csv format=csv column=prompt --output set.jsonl
        echo-harness data import VBench_full_info.json format=json column=prompt_en --output vbench.jsonl
        echo-harness data import memflow_100.jsonl format=memflow --output checkpoints/prompts/memflow.jsonl
        echo-harness data import stories.json format=json scenes_column=shots duration_column=seconds tags=hard --output stories.jsonl

    Args:
        file: the file to read.
        format: released: `scene[10s#] | scene[10s@] ; subtitle | subtitle`; lines: a prompt per line; csv, json: columns of a table, or
            keys of JSON objects; jsonl: our own, checked; the others are sets of other benchmarks, see docs/prompt_sets.md.
        tag_meaning: meaning of a tag; it is to_next in the released files.
        duration: seconds of a scene without a duration; 60 for a line of one scene.
        first: only this many prompts, from the top.
        sample: only this many prompts, drawn at random (the paper's A.1) and in the order of the draw; ids count the file's lines.
        seed: of the draw; a smaller draw is the first part of a larger one.
        untagged: transition of a scene without a tag: smooth, as in the released code, or automatic, by the texts (appendix B).
        tags: for tables, the transitions of the scenes after the first if no column has them, a word for all or one for each: smooth,
            hard, recall, recall:N of scene N, counted from 1, automatic.
        lines: for format=lines and rollf200, a file of line numbers, counted from 0: the lines that are prompts.
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
