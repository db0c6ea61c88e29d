"""Methods without a file as choices of Hydra's group `method`: ablations, and policies of other packages.

`jobs.spec.config` puts this folder on the path.
"""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from baselines.presets import ablations, without_file
from baselines.registry import conf_folders, packaged


class WithoutFile(ConfigSource):
    """Config `method/NAME` for presets of `baselines.presets.without_file`; stateless, since Hydra copies its sources often."""

    @staticmethod
    def scheme() -> str:
        return "ablations"

    def load_config(self, config_path: str) -> ConfigResult:
        """The defaults list, name, label and settings."""
        return ConfigResult(self.provider, self.full_path(), OmegaConf.create(without_file(_name(config_path))), {"package": None})

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return config_path.strip("/") in ("", "method")

    def is_config(self, config_path: str) -> bool:
        return config_path.startswith("method/") and without_file(_name(config_path)) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        if config_path.strip("/") == "method" and results_filter != ObjectType.GROUP:
            return sorted({*ablations(), *packaged()})
        return ["method"] if config_path.strip("/") == "" and results_filter != ObjectType.CONFIG else []


class PresetsPath(SearchPathPlugin):
    """Adds this source, and the folders `conf` of packages with policies, to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append them after `conf/`."""
        search_path.append("ablations", "ablations://")
        for folder in conf_folders():
            search_path.append("packages", f"file://{folder}")


def _name(config_path: str) -> str:
    return config_path.removeprefix("method/").removesuffix(".yaml")
