"""What a lab hands in: packed, verified, merged; three labs that differ in one unit; files of anybody; kills."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from eval.store import frame
from eval.store.records import line_of
from eval.store.rows import sources
from eval.store.runs import runs
from eval.store.submission import MANIFEST, Manifest
from jobs import cli
from tests.helpers.labs import lab_store, metrics_of

KEY = "0123456789abcdef0123456789abcdef01234567"
OTHER = ("recall", "echo", "recall-001", 1)
"""The unit of which one lab says something else."""
LEFT = ("recall", "infinity_rope", "recall-002", 0)
"""A unit that a lab was asked for and has not made."""


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Three labs' stores below a home folder, and what each hands in."""
    home = tmp_path_factory.mktemp("home") / "ann"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("WANDB_API_KEY", KEY)
        lab_store(home / "ann", ["echo", "infinity_rope"], ["recall", "hard"])
        lab_store(home / "bob", ["echo", "longlive"], otherwise={OTHER: {"world.leakage": 50.125}})
        lab_store(home / "cara", ["infinity_rope", "echo"], leave=[LEFT], seeds=[0])
        for name in ("ann", "bob", "cara"):
            assert cli.main(["export", "--store", f"{home / name}", "--output", f"{home / name}.zip", "--videos"]) == 0
    yield home


