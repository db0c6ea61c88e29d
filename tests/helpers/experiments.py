"""What an experiment's file sweeps, as Hydra itself reads it, and what the paper prints, written down by hand."""

from __future__ import annotations

from functools import cache

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import baselines.ours  # noqa: F401
from echo.files import ROOT

PAPER = {  # the paper's rows in its order, by our names, with ours=official; Deep-Forcing as released stands beside C.6's
    "table1": ["self_forcing", "infinity_rope", "deep_forcing_table", "deep_forcing_official", "rolling_sink", "longlive", "echo_official"],
    "table2": ["self_forcing_recache", "infinity_rope", "echo_official", "longlive", "longlive_flush", "longlive_echo_official"],
    "table3": ["echo_official_no_amp", "echo_official_no_gate", "echo_official"],
    "table6": ["echo_official_rolling_static", "echo_official_rolling_forward", "echo_official_rolling_backward", "echo_official"],
    "table7": ["echo_official_anchors_6", "echo_official_anchors_9", "echo_official", "echo_official_anchors_15"],
    "table8": [*(f"echo_official_lambda_{name}" for name in ("05", "1", "2")), "echo_official", "echo_official_lambda_5"],
    "table9a": [*(f"longlive_echo_official_recall_{name}" for name in ("none", "first", "crucial")), "longlive_echo_official"],
    "table9b": [*(f"longlive_echo_official_decay_{name}" for name in ("none", "95", "90", "80")), "longlive_echo_official"],
}
TASKS = {"table1": ["long60", "long120"], "table2": ["smooth", "hard", "recall"], "table9a": ["hard"], "table9b": ["smooth"]}


@cache
def params(experiment: str, *words: str) -> dict[str, list[str]]:
    """Values by setting; words: settings such as `scale=paper`."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", [f"experiment={experiment}", *words], return_hydra_config=True)
        swept = OmegaConf.to_container(config.hydra.sweeper.params, resolve=True)
    assert isinstance(swept, dict)
    return {str(key): str(value).split(",") for key, value in swept.items()}
