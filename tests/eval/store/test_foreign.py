"""A store from anybody: planted paths lead nowhere, foreign files are passed over, what may not be read is not taken for absent."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import msgspec
import pytest

from echo.files import ROOT, inside, name_part
from eval.store import frame
from eval.store.reading import LeftOut, hearing
from eval.store.records import SweepFile, UnitRecord, line_of
from eval.store.rows import newest
from eval.store.runs import Run, runs, sweeps
from jobs import cli
from tests.eval.store.test_damages import store_of
from tests.helpers.stores import append, keep, put

SECRET = "nobody may read this"
LEADS = (
    "/etc/passwd", "{outside}", "../secret.html", "../../../../../../../secret.html", "units/../../secret.html", "./../secret.html",
    "link.mp4", "folder/secret.html", "circle.mp4", "..", ".", "", "a\0b", "//etc/passwd", "x/../../../../../../../../secret.html",
    "page.html", "page.svg", "../run.json",
    "../errors/../../../../../../../secret.html", "%2e%2e/secret.html",
)  # fmt: skip
KINDS = ("video", "trace", "scores", "traceback", "attempt")


@pytest.mark.parametrize("kind", KINDS)
def test_planted_paths_lead_nowhere(kind, tmp_path, capsys):
    """A hundred, each in a store of its own: nothing of a file outside comes into a report, a table or what status tells."""
    outside = tmp_path / "secret.html"
    outside.write_text(SECRET, encoding="utf-8")
    for number, lead in enumerate(LEADS):
        store = tmp_path / f"store{number}"
        folder = put(store, "hard", "echo", {"p0": {"world.quality": 1.0}})
        units = folder / "units"
        for name, target in (("link.mp4", outside), ("folder", tmp_path), ("circle.mp4", units / "circle.mp4")):
            (units / name).symlink_to(target)
        for name in ("page.html", "page.svg"):
            (units / name).write_text("<script>alert(1)</script>", encoding="utf-8")
        run: Run = next(runs(store))
        (record,) = run.records()
        word = lead.format(outside=outside)
        (folder / "records" / "a.jsonl").unlink()
        if kind == "traceback":
            wrong = {"status": "error", "err": "it failed", "trace": word, "metrics": {}}
        else:
            wrong = {"attempt": f"../{word}"} if kind == "attempt" else {"files": record.files | {kind: word}}
        planted = msgspec.structs.replace(record, **wrong)
        append_to_a(run, planted)
        more = {"traceback": ["status --failed"], "attempt": ["tables"]}.get(kind, [])
        for words in (f"report --output {tmp_path / f'out{number}'}", *more):
            assert cli.main([*words.split(), "--store", str(store)]) in (0, 1, 2)
        told = capsys.readouterr()
        shown = [path for path in (tmp_path / f"out{number}").rglob("*") if path.is_file()]
        assert shown and not any(SECRET.encode() in path.read_bytes() or b"root:x:0" in path.read_bytes() for path in shown), lead
        assert SECRET not in told.out + told.err and "root:x:0" not in told.out + told.err and "ECHO_TRACEBACK" not in told.err, lead
        scripts = [path for path in shown if b"alert(1)" in path.read_bytes()]
        assert all(path.suffix == ".txt" for path in scripts) and not any(path.is_symlink() for path in shown), lead


def append_to_a(run: Run, record: UnitRecord) -> None:
    """A record in the file of the attempt `a`, whichever it names."""
    name = record.attempt
    append(run, msgspec.structs.replace(record, attempt="a"))
    path = run.path / "records" / "a.jsonl"
    path.write_bytes(line_of(msgspec.structs.replace(record, attempt=name)))


@pytest.mark.parametrize("name", ["../x", "..", "/etc/passwd", "", "a/../../b", "link/x", "a\0b"])
def test_one_function_refuses_what_leads_out(name, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="leads out of it"):
        inside(root, name)
    assert inside(root, "a/b") == root / "a/b" and inside(root, "a/../b").resolve() == root / "b"


@pytest.mark.parametrize("name", ["../../../../../tmp/x", "", "a/b", ".", "x\n", "x" * 81, "*"])
def test_names_are_checked_where_they_are_read(name, tmp_path):
    """Of a task, an experiment, a method and a place: a table is written under the first two, a report under all."""
    store = store_of(tmp_path)
    (sweep,) = sweeps(store)
    path = store / "sweeps" / "hard.json"
    content = msgspec.json.decode(path.read_bytes(), type=SweepFile)
    for wrong in ({"experiment": name}, {"task": name}):
        keep(path, msgspec.structs.replace(content, **wrong))
        with pytest.warns(LeftOut, match="hard.json: no sweepfile: .*; its table is left out"):
            assert not list(sweeps(store))
    run: Run = next(runs(store))
    keep(run.path / "run.json", msgspec.structs.replace(run.spec, method=msgspec.structs.replace(run.spec.method, name=name)))
    with pytest.warns(LeftOut, match="run.json: no spec: .*the run is left out"):
        assert run.path not in [other.path for other in runs(store)]
    assert sweep.task == "hard"


def test_foreign_files_are_passed_over(tmp_path):
    """What other systems leave in folders, and copies, anywhere in a store."""
    store = store_of(tmp_path / "store")
    before = frame.videos(store).drop(columns=["video", "trace", "scores_file"])
    for place in [store, *(path for path in store.rglob("*") if path.is_dir())]:
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._run.json", "._a.jsonl", "._x.json", ".nfs0001", "notes.txt"):
            (place / name).write_bytes(b"\0\5\x16\7")
    with hearing() as lost:
        after = frame.videos(store).drop(columns=["video", "trace", "scores_file"])
    assert after.equals(before) and not lost and len(list(sweeps(store))) == 1
    assert cli.main(["tables", "--store", str(store)]) == 0


@contextlib.contextmanager
def as_nobody():
    """Permissions of a user who owns nothing of the store; a tester who is not root owns it, and loses what `chmod` removes."""
    root = os.geteuid() == 0
    if root:
        os.setegid(65534)
        os.seteuid(65534)
    try:
        if not os.access(ROOT / "run.py", os.R_OK, effective_ids=True):
            pytest.skip("this clone lies where only root may look, so nobody cannot run it")
        yield
    finally:
        if root:
            os.seteuid(0)
            os.setegid(0)


def carried_out(capsys, *words: object) -> tuple[int, str, str]:
    """Run a command as the user nobody; returns status, output and errors. It runs once before, so that everything is imported."""
    cli.main([*map(str, words)])
    capsys.readouterr()
    with as_nobody():
        status = cli.main([*map(str, words)])
    told = capsys.readouterr()
    return status, told.out, told.err


@pytest.fixture
def shared():
    """A store that other users may read and not write."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        store = store_of(Path(folder) / "store")
        yield store
        for path in store.rglob("*"):
            path.chmod(0o755)


