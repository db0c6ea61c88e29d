"""A store that people edited, copied, moved, emptied or planted things in: no damage ends in a traceback, hangs, or goes unsaid."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import msgspec
import pytest

from eval.store.records import AskedFile, DamagedFile, ScoresFile, SweepEntry, SweepFile, decoded
from eval.store.runs import Run, runs
from jobs import cli
from tests.helpers.damages import DAMAGES
from tests.helpers.stores import keep, put

FILES = ("run.json", "asked/*.json", "attempts/*.json", "records/*.jsonl", "units/p0.json", "units/p0.trace.jsonl", "sweeps/hard.json")
READERS: dict[str, tuple[str, ...]] = {
    "status": ("run.json", "asked/*.json", "records/*.jsonl"),
    "tables": ("run.json", "records/*.jsonl", "sweeps/hard.json"),
    "report --output OUT": ("run.json", "asked/*.json", "attempts/*.json", "records/*.jsonl", "units/p0.json", "sweeps/hard.json"),
    "figures sheet task=hard --output OUT": ("run.json", "asked/*.json", "units/p0.trace.jsonl"),
    "figures drift task=hard --output OUT": ("run.json", "asked/*.json", "units/p0.json"),
    "claims ordering": ("run.json", "asked/*.json"),
    "study build task=hard groups=1 --output OUT": ("run.json", "asked/*.json"),
}
"""Commands, and of which files they must say that these cannot be read."""


def store_of(folder: Path) -> Path:
    """Two methods over two seeds, with traces, and the sweep that asked for them."""
    numbers = {f"p{i}": {"world.quality": 1.0 + i, "world.recall_fidelity": 50.0} for i in range(2)}
    for method in ("echo", "infinity_rope"):
        for seed in range(2):
            path = put(
                folder,
                "hard",
                method,
                numbers,
                seed=seed,
                settings={"of": method},
                per_block={name: [{"quality": 0.5}] for name in numbers},
            )
            for name in numbers:
                trace = '{"block": 0, "scene": 0, "queries": [0], "keys": [["f0", 0]]}\n'
                (path / "units" / f"{name}.trace.jsonl").write_text(trace, encoding="utf-8")
                (path / "units" / f"{name}.mp4").write_bytes(b"no video")
    wishes = [(run, wish) for run in runs(folder) for wish in run.asked()]
    own = [{name: getattr(wish, name) for name in AskedFile.__struct_fields__} for _, wish in wishes]
    keep(
        folder / "sweeps" / "hard.json", SweepFile(None, "hard", [SweepEntry(path=str(run.place), **o) for (run, _), o in zip(wishes, own)])
    )
    return folder


def carry_out(words: str, store: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Status, and all that a command says, which may take 20 seconds."""

    def late(*_: object) -> None:
        raise AssertionError(f"{words}: 20 s are over")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    try:
        status = cli.main([*words.replace("OUT", str(out)).split(), "--store", str(store)])
    finally:
        signal.alarm(0)
    told = capsys.readouterr()
    return status, told.out + told.err


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store without damage."""
    return store_of(tmp_path_factory.mktemp("whole"))


DRAWN = ("empty", "lists for texts", "a circle of links")
"""Damages under which figures are drawn too, which takes a while."""
QUICK = ("nested without end", "half an emoji", "a pipe", "null", "a number of 400 digits")


@pytest.mark.parametrize("damage", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in DAMAGES])
def test_no_damage_ends_in_a_traceback_or_goes_unsaid(damage, whole, tmp_path, capsys):
    """Each kind of damage to each kind of file, under each command that reads one."""
    for number, file in enumerate(FILES):
        store = Path(shutil.copytree(whole, tmp_path / f"store{number}"))
        run: Run = next(runs(store))
        (path,) = (store if file.startswith("sweeps") else run.path).glob(file)
        DAMAGES[damage](path)
        for place, (words, read) in enumerate(READERS.items()):
            if file in read and (damage in DRAWN or not words.startswith("figures")):
                status, told = carry_out(words, store, tmp_path / f"out{number}-{place}", capsys)
                assert status in (0, 1, 2) and "ECHO_TRACEBACK" not in told, (file, words, told)
                assert path.name in told or path.suffix == ".jsonl" and path.parent.name == "records", (file, words, told)
                assert status < 2 or told.count("\n") <= 2, (file, words, told)


def test_values_of_scenes_are_numbers_lists_of_them_or_numbers_by_name():
    good = {"start": 0, "end": 12, "m": 0.5, "leakage": [0.5, None, 1], "recall": {"hue": 60.0, "fidelity": None}}
    whole = decoded(msgspec.json.encode({"per_segment": [good]}), ScoresFile, Path("x.json")).per_segment
    assert whole == [good] and type(whole[0]["start"]) is int
    for name, value in (("m", "7"), ("m", True), ("leakage", [{"a": 1}]), ("leakage", [[1]]), ("recall", {"hue": {"a": 1}}), ("m", 1e400)):
        content = json.dumps({"per_segment": [good | {name: value}]}).encode()
        with pytest.raises(DamagedFile, match="x.json"):
            decoded(content, ScoresFile, Path("x.json"))
