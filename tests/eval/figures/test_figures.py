"""The figures' command line, sheets and caches from a made-up store, and the memories of Figs 4 and 10 by hand."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from baselines.presets import make_policy
from echo.backbone.load import load
from echo.cache.kinds import recall_of
from echo.files import ROOT
from echo.generate import generate
from echo.recording import Recorder
from echo.scene import Prompt, Transition
from eval.figures import caches, command, output
from eval.figures.output import FigureOrder
from eval.figures.recorded import fig3, overview, recall_frames
from jobs import cli
from jobs.work.video import VideoWriter
from tests.helpers.stores import put
from tests.helpers.toy import TEXTS, write_backbone

SIZE, TOKENS = 3, 4


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return load(str(write_backbone(tmp_path_factory.mktemp("toy") / "model.safetensors")))


def prompt(tag):
    return Prompt("toy", (TEXTS[0], TEXTS[1]), (9.0, 9.0), ("", tag))


@pytest.mark.parametrize(("tag", "entered", "remembered", "count"), [("#", "hard", 0, 1), ("@", "recall", 0, 5), ("", "smooth", 0, 5)])
def test_an_overview_is_of_the_run_itself(backbone, tmp_path, tag, entered, remembered, count):
    """Frames, plans and weights against a rollout beside it; what is drawn says no more than what the JSON has."""
    policy, plans, pixels, weights, watched = make_policy({"method": "echo"}), [], [], [], []
    stream = backbone.codec.stream()
    with torch.inference_mode():
        for block in generate(backbone, policy, [prompt(tag)], 0, watch=watched.append):
            plans.append(block.plan)
            pixels.append(stream.decode(block.latents)[0].cpu().numpy()[-4])  # the first of its last latent frame's four
            if block.plan.faded:
                weights.append(np.mean([one[0].mean() for one in watched[0].memory.fade]))
    recorded = recall_frames.film(backbone, policy, prompt(tag), 0, 2)
    told = overview.mode("toy", recorded)
    assert list(recorded.plans) == plans and told.blocks == [caches.distribution(plan) for plan in plans]
    assert [recorded.frames[3 * number + 2].tolist() for number in range(24)] == [recall_frames.native(one).tolist() for one in pixels]
    (start,) = told.switches
    assert (start.block, start.entered, start.remembered) == (12, entered, remembered)
    expected = [policy.fading(Transition(entered)).weight, *weights[:-1]]
    assert len(start.weights) == count and np.abs(np.array(start.weights) - expected).max() < 1e-6, (start.weights, expected)
    order = FigureOrder(overview.KEYS | {"task": "toy"}, tmp_path, ("overview",))
    files = output.write(overview.draw([recorded], [told], "toy"), "overview", order, [told])
    assert json.loads(files[2].read_text())["numbers"][0]["switches"][0]["block"] == 12
    picture = cv2.imread(str(files[1]))
    strip = {
        tuple(int(colour[i : i + 2], 16) for i in (5, 3, 1)) for colour in (kind.colour for kind in {k for p in plans for k in p.kinds()})
    }
    shown = {tuple(map(int, pixel)) for pixel in np.unique(picture.reshape(-1, 3), axis=0)}
    assert strip <= shown, "every kind that a plan has is drawn in its colour"


def softmax(values):
    weight = np.exp(values - values.max(0))
    return weight / weight.sum(0)


def test_weights_of_a_recall_frame_are_eq_8_by_hand(backbone):
    policy, recorder = make_policy({"method": "echo_recall_5"}), Recorder()
    one = recall_frames.film(backbone, policy, prompt("#"), 0, 1)
    for block in generate(backbone, policy, [prompt("#")], 0, watch=recorder.watch):
        if block.index == 11:
            break
    assert one.sources[0].frames == (0, 2, 4, 6, 8) and one.starts == (0, 12) and one.frames.shape[0] == 36
    for layer in (0, 1):
        queries = np.concatenate([recorder.queries(layer, block)[-1][0].numpy() for block in range(12)]).astype(np.float64)
        centre = queries.mean(0)
        keys = [recorder.clean_keys(layer, [frame])[0, 0].numpy().astype(np.float64) for frame in (0, 2, 4, 6, 8)]
        alpha = softmax(np.array([(key * centre).sum((1, 2)) / 2 for key in keys]))
        assert np.allclose(one.sources[0].alpha[layer].numpy(), alpha, atol=1e-5)
        assert np.allclose(one.sources[0].shares[layer].numpy(), alpha, atol=1e-5), "nothing of the first frame is added"
    held = recall_frames.film(backbone, make_policy({"method": "echo"}), prompt("#"), 0, 1).sources[0]
    assert torch.allclose(held.shares, 0.1 * held.alpha + torch.tensor([0.9, 0, 0])[:, None])


@pytest.mark.parametrize(("method", "tag"), [("echo", ""), ("echo", "#"), ("echo_paper", "#")])
def test_fading_weights_by_hand(backbone, method, tag):
    nearest = {} if method == "echo" else {"method.hard.reference": "frame", "method.hard.place": "same"}
    policy = make_policy({"method": method} | nearest)
    found = recall_frames.film(backbone, policy, prompt(tag), 0, 2)
    (fade,) = found.fades
    assert (fade.scene, fade.block) == (1, 12) and found.middle(1).shape == found.frames.shape[1:]
    if (method, tag) == ("echo", "#"):
        assert fade.weights.shape == (1, 2, 1, TOKENS) and bool((fade.weights == 0.8).all()), "a hard cut: one block at 0.8, then nothing"
        return
    recorder, store = Recorder(), {}

    def watch(rollout):
        recorder.watch(rollout)
        store["k"] = rollout.store

    srf = None
    for block in generate(backbone, policy, [prompt(tag)], 0, watch=watch):
        if block.index == 12:  # the recall frame is in the store from here on
            srf = [store["k"].named(layer, recall_of(0)).k[0].double().numpy() for layer in (0, 1)]
            break
    low, high = (0.8, 0.95) if tag == "" else (0.55, 0.9)
    for layer in (0, 1):
        new = recorder.clean_keys(layer, [36])[0, 0].double().numpy().reshape(TOKENS, -1)
        recent = [recorder.clean_keys(layer, [frame])[0, 0].double().numpy() for frame in (34, 35)] if tag == "" else []
        old = np.concatenate([srf[layer], *recent]).reshape(-1, TOKENS, new.shape[1])
        distance = 1 - (old * new).sum(-1) / np.linalg.norm(old, axis=-1) / np.linalg.norm(new, axis=-1)
        delta = (distance - distance.min()) / np.ptp(distance)
        rate = high - (high - low) * delta if method == "echo" else high ** (1 - delta) * low**delta
        for number, weights in enumerate(fade.weights[:, layer]):
            assert np.allclose(weights.numpy(), rate**number, atol=1e-4)
    assert len(fade.weights) == (5 if method == "echo" else found.starts[2] - found.starts[1]), "the paper's never ends"


def test_refusals_of_recordings(backbone):
    for method, count, message in (
        ("longlive", 1, "keeps no recall frames"),
        ("echo_recall_none", 1, "keeps no"),
        ("echo", 3, "scenes=3: .* nearest is 2"),
    ):
        with pytest.raises(ValueError, match=message):
            recall_frames.film(backbone, make_policy({"method": method}), prompt("#"), 0, count)


def test_a_verdict_is_told_by_colours():
    values, truth = np.array([[[5.0, 4], [0, 0]]]), np.array([[[5.0, 0], [4, 0]]])
    assert fig3.verdict(values, truth, 2).tolist() == [[list(fig3.HIT), list(fig3.FALSE)], [list(fig3.MISSED), list(fig3.NONE)]]
    assert fig3.strip(np.zeros((2, 3, 4))).shape == (3, 9)


def test_fig3_is_written_with_its_numbers(backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(fig3, "prompts_of", lambda *_: [Prompt(f"toy-{n}", TEXTS[:1], (12.0,), ("",)) for n in range(2)])
    given = fig3.KEYS | {"blocks": "13", "layer": "1", "block": "7", "batch": "1"}
    paths = fig3.make("fig3", FigureOrder(given, tmp_path, ("fig3",)), lambda _: backbone)
    assert [path.name for path in paths] == ["fig3.pdf", "fig3.png", "fig3.json"] and all(path.stat().st_size > 3000 for path in paths)
    found = json.loads(paths[2].read_text(encoding="utf-8"))
    assert found["command"] == "echo-harness figures fig3" and found["settings"]["blocks"] == "13" and len(found["commit"]) >= 7
    time = found["numbers"]["truth"]["time"]
    assert (time["keep"], time["tokens"]) == (12, 72) and time["rules"]["gate"]["recall_less_gate"]["mean"] == 0
    assert found["numbers"]["gate_blocks"] == [7, 11] and set(found["numbers"]["gates"]) == {"first_pass", "clean"}
    assert all(0 < one["mean"] < 1 for one in [*found["numbers"]["gates"]["clean"], *found["numbers"]["gates"]["first_pass"]])
    assert time["rules"]["gate"]["recall"]["prompts"] == 2 and set(time["rules"]) == {*fig3.RULES, *fig3.CONTROLS}


@pytest.fixture
def store(tmp_path):
    """Videos of two methods on two prompts of the hard task; one method has one prompt alone."""
    for preset, ids in (("echo", ("hard-000", "hard-001")), ("longlive", ("hard-000",))):
        folder = put(tmp_path / "store", "hard", preset, {one: {"m": 1.0} for one in ids}, scores=None)
        for one in ids:
            frames = np.random.default_rng(0).integers(0, 255, (24, 48, 48, 3), dtype=np.uint8)
            with VideoWriter(folder / "units" / f"{one}.mp4", fps=16, height_px=48, crf=20) as writer:
                writer.write(frames)
            lines = [json.dumps({"block": block, "scene": block, "keys": [], "queries": []}) for block in (0, 1)]
            (folder / "units" / f"{one}.trace.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path / "store"


def test_a_sheet_from_a_store(store, tmp_path, capsys):
    words = ["fig8", "--store", str(store), "method=echo,longlive", "prompts=1", "every_s=0.5", "--output", str(tmp_path)]
    assert cli.main(["figures", *words]) == 0
    assert "fig8.png" in capsys.readouterr().out and cv2.imread(str(tmp_path / "fig8.png")) is not None
    (section,) = json.loads((tmp_path / "fig8.json").read_text(encoding="utf-8"))["numbers"]["sections"]
    assert [row["preset"] for row in section["rows"]] == ["echo", "longlive"] and section["borders_s"] == [0.75]
    assert section["stills_s"] == [0.25, 0.75, 1.25]


def test_what_a_store_lacks_is_told_with_its_command(store, tmp_path, capsys):
    run = f"seed=0 prompts=1 store={store} -m"
    for words, told in (
        (
            ["fig8", "method=echo,longlive,oracle", "prompts=1"],
            f"hard lacks oracle; `python run.py method=oracle task=hard {run}` makes them",
        ),
        (["fig9", "method=echo"], f"long120 lacks echo; `python run.py method=echo task=long120 {run}` makes them"),
        (["fig8", "method=echo,longlive"], "task hard has 1 prompts with a video of every method, prompts=2 are asked for"),
        (["fig8", "method=echo", "seed=3"], "hard lacks echo; `python run.py method=echo task=hard seed=3 prompts=2"),
        (["lambda"], "`python run.py experiment=sweep_lambda"),
        (
            ["fig5", "method=echo"],
            "long60 lacks echo; smooth lacks echo; recall lacks echo; `python run.py method=echo task=long60,smooth,recall",
        ),
    ):
        assert cli.main(["figures", *words, "--store", str(store), "--output", str(tmp_path)]) == 2
        err = capsys.readouterr().err
        assert told in err and err.count("\n") == 1, err


def test_command_line_refuses_in_one_line(capsys):
    for words, told in (
        ([], "give a figure: fig3, fig4"),
        (["fig33"], "fig33: no figure of this name; nearest is fig3 of"),
        (["fig3", "prompt=2"], "prompt=2: not understood; nearest is prompts="),
        (["fig3", "prompts=0"], "fig3: prompts=0: a whole number of 1 or more"),
        (["fig3", "truth=tme"], "truth=tme: one of time, window, slot; nearest is time"),
        (["fig3", "layer=9"], "layer=9: of those recorded, [0, 1, 2, 3, 4, 5]; nearest is 5"),
        (["fig3", "layers=1,x"], "layers=1,x: numbers of 0..5 with commas between"),
        (["fig3", "block=36"], "block=36: choices of 7..34 can be shown; nearest is 34"),
        (["fig3", "blocks=12"], "blocks=12: 7 for a full history and 5 that ask; nearest is 13"),
        (["fig3", "backbone=tinny"], "unknown backbone 'tinny'; nearest is 'tiny'"),
        (["fig3", "backbone=self_forcing"], "no such file; `echo-harness data download backbone=self_forcing`"),
        (["fig10", "method=longlive"], "LongLive keeps no recall frames; nearest is method=echo"),
        (["cache", "method=render_truth"], "method=render_truth: is rendered and keeps no cache"),
        (["cache", "prompt=recall-999"], "prompt=recall-999: task recall has none of this id; nearest is recall-0"),
    ):
        assert cli.main(["figures", *words]) == 2
        err = capsys.readouterr().err
        assert told in err and err.count("\n") == 1, err


def test_caches_are_those_of_c6(tmp_path):
    given = caches.KEYS | {
        "task": "long60",
        "method": "self_forcing,longlive,rolling_sink,recency,deep_forcing_table,echo",
        "store": str(tmp_path),
    }
    caches.make("cache", FigureOrder(given, tmp_path), lambda _: None)
    found = json.loads((tmp_path / "cache.json").read_text(encoding="utf-8"))["numbers"]["methods"]
    full = {row["method"]: row["full_window"] for row in found}
    assert full["echo"] == "A12 C3 R3 +3" and full["self_forcing"] == "R18 +3" and full["longlive"] == "S3 R6 +3"
    assert full["recency"] == "S3 R15 +3" and found[3]["notes"] == ["bias -4.0 to -0.4"] and found[0]["notes"] == []
    assert full["rolling_sink"] == "S15 R3 +3" and found[-1]["blocks"][0] == "+3" and max(found[1]["frames"]) == 12
    assert all(row["stored_trace_agrees"] is None for row in found)


def test_caches_say_what_each_group_of_heads_meets(tmp_path):
    given = caches.KEYS | {"task": "long60", "method": "dummy_forcing,forcing_kv", "store": str(tmp_path)}
    caches.make("cache", FigureOrder(given, tmp_path), lambda _: None)
    dummy, kv = json.loads((tmp_path / "cache.json").read_text(encoding="utf-8"))["numbers"]["methods"]
    assert dummy["full_window"] == "S1 R3 +3" and dummy["notes"] == ["first heads meet S1", "mid heads meet R3", "dummy heads meet R1"]
    assert dummy["attended"][:3] == [3, 6, 5] and dummy["frames"][:3] == [3, 6, 7]
    assert kv["full_window"] == "S1 C1 R1 +3" and kv["notes"] == ["static heads meet S1 R1", "dynamic heads meet S1 C1 R1"]


def test_a_stored_trace_is_compared(store):
    trace = caches._stored(store, "hard", 0, "hard-000")
    assert set(trace) == {"echo", "longlive"} and trace["echo"][1]["scene"] == 1


def test_every_figure_has_keys_and_a_maker():
    for name, order in command.orders(["all", "seed=4"]).items():
        assert order.folder == Path("results/figures") and order.words[0] == name
        assert order.settings.get("seed", "4") == "4" and "store" in order.settings


def test_numbers_are_plain():
    told = output.plain({"a": np.float64(1 / 3), "b": [torch.tensor([1.0, float("nan")])], 3: range(2)})
    assert told == {"a": 0.333333, "b": [[1.0, None]], "3": [0, 1]}
    assert output._folded(json.dumps(told, indent=1)).count("\n") == 6


@pytest.mark.slow
def test_from_a_clean_store_by_the_command_that_is_told(tmp_path, capsys):
    words = ["fig11", "method=echo,render_truth", "prompts=1", "every_s=10", "--store", str(tmp_path / "new"), "--output", str(tmp_path)]
    assert cli.main(["figures", *words]) == 2
    told = re.search(r"`python (.*)`", capsys.readouterr().err)
    done = subprocess.run([sys.executable, *shlex.split(told[1])], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert cli.main(["figures", *words]) == 0, capsys.readouterr().err
    (section,) = json.loads((tmp_path / "fig11.json").read_text(encoding="utf-8"))["numbers"]["sections"]
    assert section["prompt"] == "recall-000" and len(section["stills_s"]) == 6 and len(section["scenes"]) == 6
    assert cli.main(["figures", "cache", "method=echo", "--store", str(tmp_path / "new"), "--output", str(tmp_path)]) == 0
    (row,) = json.loads((tmp_path / "cache.json").read_text(encoding="utf-8"))["numbers"]["methods"]
    assert row["stored_trace_agrees"] is True
