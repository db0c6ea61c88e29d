"""Random damage to files of every kind, for a minute in all: `python -m tests.load.fuzz` for an hour."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.load.fuzz import BAD, SOUND, fuzz


@pytest.mark.slow
@pytest.mark.parametrize("sound", [sound.name for sound in SOUND])
def test_nothing_wrong_passes_in_silence(sound: str, tmp_path: Path) -> None:
    """No damage ends in a traceback, hangs, fails without a word, or changes an answer in silence; some is refused or changes nothing."""
    lines = list[str]()
    told = fuzz(1 / len(SOUND), 0, tmp_path, (sound,), lines.append)
    assert not lines, "\n".join(lines)
    assert told["cases"] == sum(told["outcomes"].values()) > 0 and not any(told["outcomes"][name] for name in BAD)
