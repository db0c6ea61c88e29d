"""A changed line of records is recognized."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.store.records import Outcome, UnitRecord, UnknownVersion, line_of, lines_of
from eval.store.runs import Run, RunPlace
from tests.helpers.stores import append, as_older

HERE = Path("records/a.jsonl")


def record(number: int) -> UnitRecord:
    told = {"metrics": {"m": number + 0.5}, "files": {"video": f"{number}.mp4"}, "sizes": {"video": 9}}
    return UnitRecord(unit=f"u{number}", scores="s", attempt="a", prompt=f"p{number}", seed=1, status="ok", t=float(number), **told)


RECORDS = [record(number) for number in range(3)]
CONTENT = b"".join(map(line_of, RECORDS))


@pytest.mark.parametrize("kind", [UnitRecord, Outcome])
def test_no_bit_turns_over_in_silence(kind: type[Outcome]) -> None:
    """Every single bit: the records are the same, or what is left out is named and what is left is as it was."""
    whole, none = lines_of(CONTENT, kind, HERE)
    assert len(whole) == 3 and not none
    told = 0
    for place in range(len(CONTENT)):
        for bit in range(8):
            turned = bytearray(CONTENT)
            turned[place] ^= 1 << bit
            records, damaged = lines_of(bytes(turned), kind, HERE)
            assert all(one in whole for one in records), f"byte {place}, bit {bit}: {records}"
            assert len(records) == 3 or damaged, f"byte {place}, bit {bit} left records out and named none"
            told += bool(damaged)
    assert told == 8 * len(CONTENT)


def test_a_damaged_line_is_named_by_file_line_and_unit_and_costs_its_record_alone() -> None:
    records, (damaged,) = lines_of(CONTENT.replace(b"1.5", b"1.4"), UnitRecord, HERE)
    assert [one.unit for one in records] == ["u0", "u2"] and str(damaged) == f"{HERE}:2" and damaged.unit == "u1"


def test_a_torn_last_line_is_passed_over() -> None:
    for cut in range(1, len(line_of(RECORDS[2]))):
        records, damaged = lines_of(CONTENT[:-cut], UnitRecord, HERE)
        assert len(records) == (3 if cut == 1 else 2) and not damaged, cut


def test_lines_of_older_versions_have_no_checksum_and_are_read() -> None:
    older = "".join(as_older(line) for line in CONTENT.splitlines()).encode()
    records, damaged = lines_of(older + CONTENT, UnitRecord, HERE)
    assert len(records) == 6 and not damaged and [one.metrics for one in records[:3]] == [one.metrics for one in records[3:]]
    records, damaged = lines_of(older.replace(b'"p1"', b'"p1'), UnitRecord, HERE)
    assert len(records) == 2 and [str(one) for one in damaged] == [f"{HERE}:2"]
    with pytest.raises(UnknownVersion):
        lines_of(as_older(line_of(RECORDS[0]), v=4).encode(), UnitRecord, HERE)


def test_what_is_damaged_is_told_until_its_unit_is_made_again(tmp_path: Path) -> None:
    run = Run(tmp_path, RunPlace("b", "t", "m", 1, "r"))
    append(run, *RECORDS)
    path = run.path / "records" / "a.jsonl"
    path.write_bytes(CONTENT.replace(b"1.5", b"1.4"))
    settled = run.settled("s")
    assert [*settled.done] == ["u0", "u2"] and [str(line) for line in settled.damaged] == [f"{path}:2"]
    path.with_name("b.jsonl").write_bytes(line_of(RECORDS[1]))
    assert not run.settled("s").damaged and len(run.settled("s").done) == 3
