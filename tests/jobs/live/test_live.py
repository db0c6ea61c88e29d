"""A live session: what is said holds from the next block on, and its script makes the same bytes as a normal run."""

from __future__ import annotations

import hashlib
import json
import shlex
import socket
import time
from functools import cache, partial
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from echo.backbone.interface import features
from echo.files import ROOT
from echo.routing import Routing, automatic, script_of
from echo.scene import Prompt, SceneStart, TagMeaning, Transition, load_prompts, parse_prompt
from eval.figures.trace import COLOURS, shipped_backbone
from jobs.live import command as live
from jobs.live.desk import about, answers, visitor
from jobs.live.player import Player
from jobs.live.session import Refused, Session, can_recall, record
from jobs.live.view import legend, picture, strip, thumbnail
from jobs.spec.plan import prepare
from jobs.store.folder import RunFolder
from jobs.watch.forecast import composed
from jobs.work import models
from jobs.work.worker import work
from tests.echo.conftest import make

A, B, C = "a red ball left meadow", "a red ball up striped desert", "a red ball over a plain meadow"


@pytest.fixture(scope="module")
def words(toy, tmp_path_factory):
    store = tmp_path_factory.mktemp("live")
    given = (f"backbone.weights={toy / 'model.safetensors'}", f"task.prompt_set={toy / 'prompts-3-3.jsonl'}", f"store={store}")
    return (*given, "video.height_px=16")


@cache
def order(*words):
    """Composed once for all tests."""
    return live.order(words)


@pytest.fixture
def opened(words):
    """Open a session of a method, or of more settings."""
    sessions = []

    def open_one(method="echo", *more):
        asked = order(*words, f"method={method}", *more)
        backbone, _ = models.load(asked.job)
        sessions.append(Session(asked.job, backbone, asked.name, asked.words, asked.threshold))
        return sessions[-1]

    yield open_one
    for session in sessions:
        session.close()


def film(session, blocks):
    return [session.next_block() for _ in range(blocks)]


def replayed(command):
    """Latents hash, bytes of the video and trace of a session's own command, by a worker of run.py's."""
    python, program, *rest = shlex.split(command)
    assert (python, program) == ("python", "run.py")
    plain = composed([f"++{word}" if word.startswith("method.") else word for word in rest])[0]
    job = prepare(plain)
    (prompt,) = job.prompt_set
    folder, attempt = RunFolder(job), f"replay-{job.unit_id(prompt)}"
    assert folder.missing() and work(job, attempt, rest, plain, lambda event: None) == 0
    found = json.loads((folder.path / "records" / f"{attempt}.jsonl").read_text(encoding="utf-8"))
    units = folder.path / "units"
    return found["latents_sha256"], (units / found["files"]["video"]).read_bytes(), (units / found["files"]["trace"]).read_bytes()


def test_what_is_said_holds_from_the_next_block_on(opened):
    session, other = opened(), opened()
    for one in (session, other):
        one.say(A)
    kept = [(made.scene, made.frames_THWC.tobytes()) for made in film(other, 5)]
    film(session, 3)
    scene = session.say(B, "hard")
    assert scene.number == 1 and scene.start == SceneStart(3, Transition.hard, None, 45)
    made = film(session, 2)
    assert [one.scene for one in made] == [1, 1] and [one.index for one in made] == [3, 4]
    assert made[0].plan.queries[0] >= 45 and made[0].frames_THWC.tobytes() != kept[3][1]
    assert [one.scene for one in session.scenes and film(session, 1)] == [1]


def test_the_last_word_before_a_block_counts(opened):
    session = opened()
    session.say(A)
    film(session, 1)
    session.say(B, "hard")
    with pytest.raises(ValueError, match="unknown word 'zebra'"):
        session.say("a zebra")
    assert session.pending is not None and session.pending.text == B
    session.say(C, "smooth")
    film(session, 1)
    assert [(scene.text, scene.start.transition) for scene in session.scenes] == [(A, None), (C, Transition.smooth)]


