"""DreamSim's ensemble through its package, which VBench-Long uses to compare the backgrounds of clips' first frames.

Source: VBench at 45e79ec, `vbench2_beta_long/background_consistency.py`.
"""

from __future__ import annotations

import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any, Final, Self

import torch

from echo.files import file_digest
from eval.measures.formulas import Frames, Vectors
from eval.vbench.networks import images
from eval.vbench.networks.network import VBenchNetwork
from eval.vbench.networks.packages import need
from eval.vbench.networks.weights import unit

ADAPTERS: Final = "ensemble_lora"
"""Folder in DreamSim's archive."""


class Dreamsim(VBenchNetwork):
    """Background consistency between clips: DreamSim's ensemble."""

    name = "dreamsim"

    def __init__(self, network: Any, identity: str, dtype: str, device: str) -> None:
        super().__init__(network, identity, dtype)
        self._device = torch.device(device)

    @classmethod
    def load(cls, path: Path, *, dtype: str = "fp32", device: str = "cpu") -> Self:
        """Load it from `dreamsim_ensemble_checkpoint.zip`, which is unpacked once beside itself.

        Raises ValueError with the file if it is missing or is not that archive, or with the missing package and the line to install it.
        """
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{path}: no such archive of DreamSim; `echo-harness data download eval=vbench` fetches it")
        folder = path.with_name(f".{path.stem}")  # hidden, so that a folder of weights keeps its digest
        if not (folder / ADAPTERS).is_dir():
            _unpack(path, folder)
        network, _ = need("dreamsim", asked="DreamSim").dreamsim(pretrained=True, device=device, cache_dir=str(folder))
        return cls(network, f"blake2b {file_digest(path)}", dtype, device)

    @classmethod
    def random(cls, size: str = "tiny", seed: int = 0, *, dtype: str = "fp32", device: str = "cpu") -> Self:
        """Always raises ValueError, since the package has no ensemble without its weights."""
        raise ValueError("DreamSim has no random weights; nearest is clip_features=dino_clip")

    @torch.inference_mode()
    def images(self, frames: Frames) -> Vectors:
        """Unit features [T, D] of frames [T, H, W, 3], each resized to 224x224 px. Raises ValueError for NaN."""
        seen = images.resized(frames, (images.SIDE_PX, images.SIDE_PX), self._device) / 255.0
        alone = len(seen) == 1  # the package drops the batch axis of a single frame
        features = self.network.embed(torch.cat((seen, seen)) if alone else seen)[: len(seen)]
        return unit(features, self.name)


def _unpack(path: Path, folder: Path) -> None:
    """Unpack an archive beside `folder`, which gets its name when it is complete; a kill and a second process do no harm.

    Raises ValueError with the archive's name if it is damaged or holds no ensemble.
    """
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as place:
        whole = Path(place) / "whole"
        try:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(whole)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ValueError(f"{path}: damaged ({error}); away with it, `echo-harness data download eval=vbench` fetches it") from None
        if not (whole / ADAPTERS).is_dir():
            raise ValueError(f"{path} is not DreamSim's ensemble: no folder {ADAPTERS} in it")
        try:
            whole.rename(folder)
        except OSError:  # another process was faster
            if not (folder / ADAPTERS).is_dir():
                raise ValueError(f"{folder}: is in the way of what {path.name} holds; away with it") from None
