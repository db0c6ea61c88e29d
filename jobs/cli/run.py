"""`echo-harness run`: the words of `python run.py`, and the exit status of the other commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import hydra

from echo.files import ROOT
from jobs.launch import sweep


def run(words: Sequence[str], /) -> int:
    """Run one experiment or a sweep of them, here or on a cluster; what is there already is not made again.

    The words are those of `python run.py`, whose --help shows all choices and settings.

        echo-harness run method=echo task=recall seed=0,1,2,3 -m
        echo-harness run experiment=table2 hydra/launcher=slurm -m

    Args:
        words: KEY=VALUE, KEY=A,B with -m, GROUP=CHOICE.
    """
    sys.argv = ["run.py", *words]
    return sweep.guarded(hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name="config")(sweep.single), mistake=2)