@pytest.mark.parametrize("method", ["echo", "echo_official", "oracle", "self_forcing_recache"])
def test_the_script_makes_the_same_bytes_as_a_normal_run(opened, tmp_path, method):
    session = opened(method)
    recalls = can_recall(session.job)
    for text, transition, recalled, blocks in [
        (A, None, None, 9),
        (B, "hard", None, 2),
        (A, "smooth", None, 3),
        (C, "recall" if recalls else "hard", 0 if recalls else None, 4),
        (B, None, None, 2),
    ]:
        session.say(text, transition, recalled)
        film(session, blocks)
    saved = session.save(tmp_path / "a folder, with 'marks'")
    assert replayed(saved.command) == (saved.latents_sha256, saved.video.read_bytes(), saved.trace.read_bytes())
    (prompt,) = load_prompts(saved.script)
    assert prompt.durations_s == (6.75, 1.5, 2.25, 3.0, 1.5) and prompt.tags[:4] == ("", "#", "", "@" if recalls else "#")
    assert not recalls or prompt.recalls[:4] == (None, None, None, 0)


def test_another_scene_recalled_is_another_video(opened, tmp_path):
    hashes = {}
    for recalled in (0, 1):
        session = opened()
        for text, number in ((A, None), (B, None), (C, recalled)):
            session.say(text, "hard" if number is None else None, number)
            film(session, 3)
        saved = session.save(tmp_path / str(recalled))
        hashes[recalled] = replayed(saved.command)[0]
        assert hashes[recalled] == saved.latents_sha256
    assert hashes[0] != hashes[1]


def test_a_recall_that_the_pool_no_longer_has_is_refused_and_the_session_goes_on(opened):
    session = opened("echo", "method.routing.pool_scenes=1")
    for text in (A, B):
        session.say(text, "hard")
        film(session, 2)
    with pytest.raises(ValueError, match=r"recall of scene 0: the pool holds 1\.\.1; nearest is 1"):
        session.say(C, "recall", 0)
    assert session.pool == range(1, 2)
    assert [made.scene for made in film(session, 1)] == [1]
    session.say(C, "recall", 1)
    assert film(session, 1)[0].scene == 2 and session.scenes[2].start.recalls == 1


def test_what_the_memory_refuses_leaves_no_trace(opened, monkeypatch):
    session, other = opened(), opened()
    for one in (session, other):
        one.say(A)
        film(one, 2)
    with monkeypatch.context() as patch:

        def no(step):
            raise ValueError("recall of scene 0: forgotten")

        patch.setattr(session._rollout.memory, "switch", no)
        session.say(B, "recall", 0)
        with pytest.raises(Refused, match="scene 1 is not begun: recall of scene 0: forgotten"):
            session.next_block()
    for one in (session, other):
        film(one, 2)
        one.say(B, "recall", 0)
        film(one, 2)
    assert session.latents_sha256 == other.latents_sha256 and len(session.scenes) == 2


def test_a_method_without_a_pool_says_so(opened):
    session = opened("self_forcing")
    session.say(A)
    film(session, 1)
    with pytest.raises(ValueError, match="method=self_forcing: keeps no ended scene to recall; nearest is smooth or hard"):
        session.say(B, recalls=0)
    assert not session.pool and not can_recall(opened("echo_recall_none").job)
    session.say(B)
    assert session.pending is not None and session.pending.start.recalls is None


