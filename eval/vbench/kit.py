"""The networks that requested scores need, their weights, and the frames that each of them gets. This module needs no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from echo.backbone.extras import version_of
from echo.files import file_digest
from echo.refusals import Missing, lacks, one_of, refuse
from eval.metrics import kind_of
from eval.vbench.measure import RULE, FrameLayout, NetworkQuery
from eval.vbench.networks import packages
from eval.vbench.networks.catalogue import network_class
from eval.vbench.networks.interface import LEAST_SIDE_PX, NETWORKS, VOCABULARY
from eval.vbench.records import Record, RecordKey, RecordStore, Units
from eval.vbench.rules import FIRSTS, RECORD, STILLS, TEXTS
from eval.vbench.video import DECODER, Facts, Frames

DIMENSIONS: Final = (*RECORD, "text_alignment")
STILL: Final = 0.02
"""Share of pixels whose motion VBench's static filter uses."""
ANY_SIZE: Final = ("subject_consistency", "background_consistency", "imaging_quality")
"""Dimensions that accept frames of any size; RAFT and AMT need large ones."""
LONG_FOR: Final = ("one_scene", "all")
FIRSTS_OF: Final = MappingProxyType(
    {
        "dinov2_dreamsim": {"subject_consistency": "dinov2", "background_consistency": "dreamsim"},
        "dino_clip": {"subject_consistency": "dino", "background_consistency": "clip_b32"},
    }
)
"""VBench-Long's networks for first frames of clips: its own choice, for which its table was made, and one that needs no more weights."""
Ask = Callable[[Any, Frames], NDArray[Any]]


def _images(network: Any, frames: Frames) -> NDArray[Any]:
    features: NDArray[Any] = network.images(frames[:, 0])
    return features


ASKED: Final[Mapping[str, tuple[str, Callable[[FrameLayout], Units], Ask]]] = MappingProxyType(
    {
        **{name: (name, FrameLayout.single, _images) for name in ("dino", "clip_b32", "clip_l14")},
        "clip_b32_bytes": ("clip_b32", FrameLayout.single, lambda net, f: net.images_bytes(f[:, 0])),
        "viclip": ("viclip", FrameLayout.texts, lambda net, f: np.stack([net.video(eight) for eight in f])),
        "musiq": ("musiq", FrameLayout.single, lambda net, f: net.quality(f[:, 0])),
        "raft": ("raft", FrameLayout.sampled, lambda net, f: net.radius(f[:, 0], f[:, 1])),
        "raft_still": ("raft", FrameLayout.still, lambda net, f: net.radius(f[:, 0], f[:, 1], STILL)),
        "raft_back": ("raft", FrameLayout.tips, lambda net, f: net.radius(f[:, 1], f[:, 0], STILL)),
        "amt": ("amt", FrameLayout.triples, lambda net, f: net.error(f[:, 0], f[:, 1], f[:, 2])),
    }
)
"""Record -> its network, the groups of frames, and the function that applies the network to them."""
_NAMED_THERE: Final = frozenset(word.partition("==")[0] for word in packages.DREAMSIM.split())
"""Packages that `packages.DREAMSIM` installs."""


@dataclass(frozen=True)
class Wish:
    """Requested scores. kinds: of text alignment. firsts: key of `FIRSTS_OF`. clip_dtype: fp16 is openai-clip's type on CUDA.

    long_for: tasks that get VBench-Long, "one_scene" or "all". static_filter: whether temporal flickering is also scored over only those
    clips that VBench's static filter classifies as still, which runs RAFT on all neighbouring frames.

    Raises ValueError, in one line with the nearest choice, for an unknown word.
    """

    dimensions: tuple[str, ...] = DIMENSIONS
    kinds: tuple[str, ...] = ("clip_b32",)
    firsts: str = "dinov2_dreamsim"
    clip_dtype: str = "fp32"
    device: str = "cpu"
    long_for: str = "one_scene"
    static_filter: bool = False

    def __post_init__(self) -> None:
        for name, values, choices in (
            ("dimensions", self.dimensions, DIMENSIONS),
            ("text", self.kinds, tuple(TEXTS)),
            ("clip_features", (self.firsts,), tuple(FIRSTS_OF)),
            ("clip_dtype", (self.clip_dtype,), ("fp32", "fp16")),
            ("long_for", (self.long_for,), LONG_FOR),
        ):
            for value in values:
                one_of(f"{name}={value}", value, choices)
        if not self.dimensions:
            raise ValueError(f"dimensions=: at least one of {', '.join(DIMENSIONS)}")

    @property
    def least_side(self) -> int:
        """Least side of a frame, in pixels, that can be scored."""
        return LEAST_SIDE_PX if {"raft", "amt"} & set(self.wanted(long=False, text=False)) else 16

    def long(self, task: str) -> bool:
        """Whether a task gets VBench-Long's scores."""
        return kind_of(task) == "long" or self.long_for == "all"

    def wanted(self, *, long: bool, text: bool) -> tuple[str, ...]:
        """Names of all networks that are needed."""
        networks = [ASKED[name][0] for name in self.records(text=text) if name in ASKED]
        networks += ["aesthetic"] if "aesthetic_quality" in self.dimensions else []
        networks += [self.firsts_of(dimension) for dimension in FIRSTS if long and dimension in self.dimensions]
        return tuple(dict.fromkeys(networks))

    def records(self, *, text: bool) -> tuple[str, ...]:
        """Names of a video's records, except those of first frames of clips; the aesthetic head reads CLIP's record."""
        names = [RECORD[dimension] for dimension in self.dimensions if dimension in RECORD]
        names += STILLS if self.static_filter and "temporal_flickering" in self.dimensions else ()
        names += self.metrics_of_text if text else ()
        return tuple(dict.fromkeys("clip_l14" if name == "aesthetic" else name for name in names))

    @property
    def metrics_of_text(self) -> tuple[str, ...]:
        """Names of the records with which texts are compared."""
        kinds = self.kinds if "text_alignment" in self.dimensions else ()
        return tuple(dict.fromkeys(metric for kind in kinds for metric in TEXTS[kind]))

    def firsts_of(self, dimension: str) -> str:
        """The network that compares first frames of clips."""
        return FIRSTS_OF[self.firsts][dimension]

    def dtype_of(self, network: str) -> str:
        """The type in which a network computes."""
        return self.clip_dtype if network.startswith("clip") else "fp32"


