"""Which networks a wish for scores needs, where their weights are, and what each is asked of a video's frames. No torch here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from echo.backbone.extras import version_of
from echo.files import file_digest
from echo.refusals import one_of
from eval.vbench.measure import RULE, FrameLayout, NetworkQuery
from eval.vbench.networks import catalogue, interface, packages
from eval.vbench.records import Record, RecordKey, RecordStore, Units
from eval.vbench.rules import FIRSTS, RECORD, TEXTS
from eval.vbench.video import DECODER, LEAST_SIDE, Facts, Frames

DIMENSIONS: Final = (*RECORD, "text_alignment")
ANY_SIZE: Final = ("subject_consistency", "background_consistency", "imaging_quality")
"""Some that frames of any size have; RAFT and AMT need large ones."""
FIRSTS_OF: Final = MappingProxyType(
    {
        "dinov2_dreamsim": {"subject_consistency": "dinov2", "background_consistency": "dreamsim"},
        "dino_clip": {"subject_consistency": "dino", "background_consistency": "clip_b32"},
    }
)
"""VBench-Long's networks for first frames of clips: its own choice, for which its table was made, and the one without more weights."""
BATCH: Final = MappingProxyType({"dino": 16, "musiq": 16, "raft": 4, "amt": 4, "viclip": 1})
"""Units at a time; others 32. A part of a record's rule, for another batch may round differently."""
_AROUND_DREAMSIM: Final = ("timm", "transformers", "torchvision", "ftfy", "regex", "PIL", "yaml")
NEEDS: Final = MappingProxyType(
    {
        **dict.fromkeys(("dino", "clip_b32", "clip_l14", "dinov2"), ("transformers",)),
        "musiq": ("pyiqa", "torchvision", "PIL", "yaml", "requests"),
        "raft": ("torchvision", "PIL"),
        "amt": ("vbench", "torchvision", "decord", "PIL"),
        "viclip": ("vbench", "timm", "transformers", "torchvision", "decord", "PIL"),
        "dreamsim": ("dreamsim", "open_clip", "peft", "accelerate", "psutil", *_AROUND_DREAMSIM),
    }
)
"""Modules that must be importable for each, whose code runs beside torch's; their versions are part of a record's key."""
_IDLE: Final = frozenset(("PIL", "yaml", "requests", "decord", "ftfy", "regex", "accelerate", "psutil"))
"""Of these, what is imported on the way and computes nothing of an answer: no part of a key."""
_NAMED_THERE: Final = frozenset(word.partition("==")[0] for word in packages.DREAMSIM.split())
"""What `packages.DREAMSIM` brings."""


@dataclass(frozen=True)
class Wish:
    """What is to be scored, and how. kinds: of text alignment. firsts: key of `FIRSTS_OF`. clip_dtype: fp16 as on CUDA with openai-clip.

    Raises ValueError, in one line with the nearest choice, for an unknown word.
    """

    dimensions: tuple[str, ...] = DIMENSIONS
    kinds: tuple[str, ...] = ("clip_b32",)
    firsts: str = "dinov2_dreamsim"
    clip_dtype: str = "fp32"
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, values, choices in (
            ("dimensions", self.dimensions, DIMENSIONS),
            ("text", self.kinds, tuple(TEXTS)),
            ("clip_features", (self.firsts,), tuple(FIRSTS_OF)),
            ("clip_dtype", (self.clip_dtype,), ("fp32", "fp16")),
        ):
            for value in values:
                one_of(f"{name}={value}", value, choices)
        if not self.dimensions:
            raise ValueError(f"dimensions=: at least one of {', '.join(DIMENSIONS)}")

    @property
    def least_side(self) -> int:
        """Shorter sides, in pixels, cannot be scored."""
        return LEAST_SIDE if {"motion_smoothness", "dynamic_degree"} & set(self.dimensions) else 16

    def wanted(self, *, long: bool, text: bool) -> tuple[str, ...]:
        """Names of all networks that have something to do."""
        networks = [RECORD[dimension] for dimension in self.dimensions if dimension not in ("text_alignment", "temporal_flickering")]
        if "aesthetic" in networks:
            networks.append("clip_l14")
        if long:
            networks += [self.firsts_of(dimension) for dimension in FIRSTS if dimension in self.dimensions]
        networks += [network_of(metric) for metric in self.metrics_of_text] if text else []
        return tuple(dict.fromkeys(networks))

    @property
    def metrics_of_text(self) -> tuple[str, ...]:
        """Records that texts are compared with."""
        kinds = self.kinds if "text_alignment" in self.dimensions else ()
        return tuple(dict.fromkeys(metric for kind in kinds for metric in TEXTS[kind]))

    def firsts_of(self, dimension: str) -> str:
        """The network that compares first frames of clips."""
        return FIRSTS_OF[self.firsts][dimension]

    def dtype_of(self, network: str) -> str:
        """Numbers that a network computes in."""
        return self.clip_dtype if network.startswith("clip") else "fp32"


