"""Orderings against the paper's on numbers whose answer is known."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
from scipy import stats

from baselines.presets import choices
from baselines.presets import preset as preset_of
from data.published import Claim, Side, claims
from echo.files import ROOT
from eval.claims import ordering, verdicts
from eval.claims import variants as reasons
from eval.claims.verdicts import AGREE, DISAGREE, MISSING, UNSURE, Count, count, find, judge
from eval.stats.statistics import Estimate
from eval.store.rows import newest
from jobs import cli
from tests.helpers.stores import put

PROMPTS = 8
BASE = np.random.default_rng(0).normal(50, 20, size=(PROMPTS, 2))
"""Prompts differ far more than methods do; only paired differences see the methods."""


def fill(store, task, offsets, metric="proxy.imaging_quality", backbone="tiny", noise=0.1, prompts=PROMPTS):
    """Two seeds of each preset: the prompt's base, the preset's offset, a little noise."""
    for index, (preset, offset) in enumerate(offsets.items()):
        jitter = np.random.default_rng(index + 1).normal(0, noise, size=BASE.shape)
        for seed in (0, 1):
            values = {f"p{p}": {metric: float(BASE[p, seed] + offset + jitter[p, seed])} for p in range(prompts)}
            put(store, task, preset, values, seed=seed, backbone=backbone)


def verdict_of(findings, first, second):
    (found,) = [f for f in findings if {f.first, f.second} == {first, second}]
    return found


def columns(store, table, task, metric):
    wanted = [c for c in claims() if (c.table, c.task, c.metric) == (table, task, metric)]
    return find(wanted, {name: newest(store, name) for name in ("long60", "smooth", "hard", "recall")})


@pytest.mark.parametrize(
    ("sign", "mean", "half", "expected"),
    [
        (1, 2.0, 1.0, AGREE),
        (-1, 2.0, 1.0, DISAGREE),
        (-1, -2.0, 1.0, AGREE),
        (1, 2.0, 2.0, UNSURE),
        (1, 0.0, 0.0, UNSURE),
        (1, 2.0, None, UNSURE),
        (1, 0.1, 0.0, AGREE),
    ],
)
def test_verdicts(sign, mean, half, expected):
    assert judge(sign, Estimate(mean, half, 8, 8, 1)) == expected
    assert judge(sign, None) == MISSING


def test_known_orderings(tmp_path):
    """Paper at 60 s: imaging quality echo 72.09, rolling_sink 71.89, infinity_rope 70.36, deep 69.04, self 68.26, longlive 67.97."""
    fill(tmp_path, "long60", {"echo": 3.0, "rolling_sink": 1.0, "infinity_rope": 5.0, "deep_forcing_official": 1.0})
    fill(tmp_path, "long60", {"longlive": -1.0}, backbone="tiny_long")
    found = columns(tmp_path, "1", "60s", "imaging_quality")
    assert len(found) == 15
    expected = {"tiny/rolling_sink": AGREE, "tiny/infinity_rope": DISAGREE, "tiny_long/longlive": AGREE, "tiny/self_forcing": MISSING}
    for other, verdict in expected.items():
        assert verdict_of(found, "tiny/echo", other).verdict == verdict, other
    assert verdict_of(found, "tiny/rolling_sink", "tiny/deep_forcing_official").verdict == UNSURE
    near = verdict_of(found, "tiny/echo", "tiny/rolling_sink")
    assert near.first == "tiny/echo" and near.difference.mean == pytest.approx(2.0, abs=0.15) and near.difference.videos == 16
    assert count(found) == Count(agree=7, disagree=2, unsure=1, missing=5)
    assert count(ordering.own(found)) == Count(agree=3, disagree=1, unsure=0, missing=1)
    assert ordering.lacking(found) == ["tiny/self_forcing on long60"]


def test_agrees_with_a_t_test_over_prompt_means(tmp_path):
    """A second path: with as many seeds in each prompt, the t interval of the prompts' mean differences."""
    fill(tmp_path, "long60", {"echo": 0.6, "rolling_sink": 0.0}, noise=0.8)
    (found,) = [f for f in columns(tmp_path, "1", "60s", "imaging_quality") if f.difference is not None]
    jitter = [np.random.default_rng(seed).normal(0, 0.8, size=BASE.shape) for seed in (1, 2)]
    means = (0.6 + jitter[0] - jitter[1]).mean(axis=1)
    half = stats.t.ppf(0.975, PROMPTS - 1) * means.std(ddof=1) / np.sqrt(PROMPTS)
    assert found.difference.mean == pytest.approx(means.mean())
    assert found.difference.half_width == pytest.approx(half, rel=0.1), f"{found.difference.half_width} against {half}"


def test_row_of_another_backbone_stands_in_and_says_so(tmp_path):
    fill(tmp_path, "hard", {"longlive": 0.0, "longlive_echo": 2.0}, "proxy.text_alignment")
    found = columns(tmp_path, "2", "hard", "text_alignment")
    near = verdict_of(found, "tiny/longlive", "tiny/longlive_echo")
    assert near.verdict == AGREE and near.why == "on tiny"
    fill(tmp_path, "hard", {"longlive": 0.0, "longlive_echo": -2.0}, "proxy.text_alignment", backbone="tiny_long")
    found = columns(tmp_path, "2", "hard", "text_alignment")
    own = verdict_of(found, "tiny_long/longlive", "tiny_long/longlive_echo")
    assert own.verdict == DISAGREE and own.why == ""


