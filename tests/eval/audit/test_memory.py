"""The calibration of memory scores: correlations against scipy's, and the command on videos with known memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from eval.audit.memory import ESTIMATES, TRUTHS, followed
from eval.store.records import ScoresFile
from eval.world.calibrate import film, recall_script, staying, world_metrics
from eval.world.places import SHIPPED
from eval.world.scorer import EmbeddedScorer
from jobs import cli
from jobs.work.video import VideoWriter
from tests.helpers.stores import keep, put


def test_correlations_are_scipys() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(9, 5)).round(1)  # with ties
    values = {"score": truth + rng.normal(size=truth.shape), "truth": truth, "same": 3 * truth - 1, "apart": rng.normal(size=truth.shape)}
    found = followed("score", "truth", values)
    pairs = [(values["score"].mean(1), truth.mean(1)), (values["score"].ravel(), truth.ravel())]
    expected = [rule(*pair)[0] for pair in pairs for rule in (spearmanr, pearsonr)]
    numbers = [found.policies_spearman, found.policies_pearson, found.prompts_spearman, found.prompts_pearson]
    assert [one.value for one in numbers] == pytest.approx(expected, abs=1e-4)
    assert all(one.low < one.value < one.high for one in numbers)
    assert set(followed("same", "truth", values).policies_pearson) == {1.0}
    assert followed("apart", "truth", values).policies_pearson.low < 0 < followed("apart", "truth", values).policies_pearson.high


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of three policies with known memory: one returns, one shows another place, one never leaves."""
    folder = tmp_path_factory.mktemp("store")
    encoder = EmbeddedScorer.load(SHIPPED.parent / "model.safetensors").encoder
    films = {name: [] for name in ("echo", "self_forcing", "longlive")}
    for index in range(2):
        script = recall_script(index, blocks=4)
        films["echo"].append(film(script))
        films["self_forcing"].append(film(recall_script(index, again=False, blocks=4)))
        films["longlive"].append(film(staying(script), spoken=[truth.words for truth in script]))
    for preset, own in films.items():
        numbers = {f"p{index}": {name: world_metrics(encoder, one)[name] for name in TRUTHS} for index, one in enumerate(own)}
        run = put(folder, "recall", preset, numbers)
        for (prompt, metrics), one in zip(numbers.items(), own):
            keep(run / "units" / f"{prompt}.json", ScoresFile(metrics=metrics, segments=one.spans))
            (run / "units" / f"{prompt}.mp4").unlink()
            with VideoWriter(run / "units" / f"{prompt}.mp4", fps=16, height_px=96, crf=20) as writer:
                writer.write(one.frames)
    return folder


@pytest.mark.slow
def test_the_command_tells_memories_apart_by_files_alone(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["audit", "memory", "--store", str(store), "--output", str(tmp_path / "memory.json"), "--figure", str(tmp_path / "memory.png")]
    assert cli.main(words) == 0, capsys.readouterr().err
    content = json.loads((tmp_path / "memory.json").read_text(encoding="utf-8"))
    assert content["policies"] == ["echo", "longlive", "self_forcing"] and content["prompts"] == ["p0", "p1"]
    back, stays, other = np.array([content["by_prompt"][name] for name in ESTIMATES]).transpose(1, 0, 2)
    assert (back[0] > other[0] + 5).all() and (other[0] > stays[0]).all() and abs(stays[0]).max() < 2, "fidelity"
    assert (stays[1] > 97).all() and (np.maximum(back[1], other[1]) < 90).all(), "leakage"
    own = {(one["score"], one["truth"]): one["policies_pearson"][0] for one in content["followed"]}
    assert (
        own["memory_fidelity", TRUTHS[0]] > 0.9
        and own["memory_leakage", TRUTHS[1]] > 0.9
        and own[TRUTHS] == pytest.approx(np.corrcoef(*(np.mean(content["by_prompt"][name], 1) for name in TRUTHS))[0, 1], abs=1e-3)
    )
    assert (tmp_path / "memory.png").stat().st_size > 3000 and content["command"] == "echo-harness audit memory task=recall"
    exact = EmbeddedScorer.load(SHIPPED.parent / "model.safetensors")
    one = film(recall_script(0, blocks=4))
    direct = exact.score(one.frames, one.texts, one.spans, "recall").metrics
    assert back[:, 0] == pytest.approx([direct[f"proxy.{name}"] for name in ESTIMATES], abs=2), "what H.264 and fewer frames cost"


def test_too_little_is_refused(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, reason in ((["task=hard"], "no scene returns in it"), (["task=vmem"], "0 policies with 0 prompts")):
        assert cli.main(["audit", "memory", *words, "--store", str(store), "--output", str(tmp_path / "none.json")]) == 2
        told = capsys.readouterr().err
        assert reason in told and told.count("\n") == 1 and not (tmp_path / "none.json").exists()