@pytest.mark.parametrize("place", ["run", "run.json", "records", "records/a.jsonl", "asked", "seed"])
def test_unreadable_is_not_absent(place, shared, capsys):
    run: Run = next(runs(shared))
    path = {"run": run.path, "seed": run.path.parent}.get(place, run.path / place)
    path.chmod(0)
    status, out, err = carried_out(capsys, "status", "--store", shared)
    path.chmod(0o755)
    assert status == 1 and f"left out: {path}" in err and "Permission denied" in err, (out, err)
    assert "not all of it can be read" in out


def test_tables_of_a_store_that_may_only_be_read(shared, tmp_path, capsys):
    """They are shown; what cannot be kept is named with a way out, which is taken."""
    (shared / "tables").mkdir()
    (shared / "tables").chmod(0o555)
    out = shared.parent / "out"
    out.mkdir(mode=0o777)
    out.chmod(0o777)
    with as_nobody():
        status = cli.main(["tables", "--store", str(shared)])
    told = capsys.readouterr().out
    assert status == 0 and "done" not in told and "±" in told and f"not kept: {shared / 'tables'}" in told, told
    assert "Permission denied; --output DIR keeps them elsewhere" in told
    with as_nobody():
        assert cli.main(["tables", "--store", str(shared), "--output", str(out)]) == 0
    assert (out / "hard.md").is_file()


def test_a_row_of_several_codes_says_so(tmp_path, capsys):
    """Each record has the digest of the code that makes pixels; those of before have none and are read."""
    store = store_of(tmp_path)
    entry = newest(store, "hard")[0]
    assert entry.pixel_codes == ()
    assert cli.main(["tables", "--store", str(store)]) == 0
    assert "several versions of the code" not in capsys.readouterr().out
    run: Run = next(runs(store))
    records = [msgspec.structs.replace(record, pixel_code=code) for record, code in zip(run.records(), ("aaaa", "bbbb"))]
    (run.path / "records" / "a.jsonl").unlink()
    append(run, *records)
    assert newest(store, "hard")[0].pixel_codes == ("aaaa", "bbbb")
    assert cli.main(["tables", "--store", str(store)]) == 0
    assert "Pixels of a row by several versions of the code that makes them: echo 2 (aaaa, bbbb)." in capsys.readouterr().out
    assert cli.main(["status", "--store", str(store)]) == 0
    told = capsys.readouterr().out
    assert "made by several versions of the code that makes pixels: aaaa (1 videos), bbbb (1 videos), untold (6 videos)" in told


def test_texts_in_names_are_cut_in_bytes():
    assert name_part("p-1.x") == "p-1.x" and name_part("a b/c_d") == "a-b-c-d"
    for text in ("x" * 300, "狐" * 300, "é" * 79, "🦊" * 30):
        name = name_part(text)
        assert len(name.encode()) <= 80 and name_part(name) == name