def test_saved_in_the_middle_and_gone_on_from_there(opened, tmp_path):
    whole = opened()
    whole.say(A)
    film(whole, 4)
    whole.say(B, "hard")
    film(whole, 3)
    first = whole.save(tmp_path / "first")
    whole.say(C, "recall", 0)
    film(whole, 3)
    again = opened()
    (prompt,) = load_prompts(first.script)
    assert [made.index for made in again.follow(prompt)] == list(range(7))
    assert again.latents_sha256 == first.latents_sha256 != whole.latents_sha256
    again.say(C, "recall", 0)
    film(again, 3)
    second, third = whole.save(tmp_path / "second"), again.save(tmp_path / "third")
    assert second.latents_sha256 == third.latents_sha256 and second.video.read_bytes() == third.video.read_bytes()
    assert second.script.read_bytes() == third.script.read_bytes() and first.video.read_bytes() != second.video.read_bytes()
    with pytest.raises(ValueError, match="script 'live': followed from the beginning"):
        next(again.follow(prompt))


def test_a_session_refuses_what_it_cannot_do(opened, tmp_path):
    session = opened()
    for call, line in (
        (lambda: session.save(tmp_path), "nothing to save"),
        (session.next_block, "no scene yet"),
        (lambda: session.say("  "), "nothing was said"),
        (lambda: session.say(A, "recal"), "transition 'recal': nearest is 'recall'"),
        (lambda: session.say(A, "recall", 0), "nothing has been shown yet"),
        (lambda: session.say(A, "hard", 0), "scene 0 is named and hard recalls none"),
    ):
        with pytest.raises(ValueError, match=line):
            call()


def test_a_policy_with_a_last_position_ends_the_session(opened):
    session = opened("self_forcing", "method.max_position=24")
    session.say(A)
    film(session, 8)
    with pytest.raises(ValueError, match="longest is 8 blocks"):
        session.next_block()


def test_routed_by_the_texts_as_the_tags_of_the_prompt_sets_say():
    embed = partial(features, shipped_backbone().text)
    settings = Routing(causal=True, threshold_smooth=live.THRESHOLD, threshold_recall=live.THRESHOLD)
    right = count = 0
    for task in ("smooth", "hard", "recall"):
        for prompt in load_prompts(ROOT / f"data/prompts/{task}.jsonl")[:6]:
            starts = [SceneStart(0)]
            for scene, tagged in enumerate(prompt.transitions(TagMeaning.enter)):
                if tagged is not None:
                    found = automatic(prompt.scenes[: scene + 1], starts, settings, embed)
                    right += found == (tagged, scene - 3 if tagged is Transition.recall else None)
                    count += 1
                    starts.append(SceneStart(scene, tagged))
    assert count == 90 and right >= 87, right


# ---- prompts that name the scene they recall


def test_a_prompt_may_name_the_scene_it_recalls():
    line = {
        "id": "p",
        "scenes": [A, B, C],
        "durations": [3, 3, 3],
        "tags": ["", "#", "@"],
        "tag_meaning": "enter",
        "recalls": [None, None, 0],
    }
    prompt = parse_prompt(json.dumps(line), "here")
    assert prompt.recalls == (None, None, 0) and parse_prompt(json.dumps(record(prompt)), "there") == prompt
    policy = make("echo", routing__feature="idf")
    assert [start.recalls for start in script_of(prompt, policy).starts] == [None, None, 0]
    other = parse_prompt(json.dumps(line | {"recalls": [None, None, 1]}), "here")
    assert script_of(other, policy).starts[2].recalls == 1
    assert script_of(other, make("self_forcing")).starts[2] == SceneStart(8, Transition.recall)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"recalls": "0"}, "recalls is a list of scene numbers"),
        ({"recalls": [None, None, True]}, "recalls is a list of scene numbers"),
        ({"recalls": [0]}, "3 scenes, 1 recalls"),
        ({"recalls": [None, None, 2]}, "scene 2 recalls scene 2: scenes before it are 0..1; nearest is 1"),
        ({"recalls": [0, None, None]}, "scene 0 recalls scene 0: nothing is before it"),
        ({"recall": [None, None, 0]}, "unknown key 'recall'; nearest is 'recalls'"),
    ],
)
def test_a_bad_recall_is_one_line(change, line):
    record = {"id": "p", "scenes": [A, B, C], "durations": [3, 3, 3], "tags": ["", "#", "@"], "tag_meaning": "enter"}
    with pytest.raises(ValueError, match=line):
        parse_prompt(json.dumps(record | change), "here")


