"""Records of an older schema are read, of an unknown one refused in a line, before any work and by every reader."""

from __future__ import annotations

import json
import sys

import msgspec
import pytest

from eval.store.records import VERSION, Provenance, UnknownVersion
from eval.store.runs import Run
from jobs import cli
from jobs.launch import sweep
from jobs.spec.plan import prepare
from jobs.store.folder import Attempt, RunFolder, new_attempt
from tests.helpers.stores import as_older
from tests.helpers.toy import changed


@pytest.fixture
def folder(plain, tmp_path):
    """A run with one finished unit."""
    job = prepare(changed(plain, "store", str(tmp_path)))
    folder = RunFolder(job)
    folder.describe()
    with Attempt(folder, new_attempt(), Provenance(host="node7", cpu="chip", gpu={"name": "card"})) as attempt:
        attempt.ok(job.asked[0], {"x": 1.0}, {"latents_sha256": "a"})
    return folder


def rewrite(folder, **changes):
    """The only record again, fields changed or taken out."""
    (path,) = (folder.path / "records").iterdir()
    path.write_text(as_older(path.read_bytes(), **changes), encoding="utf-8")
    return path


def test_what_is_written_is_the_newest_version(folder):
    (record,) = folder.reader.records()
    assert record.v == VERSION == 3 and (record.host, record.device) == ("node7", "card")


def test_an_older_record_counts_as_done_and_is_brought_up_to_date(folder):
    before = folder.reader.records()
    rewrite(folder, v=1, host=None, device=None)
    (record,) = folder.reader.records()
    assert record == msgspec.structs.replace(before[0], host=None, device=None) and folder.missing() == folder.job.asked[1:]


@pytest.mark.parametrize("version", [4, 0, "two"])
def test_an_unknown_record_is_refused_with_its_file_and_what_to_do(folder, version):
    path = rewrite(folder, v=version)
    with pytest.raises(UnknownVersion) as told:
        folder.missing()
    line = str(told.value)
    assert line.startswith(f"{path}: schema version {version} is not known here, versions 1 to 3 are") and "store=DIR" in line


def test_other_files_of_a_newer_version_are_refused_too(folder, capsys):
    (path,) = (folder.path / "asked").iterdir()
    path.write_text(json.dumps({"v": 9}), encoding="utf-8")
    with pytest.raises(UnknownVersion, match="asked.*schema version 9"):
        folder.reader.asked()
    path = folder.path / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"v": 9}), encoding="utf-8")
    with pytest.raises(UnknownVersion, match=r"run\.json: schema version 9"):
        _ = Run(folder.reader.store, folder.reader.place).spec
    assert cli.main(["figures", "sheet", "--store", str(folder.job.config.store), "task=hard"]) == 2
    told = capsys.readouterr()
    assert "schema version 9" in told.err and told.err.count("\n") == 1 and not told.out


def test_a_command_on_such_a_store_ends_in_a_line_before_any_work(folder, plain, monkeypatch, capsys):
    rewrite(folder, v=9)
    monkeypatch.setattr(sys, "argv", ["run.py", "seed=0"])
    config = plain | {"store": folder.job.config.store}
    assert cli.ended(lambda: sweep.carry_out([config], [None]), mistake=1) == 1
    told = capsys.readouterr().err
    assert "schema version 9" in told and told.count("\n") == 1 and len(list((folder.path / "attempts").iterdir())) == 1