def listed(text: str) -> tuple[str, ...]:
    """Words of a list separated by `,` or `+`, because Hydra's command line uses the comma for sweeps."""
    return tuple(word for word in text.replace("+", ",").split(",") if word)


class NetworkSource(Protocol):
    """The source of networks."""

    def check(self, names: Sequence[str], *, text: bool) -> None:
        """Raise ValueError in one line that lists what is missing. text: whether sentences are encoded too."""
        ...

    def identity(self, name: str) -> str:
        """Identity of its weights, without loading them."""
        ...

    def make(self, name: str, dtype: str, device: str) -> Any:
        """Build the network."""
        ...


@dataclass(frozen=True)
class Random:
    """Random weights for trying everything out; scores are meaningless. size: "tiny", or "true" for the published sizes."""

    size: str = "tiny"
    seed: int = 0

    def check(self, names: Sequence[str], *, text: bool) -> None:
        """Raise ValueError if the vocabulary for text is missing."""
        if text and packages.missing(("clip",)):
            rest = "nearest is dimensions= without text_alignment"
            raise ValueError(f"text alignment needs {VOCABULARY}, which openai-clip has: {packages.INSTALL}; {rest}")

    def identity(self, name: str) -> str:
        """How the weights were drawn."""
        return f"random {self.size} {self.seed}"

    def make(self, name: str, dtype: str, device: str) -> Any:
        """Build the network with random weights."""
        return network_class(name).random(self.size, self.seed, dtype=dtype, device=device)


@dataclass(frozen=True)
class Files:
    """Published weights below a folder."""

    folder: Path

    def check(self, names: Sequence[str], *, text: bool) -> None:
        """Raise ValueError in one line that lists what is missing."""
        missing = [f"{NETWORKS[name].files[0]} ({name})" for name in names if not self.paths(name)]
        if text and packages.missing(("clip",)) and not any(self.folder.rglob(VOCABULARY)):
            missing.append(f"{VOCABULARY} (text)")
        if missing:
            fetch = f"`echo-harness data download eval=vbench checkpoints={self.folder.parent}` fetches what can be fetched"
            line = f"weights={self.folder}: {', '.join(missing)} not there; {fetch}, weights=random tries the path without"
            raise Missing(line, "networks of eval=vbench", f"echo-harness data download eval=vbench checkpoints={self.folder.parent}")

    def identity(self, name: str) -> str:
        """Digest of the file."""
        return file_digest(self.paths(name)[0])

    def make(self, name: str, dtype: str, device: str) -> Any:
        """Build the network from its file."""
        return network_class(name).load(self.paths(name)[0], dtype=dtype, device=device)

    def paths(self, name: str) -> list[Path]:
        """Possible paths of a network's weights, VBench's own name first."""
        return [path for file in NETWORKS[name].files for path in sorted(self.folder.rglob(file))]