def test_a_recall_that_cannot_be_is_refused_before_any_work(words, tmp_path):
    path = tmp_path / "set.jsonl"
    for tags, recalls, line in (
        (["", "#", "#"], [None, None, 0], "scene 2 recalls scene 0, but its tag says hard; nearest is '@'"),
        (["", "#", "@"], [None, None, 0], r"recall of scene 0: the pool holds 1\.\.1; nearest is 1"),
    ):
        prompt = Prompt("p", (A, B, C), (3.0, 3.0, 3.0), tuple(tags), TagMeaning.enter, tuple(recalls))
        path.write_text(json.dumps(record(prompt)) + "\n", encoding="utf-8")
        rest = [word for word in words if not word.startswith("task.")]
        given = [*rest, "method=echo", "++method.routing.pool_scenes=1", f"task.prompt_set={path}", "prompts=1", "eval=none"]
        with pytest.raises(ValueError, match=f"prompt 'p': {line}"):
            prepare(composed(given)[0])


def test_prompts_that_name_nothing_keep_their_name():
    prompt = Prompt("p", (A,), (3.0,), ("",))
    assert set(prompt.content()) == {"id", "scenes", "durations_s", "tags", "tag_meaning"}
    assert "recalls" in Prompt("p", (A, B), (3.0, 3.0), ("", "@"), None, (None, 0)).content()


# ---- in a thread, as pages see it


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


def fresh():
    return {"epoch": 0, "after": -1, "version": 0, "notes": 0}


def test_pages_hear_of_blocks_and_scenes(player, tmp_path):
    known = fresh()
    assert player.say(A).number == 0
    blocks, cards = heard(player, 2, known)
    assert [block["scene"] for block in blocks] == [0] * len(blocks) and cards[0]["how"] == "start"
    scene = player.say(B, "hard")
    assert scene.number == 1
    blocks, cards = heard(player, lambda found: sum(block["scene"] == 1 for block in found) >= 2, known)
    assert all(block["scene"] == (block["index"] >= scene.start.block) for block in blocks), "it holds from the next block on"
    assert cards[1]["how"] == "hard cut"
    assert cards[1]["thumb"].startswith("data:image/png;base64,") and player.news(**known, wait_s=0)["pool"] == [0, 2]
    assert all(len(block["strip"]) >= 3 and block["picture"].startswith("data:image/png") for block in blocks)
    with pytest.raises(ValueError, match="unknown word 'zebra'"):
        player.say("zebra")
    saved = player.save(tmp_path)
    assert replayed(saved.command)[:2] == (saved.latents_sha256, saved.video.read_bytes())


def test_nothing_is_made_for_nobody_or_when_paused(player, monkeypatch):
    known = fresh()
    player.say(A)
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
    player.say(A)
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
        player.say(A)
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
            player.say(A)
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


# ---- pictures


def test_pictures_are_the_frames_and_the_strip_is_the_plan(opened):
    session = opened()
    session.say(A)
    film(session, 9)
    session.say(B, "recall", 0)
    made = film(session, 1)[0]
    kinds = [kind for _, _, kind, _ in strip(made.plan)]
    assert kinds == [kind.value for kind in made.plan.kinds()] and [key[:2] for key in strip(made.plan)] == made.plan.key_positions()
    assert [key[2:] for key in strip(made.plan)][:2] == [["recalled", True], ["current", False]]
    assert {kind: colour for kind, _, colour in legend()} == {kind.value: colour for kind, colour in COLOURS.items()}
    frames = made.frames_THWC.reshape(-1, *made.frames_THWC.shape[2:])
    assert (decoded(picture(frames)) == frames).all()
    large = np.random.default_rng(0).integers(0, 256, (480, 832, 3), np.uint8)
    assert picture(large).startswith("data:image/jpeg") and decoded(thumbnail(large)).shape == (96, 166, 3)