def test_plain_ablation_stands_in_for_the_one_on_the_long_backbone(tmp_path):
    fill(tmp_path, "hard", {"echo_recall_none": 0.0, "echo": 2.0}, "proxy.subject_consistency")
    near = verdict_of(columns(tmp_path, "9a", "hard", "subject_consistency"), "tiny/echo", "tiny/echo_recall_none")
    assert near.verdict == AGREE and near.why == "on tiny" and near.own
    fill(tmp_path, "hard", {"longlive_echo_recall_none": 0.0, "longlive_echo": -2.0}, "proxy.subject_consistency", backbone="tiny_long")
    pair = "tiny_long/longlive_echo", "tiny_long/longlive_echo_recall_none"
    assert verdict_of(columns(tmp_path, "9a", "hard", "subject_consistency"), *pair).verdict == DISAGREE


def test_missing_metric_and_disjoint_videos_are_told(tmp_path):
    fill(tmp_path, "long60", {"echo": 0.0})
    put(tmp_path, "long60", "rolling_sink", {"other": {"proxy.imaging_quality": 1.0}})
    found = columns(tmp_path, "1", "60s", "imaging_quality")
    assert "no shared videos with proxy.imaging_quality of tiny/echo and tiny/rolling_sink on long60" in ordering.lacking(found)


def test_things_without_a_counterpart_are_left_out():
    side = Side("Self-Forcing", "Echo-Forcing")
    assert find([Claim("1", "60s", "fps", side, Side("LongLive", "LongLive"), -5.0, -1, "image")], {}) == []
    assert len(find(claims(), {})) == count(find(claims(), {})).missing > 250


def test_swapped_row_turns_the_verdict(tmp_path):
    """Echo falls behind; with one setting changed it is ahead; another setting changes nothing."""
    offsets = {"echo": -2.0, "infinity_rope": 0.0, "echo_pool_18": 2.0, "echo_recall_fused": -2.0, "echo_paper": 0.0}
    fill(tmp_path, "recall", offsets, "proxy.text_alignment")
    there = {"recall": newest(tmp_path, "recall")}
    findings = find([c for c in claims() if c.table == "2" and c.metric == "text_alignment"], there)
    trials = {t.reason.variant: t.verdict for t in reasons.trials(findings, there)}
    assert trials == {"echo_pool_18": AGREE, "echo_recall_fused": DISAGREE, "echo_paper": UNSURE}
    effects = {e.reason.variant: e.by_metric["proxy.text_alignment"].mean for e in reasons.effects(there)}
    expected = {"echo_recall_fused": 0.0, "echo_pool_18": 4.0, "echo_paper": 2.0}
    assert effects == pytest.approx(expected, abs=0.15)


def test_variant_of_too_few_videos_is_marked(tmp_path):
    """Over the first two prompts the unswapped rows are undecided, so a variant of two prompts turns nothing."""
    fill(tmp_path, "recall", {"echo": -0.3, "infinity_rope": 0.0}, "proxy.text_alignment", noise=0.2)
    fill(tmp_path, "recall", {"echo_pool_18": -0.3}, "proxy.text_alignment", noise=0.2, prompts=2)
    there = {"recall": newest(tmp_path, "recall")}
    findings = find([c for c in claims() if c.table == "2" and c.metric == "text_alignment"], there)
    (trial,) = reasons.trials(findings, there)
    assert (trial.finding.verdict, trial.verdict, trial.unswapped) == (DISAGREE, UNSURE, UNSURE) and trial.difference.prompts == 2
    assert f"?{ordering.FEW}" in ordering.as_markdown(findings, [trial], []) and f"{ordering.FEW}: over" in ordering.as_markdown(
        findings, [trial], []
    )


def test_variants_exist_and_the_experiment_runs_nothing_that_is_not_read():
    presets = set(choices("method"))
    pairs = {(r.base, r.variant) for r in reasons.REASONS}
    assert {name for pair in pairs for name in pair} <= presets and len(pairs) == len(reasons.REASONS)
    text = (ROOT / "conf" / "experiment" / "reasons.yaml").read_text(encoding="utf-8")
    methods = next(line for line in text.splitlines() if "method:" in line).split(":")[1].strip().split(",")
    variants = {variant for base, variant in pairs if variant in methods and base in methods}
    rendered = {name for name in methods if preset_of("method", name)["policy"] == "render"}
    assert set(methods) - rendered == variants | {base for base, variant in pairs if variant in variants}
    assert {"echo_recall_fused", "echo_decay_paper", "echo_pool_18", "self_forcing", "longlive_keep"} <= variants


