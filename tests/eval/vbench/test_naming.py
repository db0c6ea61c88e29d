"""Videos of other systems: whose they are, by a rule for names or by a manifest; what is not understood is refused by name and line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from echo.scene import Prompt, prompt_digest
from eval.stats import results
from eval.vbench.naming import NameRule, manifest
from jobs import cli
from tests.eval.vbench.test_peoples_videos import words_for
from tests.helpers.constructed import film, write

TEXTS = ("A red fox, sitting on a snowy hill at dawn.", "A red fox runs.", "A sailing boat crosses the bay.")
PROMPTS = [Prompt(name, (text,), (3.0,), ("",)) for name, text in zip(("fox-1", "fox", "boat"), TEXTS)]


@pytest.mark.parametrize(
    ("rule", "stem", "prompt", "seed"),
    [
        ("{index}-{seed}_*", "2-1_regular", "boat", 1),
        ("rank*-{index}-{seed}_lora", "rank3-0-12_lora", "fox-1", 12),
        ("ComfyUI_{number}_", "ComfyUI_00003_", "boat", 0),
        ("{text}-{seed}", "A red fox, sitting on a snowy hill at dawn.-4", "fox-1", 4),
        ("{text}", "a_red_fox_runs", "fox", 0),
        ("{text}", "A sailing boat cro", "boat", 0),
        ("seed{seed}.{id}", "seed7.fox-1", "fox-1", 7),
        ("", "fox-1", "fox-1", 0),
        ("", "fox-2", "fox", 2),
        ("", "boat-1234abcd", "boat", 0),
    ],
)
def test_rules_find_prompt_and_seed(rule: str, stem: str, prompt: str, seed: int) -> None:
    owner = NameRule(rule).owner(Path(f"{stem}.mp4"), PROMPTS)
    assert owner.prompt is not None and (owner.prompt.id, owner.seed) == (prompt, seed)


@pytest.mark.parametrize(
    ("rule", "stem", "reason"),
    [
        ("{indx}", "0", r"names=\{indx\}: \{indx\} is no field, or stands twice; nearest is index of"),
        ("video_{seed}", "video_0", r"one of \{id\}, \{index\}, \{number\}, \{text\} says which prompt"),
        ("{index}-{text}", "0-a", "one of"),
        ("{index}-{seed}", "a-1", r"a-1.mp4: not named by names=\{index\}-\{seed\}"),
        ("{index}", "3", r"3.mp4: prompt 3 of 3, counted from 0"),
        ("{number}", "0", r"0.mp4: prompt 0 of 3, counted from 1"),
        ("{id}", "foks", r"foks.mp4: no prompt has the id 'foks'; nearest is fox"),
        ("{text}", "A red fox", r"A red fox.mp4: no prompt begins with this text; nearest is a manifest="),
    ],
)
def test_a_name_that_fits_no_prompt_is_refused(rule: str, stem: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        NameRule(rule).owner(Path(f"{stem}.mp4"), PROMPTS)


def test_a_manifest_says_what_names_do_not(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).touch()
    rows = [{"file": "a.mp4", "prompt": "boat", "seed": 3}, {"file": "b.mp4", "prompt": "fox"}]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "m.csv").write_text("file,prompt,seed\na.mp4,boat,3\nb.mp4,fox,\n", encoding="utf-8")
    for name in ("m.jsonl", "m.csv"):
        own = manifest(tmp_path / name, tmp_path, PROMPTS)
        assert [(path.name, owner.prompt.id, owner.seed) for path, owner in own.items()] == [("a.mp4", "boat", 3), ("b.mp4", "fox", 0)]
    scenes = {"scenes": ["a place", "another", "the place"], "durations": [3, 3, 3], "recalls": [None, None, 0]}
    (tmp_path / "own.json").write_text(json.dumps([{"file": "c.mp4", "prompt": "story", **scenes}]), encoding="utf-8")
    (tmp_path / "own.csv").write_text("file,prompt,scenes,durations,recalls\nc.mp4,story,a place | another | the place,3 | 3 | 3,| |0\n")
    stories = [next(iter(manifest(tmp_path / name, tmp_path, ()).values())).prompt for name in ("own.json", "own.csv")]
    assert stories[0] == stories[1] and stories[0].scenes == tuple(scenes["scenes"]) and stories[0].recalls == (None, None, 0)
    (tmp_path / "text.csv").write_text("file,prompt\nc.mp4,A lone tree.\n", encoding="utf-8")
    (owner,) = manifest(tmp_path / "text.csv", tmp_path, ()).values()
    assert owner.lasting(4.0) == Prompt("A lone tree.", ("A lone tree.",), (4.0,), ("",))


@pytest.mark.parametrize(
    ("text", "known", "reason"),
    [
        ("file,prompt\nb.mp4,fox\n", True, "m.csv:2: no such video"),
        (f"file,prompt\n{'b' * 400}.mp4,fox\n", True, "m.csv:2: no such video"),
        ("file,prompt\n../a.mp4,fox\n", True, "leads out of it"),
        ("file,prompt\na.mp4,foks\n", True, "m.csv:2: no prompt has the id 'foks'; nearest is fox"),
        ("file,prompt\na.mp4,\n", True, "m.csv:2: says no prompt"),
        ("file,prompt,seed\na.mp4,fox,first\n", True, "m.csv:2: seed 'first' is no whole number"),
        ("file,prompt\na.mp4,fox\na.mp4,boat\n", True, "m.csv:3: 'a.mp4' or its prompt 'boat' with seed 0 stands twice"),
        ("file,promt\na.mp4,fox\n", True, "m.csv:2: unknown column 'promt'; nearest is prompt of"),
        ("file,prompt,scenes\na.mp4,fox,one | two\n", True, "m.csv:2: scenes beside a prompt set"),
        ("file,prompt,scenes\na.mp4,own,one | two\n", False, "m.csv:2: key 'durations' is missing"),
        ("file,prompt,scenes,durations\na.mp4,own,one | two,3 | long\n", False, "m.csv:2: durations is a list of seconds"),
        ("file,prompt\n", True, "m.csv: names no video"),
    ],
)
def test_a_bad_manifest_is_refused_by_line(tmp_path: Path, text: str, known: bool, reason: str) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "m.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=reason) as refusal:
        manifest(tmp_path / "m.csv", tmp_path, PROMPTS if known else ())
    assert "\n" not in str(refusal.value)


def test_other_systems_videos_are_scored_by_their_names(tmp_path, monkeypatch, capsys):
    folder, prompts = tmp_path / "theirs", tmp_path / "set.jsonl"
    folder.mkdir()
    lines = [{"id": one.id, "scenes": one.scenes, "durations": one.durations_s, "tags": one.tags} for one in PROMPTS]
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for name, level in (("0-0_ema", 3), ("2-1_ema", 6)):
        write(folder / f"{name}.mp4", film(np.full((48, 8), level)))
    words = words_for(monkeypatch, tmp_path, str(folder), str(prompts))
    assert cli.main([*words, "names={index}-{seed}_ema", "--label", "Theirs"]) == 0, capsys.readouterr().err
    content = json.loads((tmp_path / "out" / "2-1_ema.mp4.json").read_text(encoding="utf-8"))
    assert {name: content[name] for name in ("prompt", "seed", "text")} == {"prompt": "boat", "seed": 1, "text": prompt_digest(PROMPTS[2])}
    assert json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))["label"] == "Theirs"
    units = results.scored(tmp_path / "out")[1]
    assert [(unit.prompt, unit.seed) for unit in units] == [("fox-1", 0), ("boat", 1)], "as tables read them"
    (tmp_path / "m.csv").write_text("file,prompt\n2-1_ema.mp4,fox\n", encoding="utf-8")
    capsys.readouterr()
    assert cli.main([*words, f"manifest={tmp_path / 'm.csv'}", "--output", str(tmp_path / "by")]) == 0
    assert "left out: 1 that the manifest does not name: 0-0_ema.mp4" in capsys.readouterr().out
    assert json.loads((tmp_path / "by" / "2-1_ema.mp4.json").read_text(encoding="utf-8"))["prompt"] == "fox"
    for more, reason in (
        (["names={index}_{seed}"], "0-0_ema.mp4: not named by"),
        (["names={text}", f"manifest={tmp_path / 'm.csv'}"], "manifest= says it already"),
        (["names={index}-*"], None),
    ):
        status = cli.main([*words, *more, "--output", str(tmp_path / "none")])
        assert status == (2 if reason else 0) and (reason or "") in capsys.readouterr().err
    write(folder / "2-9_ema.mp4", film(np.full((48, 8), 7)))
    assert cli.main([*words, "names={index}-*", "--output", str(tmp_path / "none")]) == 2
    assert "gives prompt 'boat' with seed 0 to another video too" in capsys.readouterr().err
