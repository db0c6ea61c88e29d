"""Run one experiment or a sweep of them, here; the results go to `store`.

python run.py method=echo task=recall seed=0,1,2,3 -m
python run.py --help
"""

from __future__ import annotations

import sys

from jobs.cli import ended

if __name__ == "__main__":
    from jobs.launch.sweep import command

    sys.exit(ended(lambda: command(sys.argv[1:]), mistake=1))