def test_command_writes_both_forms(tmp_path, capsys):
    fill(tmp_path, "hard", {"echo": -2.0, "infinity_rope": 0.0, "echo_pool_18": 2.0}, "proxy.text_alignment")
    put(tmp_path, "hard", "echo", {"p": {"proxy.text_alignment": 1.0}}, at=0, settings={"anchors": 3})
    files = [tmp_path / "a" / "o.json", tmp_path / "o.md"]
    words = ["table2", "--store", str(tmp_path), "--output", str(files[0]), "--markdown", str(files[1])]
    assert cli.main(["claims", "ordering", *words]) == 0
    told = capsys.readouterr().out
    assert "proxy.text_alignment: agree 0, disagree 1 (0 % of the decided), can't tell 0, missing 5" in told
    assert "hard: left out, as tiny/echo has newer settings: anchors=3 (1 videos)" in told
    assert "lacking: tiny/self_forcing_recache on hard" in told and "table 1" not in told
    content = json.loads(files[0].read_text(encoding="utf-8"))
    (table,) = [t for t in content["tables"] if t["task"] == "hard"]
    assert table["columns"]["proxy.text_alignment"] == {"agree": 0, "disagree": 1, "cant_tell": 0, "missing": 5, "share": 0.0}
    pair = next(p for p in table["pairs"] if p["verdict"] == DISAGREE)
    assert (pair["first"], pair["second"], pair["paper_difference"]) == ("tiny/echo", "tiny/infinity_rope", 1.04)
    assert content["trials"][0]["for"] == "echo_pool_18" and content["trials"][0]["verdict_then"] == AGREE
    assert {row["paper"] for row in content["unmapped"]} >= {"fps", "aesthetic_quality"}
    text = files[1].read_text(encoding="utf-8")
    cell = f"+1.04, **{pair['difference']['mean']:+.2f} ± {pair['difference']['half_width']:.2f} ✗**"
    assert f"| echo − infinity_rope | {cell} |" in text and "### Table 2, `hard`" in text
    assert f"| 2, hard | echo − infinity_rope | `proxy.text_alignment` | {cell.replace(', ', ' | ')} |" in text
    before = [path.read_bytes() for path in files]
    assert cli.main(["claims", "ordering", *words]) == 0 and [path.read_bytes() for path in files] == before, "the same bytes again"


def test_ratings_are_judged_too(tmp_path, capsys):
    """Three raters of four videos: all put echo two points above self_forcing, and disagree on rolling_sink."""
    lines = ["rater,task,video,seed,backbone,method,criterion,rating"]
    for rater, video in product(range(3), range(4)):
        points = {"echo": 4 + (video + rater) % 2, "self_forcing": 2 + (video + rater) % 2, "rolling_sink": 4 + (rater + video // 2) % 2}
        lines += [f"r{rater},long60,v{video},0,tiny,{name},text_alignment,{value}" for name, value in points.items()]
    path = tmp_path / "ratings.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    put(tmp_path, "long60", "echo", {"p": {"proxy.text_alignment": 1.0}})
    words = ["claims", "ordering", "table4", f"ratings={path}", "--store", str(tmp_path), "--output", str(tmp_path / "o.json")]
    assert cli.main(words) == 0
    told = capsys.readouterr().out
    assert "table 4 long: agree 1, disagree 0 (100 % of the decided), can't tell 1, missing 18" in told
    (table,) = json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))["tables"]
    pairs = {pair["second"]: pair for pair in table["pairs"] if pair["metric"] == "text_alignment.opinion"}
    assert pairs["raters/self_forcing"]["verdict"] == AGREE and pairs["raters/self_forcing"]["difference"]["mean"] == 2.0
    assert pairs["raters/rolling_sink"]["verdict"] == UNSURE and pairs["raters/longlive"]["why"] == "no ratings of raters/longlive"
    assert cli.main(["claims", "ordering", "table4", "--store", str(tmp_path)]) == 2
    assert "table4: people's ratings; give ratings=FILE.csv" in capsys.readouterr().err


@pytest.mark.parametrize("one", [True, False])
def test_damaged_records_are_named(one, tmp_path, capsys):
    """Also where a row has no other."""
    fill(tmp_path, "hard", {"echo": 1.0, "infinity_rope": 0.0}, prompts=3)
    path = next(tmp_path.glob("runs/*/*/echo/seed=0/*/records/*.jsonl"))
    path.write_bytes(path.read_bytes().replace(b'"seed":0', b'"seed":1', 1) if one else bytes(99) + b"\n")
    assert cli.main(["claims", "ordering", "--store", str(tmp_path)]) == 0
    assert f"left out: {path}:1: a damaged record\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tabel2"], "tabel2: no such table; nearest is table2"),
        (["--store", "/nowhere"], "--store /nowhere: no run store"),
        (["table2", "--output"], "--output"),
    ],
)
def test_refusals(words, message, capsys):
    assert cli.main(["claims", "ordering", *words]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1


def test_numbers_in_json_are_rounded():
    assert verdicts.numbers(Estimate(1 / 3, None, 4, 1, 4)) == {"mean": 0.3333, "half_width": None, "videos": 4, "prompts": 1, "seeds": 4}
    assert verdicts.signed(Estimate(-1.234, 0.5, 4, 2, 2)) == "-1.23 ± 0.50" and verdicts.signed(None) == ""
