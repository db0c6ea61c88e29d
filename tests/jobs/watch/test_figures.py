"""Figures on a backbone of Wan2.1's make: which words go where, and a recording on its tiny sizes."""

from __future__ import annotations

import json

import pytest

from jobs import cli


def test_mistakes_are_told_in_one_line(capsys, tmp_path):
    for words, told in (
        (["fig10", "backbone=self_forcing", f"checkpoints={tmp_path}"], "no such file; `echo-harness data download backbone=self_forcing`"),
        (["fig10", "backbone=self_forcing", "geometry=huge"], "geometry"),
        (["fig10", "backbone=self_forcing", "weigths=random"], "weigths=random: not understood"),
    ):
        assert cli.main(["figures", *words]) == 2
        err = capsys.readouterr().err
        assert told in err and err.count("\n") == 1, err


@pytest.mark.slow
def test_the_network_of_wan_is_recorded_unchanged(tmp_path, capsys):
    words = ["backbone=self_forcing", "weights=random", "geometry=tiny", "--output", str(tmp_path)]
    fig3 = ["prompts=1", "layers=0,1", "layer=1", "blocks=14", "block=7", "every=2"]
    for name, more in (("fig3", fig3), ("fig10", ["scenes=1"])):
        assert cli.main(["figures", name, *words, *more]) == 0, capsys.readouterr().err
        found = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
        assert found["command"].startswith(f"echo-harness figures {name} backbone=self_forcing") and "weights=random" in found["command"]
    truth = json.loads((tmp_path / "fig3.json").read_text(encoding="utf-8"))["numbers"]["truth"]["time"]
    assert (truth["keep"], truth["tokens"]) == (72, 432) and truth["rules"]["gate"]["recall"]["mean"] > truth["chance"]