def listed(text: str) -> tuple[str, ...]:
    """Words of a list, with `,` or `+` between them: Hydra's command line keeps the comma for sweeps."""
    return tuple(word for word in text.replace("+", ",").split(",") if word)


def network_of(metric: str) -> str:
    """The network that a record is made by."""
    return "clip_b32" if metric == "clip_b32_bytes" else metric


class NetworkSource(Protocol):
    """Where networks come from."""

    def check(self, names: Sequence[str], *, text: bool) -> None:
        """Raise ValueError in one line that lists what is missing; text: whether sentences are read too."""
        ...

    def identity(self, name: str) -> str:
        """What its weights are, without loading them."""
        ...

    def make(self, name: str, dtype: str, device: str) -> Any:
        """The network itself."""
        ...


@dataclass(frozen=True)
class Random:
    """Random weights, for trying the whole path; scores say nothing. size: "tiny", or "true" as published."""

    size: str = "tiny"
    seed: int = 0

    def check(self, names: Sequence[str], *, text: bool) -> None:
        """Raise ValueError where there are no word pieces for text."""
        if text and packages.missing(("clip",)):
            rest = "nearest is dimensions= without text_alignment"
            raise ValueError(f"text alignment needs {interface.VOCABULARY}, which openai-clip has: {packages.INSTALL}; {rest}")

    def identity(self, name: str) -> str:
        """How they were drawn."""
        return f"random {self.size} {self.seed}"

    def make(self, name: str, dtype: str, device: str) -> Any:
        """Draw them."""
        return catalogue.random(name, self.size, self.seed, dtype=dtype, device=device)


@dataclass(frozen=True)
class Files:
    """Published weights, wherever they lie below a folder."""

    folder: Path

    def check(self, names: Sequence[str], *, text: bool) -> None:
        """Raise ValueError in one line that lists what is missing."""
        missing = [f"{interface.FILES[name][0]} ({name})" for name in names if self._path(name) is None]
        if text and packages.missing(("clip",)) and not any(self.folder.rglob(interface.VOCABULARY)):
            missing.append(f"{interface.VOCABULARY} (text)")
        if missing:
            fetch = f"`echo-harness data download eval=vbench checkpoints={self.folder.parent}` fetches what can be fetched"
            raise ValueError(f"weights={self.folder}: {', '.join(missing)} not there; {fetch}, weights=random tries the path without")

    def identity(self, name: str) -> str:
        """Digest of the file."""
        path = self._path(name)
        assert path is not None
        return file_digest(path)

    def make(self, name: str, dtype: str, device: str) -> Any:
        """Read it."""
        path = self._path(name)
        assert path is not None
        return catalogue.load(name, path, dtype=dtype, device=device)

    def _path(self, name: str) -> Path | None:
        for file in interface.FILES[name]:
            paths = sorted(self.folder.rglob(file))
            if paths:
                return paths[0]
        return None


