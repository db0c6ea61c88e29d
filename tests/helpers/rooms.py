"""The structure of the code by its imports: files, imports, layers and import cycles of packages ("rooms"), and other counts.

python -m tests.helpers.rooms [FOLDER ...]    # prints the counts of one or more trees side by side (default: this one)
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from echo.files import ROOT

TOPS = ("echo", "baselines", "data", "eval", "jobs", "run")
"""Lowest first."""
ORDER = {
    "": " < ".join([*TOPS, "tests"]),
    "echo": "files geometry noise refusals routing sampler scene settings < backbone < cache < memory < policy rollout"
    " < generate recording",
    "data": "world < *",
    "eval": "protocol metrics definitions < measures store < stats pages < world vbench < tables < claims figures < study report < audit",
    "eval.vbench": "networks < *",
    "jobs": "spec < memory store < work < launch < watch live bench train < cli",
}
"""Allowed imports: a room may import rooms left of a `<` before it, never later ones or rooms on its own level. Files may import files of
their own room. `*` stands for all names that are not listed. A room without a line here has no order inside it; no room has import cycles.
"""
FLAT = 12
"""Most files directly in a room, not counting `__init__`."""
OF_ONE_KIND = ("baselines", "eval.vbench.networks")
"""Rooms with a file per policy or network, which may have more."""
WORD = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+(:\w+)?")
BEGINNING = re.compile(r"([A-Za-z_]\w*\.)+")


@dataclass(frozen=True)
class Source:
    """A file of the tree, parsed once. name: its import name; for a package's `__init__` the package's."""

    path: Path
    name: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.text)


@dataclass(frozen=True)
class Arrow:
    """An import of one file by another, or its name in a string."""

    source: str
    target: str
    line: int


class House:
    """All Python files of a tree's rooms."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = {source.name: source for source in sources}

    @classmethod
    def of(cls, root: Path) -> House:
        """The files below a folder that holds `run.py` and the rooms."""
        paths = [root / "run.py", *(path for top in TOPS for path in sorted((root / top).rglob("*.py")))]
        return cls([Source(path, _name(path.relative_to(root)), path.read_text(encoding="utf-8")) for path in paths])

    @classmethod
    def sample(cls, files: dict[str, str]) -> House:
        """A house from texts by path."""
        return cls([Source(Path(path), _name(Path(path)), text) for path, text in files.items()])

    @cached_property
    def arrows(self) -> list[Arrow]:
        """Every import of one file by another, anywhere in the file, and every string that names a module."""
        return [arrow for source in self.sources.values() for arrow in self._arrows_of(source)]

    def _arrows_of(self, source: Source) -> Iterator[Arrow]:
        seen = set()
        for node in ast.walk(source.tree):
            for target in filter(None, map(self._module, _named(node, source))):
                if target != source.name and target not in seen:
                    seen.add(target)
                    yield Arrow(source.name, target, getattr(node, "lineno", 0))

    def _module(self, name: str) -> str | None:
        """The module of a dotted name: the name itself, or the module that has it as attribute."""
        if name.startswith("tests."):
            return name
        if name.partition(".")[0] not in TOPS:
            return None
        parts = name.split(".")
        return next((".".join(parts[:end]) for end in (len(parts), len(parts) - 1) if ".".join(parts[:end]) in self.sources), None)

    def upward(self) -> list[str]:
        """Imports that the order forbids, and files that no order lists."""
        lines = []
        for arrow in self.arrows:
            room = _common(arrow.source, arrow.target)
            here, there = (_floor(room, name) for name in (arrow.source, arrow.target))
            if here is not None and there is not None and (here < there or here == there and self._are_rooms(room, arrow)):
                way = "upwards" if here < there else "from the room beside it"
                lines.append(f"{arrow.source}:{arrow.line} imports {way}: {arrow.target}")
        for name in self.sources:
            parts = name.split(".")
            for depth in range(len(parts)):
                room = ".".join(parts[:depth])
                if room in ORDER and _floor(room, name) is None:
                    lines.append(f"{name} stands in no order: {ORDER[room]}")
        return lines

    def _are_rooms(self, room: str, arrow: Arrow) -> bool:
        """Whether an import goes from one inner room to another."""
        parts = [_part(room, name) for name in (arrow.source, arrow.target)]
        return parts[0] != parts[1] and all(any(name.startswith(f"{room}.{part}.") for name in self.sources) for part in parts)

    def circles(self, below: str = "") -> list[list[str]]:
        """Groups of files that import each other, directly or through others; in one room, or in all."""
        groups: dict[int, list[str]] = {}
        for name, group in zip(*self._groups(below)):
            groups.setdefault(int(group), []).append(name)
        return [names for names in groups.values() if len(names) > 1]

    def floors(self, below: str = "") -> int:
        """Length of the longest chain of imports; the files of a cycle count as one."""
        names, groups = self._groups(below)
        group = dict(zip(names, groups))
        over: dict[int, set[int]] = {}
        for source, target in self._within(below):
            if group[source] != group[target]:
                over.setdefault(group[source], set()).add(group[target])
        heights: dict[int, int] = {}

        def height(one: int) -> int:
            if one not in heights:
                heights[one] = 1 + max((height(other) for other in over.get(one, ())), default=0)
            return heights[one]

        return max(map(height, groups), default=0)

    def _groups(self, below: str) -> tuple[list[str], list[int]]:
        names = [name for name in self.sources if _below(name, below)]
        index = {name: place for place, name in enumerate(names)}
        pairs = np.array([(index[source], index[target]) for source, target in self._within(below)], dtype=int).reshape(-1, 2)
        matrix = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(names), len(names)))
        return names, connected_components(matrix, connection="strong")[1].tolist()

    def _within(self, below: str) -> list[tuple[str, str]]:
        ends = [(arrow.source, arrow.target) for arrow in self.arrows if arrow.target in self.sources]
        return [(source, target) for source, target in ends if _below(source, below) and _below(target, below)]

    def count(self, below: str) -> int:
        """Number of imports between the files of a room."""
        return len(self._within(below))

    def flat(self) -> Counter[str]:
        """Room -> number of files directly in it."""
        paths = (source for source in self.sources.values() if source.path.stem != "__init__" and source.name != "run")
        return Counter(source.name.rpartition(".")[0] for source in paths)

    def crowded(self) -> list[str]:
        """Rooms with too many files directly in them."""
        return [f"{room} has {count} files flat" for room, count in self.flat().items() if count > FLAT and room not in OF_ONE_KIND]

    def untyped(self) -> list[str]:
        """Every `dict[str, Any]`."""
        return [source.name for source in self.sources.values() for _ in re.finditer(r"dict\[str, Any\]", source.text)]

    def classes_of_one_name(self) -> list[str]:
        """Names that several classes of the tree have."""
        where: dict[str, list[str]] = {}
        for source in self.sources.values():
            for node in source.tree.body:
                if isinstance(node, ast.ClassDef):
                    where.setdefault(node.name, []).append(source.name)
        return [f"{name}: {', '.join(places)}" for name, places in where.items() if len(places) > 1]

    def mains(self) -> list[str]:
        """Files that can be run by themselves."""
        return [source.name for source in self.sources.values() if any(_is_main(node) for node in source.tree.body)]

    def lines(self) -> int:
        """Lines of source."""
        return sum(len(source.text.splitlines()) for source in self.sources.values())

    def figures(self) -> dict[str, str]:
        """All counts of a tree."""
        flat = self.flat()
        told = {"files": str(len(self.sources))}
        for top in TOPS[:-1]:
            rooms = {room: count for room, count in flat.items() if _below(room, top)}
            most = max(rooms, key=lambda room: rooms[room])
            told |= {
                f"{top}: files flat": f"{flat[top]}; at most {rooms[most]} ({most})",
                f"{top}: arrows": str(self.count(top)),
                f"{top}: floors": str(self.floors(top)),
                f"{top}: circles": ", ".join(f"of {len(names)}" for names in self.circles(top)) or "0",
            }
        return told | {
            "arrows in all": str(len(self.arrows)),
            "circles in all": ", ".join(f"of {len(names)}" for names in self.circles()) or "0",
            "upward arrows": str(len(self.upward())),
            "dict[str, Any]": str(len(self.untyped())),
            "class names given twice": str(len(self.classes_of_one_name())),
            "files that are run by themselves": str(len(self.mains())),
            "source lines": str(self.lines()),
        }


