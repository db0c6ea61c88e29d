"""The command line of a live session: what it adds, what it refuses, and which script it takes."""

from __future__ import annotations

import socket

import pytest

from data.prompt_sets import PromptLine, write_set
from echo.scene import Prompt
from jobs import cli
from jobs.live import command as live
from tests.helpers.live import A


def test_what_a_session_needs_is_added_and_told():
    official = live.order(["method=echo_official", "task=hard"])
    usual = live.order([])
    assert official.words == ("method=echo_official", "method.routing.causal=true") and official.notes == ("method.routing.causal=true",)
    assert (usual.words, usual.threshold, usual.host, usual.notes) == ((), live.THRESHOLD, "127.0.0.1", ())
    assert "no loopback" in live.order([], host="0.0.0.0").notes[0]
    random = live.order(["backbone=self_forcing", "weights=random", "geometry=tiny"])
    assert random.threshold is None and random.job.config.backbone.parts is not None


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("backbone=tyni", "backbone=tyni: no such backbone; nearest is tiny"),
        ("method=ehco", "method=ehco: no such method; nearest is echo"),
        ("method=render_truth", "method=render_truth: renders a film whose script is known"),
        ("method.routing.causal=false", "method=echo: its router reads scenes that nobody has said yet"),
        ("method.routing.router=automatic", "nearest is method.routing.router=tags"),
        ("eval=embedded", "eval=embedded: not in a live session"),
        ("prompts=3", "it makes one video"),
        ("seed=0,1", "asks for 2 runs; a live session is one"),
        ("sede=1", "unknown key sede: nearest is seed"),
        ("host=0.0.0.0", "host=0.0.0.0: it says where it goes or how it is shown, which is a flag; nearest is --host 0.0.0.0"),
        ("hello", "hello: not understood"),
        ("thresold=2", "unknown key thresold: nearest is threshold"),
        ("threshold=2", "threshold=2: likeness of two texts, 0 to 1"),
        ("id=a/b", "id=a/b: names files"),
        ("script=none.jsonl", "script=none.jsonl: No such file"),
        ("backbone=longlive", "no such file"),
    ],
)
def test_bad_words_are_one_line(word, line, capsys):
    assert cli.main(["live", word]) == 2
    told = capsys.readouterr().err
    assert line in told and told.count("\n") == 1, told


def test_a_port_that_is_taken_is_refused_before_the_model_is_loaded():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ValueError, match="Address already in use; nearest is to leave --port out"):
            live.order([], port=other.getsockname()[1])


def test_a_script_is_taken_by_its_id(tmp_path):
    path = tmp_path / "set.jsonl"
    prompts = [Prompt(name, (A,), (3.0,), ("",)) for name in ("one", "two")]
    write_set(path, map(PromptLine, prompts))
    chosen = live.order([], id="two", script=path)
    assert chosen.first == prompts[1] and chosen.name == "two"
    for given, line in (("", "holds 2 prompts; id= says which"), ("tow", "nearest is id=two")):
        with pytest.raises(ValueError, match=line):
            live.order([], id=given, script=path)