def decoded(url):
    import base64

    return cv2.imdecode(np.frombuffer(base64.b64decode(url.partition(",")[2]), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


# ---- the command line


def test_what_a_session_needs_is_added_and_told():
    official = live.order(["method=echo_official", "task=hard"])
    usual = live.order([])
    assert official.words == ("method=echo_official", "method.routing.causal=true") and official.notes == ("method.routing.causal=true",)
    assert (usual.words, usual.threshold, usual.host, usual.notes) == ((), live.THRESHOLD, "127.0.0.1", ())
    assert "no loopback" in live.order(["host=0.0.0.0"]).notes[0]
    random = live.order(["backbone=self_forcing", "weights=random", "geometry=tiny"])
    assert random.threshold is None and random.job.config.backbone.parts is not None


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("backbone=tyni", "backbone=tyni: no such backbone; nearest is tiny"),
        ("method=ehco", "method=ehco: no such method; nearest is echo"),
        ("method=render_truth", "method=render_truth: renders a film whose script is known"),
        ("method.routing.causal=false", "method=echo: its router reads scenes that nobody has said yet"),
        ("method.routing.router=thresholds", "nearest is method.routing.router=tags"),
        ("eval=embedded", "eval=embedded: not in a live session"),
        ("prompts=3", "it makes one video"),
        ("seed=0,1", "asks for 2 runs; a live session is one"),
        ("sede=1", "unknown key sede: nearest is seed"),
        ("hots=0.0.0.0", "unknown key hots: nearest is host"),
        ("hello", "hello: not understood"),
        ("port=http", "port=http: a whole number"),
        ("threshold=2", "threshold=2: likeness of two texts, 0 to 1"),
        ("id=a/b", "id=a/b: names files"),
        ("script=none.jsonl", "script=none.jsonl: No such file"),
        ("backbone=longlive", "no such file"),
    ],
)
def test_bad_words_are_one_line(word, line, capsys):
    assert live.main([word]) == 2
    told = capsys.readouterr().err
    assert line in told and told.count("\n") == 1, told


def test_a_port_that_is_taken_is_refused_before_the_model_is_loaded():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ValueError, match="Address already in use; nearest is to leave port out"):
            live.order([f"port={other.getsockname()[1]}"])


def test_a_script_is_taken_by_its_id(tmp_path):
    path = tmp_path / "set.jsonl"
    prompts = [Prompt(name, (A,), (3.0,), ("",)) for name in ("one", "two")]
    path.write_text("".join(json.dumps(record(prompt)) + "\n" for prompt in prompts), encoding="utf-8")
    chosen = live.order([f"script={path}", "id=two"])
    assert chosen.first == prompts[1] and chosen.name == "two"
    for given, line in (([f"script={path}"], "holds 2 prompts; id= says which"), ([f"script={path}", "id=tow"], "nearest is id=two")):
        with pytest.raises(ValueError, match=line):
            live.order(given)


@pytest.mark.slow
def test_a_backbone_of_wan_s_make_is_live_as_well(tmp_path):
    asked = live.order(["backbone=self_forcing", "weights=random", "geometry=tiny", "method=echo", f"store={tmp_path}"])
    backbone, _ = models.load(asked.job)
    session = Session(asked.job, backbone, asked.name, asked.words)
    for text, recalled in (("A red fox sits in the snow", None), ("A harbour at night", None), ("The fox again", 0)):
        session.say(text, recalls=recalled)
        film(session, 2)
    saved = session.save(tmp_path / "saved")
    assert replayed(saved.command)[:2] == (saved.latents_sha256, saved.video.read_bytes())
    assert hashlib.sha256(saved.video.read_bytes()).hexdigest() and session.scenes[2].start.recalls == 0