def _name(path: Path) -> str:
    parts = [part for part in path.with_suffix("").parts if part != "__init__"]
    return ".".join(parts)


def _named(node: ast.AST, source: Source) -> Iterator[str]:
    """Dotted names of modules, or of their contents, in a node."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        package = source.name if source.path.stem == "__init__" else source.name.rpartition(".")[0]
        here = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        start = ".".join([*here, *filter(None, [node.module])])
        yield from (f"{start}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and WORD.fullmatch(node.value):
        yield from [] if node.value.startswith("run.") else [node.value.replace(":", ".")]  # run.py and run.json are files
    elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant) and BEGINNING.fullmatch(str(node.values[0].value)):
        yield str(node.values[0].value).rstrip(".")


def _common(one: str, other: str) -> str:
    parts = []
    for a, b in zip(one.split("."), other.split(".")):
        if a != b:
            break
        parts.append(a)
    return ".".join(parts)


def _floor(room: str, name: str) -> int | None:
    """A module's level in its room's order; None if the room has no order or does not list it."""
    part = _part(room, name)
    if room not in ORDER or not part:
        return None
    floors = [floor.split() for floor in ORDER[room].split(" < ")]
    return next((place for mark in (part, "*") for place, names in enumerate(floors) if mark in names), None)


def _part(room: str, name: str) -> str:
    return name.removeprefix(room).lstrip(".").partition(".")[0]


def _below(name: str, room: str) -> bool:
    return not room or name == room or name.startswith(room + ".")


def _is_main(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)


def main(words: Sequence[str]) -> int:
    """Command line; see the module's docstring."""
    columns = [House.of(Path(word)).figures() for word in words or [str(ROOT)]]
    for key in columns[0]:
        print(f"{key:36}", *(f"{column[key]:34}" for column in columns))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
