"""Ablations as choices of Hydra's group `method`, beside its files; `jobs.spec.config` puts this folder on the path."""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from baselines.presets import ablations


class Ablations(ConfigSource):
    """Config `method/BASE_CHANGE` for each of `baselines.presets.ablations`; it holds nothing, since Hydra copies its sources often."""

    @staticmethod
    def scheme() -> str:
        """Of the address in the search path."""
        return "ablations"

    def load_config(self, config_path: str) -> ConfigResult:
        """The ablation's defaults list, name, label and change."""
        return ConfigResult(self.provider, self.full_path(), OmegaConf.create(ablations()[_name(config_path)]), {"package": None})

    def available(self) -> bool:
        """Always."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Whether a path is the group of methods or what holds it."""
        return config_path.strip("/") in ("", "method")

    def is_config(self, config_path: str) -> bool:
        """Whether a path is an ablation."""
        return config_path.startswith("method/") and _name(config_path) in ablations()

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """What lies in a group."""
        if config_path.strip("/") == "method" and results_filter != ObjectType.GROUP:
            return sorted(ablations())
        return ["method"] if config_path.strip("/") == "" and results_filter != ObjectType.CONFIG else []


class AblationsPath(SearchPathPlugin):
    """Makes Hydra look there."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Behind the files of `conf/`."""
        search_path.append("ablations", "ablations://")


def _name(config_path: str) -> str:
    return config_path.removeprefix("method/").removesuffix(".yaml")