def said(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[str]]:
    """Exit status and lines of a command."""
    capsys.readouterr()
    status = cli.main([str(word) for word in words])
    both = capsys.readouterr()
    return status, (both.out + both.err).splitlines()


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_three_labs_that_differ_in_one_unit(labs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ann, bob, cara = (labs / f"{name}.zip" for name in ("ann", "bob", "cara"))
    status, lines = said(capsys, "verify", ann, bob, cara)
    told = [line for line in lines if "other" in line or "missing" in line]
    assert status == 1 and lines[-1] == "2 faults" and len(told) == 2
    assert told[0].startswith(f"{cara}: tiny/recall/infinity_rope/seed=0/") and told[0].endswith("1 of 3 videos are missing: recall-002")
    was = metrics_of(OTHER)["world.leakage"]
    assert told[1].startswith(f"{ann} and {bob}: tiny/recall/echo/seed=1/")
    assert told[1].endswith(f"recall-001: other scores (world.leakage {was} and 50.125)")

    store = tmp_path / "all"
    status, lines = said(capsys, "merge", ann, bob, cara, "--store", store)
    assert status == 1 and [line.partition(": ")[2] for line in lines if ": units: " in line] == [
        f"units: 24 added, 0 already in {store}, 0 left out as they disagree",
        f"units: 6 added, 5 already in {store}, 1 left out as they disagree",
        f"units: 0 added, 5 already in {store}, 0 left out as they disagree",
    ]
    after = files_of(store)
    assert said(capsys, "merge", ann, bob, cara, "--store", store)[0] == 1 and files_of(store) == after, "a second merge changes nothing"
    assert said(capsys, "verify", "--store", store)[0] == 0
    videos = frame.videos(store)
    assert len(videos) == 30 and set(videos["status"]) == {"done"}
    for row in videos.itertuples():
        expected = metrics_of((row.task, row.preset, row.prompt, row.seed))
        assert {name: videos.loc[row.Index, name] for name in expected} == expected
    rows = {run.place.method for source in sources(store) if source.name == "recall" for run, _ in source.wishes}
    assert rows == {"echo", "longlive", "infinity_rope"}, "the table of the task has the rows of all labs"


def test_the_same_store_is_packed_to_the_same_bytes_and_without_what_nobody_else_may_know(
    labs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = labs / "ann"
    run = next(runs(store))
    assert str(labs).encode() in next(iter((run.path / "attempts").iterdir())).read_bytes()
    monkeypatch.setenv("HOME", str(labs))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    (attempt,) = (run.path / "attempts").glob("*.json")
    was = attempt.read_bytes()
    attempt.write_bytes(was.replace(b'"run.py"', f'"run.py", "--key {KEY}", "export MY_TOKEN=planted-token"'.encode()))
    try:
        for name in ("one", "two"):
            assert cli.main(["export", "lab=ann", "--videos", "--store", str(store), "--output", str(tmp_path / name)]) == 0
    finally:
        attempt.write_bytes(was)
    content = (tmp_path / "one").read_bytes()
    assert content == (tmp_path / "two").read_bytes()
    for secret in (str(labs), KEY, "planted-token"):
        assert secret.encode() not in content, secret
    with zipfile.ZipFile(tmp_path / "one") as file:
        packed = {name: file.read(name) for name in file.namelist()}
        assert {info.date_time for info in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    sides = {name for name in packed if "/units/" in name or "/records/" in name or name.endswith("run.json")}
    assert sides and all(packed[name] == (store / name).read_bytes() for name in sides), "what is named by its content is as it was"


Members = dict[str, bytes]


def packed_again(path: Path, members: Mapping[str, bytes], info: Callable[[zipfile.ZipInfo], object] = id, sums: bool = True) -> Path:
    """A submission of these members; sums: with a manifest that fits them. info: what changes a member's entry before it is written."""
    members = dict(members)
    if sums:
        manifest = msgspec.json.decode(members.pop(MANIFEST), type=Manifest)
        manifest.files = {name: sha256(content).hexdigest() for name, content in members.items()}
        members[MANIFEST] = msgspec.json.encode(manifest)
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name)
            info(entry)
            file.writestr(entry, content)
    return path


def link(entry: zipfile.ZipInfo) -> None:
    if "/units/" in entry.filename:
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16


def deflate(entry: zipfile.ZipInfo) -> None:
    entry.compress_type = zipfile.ZIP_DEFLATED


def newer(members: Members, name: str) -> Members:
    return members | {name: re.sub(rb'"v": ?\d', b'"v":9', members[name])}


def overlapping(path: Path, members: Members) -> Path:
    """Many entries that share the bytes of one."""
    packed_again(path, members)
    with zipfile.ZipFile(path, "a") as file:
        large = max(file.infolist(), key=lambda entry: entry.file_size)
        for number in range(1000):
            entry = zipfile.ZipInfo(f"sweeps/x{number}.json")
            for name in ("file_size", "compress_size", "CRC", "header_offset"):
                setattr(entry, name, getattr(large, name))
            file.filelist.append(entry)
        file._didModify = True  # type: ignore[attr-defined]
    return path


EVIL: dict[str, tuple[Callable[[Path, Members, str, str], Path], str]] = {
    "leads out": (lambda path, m, unit, _: packed_again(path, m | {"runs/../../../planted": b"x"}), "is not the name of a file"),
    "absolute": (lambda path, m, unit, _: packed_again(path, m | {"/tmp/planted": b"x"}), "is not the name of a file"),
    "backslash": (lambda path, m, unit, _: packed_again(path, m | {"sweeps\\..\\planted.json": b"x"}), "is not the name of a file"),
    "beside": (lambda path, m, unit, _: packed_again(path, m | {"planted.py": b"x"}), "is not the name of a file"),
    "link": (lambda path, m, unit, _: packed_again(path, m, link), "is a link"),
    "compressed": (lambda path, m, unit, _: packed_again(path, m | {unit: bytes(10**6)}, deflate), "is compressed"),
    "overlapping": (lambda path, m, unit, _: overlapping(path, m), "bytes, the file has"),
    "no manifest": (lambda path, m, unit, _: packed_again(path, {unit: m[unit]}, sums=False), f"no {MANIFEST}"),
    "half a manifest": (lambda path, m, unit, _: packed_again(path, m | {MANIFEST: m[MANIFEST][:-9]}, sums=False), f"{MANIFEST}: not JSON"),
    "newer manifest": (lambda path, m, unit, _: packed_again(path, newer(m, MANIFEST), sums=False), "schema version 9 is not known here"),
    "newer run": (lambda path, m, _, run: packed_again(path, newer(m, run)), "schema version 9 is not known here"),
    "altered": (lambda path, m, unit, _: packed_again(path, m | {unit: m[unit] + b"!"}, sums=False), "is not what was packed"),
    "altered in both": (lambda path, m, unit, _: packed_again(path, m | {unit: m[unit] + b"!"}), "bytes, "),
    "gone": (lambda path, m, unit, _: packed_again(path, {k: v for k, v in m.items() if k != unit}, sums=False), "is gone"),
    "more": (lambda path, m, unit, _: packed_again(path, m | {"sweeps/more.json": b"{}"}, sums=False), "is not in its manifest"),
    "no zip": (lambda path, m, unit, _: path.write_bytes(b"no zip at all") and path, "cannot be read"),
    "cut short": (lambda path, m, unit, _: path.write_bytes(packed_again(path, m).read_bytes()[:-500]) and path, "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("kind", EVIL)
def test_a_file_of_anybody_is_refused_in_a_line_and_leaves_nothing(
    kind: str, labs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(labs / "cara.zip") as file:
        members = {name: file.read(name) for name in file.namelist()}
    unit, run = (next(name for name in members if part in name) for part in ("/units/", "/run.json"))
    make, line = EVIL[kind]
    path, store = make(tmp_path / "evil.zip", members, unit, run), tmp_path / "store"
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    for words in (("verify", path), ("merge", path, "--store", store)):
        status, lines = said(capsys, *words)
        first = next(one for one in lines if line in one)
        assert status in (1, 2) and first.startswith(str(path)), lines
        assert len(lines) == 1 or words[0] == "verify"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["evil.zip", "tmp"] and not list((tmp_path / "tmp").iterdir())


def killed(words: Sequence[object], at: int) -> bool:
    """Whether a command was killed (SIGKILL) when it was about to open, rename or make a file or folder for the `at`-th time."""
    process = os.fork()
    if process == 0:
        left = at

        def count(event: str, args: tuple[object, ...]) -> None:
            nonlocal left
            writes = event in ("os.rename", "os.mkdir") or (
                event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
            )
            left -= bool(writes)
            if writes and left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(cli.main([str(word) for word in words]))
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("step", [25, pytest.param(4, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_leaves_a_whole_store_and_a_whole_file(
    step: int, labs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At every `step`-th file that is opened, made or renamed: what is there is whole, and the same command ends as if nothing had been."""
    once, out, export = tmp_path / "once", tmp_path / "out.zip", ["export", "method=echo", "--videos", "--store", labs / "cara", "--output"]
    assert said(capsys, *export, tmp_path / "whole.zip")[0] == 0
    merge = ["merge", tmp_path / "whole.zip", "--store"]
    assert said(capsys, *merge, once)[0] == 0
    at, kills = step, 0
    while killed([*merge, tmp_path / f"store{at}"], at):
        store = tmp_path / f"store{at}"
        for run in runs(store):
            assert not run.amiss(run.records(), contents=True) and not run.unreadable
        assert said(capsys, *merge, store)[0] == 0
        assert {name: content for name, content in files_of(store).items() if "/." not in name} == files_of(once), at
        at, kills = at + step, kills + 1
    assert kills > 30 / step
    at, was = 0, b""
    while killed([*export, out], at):
        assert (out.read_bytes() if out.exists() else b"") in (was, (tmp_path / "whole.zip").read_bytes())
        was, at = out.read_bytes() if out.exists() else b"", at + 1
    assert at > 1 and out.read_bytes() == (tmp_path / "whole.zip").read_bytes() and not list(tmp_path.glob(".out*"))


def test_nothing_that_is_here_is_overwritten_and_what_lacks_its_video_gets_it(
    labs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """First without videos, then with: the videos come. A file here that is not what the record says stays, and `verify` names it."""
    store, bare = tmp_path / "store", tmp_path / "bare.zip"
    assert (
        said(capsys, "export", "--store", labs / "bob", "--output", bare)[0] == 0
        and bare.stat().st_size < (labs / "bob.zip").stat().st_size
    )
    assert said(capsys, "verify", bare)[0] == 0 and said(capsys, "merge", bare, "--store", store)[0] == 0
    assert not list(store.rglob("*.mp4"))
    first = next(store.rglob("*.trace.jsonl"))
    video: Path = first.with_name(first.name.replace(".trace.jsonl", ".mp4"))
    video.write_bytes(b"own")
    assert said(capsys, "merge", labs / "bob.zip", "--store", store)[0] == 0
    assert video.read_bytes() == b"own" and len(list(store.rglob("*.mp4"))) == 12
    status, lines = said(capsys, "verify", "--store", store)
    assert status == 1 and lines[0].startswith(str(video)) and lines[-1].startswith("4 runs, 12 records, 36 files beside them: 1 faults")


def test_a_unit_of_other_latents_stays_out_however_it_was_scored(labs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two units that were scored another way elsewhere, that of the same latents comes in, the other is named."""
    store, theirs = shutil.copytree(labs / "bob", tmp_path / "store"), shutil.copytree(labs / "bob", tmp_path / "theirs")
    before, run = files_of(store), next(runs(theirs))
    (path,) = map(Path, run.record_files())
    same, other, *_ = (msgspec.structs.replace(record, scores="another-way") for record in run.records())
    path.write_bytes(line_of(same) + line_of(msgspec.structs.replace(other, latents_sha256="f" * 64)))
    status, lines = said(capsys, "merge", theirs, "--store", store)
    assert status == 1 and len([line for line in lines if "other latents" in line and other.prompt in line]) == 1
    assert any(line.endswith("1 left out as they disagree") and "units: 1 added" in line for line in lines)
    after = files_of(store)
    assert {name: after[name] for name in before} == before, "what was here is as it was"
    (added,) = after.keys() - before.keys()
    assert after[added] == line_of(same)


def test_mistakes_are_told(labs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for words, line in (
        (("export", "--store", labs / "bob", "--output", tmp_path / "notes.txt"), "give another --output"),
        (("export", "--store", labs / "bob", "task=smooth"), "nearest is recall"),
        (("export", "--store", labs / "bob", "lab=../bob"), "nearest is"),
        (("verify", labs / "bob.zip", "--remove"), "--remove"),
        (("merge", tmp_path / "none.zip", "--store", tmp_path / "store"), "none.zip"),
    ):
        status, lines = said(capsys, *words)
        assert status == 2 and len(lines) == 1 and line in lines[0], lines
    assert (tmp_path / "notes.txt").read_text() == "mine" and not (tmp_path / "store").exists()
