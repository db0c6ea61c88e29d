"""Prompt and seed of a video of any system: from its name, from a pattern of names, or from a manifest beside the videos."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from data.sets.columns import objects, records
from echo.files import inside, name_part
from echo.refusals import brief, nearest, nearest_of, shown
from echo.scene import Prompt, parse_prompt

FIELDS: Final = {"id": ".+", "index": r"\d{1,9}", "number": r"\d{1,9}", "text": ".+", "seed": r"\d{1,9}"}
"""Fields of a pattern: a prompt's id, its index in the set from 0 or number from 1, the beginning of its text; and the seed."""
PROMPT: Final = ("id", "index", "number", "text")
SHORT: Final = 12
"""Least letters and digits of a text in a name, unless the text is shorter; systems cut the rest."""
KEYS: Final = ("file", "prompt", "seed", "scenes", "durations", "recalls")
"""Columns of a manifest."""
SCENES: Final = " | "
"""Separator of scenes in a CSV cell."""


class VideoOwner(NamedTuple):
    """Prompt and seed of a video. prompt: None if unknown. seed: 0 if unknown. text: text of a prompt that is in no set."""

    prompt: Prompt | None = None
    seed: int = 0
    text: str = ""

    def lasting(self, seconds: float) -> Prompt | None:
        """The prompt; for a bare text, a prompt with one scene of `seconds`."""
        return Prompt(self.text, (self.text,), (max(seconds, 1.0),), ("",)) if self.text else self.prompt


def plain(text: str) -> str:
    """The letters and digits of a text, the part of it that file names keep."""
    return "".join(filter(str.isalnum, text.casefold()))


@dataclass(frozen=True)
class NameRule:
    """A checked pattern of names.

        >>> NameRule("rank*-{index}-{seed}_lora").pattern.fullmatch("rank0-7-1_lora")["index"]
        '7'

    rule: a name without its ending, with `FIELDS` in braces and `*` for anything; empty for `ID` or `ID-...`, where a number is the seed.
    """

    rule: str = ""

    def __post_init__(self) -> None:
        fields = re.findall(r"\{(.*?)\}", self.rule)
        wrong = next((name for name in fields if name not in FIELDS or fields.count(name) > 1), None)
        if wrong is not None:
            raise ValueError(f"names={self.rule}: {{{wrong}}} is no field, or stands twice; {nearest_of(wrong, FIELDS)}")
        if self.rule and len(set(fields) & set(PROMPT)) != 1:
            raise ValueError(f"names={self.rule}: one of {{{'}, {'.join(PROMPT)}}} says which prompt; nearest is names={{index}}-{{seed}}")

    @property
    def pattern(self) -> re.Pattern[str]:
        """The regular expression for a name without its ending."""
        parts = re.split(r"(\{.*?\}|\*)", self.rule)
        return re.compile("".join(_part(part) for part in parts), re.DOTALL)

    def owner(self, file: Path, prompts: Sequence[Prompt]) -> VideoOwner:
        """Prompt and seed of a video. Raises ValueError in one line that names it."""
        if not self.rule or not prompts:
            prompt, drawn = prompt_of(file, prompts), re.search(r"-(\d{1,6})$", file.stem)
            rest = prompt is not None and file.stem not in (prompt.id, name_part(prompt.id))
            return VideoOwner(prompt, int(drawn[1]) if drawn and rest else 0)
        match = self.pattern.fullmatch(file.stem)
        if match is None:
            raise ValueError(f"{file}: not named by names={self.rule}")
        parts = match.groupdict()
        return VideoOwner(_meant(file, parts, prompts), int(parts.get("seed") or 0))


def _part(part: str) -> str:
    if part == "*":
        return ".*?"
    name = part[1:-1] if part.startswith("{") else ""
    return f"(?P<{name}>{FIELDS[name]})" if name else re.escape(part)


def _meant(file: Path, parts: Mapping[str, str], prompts: Sequence[Prompt]) -> Prompt:
    """The prompt that the fields of a name give. Raises ValueError if none fits, or several."""
    if "text" in parts:
        fits = by_text(parts["text"], prompts)
        if len(fits) != 1:
            which = f"of {fits[0].id!r} or of {fits[1].id!r}" if fits else "no prompt begins with this text"
            raise ValueError(f"{file}: {which}; nearest is a manifest= that says it")
        return fits[0]
    if "id" in parts:
        return _by_id(parts["id"], prompts, str(file))
    place = int(parts["index"]) if "index" in parts else int(parts["number"]) - 1
    if not 0 <= place < len(prompts):
        first = 0 if "index" in parts else 1
        raise ValueError(f"{file}: prompt {place + first} of {len(prompts)}, counted from {first}")
    return prompts[place]


def by_text(text: str, prompts: Sequence[Prompt]) -> list[Prompt]:
    """Prompts that begin with a text; only letters and digits count."""
    own, texts = plain(text), [(prompt, plain("".join(prompt.scenes))) for prompt in prompts]
    return [prompt for prompt, whole in texts if whole == own or len(own) >= SHORT and whole.startswith(own)]


def _by_id(name: str, prompts: Sequence[Prompt], where: str) -> Prompt:
    prompt = next((prompt for prompt in prompts if prompt.id == name), None)
    if prompt is None:
        raise ValueError(f"{where}: no prompt has the id {shown(name)}; nearest is {nearest(name, [prompt.id for prompt in prompts])}")
    return prompt


