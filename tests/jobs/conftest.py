"""The toy backbone, made once a session."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from echo.files import ROOT
from tests.helpers.toy import overrides


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """A folder with a toy backbone and prompts."""
    folder = tmp_path_factory.mktemp("toy")
    overrides(folder)
    return folder


@pytest.fixture(scope="session")
def plain(toy):
    """The composed config of the toy, as plain values."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return OmegaConf.to_container(compose("config", overrides(toy)), resolve=True)
