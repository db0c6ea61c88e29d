"""Tables of columns that were asked for by name."""

from __future__ import annotations

from jobs import cli
from tests.eval.tables.test_tables import write  # noqa: F401 - a fixture


def test_a_table_of_chosen_columns(write, tmp_path, capsys):  # noqa: F811
    """MemFlow's interactive table, and a misleading score's warning; a column that there is not is refused with the nearest."""
    names = ("subject_consistency.vbench", "background_consistency.vbench", "aesthetic_quality.vbench", "frozen_time.vbench")
    write("echo", task="memflow", names=names)
    words = ["tables", "memflow", "--store", str(write.store), "--output", str(tmp_path)]
    assert cli.main([*words, "columns=memflow,frozen_time"]) == 0
    text = (tmp_path / "memflow.md").read_text(encoding="utf-8")
    head = next(line for line in text.splitlines() if line.startswith("| method")).replace(" (vbench)", "").split(" | ")
    assert head[3:] == [
        "Quality",
        "Consistency",
        "aesthetic quality",
        *(f"text alignment {scene}" for scene in range(1, 7)),
        "frozen time ↓ |",
    ]
    assert "a still life under a still camera counts as frozen" in text and "Consistency: highest for a frozen video" in text
    assert cli.main([*words, "columns=frosen_time"]) == 2
    assert "columns=frosen_time: no such column; nearest is frozen_time" in capsys.readouterr().err
