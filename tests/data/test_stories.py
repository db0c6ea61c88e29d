"""Our own prompt sets: what the command makes, what each set promises, and that the checks bite."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

from data.stories import FOLDER, SETS, build, faults_of_set, load_stories
from data.story import (
    ACTIONS,
    ALIKE,
    FLOWING,
    MOVING,
    STATIC,
    Story,
    StoryPlace,
    bare,
    faults_of,
    grammar,
    overlap,
    parse_story,
    scenes_of,
    token_bound,
)
from echo.routing import Feature, Routing, enter
from echo.scene import DurationRule, SceneStart, Transition, load_prompts, scene_blocks
from jobs import cli

WAN = FOLDER / "prompts" / "wan"
INTERACTIVE = ("recall", "hard", "smooth")
PLACES = (
    "the cramped engine room of an old river ferry, with copper pipes, trembling gauges and one caged red lamp",
    "the windswept salt flat at noon, cracked into pale hexagons beneath a hard blue sky without clouds",
    "the crowded night market under paper lanterns, with steaming woks, plastic stools and wet black asphalt",
    "the dusty attic of a farmhouse, where trunks, bird cages and a cracked mirror stand in slanting sun",
    "the glass hall of a botanical garden, filled with giant ferns, dripping leaves and green light",
    "the frozen harbour at dawn, with iced ropes, orange buoys and a rusty trawler locked in grey slush",
)
ACTS = (
    "tightens a brass valve with both hands, watching the needles tremble",
    "kneels down and lifts a flat stone to look beneath it",
    "weighs a paper cone of roasted chestnuts and sniffs the steam",
    "wipes soot from a round window and peers out through it",
    "walks slowly backwards, dragging a heavy chain through the dust",
    "balances three bowls on one arm and squeezes between two tables",
)
SUBJECT = "a lanky ferry mechanic with a grey braid, a soot-stained orange boiler suit and steel-toed boots"
SAMPLES = {
    "recall": Story(SUBJECT, tuple(StoryPlace("inside", what) for what in PLACES[:3]), ACTS),
    "hard": Story(SUBJECT, tuple(StoryPlace("inside", what) for what in PLACES), ACTS),
    "smooth": Story(SUBJECT, (StoryPlace("inside", PLACES[0]),), ACTS, light="a soft red glow"),
    "long": Story(text=" ".join(["A lanky ferry mechanic with a grey braid walks along a pier."] * 4)),
}


@cache
def stories(task: str) -> tuple[Story, ...]:
    return tuple(load_stories(task, FOLDER / "stories" / f"{task}.yaml"))


@cache
def prompts(name: str):
    return load_prompts(WAN / f"{name}.jsonl")


def test_committed_sets_are_what_the_command_makes(tmp_path: Path):
    """The command checks every promise of a set before it writes a line."""
    assert cli.main(["data", "stories", "--output", str(tmp_path)]) == 0
    for name in SETS:
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (WAN / f"{name}.jsonl").read_bytes(), f"echo-harness data stories: {name}"


def test_counts_lengths_and_transitions():
    expected = {"recall": 64, "hard": 64, "smooth": 64, "long60": 128, "long120": 64}
    assert {name: len(prompts(name)) for name in SETS} == expected
    blocks = {name: {scene_blocks(one.durations_s, DurationRule.cumulative, 3) for one in prompts(name)} for name in SETS}
    assert blocks == {"long60": {(80,)}, "long120": {(160,)}, **dict.fromkeys(INTERACTIVE, {(13, 14, 13, 13, 14, 13)})}
    smooth, hard, recall = Transition.smooth, Transition.hard, Transition.recall
    entered = {"recall": (None, hard, hard, recall, recall, recall), "hard": (None, *(hard,) * 5), "smooth": (None, *(smooth,) * 5)}
    assert all(one.transitions(one.tag_meaning) == entered[name] for name in INTERACTIVE for one in prompts(name))
    assert [one.scenes for one in prompts("long120")] == [one.scenes for one in prompts("long60")[:64]]


def test_promises_counted_from_the_files_alone():
    """A second way: words that scenes of the committed files share, without the parts that they were made of."""
    subjects: dict[str, set[str]] = {name: set() for name in INTERACTIVE}
    places: set[str] = set()
    for name in INTERACTIVE:
        for index, prompt in enumerate(prompts(name)):
            cameras, bodies = zip(*(scene.split(". ", 1) for scene in prompt.scenes))
            common = max(shared_runs(bodies[0], bodies[4 if name == "recall" else 1]), key=len)
            assert all(common in body for body in bodies), (prompt.id, common)
            subjects[name].add(common)
            assert all(camera.startswith("Static") for camera in cameras) == (index % 2 == 0), (prompt.id, cameras)
            if name == "recall":
                assert all(body.startswith("Back ") and " the same " in body for body in bodies[3:])
                assert len(set(cameras)) == 6
                for first, again in zip(bodies[:3], bodies[3:]):
                    places.add(max((run for run in shared_runs(first, again) if run not in common and common not in run), key=len))
    assert {name: len(found) for name, found in subjects.items()} == dict.fromkeys(INTERACTIVE, 64)
    assert len(places) == 192
    texts = [prompt.scenes for name in (*INTERACTIVE, "long60") for prompt in prompts(name)]
    assert len(set(texts)) == len(texts) == 320


def shared_runs(one: str, other: str) -> list[str]:
    """Runs of words that two sentences have in common, longest possible, at least four words."""
    a, b = one.split(), other.split()
    found = []
    for start in range(len(a)):
        for end in range(len(a), start + 3, -1):
            if f" {' '.join(a[start:end])} " in f" {' '.join(b)} ":
                found.append(" ".join(a[start:end]))
                break
    return found


def test_every_scene_fits_the_encoder_and_reads_well():
    for name in SETS:
        for prompt in prompts(name):
            for scene in prompt.scenes:
                assert 35 <= len(scene.split()) <= 110 and len(scene.encode()) + 2 <= 512, (prompt.id, scene)
                assert not set(";|[]{}<>#@*`\\") & set(scene) and "  " not in scene and scene.endswith("."), (prompt.id, scene)
                assert not list(grammar(scene)), (prompt.id, list(grammar(scene)))
                sentences = scene[:-1].split(". ")
                assert all(re.match("[A-Z]", sentence) for sentence in sentences), (prompt.id, scene)


def test_cameras_are_many_and_differ():
    moving = {phrase for phrase in MOVING if any(phrase in scene for one in prompts("recall") for scene in one.scenes)}
    assert len(moving) >= 16 and len(set(MOVING)) == len(MOVING) and len(set(STATIC)) == len(STATIC)
    used = {scene.partition(". ")[0] for one in prompts("smooth") for scene in one.scenes} & {move for flow in FLOWING for move in flow}
    assert len(used) >= 16


def test_every_return_is_routed_to_its_place():
    """Eq. (16) on word frequencies alone finds the scene that a return means, in every story: cameras do not lead it astray."""
    settings = Routing(feature=Feature.idf)
    for prompt in prompts("recall"):
        found = [enter(prompt.scenes, [SceneStart(0)] * scene, Transition.recall, settings, None)[1] for scene in (3, 4, 5)]
        assert found == [0, 1, 2], (prompt.id, found)


def test_told_by_hand():
    told = {task: scenes_of(task, story, 0) for task, story in SAMPLES.items()}
    room, braid = PLACES[0], SUBJECT
    assert told["recall"][0] == f"{STATIC[0]}. Inside {room}, {braid} {ACTS[0]}."
    assert told["recall"][3] == f"{STATIC[3]}. Back inside the same {room[4:]}, the same {braid[2:]} {ACTS[3]}."
    assert told["hard"][1] == f"{STATIC[5]}. Cut to a new scene inside {PLACES[1]}: {braid} {ACTS[1]}."
    assert told["smooth"][0] == f"{STATIC[0]}. Inside {room}, lit by a soft red glow, {braid} {ACTS[0]}."
    still = f"Still inside the same {room[4:]}, lit by the same soft red glow, the same {braid[2:]} {ACTS[5]}."
    assert told["smooth"][5] == f"{STATIC[0]}. {still}"
    assert told["long"] == (f"{SAMPLES['long'].text} {STATIC[0]}.",)
    assert [scene.partition(". ")[0] for scene in scenes_of("smooth", SAMPLES["smooth"], 1)] == [FLOWING[0][i // 2] for i in range(ACTIONS)]


@pytest.mark.parametrize("task", SAMPLES)
def test_good_samples_have_no_faults(task: str):
    assert faults_of(task, SAMPLES[task]) == []


def altered(task: str, **changes) -> Story:
    return dataclasses.replace(SAMPLES[task], **changes)


@pytest.mark.parametrize(
    ("task", "story", "said"),
    [
        ("hard", altered("hard", subject="a mechanic"), "has 2 words"),
        ("hard", altered("hard", subject=SUBJECT[2:]), "begins with 'a' or 'an'"),
        ("hard", altered("hard", subject=SUBJECT.replace("steel", "a old steel")), "'a old' wants 'an'"),
        ("hard", altered("hard", subject=f"{SUBJECT}; wet"), "holds ';'"),
        ("hard", altered("hard", actions=("she smiles at everyone around the room now", *ACTS[1:])), "begins with a verb"),
        ("hard", altered("hard", actions=(f"{ACTS[0]}. Then rests", *ACTS[1:])), "full stop"),
        ("hard", altered("hard", actions=("turns to look straight into the camera with a smile", *ACTS[1:])), "names the camera"),
        ("hard", altered("hard", actions=(ACTS[1], *ACTS[1:])), "too much alike"),
        ("recall", altered("recall", actions=(*ACTS[:3], f"{ACTS[0]} again", *ACTS[4:])), "too much alike"),
        ("hard", altered("hard", places=(StoryPlace("inside", PLACES[1]), *SAMPLES["hard"].places[1:])), "the background changes"),
        ("recall", altered("recall", places=(StoryPlace("in", f"{PLACES[1]}, wet"), *SAMPLES["recall"].places[1:])), "background changes"),
        ("hard", altered("hard", places=(StoryPlace("over", PLACES[0]), *SAMPLES["hard"].places[1:])), "'over' is one of inside"),
        ("hard", altered("hard", places=(StoryPlace("in", PLACES[0][4:]), *SAMPLES["hard"].places[1:])), "begins with 'the'"),
        ("smooth", altered("smooth", light="sun"), "has 1 words"),
        ("long", Story(text="A short walk"), "has 3 words"),
        ("long", Story(text="incomprehensibilities " * 60), "tokens"),
    ],
)  # fmt: skip
def test_a_fault_is_found(task: str, story: Story, said: str):
    assert said in "\n".join(faults_of(task, story)), faults_of(task, story)


@pytest.mark.parametrize(
    ("task", "raw", "said"),
    [
        ("hard", [], "a story is an object"),
        ("hard", {"subject": "a"}, "key 'places' is missing"),
        ("hard", {"subject": "a", "places": [], "actions": []}, "places is a list of exactly 6, not 0"),
        ("recall", {"subject": "a", "places": [{"at": "in"}] * 3, "actions": []}, "exactly the keys at and what"),
        ("long", {"text": "a", "camera": "b"}, "unknown key 'camera'"),
        ("long", {"text": 3}, "text is a text"),
    ],
)
def test_a_record_of_another_form_is_refused(task: str, raw, said: str):
    with pytest.raises(ValueError, match=said):
        parse_story(task, raw)


def test_a_bare_on_in_yaml_is_a_word(tmp_path: Path):
    (tmp_path / "hard.yaml").write_text("- {subject: a, places: [" + "{at: on, what: the b}, " * 6 + "], actions: [a, b, c, d, e, f]}\n")
    assert load_stories("hard", tmp_path / "hard.yaml")[0].places[0].at == "on"


def test_the_check_of_a_set_bites():
    """Each broken promise is said: too few, twice the same story, subjects and places alike, no moving cameras, changed words."""
    three = [SAMPLES["recall"]] * 3
    said = "\n".join(faults_of_set("recall", three, build("recall", three)))
    for fault in ("3 prompts; 64", "stands twice", "subjects 0 and 1 are too much alike", "places 0 and 3 are too much alike"):
        assert fault in said, said
    records = build("recall", three)
    still = [dataclasses.replace(one, scenes=records[0].scenes) for one in records]
    assert "the camera moves in 0 and stands still in 3 of 3" in "\n".join(faults_of_set("recall", three, still))


def structure_faults(task: str, story: Story, scenes: Sequence[str]) -> Iterator[str]:
    """What told scenes break of appendix A.1: the same subject everywhere, the places in their order, another viewpoint at a return."""
    order = {"smooth": (0,) * 6, "recall": (0, 1, 2, 0, 1, 2), "hard": tuple(range(6))}[task]
    for number, (scene, place) in enumerate(zip(scenes, order, strict=True)):
        if bare(story.subject) not in scene:
            yield f"scene {number} does not say the subject"
        for index, other in enumerate(story.places):
            if (other.what.removeprefix("the ") in scene) != (index == place):
                yield f"scene {number} {'does not say' if index == place else 'says'} place {index}"
    cameras = [scene.partition(". ")[0] for scene in scenes]
    if task == "recall":
        for number in (3, 4, 5):
            if cameras[number] == cameras[number - 3]:
                yield f"scene {number} has the viewpoint of scene {number - 3}"
            if ". Back " not in scenes[number]:
                yield f"scene {number} does not say that it returns"
    if task == "hard":
        places = [place.what for place in story.places]
        alike = [number for number in range(1, 6) if overlap(places[number - 1], places[number]) > ALIKE]
        yield from (f"scene {number} keeps the background of the one before" for number in alike)


@pytest.mark.parametrize("name", INTERACTIVE)
def test_the_structure_is_that_of_the_paper(name: str):
    stories = load_stories(name, FOLDER / "stories" / f"{name}.yaml")
    assert [fault for story, one in zip(stories, prompts(name)) for fault in structure_faults(name, story, one.scenes)] == []


@pytest.mark.parametrize(
    ("task", "change", "said"),
    [
        ("recall", lambda told: [*told[:3], told[4], told[3], told[5]], "scene 3 does not say place 0"),
        ("recall", lambda told: [*told[:3], *told[:3]], "scene 3 has the viewpoint of scene 0"),
        ("recall", lambda told: [*told[:3], *told[:3]], "scene 3 does not say that it returns"),
        ("hard", lambda told: [told[0], *[told[1].replace("grey braid", "blond braid")], *told[2:]], "scene 1 does not say the subject"),
        ("hard", lambda told: [*told[:5], told[4]], "scene 5 says place 4"),
        ("smooth", lambda told: [*told[:5], told[5].replace("copper", "iron")], "scene 5 does not say place 0"),
    ],
)
def test_the_check_of_the_structure_bites(task: str, change, said: str):
    story = SAMPLES[task]
    told = list(scenes_of(task, story, 1))
    assert list(structure_faults(task, story, told)) == []
    assert said in list(structure_faults(task, story, change(told)))


def test_pessimistic_tokens():
    """Never under what pieces of two letters would need."""
    assert token_bound("a fox") == 1 + 2 + 1 and token_bound("sun-lit, 1980s.") == 2 + 1 + 2 + 1 + 3 + 1 + 1