@dataclass(frozen=True)
class Kit:
    """Networks as metrics; each is made when it is first asked, and stays."""

    wish: Wish
    source: NetworkSource
    _made: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def check(self, *, long: bool, text: bool) -> None:
        """Raise ValueError in one line that names missing packages, with the line that installs them, or missing weights."""
        named = self.wish.wanted(long=long, text=text)
        if "dreamsim" in named and (absent := packages.missing(NEEDS["dreamsim"])):
            line = packages.DREAMSIM if set(absent) <= _NAMED_THERE else f"{packages.INSTALL} && {packages.DREAMSIM}"
            raise ValueError(f"clip_features={self.wish.firsts} needs {', '.join(absent)}: {line}; nearest is clip_features=dino_clip")
        with_text = text and bool(self.wish.metrics_of_text)
        modules = [module for name in named for module in NEEDS.get(name, ())] + ["ftfy"] * with_text
        packages.check(tuple(dict.fromkeys(modules)))
        self.source.check(named, text=with_text)

    def identity(self, *, long: bool, text: bool) -> dict[str, object]:
        """All that can change a score: what is measured, by which weights, in which numbers, by which versions."""
        named = self.wish.wanted(long=long, text=text)
        made_by = {name: self._identity(name) for name in sorted(named)}
        return {"rule": RULE, "firsts": self.wish.firsts, "decoder": dict(DECODER), "networks": made_by}

    def metrics(self, layout: FrameLayout) -> list[NetworkQuery]:
        """What a video is asked, in the order of `RECORD`, then texts, then first frames of clips."""
        metrics = []
        for dimension in self.wish.dimensions:
            if dimension == "temporal_flickering":
                metrics.append(NetworkQuery("difference", layout.neighbours(), 64, lambda: difference, dtype="float64"))
            elif dimension == "motion_smoothness":
                metrics.append(self._metric("amt", layout.triples(), lambda net, f: net.error(f[:, 0], f[:, 1], f[:, 2])))
            elif dimension == "dynamic_degree":
                metrics.append(self._metric("raft", layout.sampled(), lambda net, f: net.radius(f[:, 0], f[:, 1])))
            elif dimension == "imaging_quality":
                metrics.append(self._metric("musiq", layout.single(), lambda net, f: net.quality(f[:, 0])))
            elif dimension == "aesthetic_quality":
                metrics.append(self._images("clip_l14", layout.single()))
            elif dimension in FIRSTS:
                metrics.append(self._images(RECORD[dimension], layout.single()))
        metrics += [self._said(metric, layout) for metric in self.wish.metrics_of_text] if layout.spans else []
        for dimension in FIRSTS if layout.long else ():
            if dimension in self.wish.dimensions:
                metrics.append(self._images(self.wish.firsts_of(dimension), layout.firsts(), FIRSTS[dimension]))
        return list({metric.name: metric for metric in metrics}.values())

    def derived(self, facts: Facts, records: Mapping[str, Record], store: RecordStore) -> dict[str, Record]:
        """Records that are made of records: the aesthetic head reads the features of CLIP L/14."""
        if "aesthetic_quality" not in self.wish.dimensions:
            return {}
        features = records["clip_l14"]
        network = f"{self.source.identity('clip_l14')} {self.source.identity('aesthetic')}"
        versions = {**DECODER, **self._versions("clip_l14")}
        key = RecordKey(facts.digest, "aesthetic", network, RULE, self._dtype("clip_l14"), versions)
        record = store.read(key)
        if record is None:
            record = Record(features.units, np.asarray(self._network("aesthetic").quality(features.values)))
            if not np.isfinite(record.values).all():
                raise ValueError(f"{facts.name}: aesthetic is no number; nothing of it was kept")
            store.keep(key, record)
        return {"aesthetic": record}

    def texts(self, sentences: Sequence[str], store: RecordStore) -> tuple[dict[str, NDArray[Any]], dict[str, list[int]]]:
        """Features [sentences, D] by the record that they are compared with, and by network how many tokens of each were cut."""
        features, cut = {}, {}
        for metric in self.wish.metrics_of_text:
            name = network_of(metric)
            rows = [self._sentence(name, sentence, store) for sentence in sentences]
            features[metric] = np.stack([row.values[0] for row in rows])
            cut[name] = [int(row.units[0, 0]) for row in rows]
        return features, cut

    def _sentence(self, name: str, sentence: str, store: RecordStore) -> Record:
        digest = hashlib.blake2b(sentence.encode(), digest_size=16).hexdigest()
        versions = self._versions(name) | {"ftfy": version("ftfy")}
        key = RecordKey("text", name, self.source.identity(name), RULE, self._dtype(name), versions, {"sentence": digest})
        record = store.read(key)
        if record is None:
            text = self._network(name).text([sentence])
            record = Record(np.array([text.tokens_cut], np.int64), np.asarray(text.features))
            if not np.isfinite(record.values).all():
                raise ValueError(f"text {sentence[:60]!r}: {name} answers no numbers; nothing of it was kept")
            store.keep(key, record)
        return record

    def _said(self, metric: str, layout: FrameLayout) -> NetworkQuery:
        if metric == "viclip":
            return self._metric("viclip", layout.texts(), lambda net, f: np.stack([net.video(eight) for eight in f]))
        if metric == "clip_b32_bytes":
            return self._metric("clip_b32", layout.single(), lambda net, f: net.images_bytes(f[:, 0]), metric)
        return self._images(metric, layout.single())

    def _images(self, network: str, units: Units, name: str | None = None) -> NetworkQuery:
        return self._metric(network, units, lambda net, f: net.images(f[:, 0]), name)

    def _metric(self, network: str, units: Units, ask: Callable[[Any, Frames], NDArray[Any]], name: str | None = None) -> NetworkQuery:
        def ready() -> Callable[[Frames], NDArray[Any]]:
            network_itself = self._network(network)
            return lambda frames: ask(network_itself, frames)

        identity, batch, rest = self.source.identity(network), BATCH.get(network, 32), {"network": network}
        return NetworkQuery(name or network, units, batch, ready, identity, self._dtype(network), self._versions(network), rest)

    def _network(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = self.source.make(name, self.wish.dtype_of(name), self.wish.device)
        return self._made[name]

    def _identity(self, name: str) -> list[Any]:
        return [self.source.identity(name), self._dtype(name), self._versions(name)]

    def _dtype(self, name: str) -> str:
        return f"{self.wish.dtype_of(name)} {self.wish.device.partition(':')[0]}"

    def _versions(self, name: str) -> dict[str, str]:
        code = [packages.distribution(module) for module in NEEDS.get(name, ()) if module not in _IDLE]
        return {package: version(package) for package in ("torch", *code)}


@cache
def version(package: str) -> str:
    """Of an installed package, "missing" where there is none."""
    return version_of(package)


def difference(frames: Frames) -> NDArray[np.float64]:
    """Mean absolute difference [N] of frame pairs uint8 [N, 2, H, W, 3], in 0..255."""
    first, second = frames[:, 0], frames[:, 1]
    apart = np.maximum(first, second) - np.minimum(first, second)
    return apart.reshape(len(apart), -1).mean(1, dtype=np.float64)