@dataclass(frozen=True)
class Kit:
    """Networks as metrics; each is loaded at its first use, and kept."""

    wish: Wish
    source: NetworkSource
    _made: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def missing(self, *, long: bool, text: bool) -> Iterator[Missing]:
        """Missing packages, with the line that installs them, and missing weights."""
        named = self.wish.wanted(long=long, text=text)
        if "dreamsim" in named and (absent := packages.missing(NETWORKS["dreamsim"].modules)):
            line = packages.DREAMSIM if set(absent) <= _NAMED_THERE else f"{packages.INSTALL} && {packages.DREAMSIM}"
            names = ", ".join(absent)
            whole = f"clip_features={self.wish.firsts} needs {names}: {line}; nearest is clip_features=dino_clip"
            yield Missing(whole, f"packages {names}", line)
        with_text = text and bool(self.wish.metrics_of_text)
        modules = [module for name in named for module in NETWORKS[name].modules] + ["ftfy"] * with_text
        yield from lacks(lambda: packages.check(tuple(dict.fromkeys(modules))), lambda: self.source.check(named, text=with_text))

    def check(self, *, long: bool, text: bool) -> None:
        """Raise ValueError in one line that names missing packages, with the line that installs them, or missing weights."""
        refuse(self.missing(long=long, text=text))

    def identity(self, *, long: bool, text: bool) -> dict[str, object]:
        """Everything that can change a score: measurements, weights, types and versions."""
        named = self.wish.wanted(long=long, text=text)
        made_by = {name: [self.source.identity(name), self._dtype(name), self._versions(name)] for name in sorted(named)}
        return {"rule": RULE, "firsts": self.wish.firsts, "decoder": dict(DECODER), "networks": made_by}

    def queries(self, layout: FrameLayout) -> list[NetworkQuery]:
        """Queries about a video, for the dimensions, then for texts, then for first frames of clips."""
        queries = [
            NetworkQuery(name, layout.neighbours(), 64, difference, dtype="float64")
            if name == "difference"
            else self._query(name, *ASKED[name], layout)
            for name in self.wish.records(text=bool(layout.spans))
        ]
        firsts = [dimension for dimension in FIRSTS if layout.long and dimension in self.wish.dimensions]
        return queries + [self._query(FIRSTS[name], self.wish.firsts_of(name), FrameLayout.firsts, _images, layout) for name in firsts]

    def derived(self, facts: Facts, records: Mapping[str, Record], store: RecordStore) -> dict[str, Record]:
        """Records that are computed from records: the aesthetic head reads the features of CLIP L/14."""
        if "aesthetic_quality" not in self.wish.dimensions:
            return {}
        seen = records["clip_l14"]
        network = f"{self.source.identity('clip_l14')} {self.source.identity('aesthetic')}"
        versions = {**DECODER, **self._versions("clip_l14")}
        key = RecordKey(facts.digest, "aesthetic", network, RULE, self._dtype("clip_l14"), versions)
        what = f"{facts.name}: aesthetic"
        return {"aesthetic": store.once(key, what, lambda: Record(seen.units, self._network("aesthetic").quality(seen.values)))}

    def texts(self, sentences: Sequence[str], store: RecordStore) -> tuple[dict[str, NDArray[Any]], dict[str, list[int]]]:
        """Features [sentences, D] by the record with which they are compared, and numbers of cut tokens by network."""
        features, cut = {}, {}
        for metric in self.wish.metrics_of_text:
            name = ASKED[metric][0]
            rows = [self._sentence(name, sentence, store) for sentence in sentences]
            features[metric] = np.stack([row.values[0] for row in rows])
            cut[name] = [int(row.units[0, 0]) for row in rows]
        return features, cut

    def _sentence(self, name: str, sentence: str, store: RecordStore) -> Record:
        """Features of a sentence; the record's units are the number of cut tokens."""

        def asked() -> Record:
            text = self._network(name).text([sentence])
            return Record(np.array([text.tokens_cut], np.int64), np.asarray(text.features))

        digest = hashlib.blake2b(sentence.encode(), digest_size=16).hexdigest()
        versions = self._versions(name) | {"ftfy": version_of("ftfy")}
        key = RecordKey("text", name, self.source.identity(name), RULE, self._dtype(name), versions, {"sentence": digest})
        return store.once(key, f"{name} of {sentence[:60]!r}", asked)

    def _query(self, name: str, network: str, units: Callable[[FrameLayout], Units], ask: Ask, layout: FrameLayout) -> NetworkQuery:
        return NetworkQuery(
            name, units(layout), NETWORKS[network].batch, lambda frames: ask(self._network(network), frames),
            self.source.identity(network), self._dtype(network), self._versions(network), {"network": network},
        )  # fmt: skip

    def _network(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = self.source.make(name, self.wish.dtype_of(name), self.wish.device)
        return self._made[name]

    def _dtype(self, name: str) -> str:
        return f"{self.wish.dtype_of(name)} {self.wish.device.partition(':')[0]}"

    def _versions(self, name: str) -> dict[str, str]:
        return {package: version_of(package) for package in ("torch", *map(packages.distribution, NETWORKS[name].code))}


def difference(frames: Frames) -> NDArray[np.float64]:
    """Mean absolute difference [N] of frame pairs uint8 [N, 2, H, W, 3], in 0..255."""
    first, second = frames[:, 0], frames[:, 1]
    apart = np.maximum(first, second) - np.minimum(first, second)
    return apart.reshape(len(apart), -1).mean(1, dtype=np.float64)
