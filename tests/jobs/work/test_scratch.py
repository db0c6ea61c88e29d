"""Copies of weights on a machine's own disk: made once, whole, and never in the way of a job."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from echo.files import file_digest
from jobs.work.scratch import staged


@pytest.fixture
def weights(tmp_path) -> dict[str, Path]:
    """A file, and a folder of two shards with a hidden note of a digest, which is no content."""
    folder = tmp_path / "shared" / "shards"
    folder.mkdir(parents=True)
    for name in ("1.pt", "2.pt", ".1.pt.blake2b", "../one.pt"):
        (folder / name).write_bytes(os.urandom(64) * 2**17)  # long enough for others to come meanwhile
    return {"file": tmp_path / "shared" / "one.pt", "folder": folder}


@pytest.fixture
def scratch(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ECHO_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_of_many_processes_at_once_one_copies(weights, scratch, kind):
    path, notes, gate = weights[kind], list[str](), Barrier(6)
    content = file_digest(path)

    def take(_: int) -> Path:
        gate.wait()
        return staged(path, content, notes.append)

    with ThreadPoolExecutor(6) as pool:
        (copy,) = set(pool.map(take, range(6)))
    assert copy.is_relative_to(scratch) and copy.name == path.name and file_digest(copy) == content
    assert len(notes) == 1 and "copied" in notes[0]
    assert not list(copy.parent.rglob(".1.pt.blake2b")) and not list(scratch.rglob("*.part"))


def test_half_a_copy_and_a_damaged_one_are_made_anew(weights, scratch):
    path, notes = weights["folder"], list[str]()
    content = file_digest(path)
    copy = staged(path, content, notes.append)
    part = copy.parents[1] / f".{content}.part" / path.name
    part.mkdir(parents=True)
    (part / "1.pt").write_bytes(b"half")
    (copy / "2.pt").unlink()  # as a purge of old files leaves it
    assert staged(path, content, notes.append) == copy and file_digest(copy) == content and not part.exists()
    (copy / "1.pt").write_bytes(b"something else")
    assert file_digest(staged(path, content, notes.append)) == content and len(notes) == 3


def test_what_is_no_longer_what_was_asked_for_is_not_copied(weights, scratch):
    path, notes = weights["file"], list[str]()
    content = file_digest(path)
    path.write_bytes(b"replaced")
    assert staged(path, content, notes.append) == path and "its copy has another content" in notes[0]
    assert not [file for file in scratch.rglob("*.pt") if file.is_file()]


def test_where_nothing_can_be_copied_the_file_is_read_where_it_is(weights, scratch, tmp_path, monkeypatch):
    path, notes = weights["file"], list[str]()
    with path.open("ab") as file:
        file.truncate(2**43)  # a hole: eight terabytes, of which none is on the disk
    assert staged(path, "0" * 32, notes.append) == path
    path.unlink()
    assert "one.pt is read where it is" in notes[0] and "8796.1 GB do not fit into" in notes[0]
    for place, reason in (("", "ECHO_SCRATCH is empty here"), (str(weights["folder"] / "1.pt"), "Not a directory")):
        monkeypatch.setenv("ECHO_SCRATCH", place)
        assert staged(path, "0" * 32, notes.append) == path and reason in notes[-1], notes
    monkeypatch.delenv("ECHO_SCRATCH")
    assert staged(path, "0" * 32, notes.append) == path and len(notes) == 3, "without the setting there is nothing to say"
