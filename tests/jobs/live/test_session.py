"""A live session: what is said holds from the next block on, and its script makes the same bytes as a normal run."""

from __future__ import annotations

import hashlib
from functools import partial

import pytest

from echo.backbone.interface import features
from echo.cache.policy import script_of
from echo.files import ROOT
from echo.routing import Routing, automatic
from echo.scene import Prompt, SceneStart, TagMeaning, Transition, load_prompts
from eval.figures.trace import shipped_backbone
from jobs.live import command as live
from jobs.live.session import Refused, Session
from jobs.work import models
from tests.helpers.live import A, B, C, film, replayed


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
    recalls = session.job.policy.recalls
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


def test_blocks_of_one_frame_replay_too(opened, tmp_path):
    """A scene may be a single block, of a quarter of a second."""
    session = opened("oracle", "backbone.frames_per_block=1", "backbone.steps=[1000,500]")
    for text, transition, recalled, blocks in [(A, None, None, 23), (B, "hard", None, 1), (C, "smooth", None, 2), (A, "recall", 0, 5)]:
        session.say(text, transition, recalled)
        assert [len(made.frames_THWC) for made in film(session, blocks)] == [4] * blocks
    saved = session.save(tmp_path)
    (prompt,) = load_prompts(saved.script)
    assert prompt.durations_s == (5.75, 0.25, 0.5, 1.25)
    assert replayed(saved.command) == (saved.latents_sha256, saved.video.read_bytes(), saved.trace.read_bytes())


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
    with pytest.raises(ValueError, match=r"recall of scene 1: the pool holds 2\.\.2; nearest is 2"):
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
        with pytest.raises(Refused, match="scene 2 is not begun: recall of scene 0: forgotten"):
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
    assert not session.pool and not opened("echo_recall_none").job.policy.recalls
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
        (lambda: session.say(A, "hard", 0), "scene 1 is named and hard recalls none"),
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


@pytest.mark.parametrize("method", ["echo", "echo_paper", "infinity_rope"])
def test_a_script_without_tags_is_routed_as_a_session_is(opened, method):
    known = opened(method, *([] if method == "infinity_rope" else ["method.routing.pool_scenes=3"]))
    session = Session(known.job, known.backbone, "live")  # by the method's own thresholds, as a run
    texts = (A, B, A, C, C, B, A)
    for text in texts:
        session.say(text)
        film(session, 2)
    policy = session.job.policy
    script = script_of(Prompt("live", texts, (1.5,) * 7, (None,) * 7), policy, 3, partial(features, session.backbone.text))
    assert list(script.starts) == [scene.start for scene in session.scenes] and all(scene.routed for scene in session.scenes)
    recalled = {start.recalls for start in script.starts} - {None}
    assert recalled == (set() if method == "infinity_rope" else {0}), "the second B is out of the pool when it comes back"


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
