"""Twenty readers and more, each given files that carry out something when they are read as programs: nothing runs."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from echo.backbone import load
from echo.backbone.checkpoints import transformer
from echo.backbone.checkpoints.additions import check_lora
from echo.backbone.parts import taehv, umt5, vae
from echo.backbone.wan import WanConfig
from eval.vbench.networks import weights
from eval.vbench.networks.catalogue import CLASSES, network_class
from eval.world.scorer import EmbeddedScorer

MARK = "this ran"


class Bomb:
    """Unpickled, it writes a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.write_text, (self.place, MARK)


class Program(torch.nn.Module):
    """Loaded by `torch.jit.load`, it says so."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> int:
        return 3

    @torch.jit.export
    def __setstate__(self, state: int) -> None:
        print("this ran")
        self.training = False


def torch_file(path: Path, mark: Path) -> None:
    torch.save({"weight": torch.ones(3), "extra": Bomb(mark)}, path)


def old_torch_file(path: Path, mark: Path) -> None:
    torch.save({"weight": torch.ones(3), "extra": Bomb(mark)}, path, _use_new_zipfile_serialization=False)


def plain_pickle(path: Path, mark: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb(mark)))


def script(path: Path, mark: Path) -> None:
    torch.jit.save(torch.jit.script(Program()), str(path))


def arrays(path: Path, mark: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.array([Bomb(mark)], dtype=object))


def both(path: Path, mark: Path) -> None:
    """A TorchScript archive whose pickle holds a bomb too."""
    script(path, mark)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, pickle.dumps(Bomb(mark), 2) if name.endswith("/data.pkl") else content)


EVIL: tuple[Callable[[Path, Path], None], ...] = (torch_file, old_torch_file, plain_pickle, script, arrays, both)
READERS: dict[str, Callable[[Path], object]] = {
    "network": lambda path: transformer.check(path, WanConfig(dim=32, ffn_dim=48, heads=2, layers=2), whole=True),
    "additions": lambda path: check_lora(path, {}),
    "text encoder": lambda path: umt5.check(path, path.with_name("tokenizer.json"), whole=True),
    "codec": lambda path: vae.check(path, whole=True),
    "tiny codec": lambda path: taehv.check(path, whole=True),
    "embedded backbone": lambda path: load.load(str(path)),
    "embedded scorer": EmbeddedScorer.load,
    "VBench": weights.read,
    **{f"VBench's {name}": partial(lambda name, path: network_class(name).load(path), name) for name in CLASSES},
}


@pytest.mark.parametrize("reader", READERS)
def test_nothing_that_a_weights_file_holds_is_run(reader: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each of six evil files is refused in a line or read without what is in it; no mark is left on disk or screen."""
    for write in EVIL:
        for ending in (".pt", ".safetensors"):
            path, mark = tmp_path / f"{write.__name__}{ending}", tmp_path / "mark"
            write(path, mark)
            try:
                READERS[reader](path)
            except ValueError as refusal:
                assert "\n" not in str(refusal), refusal
            assert not mark.exists(), f"{reader} ran {path.name}"
    assert MARK not in "".join(capfd.readouterr()), reader


def test_each_of_them_would_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """By the loaders that no reader here uses; `tests/test_lint.py` keeps them out."""
    for number, write in enumerate(EVIL):
        path, mark = tmp_path / f"{number}", tmp_path / f"mark-{number}"
        write(path, mark)
        if write is script:
            torch.jit.load(str(path))
            assert MARK in capfd.readouterr().out
            continue
        if write is both:
            with zipfile.ZipFile(path) as archive:
                pickle.loads(archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl"))))
        elif write is arrays:
            with np.load(path, allow_pickle=True) as held:
                held["a"]
        elif write is plain_pickle:
            pickle.loads(path.read_bytes())
        else:
            torch.load(path, weights_only=False)
        assert mark.read_text(encoding="utf-8") == MARK, write.__name__
