"""Run one experiment or a sweep of them, here; the results go to `store`.

python run.py method=echo task=recall seed=0,1,2,3 -m
python run.py --help
"""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from jobs.launch import sweep


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    """A single run; sweeps come in through the launcher."""
    sweep.single(config)


if __name__ == "__main__":
    sys.exit(sweep.guarded(main))
