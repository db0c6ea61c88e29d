"""Random damage to files of every kind, for two minutes: `python -m tests.load.fuzz` for an hour."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.load.fuzz import BAD, fuzz


@pytest.mark.slow
def test_nothing_wrong_passes_in_silence(tmp_path: Path) -> None:
    """No damage ends in a traceback, hangs, fails without a word, or changes an answer in silence; many are refused."""
    lines = list[str]()
    told = fuzz(2, 0, tmp_path, say=lines.append)
    assert not lines, "\n".join(lines)
    assert told["outcomes"]["refused"] > 5 and not any(told["outcomes"][name] for name in BAD)
