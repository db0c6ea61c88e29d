"""The targets: intervals against their definition, held-out prompts evenly over words, judgements, and the command on a toy backbone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from scipy.stats import norm

from data.world.render import draw, render
from data.world.words import KINDS, VOCABULARY, held_out, parse
from echo.backbone.load import save
from echo.backbone.parts.codec import PatchCodec
from echo.backbone.parts.text import WordEncoder
from echo.backbone.wan import WanConfig, WanModel
from echo.geometry import Geometry
from eval.audit.targets import Horizon, best_of, combinations, judge, missed, prompts_of, wilson
from eval.world.places import SHIPPED
from eval.world.readings import read
from eval.world.scorer import EmbeddedScorer
from jobs import cli


@pytest.mark.parametrize(("hits", "count"), [(0, 64), (1, 7), (32, 64), (61, 64), (64, 64)])
def test_wilson_is_the_formula(hits: int, count: int) -> None:
    """A second path: the ends are the shares from which `hits` lies 1.96 standard errors away."""
    z, share = norm.ppf(0.975), hits / count
    for end in wilson(hits, count):
        assert (share - end) ** 2 == pytest.approx(z**2 * end * (1 - end) / count, abs=1e-12)
    with pytest.raises(ValueError, match="at least one"):
        wilson(0, 0)


def test_prompts_are_held_out_and_even() -> None:
    chosen = combinations(64)
    assert len(set(chosen)) == 64 and all(held_out(words) for words in chosen)
    for kind, known in KINDS.items():
        counts = [sum(getattr(words, kind) == word for words in chosen) for word in known]
        assert max(counts) - min(counts) <= 2, f"{kind}: {counts}"
    assert [parse(prompt.scenes[0]) for prompt in prompts_of(chosen, 60.0)] == chosen
    assert combinations(16) == chosen[:16]
    with pytest.raises(ValueError, match="prompts=101.*1 to 100"):
        combinations(101)


def test_judgement_of_renders() -> None:
    torch.set_num_threads(1)
    encoder = EmbeddedScorer.load(SHIPPED.parent / "model.safetensors").encoder
    truth = draw((616, 1), 36, words=combinations(3)[2])
    readings = read(encoder, render([truth])[0])
    assert all(judge(readings, truth.words).values())
    for kind, falls in (("pattern", "place"), ("place", "place"), ("shape", "subject"), ("colour", "subject"), ("motion", "motion")):
        other = next(word for word in KINDS[kind] if word != getattr(truth.words, kind))
        found = judge(readings, type(truth.words)(**{name: getattr(truth.words, name) for name in KINDS} | {kind: other}))
        assert [name for name in ("place", "subject", "motion") if not found[name]] == [falls]


def test_what_is_missed_is_told_of_the_best_method() -> None:
    good = Horizon("w", "good", 60.0, {"place": 60, "subject": 40, "motion": 0}, 64)
    bad = Horizon("w", "bad", 60.0, {"place": 64, "subject": 10, "motion": 64}, 64)
    assert best_of([good, bad], 60.0) is good
    assert missed([good, bad]) == ["missed: subject at 60 s: 62.5 % of 64 prompts with good, target 75 %"]
    assert missed([Horizon("w", "m", 12.0, {"place": 0, "subject": 0, "motion": 0}, 8)]) == []
    assert good.record()["shares"]["place"]["target"] == 0.90


def toy(path: Path) -> Path:
    """A random backbone of the world's sizes."""
    torch.manual_seed(0)
    model = WanModel(WanConfig(24, 32, 2, 1, 16, 8, 8, 24, 24))
    codec = PatchCodec.fit(torch.from_numpy(render([draw((1, index), 12) for index in range(8)])))
    save(path, model, WordEncoder(VOCABULARY, 8), codec, Geometry(1, 2, 12, 4, 4, 24))
    return path


@pytest.mark.slow
def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = str(toy(tmp_path / "toy.safetensors"))
    output, figure = tmp_path / "targets.json", tmp_path / "curve.png"
    words = ["audit", "targets", f"weights={weights},{weights}", "prompts=3", "batch=2", "--output", str(output), "--figure", str(figure)]
    assert cli.main([*words, "seconds=2.25,5", "methods=self_forcing,rolling_sink"]) == 1
    record = json.loads(output.read_text())
    assert len(record["results"]) == 8 and record["missed"] and figure.stat().st_size > 1000
    assert record["results"][1]["shares"]["place"]["target"] == 0.97 and "target" not in record["results"][0]["shares"]["place"]
    assert "self_forcing" in capsys.readouterr().out
    # The first seconds of a longer rollout are those of a shorter one.
    assert cli.main([*words, "seconds=2.25", "methods=self_forcing,rolling_sink"]) == 0
    assert json.loads(output.read_text())["results"][0] == record["results"][0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["weights=nowhere"], "no such file"),
        (["seconds=1,5"], "2.25"),
        (["seconds=five"], "5,60"),
        (["prompts=0"], "1 to 100"),
        (["methods=ecko"], "echo"),
    ],
)
def test_mistakes_are_told_in_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["audit", "targets", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
