"""Prompts that name the scene they recall: read, refused, and told to policies."""

from __future__ import annotations

import json

import pytest

from data.prompt_sets import PromptLine, write_set
from echo.cache.policy import script_of
from echo.scene import Prompt, SceneStart, TagMeaning, Transition, parse_prompt
from jobs.spec.compose import sweep as composed
from jobs.spec.plan import prepare
from tests.helpers.live import A, B, C
from tests.helpers.policies import make


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
    assert prompt.recalls == (None, None, 0) and parse_prompt(PromptLine(prompt).json, "there") == prompt
    policy = make("echo", routing__feature="idf")
    assert [start.recalls for start in script_of(prompt, policy, 3).starts] == [None, None, 0]
    other = parse_prompt(json.dumps(line | {"recalls": [None, None, 1]}), "here")
    assert script_of(other, policy, 3).starts[2].recalls == 1
    assert script_of(other, make("self_forcing"), 3).starts[2] == SceneStart(8, Transition.recall)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"recalls": "0"}, "recalls is a list of scene numbers"),
        ({"recalls": [None, None, True]}, "recalls is a list of scene numbers"),
        ({"recalls": [0]}, "3 scenes, 1 recalls"),
        ({"recalls": [None, None, 2]}, "scene 3 has recalls 2, which counts from 0: before it are 0..1; nearest is 1"),
        ({"recalls": [0, None, None]}, "scene 1 has recalls 0, which counts from 0: nothing is before it"),
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
        (["", "#", "#"], [None, None, 0], "scene 3 recalls scene 1, but its tag says hard; nearest is '@'"),
        (["", "#", "@"], [None, None, 0], r"recall of scene 1: the pool holds 2\.\.2; nearest is 2 .recalls in the file counts"),
    ):
        prompt = Prompt("p", (A, B, C), (3.0, 3.0, 3.0), tuple(tags), TagMeaning.enter, tuple(recalls))
        write_set(path, [PromptLine(prompt)])
        rest = [word for word in words if not word.startswith("task.")]
        given = [*rest, "method=echo", "++method.routing.pool_scenes=1", f"task.prompt_set={path}", "prompts=1", "eval=none"]
        with pytest.raises(ValueError, match=f"prompt 'p': {line}"):
            prepare(composed(given)[0])


def test_prompts_that_name_nothing_keep_their_name():
    prompt = Prompt("p", (A,), (3.0,), ("",))
    assert set(prompt.content()) == {"id", "scenes", "durations_s", "tags", "tag_meaning"}
    assert "recalls" in Prompt("p", (A, B), (3.0, 3.0), ("", "@"), None, (None, 0)).content()