@dataclass(frozen=True)
class Naming:
    """How the videos of a folder are named. owners: from a manifest, which comes before the pattern."""

    prompts: Sequence[Prompt] = ()
    rule: NameRule = NameRule()
    owners: Mapping[Path, VideoOwner] = field(default_factory=dict)

    def owner(self, file: Path) -> VideoOwner:
        """Prompt and seed of a video. Raises ValueError in one line that names it."""
        return self.owners[file] if self.owners else self.rule.owner(file, self.prompts)

    def free(self, file: Path, owner: VideoOwner, units: set[tuple[str, int]]) -> int:
        """The seed of a video, which is added to `units`. By the default pattern it is the next one that is free for the prompt.

        Raises ValueError for a prompt and seed that a pattern gives to several videos.
        """
        name, seed = owner.text or (owner.prompt.id if owner.prompt else file.name), owner.seed
        if (name, seed) in units and self.rule.rule:
            raise ValueError(f"{file}: names={self.rule.rule} gives prompt {shown(name)} with seed {seed} to another video too")
        while (name, seed) in units:
            seed += 1
        units.add((name, seed))
        return seed

    @property
    def asked(self) -> list[Prompt]:
        """All known prompts, including those of a manifest."""
        return [*self.prompts, *(owner.prompt for owner in self.owners.values() if owner.prompt)]

    @property
    def texts(self) -> bool:
        """Whether any video has a text."""
        return bool(self.asked) or any(owner.text for owner in self.owners.values())


def prompt_of(file: Path, prompts: Sequence[Prompt]) -> Prompt | None:
    """The prompt in a video's name; None if there are no prompts. Raises ValueError if none fits."""
    if not prompts:
        return None
    fitting = [one for one in prompts if _begins(file.stem, one.id) or _begins(file.stem, name_part(one.id))]  # runs write the second form
    if not fitting:
        near = nearest(file.stem, [prompt.id for prompt in prompts])
        rule = "its name is a prompt's id, or that and -<anything>, unless names= or manifest= says otherwise"
        raise ValueError(f"{file}: no prompt has this id; {rule}; nearest is {near}")
    longest = max(len(prompt.id) for prompt in fitting)
    best = [prompt for prompt in fitting if len(prompt.id) == longest]
    best = [prompt for prompt in best if _begins(file.stem, prompt.id)] or best
    if len(best) > 1:
        raise ValueError(f"{file}: of {best[0].id!r} or of {best[1].id!r}, which runs write alike; nearest is a name that begins with one")
    return best[0]


def _begins(stem: str, name: str) -> bool:
    return stem == name or stem.startswith(f"{name}-")


def manifest(path: Path, folder: Path, prompts: Sequence[Prompt]) -> dict[Path, VideoOwner]:
    """Videos that a manifest names, in its order, with prompt and seed.

    Args:
        path: CSV with a header, or JSON objects, one per line or in a list. file: below the folder. prompt: an id of the set; without a set
            an id with `scenes` and `durations`, or a text. seed: 0 by default. scenes, durations (seconds), recalls (scenes from 0): lists,
            separated by ` | ` in a CSV cell.
        folder: the folder of the videos.
        prompts: a prompt set, or none.

    Raises:
        ValueError: in one line with the manifest's line, for an entry that is invalid, missing or repeated.
    """
    owners, units = dict[Path, VideoOwner](), dict[tuple[str, int], str]()
    for where, row in objects(path) if path.suffix in (".json", ".jsonl") else records(path):
        if not isinstance(row, dict):
            raise ValueError(f"{where}: an object with {', '.join(KEYS[:3])} is meant, not {shown(row)}")
        wrong = next((key for key in row if key not in KEYS), None)
        if wrong is not None:
            raise ValueError(f"{where}: unknown column {shown(wrong)}; {nearest_of(wrong, KEYS)}")
        file = inside(folder, str(row.get("file") or ""))
        if not os.path.isfile(file):  # also False for a name that is too long
            raise ValueError(f"{where}: no such video {brief(file)}")
        owner = _said(row, prompts, where)
        unit = owner.text or (owner.prompt.id if owner.prompt else ""), owner.seed
        first = units.setdefault(unit, where)
        if file.name in {other.name for other in owners} or first != where:
            raise ValueError(f"{where}: {shown(file.name)} or its prompt {shown(unit[0])} with seed {unit[1]} stands twice")
        owners[file] = owner
    if not owners:
        raise ValueError(f"{path}: names no video")
    return owners


def _said(row: Mapping[str, Any], prompts: Sequence[Prompt], where: str) -> VideoOwner:
    """Prompt and seed of a manifest's row. Raises ValueError."""
    seed, name = str(row.get("seed") or 0).strip(), str(row.get("prompt") or "").strip()
    if not re.fullmatch(r"\d{1,9}", seed):
        raise ValueError(f"{where}: seed {shown(row['seed'])} is no whole number; nearest is 0")
    if not name:
        raise ValueError(f"{where}: says no prompt; an id or a text is meant")
    lists = {key: _list(row[key]) for key in KEYS[3:] if row.get(key) not in (None, "")}
    if prompts:
        if lists:
            raise ValueError(f"{where}: {', '.join(lists)} beside a prompt set, which says it; nearest is one of both")
        return VideoOwner(_by_id(name, prompts, where), int(seed))
    if "scenes" not in lists:
        return VideoOwner(None, int(seed), name)
    content = {"id": name, "tags": [""] * len(lists["scenes"]), **lists}
    return VideoOwner(parse_prompt(json.dumps(content), where), int(seed))


def _list(cell: object) -> list[Any]:
    """A list, or the list in a CSV cell: numbers if all are numbers, blank entries as None."""
    if not isinstance(cell, str):
        return list(cell) if isinstance(cell, list) else [cell]
    parts = [part.strip() for part in cell.split(SCENES.strip())]
    if all(re.fullmatch(r"-?\d{1,9}(\.\d{1,9})?|", part) for part in parts):
        return [None if not part else float(part) if "." in part else int(part) for part in parts]
    return list(parts)
