"""What an experiment's file sweeps, as Hydra itself reads it."""

from __future__ import annotations

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from echo.files import ROOT
from jobs.spec import scale


def params(experiment: str, *words: str) -> dict[str, list[str]]:
    """Values by setting; words: settings such as `scale=paper`."""
    assert scale.BASES, "its resolvers are registered"
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", [f"experiment={experiment}", *words], return_hydra_config=True)
        swept = OmegaConf.to_container(config.hydra.sweeper.params, resolve=True)
    assert isinstance(swept, dict)
    return {str(key): str(value).split(",") for key, value in swept.items()}
