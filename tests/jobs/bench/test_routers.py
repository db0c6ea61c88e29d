"""What the table of routers counts, on prompts whose answers are known by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from echo.routing import Feature, Running
from echo.scene import Prompt, TagMeaning, Transition, load_prompts
from jobs import cli
from jobs.bench.routers import Hits, aimed, entered, meant

VIEWS = {"a": [1.0, 0.0, 0.0], "A": [0.95, 0.2, 0.0], "b": [0.0, 1.0, 0.0], "c": [0.0, 0.0, 1.0], "?": [0.6, 0.6, 0.5]}
AGAIN = Prompt("again", ("a", "b", "c", "a", "b", "c"), (3.0,) * 6, ("#", "#", "@", "@", "@", ""), TagMeaning.to_next)


def embed(texts: list[str]) -> list[list[float]]:
    return [VIEWS[text] for text in texts]


def test_what_is_meant() -> None:
    hard, recall = (Transition.hard, None), Transition.recall
    assert meant(AGAIN) == [hard, hard, (recall, 0), (recall, 1), (recall, 2)]
    named = Prompt("named", ("a", "b", "a"), (3.0,) * 3, ("", "", "@"), TagMeaning.enter, (None, None, 0))
    assert meant(named) == [(Transition.smooth, None), (recall, 0)]


@pytest.mark.parametrize(("scenes", "right"), [("abcabc", 5), ("aAcabc", 3), ("abca?c", 4)])
def test_scenes_entered_as_their_tags_say(scenes: str, right: int) -> None:
    """`aA` continues smoothly although a cut is intended, and `b` is a new place; `?` is similar to no scene."""
    prompt = Prompt("x", tuple(scenes), (3.0,) * 6, AGAIN.tags, TagMeaning.to_next)
    assert entered([prompt], Running.previous, 0.85, embed) == Hits(right, 5)
    assert str(entered([AGAIN, prompt], Running.previous, 0.85, embed)) == f"{5 + right} of 10"


def test_words_find_the_recalled_scene_of_every_sentence_of_this_project() -> None:
    assert aimed(load_prompts("data/prompts/wan/recall.jsonl"), Feature.idf, None) == Hits(192, 192)
    assert str(aimed(load_prompts("data/prompts/wan/hard.jsonl"), Feature.idf, None)) == "-"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "routers.md"
    words = ["audit", "routers", "backbone=self_forcing", "weights=random", "geometry=tiny", "features=idf", "thresholds=0.85"]
    assert cli.main([*words, "--output", str(table)]) == 0
    assert capsys.readouterr().out == table.read_text(encoding="utf-8")
    head, _, *rows = (line.strip("| ").split(" | ") for line in table.read_text(encoding="utf-8").splitlines())
    assert head == ["prompt set", "eq. (17), previous, 0.85", "eq. (17), chain, 0.85", "target by idf"]
    assert rows[2] == ["data/prompts/wan/recall.jsonl (64)", "-", "-", "192 of 192"] and len(rows) == 3
    assert cli.main([*words[:2], "features=idff"]) == 2
    assert "features=idff: some of similar, idf, prompt" in capsys.readouterr().err
