"""Labels of heads: the calibration against loops, the shipped ones against their weights, and runs that lack them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from baselines.forcing_kv import ForcingKV, labels_file
from baselines.presets import make_policy
from echo.backbone import rope
from echo.files import ROOT, file_digest
from echo.generate import generate
from echo.recording import Recorder
from echo.refusals import Missing
from eval.figures.recorded.backbones import embedded, prompt_of
from jobs import cli
from jobs.spec.compose import one
from jobs.spec.plan import lacking, prepare

TINY = ROOT / "data/weights/tiny/model.safetensors"
LONG = ROOT / "data/weights/tiny_long/lora.safetensors"


def test_the_command_measures_where_heads_look(tmp_path, capsys):
    """Path 2: queries and keys as they were recorded, a query row and a head at a time, in float64."""
    assert cli.main(["train", "heads", "backbone=tiny", "prompts=1", "threshold=0.5", "--output", str(tmp_path / "labels.json")]) == 0
    kept = json.loads((tmp_path / "labels.json").read_text())
    backbone, recorder = embedded("tiny"), Recorder(layers=(1, 5))
    prompt = replace(prompt_of("long60", "tiny", ""), durations_s=(5.25,))
    list(generate(backbone, make_policy({"method": "self_forcing"}), [prompt], 0, watch=recorder.watch))
    assert kept["prompts"] == [prompt.id] and len(recorder.plans) == 7
    turn = rope.frame_table(range(21), 4, 4, 32)
    for layer, head in ((1, 4), (1, 0), (5, 5)):
        past = recorder.clean_keys(layer, range(18)).flatten(1, 2)[0]
        mass = np.zeros(21)
        for q, k in zip(recorder.queries(layer, 6)[:-1, 0], recorder.keys(layer, 6)[:-1, 0], strict=True):
            keys = rope.rotate(torch.cat([past, k])[None], turn)[0, :, head].double().numpy()
            for row in rope.rotate(q[None], turn[-48:])[0, :, head].double().numpy():
                weights = np.exp(keys @ row / 32**0.5)
                mass += (weights / weights.sum()).reshape(21, 16).sum(1)
        share = mass[17:].sum() / mass[3:].sum()
        assert kept["near_share"][layer][head] == pytest.approx(share, abs=1e-4), (layer, head)
        assert kept["heads"][layer][head] == ("s" if share >= 0.5 else "d")
    static = sum(word.count("s") for word in kept["heads"])
    assert capsys.readouterr().out == f"{static} of 36 heads are static; {tmp_path / 'labels.json'}\n"


@pytest.mark.parametrize("weights", [(TINY,), (TINY, LONG)], ids=["tiny", "tiny_long"])
def test_shipped_labels_are_of_the_shipped_weights(weights):
    kept = json.loads(labels_file(weights).read_text())
    assert kept["weights"] == [file_digest(path) for path in weights] and kept["threshold"] == 0.8 and len(kept["prompts"]) == 8
    expected = tuple("".join("s" if share >= kept["threshold"] else "d" for share in row) for row in kept["near_share"])
    fitted = ForcingKV().fitted(weights, "tiny")
    assert fitted.heads == expected and [len(word) for word in expected] == [6] * 6
    static = 6 + sum(word.count("s") for word in expected[1:])  # layer 0 as a whole
    assert fitted.static_share == static / 36
    assert ForcingKV(heads=("sd",)).fitted(weights, "tiny").heads == ("sd",)


def test_a_run_is_named_by_its_labels_and_other_weights_are_refused(tmp_path):
    """Other weights of the same sizes have none, and neither have those beside which labels of others lie."""
    plain = one(["method=forcing_kv", "prompts=1"])
    settings = prepare(plain).run_key["pixels"]["method.settings"]
    assert settings["heads"] == json.loads(labels_file([TINY]).read_text())["heads"]
    other = shutil.copy(TINY, tmp_path / "model.safetensors")
    theirs = plain | {"backbone": plain["backbone"] | {"name": "mine", "weights": str(other)}}
    with pytest.raises(Missing, match=r"heads of backbone=mine: no .*heads\.json; `echo-harness train heads backbone=mine` measures"):
        prepare(theirs)
    assert [absent.remedy for absent in lacking([theirs])] == ["echo-harness train heads backbone=mine"]
    labels_file([other]).write_text(json.dumps({"heads": [], "weights": ["0"]}))
    with pytest.raises(Missing, match=r"heads\.json is of other weights"):
        prepare(theirs)
    assert prepare(theirs | {"method": theirs["method"] | {"heads": ["dddddd"] * 6}}).policy.static_share == 6 / 36
    with pytest.raises(ValueError, match="heads ddd,sxs: 6 words, a layer each, of 6 letters s or d.*nearest is"):
        prepare(theirs | {"method": theirs["method"] | {"heads": ["ddd", "sxs"]}})


def test_random_weights_have_no_labels_and_need_none():
    drawn = prepare(one(["method=forcing_kv", "prompts=1", "backbone=self_forcing", "weights=random", "geometry=tiny"]))
    assert drawn.policy.heads == () and drawn.policy.static_share is None
    assert cli.main(["train", "heads", "backbone=self_forcing", "weights=random", "geometry=tiny"]) == 2
