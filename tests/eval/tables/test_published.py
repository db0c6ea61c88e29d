"""A store of real backbones that has the paper's own numbers: its tables beside the paper's, and its orderings."""

from __future__ import annotations

import csv

import pytest

from data.published import claims, numbers
from eval import metrics
from eval.claims import ordering
from eval.claims.verdicts import AGREE, DISAGREE, MISSING, UNSURE
from eval.store.records import Provenance
from jobs import cli
from jobs.store.folder import Attempt, RunFolder, new_attempt, write_sweep
from tests.helpers import paper


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """All tables of the paper, on self_forcing and longlive, scored by VBench's dimensions."""
    folder = tmp_path_factory.mktemp("paper")
    paper.fill(folder)
    return folder


def rows(store, table):
    return list(csv.DictReader((store / "tables" / f"{table}.csv").open(encoding="utf-8")))


def test_each_row_has_the_papers_below_it(store, capsys):
    assert cli.main(["tables", "--store", str(store), "compare=published"]) == 0
    told = capsys.readouterr().out
    assert "compare orders of rows, not values" not in told, "that is said of the embedded world's proxies"
    for table, count in {
        "table1": 12,
        "table2": 18,
        "table3": 2,
        "table6": 4,
        "table7": 2,
        "table8": 1,
        "table9a": 2,
        "table9b": 3,
    }.items():
        lines = rows(store, table)
        own, said = ([line for line in lines if bool(line["source"]) is printed] for printed in (False, True))
        assert len(own) == len(said) == count, table
        apart = []
        for ours, theirs in zip(lines[::2], lines[1::2]):
            assert theirs["source"] and not ours["source"] and ours["preset"] == theirs["preset"], table
            shared = [name for name in metrics.KNOWN if theirs.get(name) and ours.get(name)]
            apart += [abs(float(ours[name]) - float(theirs[name])) for name in shared]
        greatest, mean = max(apart), sum(apart) / len(apart)
        assert len(apart) >= count and greatest < 3 * paper.NOISE, f"{table}: {greatest} at most, {mean} in the mean"


def test_speeds_of_one_device_stand_in_table_1(store):
    """Beside the paper's; a dash where devices differ, and why."""
    cli.main(["tables", "table1", "--store", str(store), "compare=published"])
    lines = rows(store, "table1")
    assert all(ours["run_fps"] == theirs["run_fps"] for ours, theirs in zip(lines[::2], lines[1::2]))
    assert {line["run_fps"] for line in lines[::2]} == {"17.0100", "15.6500", "16.4500", "20.7000", "15.7100"}
    text = (store / "tables" / "table1.md").read_text(encoding="utf-8")
    assert "| FPS |" in text and "on H100, by the network and its cache, without texts and codec; 4 denoising steps." in text
    assert {line["frames_attended"] for line in lines[::2]} == {"21.0000"}


def test_speeds_of_several_devices_are_a_dash(tmp_path):
    jobs = []
    for preset, device in (("self_forcing", "H100"), ("rolling_sink", "H200")):
        job, _ = paper.made_jobs(tmp_path, ("self_forcing", preset, "long60"))
        folder, facts = RunFolder(job), {"latents_sha256": "0", "fps_dit": 9.0}
        folder.describe()
        Attempt(folder, new_attempt(), Provenance(gpu={"name": device})).ok(job.asked[0], {"aesthetic_quality.vbench_long": 60.0}, facts)
        jobs.append(job)
    write_sweep(tmp_path, jobs, "table1")
    cli.main(["tables", "table1", "--store", str(tmp_path)])
    assert {line["run_fps"] for line in rows(tmp_path, "table1")} == {""}
    text = (tmp_path / "tables" / "table1.md").read_text(encoding="utf-8")
    assert "FPS: a dash, for these videos were made on H100 and H200; only speeds of one device compare." in text


def test_quality_is_made_of_the_columns(store):
    """Table 1 by plain arithmetic on the row's own columns, the paper's definition in the header."""
    cli.main(["tables", "table1", "--store", str(store)])
    for line in rows(store, "table1"):
        total = 0.0
        for name, least, most, weight in (
            ("subject_consistency", 0.1462, 1, 1), ("background_consistency", 0.2615, 1, 1), ("temporal_flickering", 0.6293, 1, 1),
            ("motion_smoothness", 0.706, 0.9975, 1), ("dynamic_degree", 0, 1, 0.5), ("aesthetic_quality", 0, 1, 1),
            ("imaging_quality", 0, 1, 1),
        ):  # fmt: skip
            total += weight * (float(line[name]) / 100 - least) / (most - least)
        assert float(line["quality"]) == pytest.approx(100 * total / 6.5, abs=1e-3) and line["quality_metric"] == "quality.vbench_long"
    text = (store / "tables" / "table1.md").read_text(encoding="utf-8")
    assert "| Quality (vbench long) |" in text and "Quality: the seven dimensions of the same definition" in text


def judged(store, *words):
    findings, *_ = ordering._compared(words, store)
    return findings


def test_the_paper_orders_as_the_paper(store):
    findings = judged(store)
    wrong = [(one.claim.table, one.first, one.second, one.metric, one.verdict) for one in findings if one.verdict in (DISAGREE, UNSURE)]
    assert not wrong, wrong
    printed = [c for c in claims() if c.difference is not None and c.table not in paper.UNRUN and c.metric != "fps"]
    agreed = [one for one in findings if one.verdict == AGREE]
    assert len(agreed) == len(printed) > 250 and all(one.claim.difference is not None for one in agreed)
    assert all(one.claim.difference is None for one in findings if one.verdict == MISSING), "what only words rank has no number to make up"
    assert {one.first.partition("/")[0] for one in findings} == {"self_forcing", "longlive"} and not any(
        one.why.startswith("on ") for one in findings
    )
    names = {one.metric for one in findings if one.verdict == AGREE}
    assert {"aesthetic_quality.vbench_long", "aesthetic_quality.vbench", "subject_consistency.pair_joined"} <= names
    assert any(one.first == "self_forcing/echo_official" and one.own for one in findings)


def test_a_store_that_orders_otherwise_is_found_out(tmp_path):
    """Echo and Infinity-RoPE change their numbers under hard cuts: every claim of the two turns, all others stay."""
    echo, infinity = (("self_forcing", preset, "hard") for preset in (paper.BASE, "infinity_rope"))
    paper.fill(tmp_path, {echo: infinity, infinity: echo})
    findings = [one for one in judged(tmp_path, "table2") if one.task == "hard" and one.first.startswith("self_forcing")]
    turned = [one for one in findings if {one.first, one.second} == {"/".join(echo[:2]), "/".join(infinity[:2])}]
    assert len(turned) == 5 and all(one.verdict == DISAGREE for one in turned)


def test_another_of_ours_may_be_asked_for(store, capsys):
    assert cli.main(["claims", "ordering", "table1", "ours=official", "--store", str(store)]) == 0
    told = capsys.readouterr().out
    assert told.splitlines()[-1].startswith("All pairs: agree 210, disagree 0 ") and told.count("missing 0") >= 2
    assert cli.main(["claims", "ordering", "table1", "ours=paper", "--store", str(store)]) == 0
    assert "lacking: self_forcing/echo_paper on long60" in capsys.readouterr().out
    assert cli.main(["claims", "ordering", "table1", "ours=offical", "--store", str(store)]) == 2
    assert "nearest is official" in capsys.readouterr().err


def test_each_number_has_a_row(store):
    printed = [number for _, number in paper.printed()]
    assert len(printed) == sum(number.table not in paper.UNRUN and number.metric != "fps" for number in numbers())
