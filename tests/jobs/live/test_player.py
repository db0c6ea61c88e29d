"""A session in a thread of its own, as pages see it: news, pauses, failures, answers, and who is let in."""

from __future__ import annotations

import time
from functools import partial

import pytest

from echo.scene import Prompt, TagMeaning
from jobs.live.desk import about, answers
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
    player.ask(lambda session: session.blocks)  # its thread has composed its own order: Hydra composes one at a time
    asked = order(*words, "method=echo")
    written = set()
    ask = {one.__name__: one for one in answers(player, asked, written)}
    know = ask["know"]({})
    assert know == about(asked) and know["recalls"] and know["method"] == "Echo-Forcing" and know["ideas"]
    assert ask["say"]({"text": "a zebra"})["error"].startswith("unknown word 'zebra'")
    assert ask["say"]({})["error"] and ask["say"]({"text": A, "recalls": 3})["error"].startswith("recall: nothing has been shown")
    assert ask["say"]({"text": A}) == {"scene": 0, "note": "It begins."}
    heard(player, 2, fresh())
    for left in (float("nan"), float("inf"), "x", None, 10**400, [], -1e300):
        assert bool(ask["news"](fresh() | {"left": left, "stood": 0}).get("error")) is (left != -1e300), left
    assert "left 1" not in str(ask["news"](fresh() | {"left": 1e300, "stood": 1e300})), "what a page may have to show has a limit"
    for text, why in (("half \ud83d", "half of one"), ("nul \0", "control character"), ("a" * 10_001, "10000 are the most")):
        answer = ask["say"]({"text": text})["error"]
        assert why in answer and len(answer) < 200, answer
    assert ask["know"]({})["recalls"], "and the session goes on"
    player.ask(lambda session: setattr(session, "folder", asked.save / "own"))
    saved = ask["save"]({})
    assert written == {path.resolve() for path in (asked.save / "own").iterdir()}
    assert {file["name"] for file in saved["files"]} == {"live.mp4", "live.jsonl", "live.trace.jsonl", "session.json"}
    assert asked.save.resolve().as_posix() in saved["folder"]


def test_what_kills_a_session_leaves_film_and_script(opened, tmp_path, monkeypatch, capsys):
    """A full disk below the temporary files while a block is kept: all before it is saved, by the session's own end."""
    session = opened()
    session.folder = tmp_path / "live"
    player = Player(lambda: session)
    try:
        say(player, A)
        heard(player, 2, fresh())
        script = tmp_path / "live" / "live.jsonl"
        assert script.is_file() and "echo-harness" not in script.read_text(encoding="utf-8"), "the script is there while the film runs"
        before = player.ask(lambda session: session.blocks)

        class Full:
            """A file on a disk that is full from now on."""

            def __init__(self, film) -> None:
                self.film = film

            def write(self, content: bytes) -> int:
                raise OSError(28, "No space left on device")

            def __getattr__(self, name: str):
                return getattr(self.film, name)

        def fill(session) -> None:
            session._film = Full(session._film)

        player.ask(fill)
        deadline = time.monotonic() + 60
        while (news := player.news(**fresh(), wait_s=0.2))["status"] != "failed":
            player.watched(0, 0)
            assert time.monotonic() < deadline
        assert "No space left" in news["note"] and "video and script are saved" in news["note"], news["note"]
    finally:
        player.close()
    assert session.blocks >= before and session.unsaved == 0
    sha256, video, _ = replayed(session.command(script))
    assert (sha256, video) == (session.latents_sha256, (tmp_path / "live" / "live.mp4").read_bytes()), "to the byte"


def test_the_end_of_a_session_saves_it(opened, tmp_path, capsys):
    session = opened()
    session.folder = tmp_path / "live"
    player = Player(lambda: session)
    say(player, A)
    heard(player, 1, fresh())
    player.close()
    assert "video and script are saved" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "live").iterdir()} == {"live.mp4", "live.jsonl", "live.trace.jsonl", "session.json"}
