"""Small files of the forms in which other people ship their prompt sets; every text is made up."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

STORY = [
    (
        "cut",
        "A quay at dawn. Ona, in a yellow coat, mends a net beside a boat.",
        [("E1", "introduce", 0, ""), ("E2", "introduce", 0, ""), ("E5", "introduce", 0, "")],
    ),
    ("continue", "Ona coils a rope.", [("E1", "recall", 0, "seg_001"), ("E2", "recall", 0, "seg_001")]),
    (
        "cut",
        "A kitchen with a blue stove. Ona feeds a cat.",
        [("E1", "recall", 0, "seg_002"), ("E3", "introduce", 0, ""), ("E4", "introduce", 0, "")],
    ),
    ("cut", "Ona walks along the quay.", [("E1", "recall", 0, "seg_003"), ("E2", "recall_after_gap", 1, "seg_002")]),
    ("continue", "The cat comes along the quay.", [("E4", "recall", 1, "seg_003"), ("E2", "recall", 0, "seg_004")]),
    (
        "cut",
        "Ona, now in a red coat, puts the boat on the kitchen table.",
        [("E5", "recall_after_gap", 4, "seg_001"), ("E3", "recall", 2, "seg_003"), ("E1", "transform", 1, "seg_004")],
    ),
]
"""A story's segments: transition, text, and what each shows: who, what it is to memory, segments without it, when it was last seen."""
KINDS = {"E1": "character", "E2": "location", "E3": "location", "E4": "character", "E5": "prop"}


def written(path: Path, content: object) -> Path:
    """A JSON file, its folders made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def memflow(folder: Path, stories: int = 2) -> Path:
    """JSON lines of six texts each."""
    path = folder / "memflow.jsonl"
    lines = [json.dumps({"prompts": [f"A wizard, story {story}, does thing {scene}." for scene in range(6)]}) for story in range(stories)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def helios(folder: Path) -> Path:
    """CSV of prompts with commas and durations in frames, several in one set."""
    path = folder / "helios.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "duration"])
        writer.writerows([[number, f'A "red" fox, number {number}, runs.', frames] for number, frames in enumerate((120, 240, 1440), 1)])
    return path


def truth(cast: list[Any] | None = None) -> dict[str, Any]:
    """The ground truth of the story; cast: of its fourth segment, if another."""
    segments = []
    for number, (transition, _, shown) in enumerate(STORY, 1):
        own = [{"eid": who, "op": op} | ({"gap": gap, "last_seen": last} if last else {}) for who, op, gap, last in shown]
        cast_of = own if cast is None or number != 4 else cast
        segments.append(
            {"segment_id": f"seg_{number:03d}", "transition": transition, "memory_probes": [], "cast": cast_of, "forbidden": []}
        )
    return {"story_id": "0001_quay", "entities": {who: {"kind": kind, "name": who} for who, kind in KINDS.items()}, "segments": segments}


def vmem(folder: Path) -> Path:
    """A folder with a story's prompts and, beside them, its ground truth."""
    segments = [
        {"segment_id": f"seg_{number:03d}", "duration_sec": 5, "transition": transition, "prompt": text}
        for number, (transition, text, _) in enumerate(STORY, 1)
    ]
    story = {"story_id": "0001_quay", "title": "Quay", "register": "name_anchored", "n_segments": len(segments), "segments": segments}
    written(folder / "trackB" / "sut_prompts" / "0001_quay_name_anchored.json", story)
    written(folder / "trackB" / "gt" / "0001_quay.json", truth())
    return folder / "trackB"


def layerrecall(folder: Path) -> Path:
    """Folders of three shots; the second case says its blocks."""
    root = folder / "layerrecall"
    for case in (1, 2):
        place = root / "caption" / f"case_{case:04d}"
        for shot, what in enumerate(("plays", "leaves, and the chair is empty", "comes back")):
            written(place / f"{shot}.json", {"caption": f"A guitarist, number {case}, {what}."})
        design = [{"shot": shot, "duration_blocks": blocks} for shot, blocks in enumerate((12, 6, 6), 1)]
        written(
            place / "global.json", {"caption": "all", "memory_axis": "subject_identity"} | ({"shot_design": design} if case == 2 else {})
        )
    return root


def rollf200(folder: Path) -> tuple[Path, Path]:
    """A file of prompts, one a line, and line numbers into it, from 0."""
    prompts, numbers = folder / "extended.txt", folder / "indices.txt"
    prompts.write_text("".join(f"A fox, line {line}, runs.\n" for line in range(9)), encoding="utf-8")
    numbers.write_text("7\n0\n3\n", encoding="utf-8")
    return prompts, numbers
