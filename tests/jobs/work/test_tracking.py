"""Trackers get metrics, a few videos and tables; the run continues whatever fails in them."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from echo.files import ROOT
from eval.store.runs import runs
from jobs.spec.plan import prepare
from jobs.store.folder import new_attempt
from jobs.work import tracking
from jobs.work.events import Note
from jobs.work.tracking import GuardedTracker, TrackedRun
from jobs.work.worker import work
from tests.helpers.toy import changed


def make(plain, store, tracker):
    """A run of three units under a tracker; its notes and its records."""
    config = plain | {"store": str(store), "tracker": tracker, "experiment": "compare"}
    job, told = prepare(config), []
    assert work(job, new_attempt(), [], config, told.append) == 0
    (run,) = runs(store)
    return [event.line for event in told if isinstance(event, Note)], run.records()


def start(tmp_path, **more):
    return TrackedRun("id", "name", "group", "attempt", tmp_path, **more)


def test_by_default_nothing_is_written_and_nothing_imported(plain, tmp_path):
    make(plain, tmp_path, "none")
    assert not (tmp_path / "tracking").exists()
    code = "import sys, jobs.work.worker, jobs.launch.sweep; sys.exit('wandb' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_lines_have_what_the_records_have(plain, tmp_path):
    notes, records = make(plain, tmp_path, "jsonl")
    (path,) = (tmp_path / "tracking").iterdir()
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert not notes and path.stem == f"{records[0].run}-{records[0].attempt}"
    assert [line["kind"] for line in lines] == ["start", *["unit", "video"] * 3, "end"]
    assert lines[0]["group"] == "compare" and lines[0]["config"]["config"]["seed"] == 0
    for step, (line, record) in enumerate(zip(lines[1::2], records), 1):
        assert line["step"] == step and {key: getattr(record, key) for key in ("fps", "blocks", "dur_s")}.items() <= line["values"].items()


class Broken:
    """Fails in the given method, and counts its calls."""

    calls: list[str] = []

    def __init__(self, start, tell):
        Broken.calls = []
        self._call("init")

    def _call(self, name):
        Broken.calls.append(name)
        if name == self.where:
            raise self.error

    def tell(self, kind, content):
        self._call(kind)


@pytest.mark.parametrize("where", ["init", "unit", "video", "end"])
@pytest.mark.parametrize("error", [OSError("no\nnet"), SystemExit(3)], ids=["error", "exit"])
def test_a_failing_tracker_is_told_once_and_costs_no_unit(plain, tmp_path, monkeypatch, where, error):
    broken = type("Broken", (Broken,), {"where": where, "error": error})
    monkeypatch.setitem(tracking.KINDS, "jsonl", broken)
    notes, records = make(plain, tmp_path, "jsonl")
    (note,) = notes
    assert note.startswith(f"tracker=jsonl: told nothing more ({type(error).__name__}: ") and note.endswith("; the run goes on")
    assert len(records) == 3 and Broken.calls.count(where) == 1 and Broken.calls[-1] == where


@pytest.mark.parametrize("where", ["unit", "video", "table", "end"])
def test_a_tracker_that_hangs_is_left_behind(monkeypatch, tmp_path, where):
    class Slow(tracking.Lines):
        def tell(self, kind, content):
            if kind == where:
                time.sleep(600)

    monkeypatch.setitem(tracking.KINDS, "jsonl", Slow)
    monkeypatch.setattr(tracking, "PATIENCE_S", 0.1)
    told, begin = [], time.monotonic()
    tracker = GuardedTracker("jsonl", start(tmp_path), told.append)
    tracker.unit({"x": 1}, "p0", tmp_path / "0.mp4")
    tracker.table("t", ["a"], [["b"]])
    tracker.close()
    assert time.monotonic() - begin < 300 and "TimeoutError: no answer in 0 s" in told[0]


def test_only_the_first_videos_and_only_numbers_are_told(tmp_path):
    tracker = GuardedTracker("jsonl", start(tmp_path))
    for index in range(5):
        tracker.unit({"x": 1, "flag": True, "word": "y", "none": None, "deep": {"z": 2.5}}, f"p{index}", tmp_path / f"{index}.mp4")
    tracker.close()
    lines = [json.loads(line) for line in (tmp_path / "id.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["name"] for line in lines if line["kind"] == "video"] == ["p0", "p1", "p2"]
    assert [line["values"] for line in lines if line["kind"] == "unit"] == [{"x": 1.0, "deep.z": 2.5}] * 5


def test_tables_are_told_from_their_files(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "table1.csv").write_text('preset,mean\n"echo, own",1.5\n', encoding="utf-8")
    tracking.tables("none", tmp_path, ["table1"], "table1")
    assert not (tmp_path / "tracking").exists()
    tracking.tables("jsonl", tmp_path, ["table1-hard", "table1", "table1"], "table1")
    (path,) = (tmp_path / "tracking").iterdir()
    first, table, _ = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    assert first["group"] == "table1" and table["columns"] == ["preset", "mean"] and table["rows"] == [["echo, own", "1.5"]]


def test_unknown_tracker_is_refused_with_the_nearest(plain):
    with pytest.raises(ValueError, match="^tracker=wandbb: nearest is wandb$"):
        prepare(changed(plain, "tracker", "wandbb"))


def test_without_the_package_the_line_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    told = []
    GuardedTracker("wandb", start(tmp_path), told.append)
    assert 'pip install "echo-harness[wandb]"' in told[0] and "\n" not in told[0]


def test_wandb_never_stops_to_ask(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert tracking.mode() == "offline"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password x\n", encoding="utf-8")
    assert tracking.mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert tracking.mode() == "disabled"


@pytest.fixture
def deaf(monkeypatch):
    """A server that knows nothing: what is asked of it is a 404, once `may` is set."""

    class Deaf(BaseHTTPRequestHandler):
        may = threading.Event()

        def do_GET(self):
            self.may.wait(600)
            with contextlib.suppress(OSError):  # whoever asked has gone
                self.send_error(404)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    for name, value in {"no_proxy": "127.0.0.1", "WANDB_API_KEY": "a" * 40}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Deaf) as there:
        threading.Thread(target=there.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{there.server_port}")
        Deaf.may.set()
        yield Deaf
        Deaf.may.set()
        there.shutdown()


def test_a_server_that_does_not_answer_is_told_from_one_that_does(monkeypatch, deaf):
    monkeypatch.setattr(tracking, "REACH_S", 60.0)  # as long as it may take on a busy machine; what is refused is told at once
    assert tracking.unreachable() is None, "an error is an answer"
    deaf.may.clear()
    with monkeypatch.context() as patch:
        patch.setattr(tracking, "REACH_S", 0.5)
        assert tracking.unreachable(), "told while the server still says nothing"
    deaf.may.set()
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        assert "refused" in (tracking.unreachable() or "")
    monkeypatch.setenv("WANDB_BASE_URL", "nothing")
    assert "nothing" in (tracking.unreachable() or "")


@pytest.mark.slow
@pytest.mark.parametrize("there", [False, True], ids=["nobody", "gives no run"])
def test_wandb_without_a_run_of_its_server_writes_offline_at_once(monkeypatch, tmp_path, deaf, there):
    pytest.importorskip("wandb")
    code = (  # the library itself would ask for as long as it may, here for 300 s, and the time until then is to be short
        "import pathlib, sys, time, wandb; from jobs.work import tracking; tracking.PATIENCE_S = 1200.0;"
        f"tracking.REACH_S = {60.0 if there else tracking.REACH_S}; begin = time.monotonic();"
        "start = tracking.TrackedRun('run-attempt', 'echo hard seed=0', 'compare', 'attempt', pathlib.Path(sys.argv[1]));"
        "tracker = tracking.GuardedTracker('wandb', start); tracker.unit({'x': 1}, 'p', None); tracker.close();"
        "sys.exit(int(time.monotonic() - begin > 150))"
    )
    if not there:
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("tracker=")]
    assert line.startswith("tracker=wandb: http://127.0.0.1:") and "written offline, `wandb sync" in line
    assert list((tmp_path / "wandb").glob(f"offline-run-*/run-run-attempt{'-offline' if there else ''}.wandb"))


def test_wandb_writes_offline(monkeypatch, tmp_path):
    """The real package, in a process of its own as workers are: a run for an attempt, its videos beside it, one run for the table."""
    pytest.importorskip("wandb")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "compare-hard.csv").write_text("preset,mean\necho,1.5\n", encoding="utf-8")
    (tmp_path / "a.mp4").write_bytes(b"film")
    code = (
        "import pathlib, sys; from jobs.work import tracking; tracking.PATIENCE_S = 1200.0; store, told = pathlib.Path(sys.argv[1]), [];"
        "start = tracking.TrackedRun('run-attempt', 'echo hard seed=0', 'compare', 'attempt', tracking.folder_of(store), {'seed': 0});"
        "tracker = tracking.GuardedTracker('wandb', start, told.append);"
        "[tracker.unit({'x': step}, f'p{step}', store / 'a.mp4') for step in range(5)]; tracker.close();"
        "tracking.tables('wandb', store, ['compare-hard'], 'compare'); assert not told, told"
    )
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", "/proc/none")  # a home that cannot be written, of which wandb complains by itself, costs no table
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr
    attempt, table = sorted((tmp_path / "tracking" / "wandb").glob("offline-run-*/run-*.wandb"), key=lambda path: path.name)
    assert attempt.name == "run-run-attempt.wandb" and table.name.startswith("run-table-compare-")
    assert b"compare" in attempt.read_bytes() and b"echo hard seed=0" in attempt.read_bytes(), "group and name"
    assert len(list((attempt.parent / "files" / "media").rglob("*.mp4"))) == tracking.VIDEOS
    (content,) = (table.parent / "files" / "media").rglob("*.table.json")
    assert json.loads(content.read_text(encoding="utf-8"))["data"] == [["echo", "1.5"]]
