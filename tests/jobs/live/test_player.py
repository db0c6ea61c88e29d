"""A session in a thread of its own, as pages see it: news, pauses, failures, answers, and who is let in."""

from __future__ import annotations

import time
from functools import partial
from types import SimpleNamespace

import pytest

from echo.scene import Prompt, TagMeaning
from jobs.live.desk import about, answers, visitor
from jobs.live.player import Player
from tests.helpers.live import A, B, order, replayed


@pytest.fixture
def player(opened):
    made = Player(opened)
    yield made
    made.close()


def heard(player, enough, known, limit_s=120.0):
    """Ask for news until so many more blocks have come, or blocks that are enough; all of them and the scenes."""
    found, cards, until = [], {}, time.monotonic() + limit_s
    while not (enough(found) if callable(enough) else len(found) >= enough):
        assert time.monotonic() < until, f"{len(found)} blocks in {limit_s} s"
        player.watched(0, 0)  # a page that shows all at once wants the next at once
        news = player.news(**known, wait_s=0.5)
        known |= {key: news[key] for key in ("epoch", "version", "notes")}
        known["after"] = max([known["after"], *(block["index"] for block in news["blocks"])])
        found += news["blocks"]
        cards |= {card["number"]: card for card in news["scenes"]}
    return found, cards


def say(player, *words):
    return player.ask(lambda session: session.say(*words))


def fresh():
    return {"epoch": 0, "after": -1, "version": 0, "notes": 0}


def test_pages_hear_of_blocks_and_scenes(player, tmp_path):
    known = fresh()
    assert say(player, A).number == 0
    blocks, cards = heard(player, 2, known)
    assert [block["scene"] for block in blocks] == [0] * len(blocks) and cards[0]["how"] == "start"
    scene = say(player, B, "hard")
    assert scene.number == 1
    blocks, cards = heard(player, lambda found: sum(block["scene"] == 1 for block in found) >= 2, known)
    assert all(block["scene"] == (block["index"] >= scene.start.block) for block in blocks), "it holds from the next block on"
    assert cards[1]["how"] == "hard cut"
    assert cards[1]["thumb"].startswith("data:image/png;base64,") and player.news(**known, wait_s=0)["pool"] == [0, 2]
    assert all(len(block["strip"]) >= 3 and block["picture"].startswith("data:image/png") for block in blocks)
    with pytest.raises(ValueError, match="unknown word 'zebra'"):
        say(player, "zebra")
    saved = player.ask(lambda session: session.save(tmp_path))
    assert replayed(saved.command)[:2] == (saved.latents_sha256, saved.video.read_bytes())


def test_nothing_is_made_for_nobody_or_when_paused(player, monkeypatch):
    known = fresh()
    say(player, A)
    heard(player, 1, known)
    player.pause(True)
    count = player.ask(lambda session: session.blocks)
    for _ in range(4):
        player.watched(0, 0)
        assert player.news(**known, wait_s=0)["status"] == "paused"
        time.sleep(0.15)
    assert player.ask(lambda session: session.blocks) == count
    player.pause(False)
    heard(player, 1, known)
    monkeypatch.setattr("jobs.live.player.AWAY_S", 0.0)
    player.watched(0, 0)
    count = player.ask(lambda session: session.blocks)
    time.sleep(0.6)
    assert player.ask(lambda session: session.blocks) == count


def test_blocks_are_made_no_earlier_than_the_film_needs_them(player):
    known = fresh()
    say(player, A)
    heard(player, 1, known)
    player.watched(600_000, 0)
    count = player.ask(lambda session: session.blocks)
    time.sleep(0.6)
    assert player.ask(lambda session: session.blocks) == count
    player.watched(0, 0)
    heard(player, 1, known)


def test_refused_and_ended_are_told(opened):
    player = Player(partial(opened, "self_forcing", "method.max_position=24"))
    try:
        known = fresh()
        say(player, A)
        heard(player, lambda found: any(block["index"] == 7 for block in found), known)
        news, until = player.news(**(known | {"notes": 0})), time.monotonic() + 60
        while news["status"] == "playing" and time.monotonic() < until:  # on to the block that there cannot be
            player.watched(0, 0)
            news = player.news(**(known | {"notes": 0}))
        assert news["status"] == "ended" and "longest is 8 blocks" in news["note"]
        player.restart()
        again = player.news(**known)
        assert again["epoch"] == 1 and again["status"] == "waiting" and not again["blocks"]
    finally:
        player.close()


def test_a_failure_is_told_and_nobody_waits_for_ever(capsys):
    def broken():
        raise RuntimeError("no such card")

    player = Player(broken)
    try:
        news = player.news(**fresh(), wait_s=60)
        assert news["status"] == "failed" and news["note"] == "RuntimeError: no such card"
        with pytest.raises(ValueError, match="the session has failed: no such card"):
            say(player, A)
    finally:
        player.close()
    assert "no such card" in capsys.readouterr().err


def test_a_script_comes_before_what_is_said(opened, monkeypatch):
    monkeypatch.setattr("jobs.live.player.AWAY_S", 0.0)  # what a script says is made whoever watches, and nothing more for nobody
    prompt = Prompt("live", (A, B), (1.5, 1.5), ("", "#"), TagMeaning.enter)
    player = Player(opened, prompt)
    try:
        assert player.ask(lambda session: (session.blocks, len(session.scenes))) == (4, 2)
        assert [card["number"] for card in player.news(**fresh())["scenes"]] == [0, 1]
    finally:
        player.close()


def test_what_the_page_asks(player, words):
    asked = order(*words, "method=echo")
    ask = {one.__name__: one for one in answers(player, asked)}
    know = ask["know"]({})
    assert know == about(asked) and know["recalls"] and know["method"] == "Echo-Forcing" and know["ideas"]
    assert ask["say"]({"text": "a zebra"})["error"].startswith("unknown word 'zebra'")
    assert ask["say"]({})["error"] and ask["say"]({"text": A, "recalls": 3})["error"].startswith("recall: nothing has been shown")
    assert ask["say"]({"text": A}) == {"scene": 0, "note": "It begins."}
    heard(player, 2, fresh())
    saved = ask["save"]({})
    assert {file["name"] for file in saved["files"]} == {"live.mp4", "live.jsonl", "live.trace.jsonl", "session.json"}
    assert asked.save.resolve().as_posix() in saved["folder"]


@pytest.mark.parametrize(
    ("host", "asked", "origin", "let_in"),
    [
        ("127.0.0.1", "127.0.0.1:7860", None, True),
        ("127.0.0.1", "localhost:7860", "http://localhost:7860", True),
        ("127.0.0.1", "127.0.0.1:7860", "http://evil.example", False),
        ("127.0.0.1", "127.0.0.1:7860", "http://127.0.0.1:8000", False),
        ("127.0.0.1", "127.0.0.1:7860", "null", False),
        ("127.0.0.1", "evil.example:7860", "http://evil.example:7860", False),
        ("0.0.0.0", "lab.example:7860", "http://lab.example:7860", True),
    ],
)
def test_pages_of_others_are_not_let_in(host, asked, origin, let_in):
    headers = {"host": asked} | ({} if origin is None else {"origin": origin})
    assert (visitor(host)(SimpleNamespace(headers=headers)) is not None) is let_in
