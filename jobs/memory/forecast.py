"""A run's memory, computed before it starts from geometry and policy; `jobs.memory.measured` measures it.

The cache is exact to the byte: the policy gives the number of frames in its store, and its plans over the prompt's script
give the number of named memories. Weights follow from the sizes. The peak of a pass or a decoding is an
estimate by formula (`jobs.memory.parts`). There are two phases, since the text encoder is freed before the network
is loaded; the larger is the run's peak. Gigabytes are 1000^3 bytes.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from echo.backbone.sizes import CELL_PX, WanConfig
from echo.cache.kinds import MemoryName, Source
from echo.cache.plan import Step
from echo.cache.policy import Policy
from echo.files import Json
from echo.geometry import STEPS, Geometry
from echo.scene import Script
from jobs.memory.parts import BYTES, CodecMemory, TaehvMemory, TextMemory, frame_bytes, network_parameters, pass_bytes, states

GB = 1000**3
PLACE = 8
"""Bytes of a token's place, if a memory keeps its tokens' places."""


@dataclass(frozen=True)
class Setup:
    """Everything that a run's memory depends on.

    text_on_device: whether the encoder shares the network's device. codec: None if nothing is decoded. capacity: frames of
    the store, if it differs from the policy's own. timesteps: number of the network's timesteps, the clean pass's included.
    """

    network: WanConfig
    geometry: Geometry
    policy: Policy
    script: Script
    batch: int = 1
    dtype: str = "bfloat16"
    window: str = "shared"
    text: TextMemory = field(default_factory=TextMemory)
    text_dtype: str = "bfloat16"
    text_on_device: bool = True
    codec: CodecMemory | TaehvMemory | None = field(default_factory=CodecMemory)
    codec_dtype: str = "bfloat16"
    capacity: int | None = None
    timesteps: int = len(STEPS) + 1

    @property
    def store_frames(self) -> int:
        """Capacity of the store in latent frames."""
        return self.policy.store_frames(self.geometry) if self.capacity is None else self.capacity

    @property
    def frame_px(self) -> tuple[int, int]:
        """Height and width of the video."""
        return self.geometry.latent_height * CELL_PX, self.geometry.latent_width * CELL_PX


@dataclass(frozen=True)
class Walk:
    """Peak use of the cache during a rollout of a script, in frames, from plans without a model.

    stored: frames in the store, the running block included. named: named memories; named_placed: those that keep
    their tokens' places. context: past frames attended to.
    candidates: frames that a selection chooses from. recache: frames of a recache's pass. chosen: frames' worth of tokens of a
    selection; copied: the same, of selections whose candidates are memories too, so that a shared window keeps copies. placed: the same,
    of tokens that keep their own row and column.
    """

    stored: int
    named: int
    named_placed: int
    context: int
    candidates: int
    recache: int
    chosen: int
    copied: int
    placed: int


def walk(policy: Policy, geometry: Geometry, script: Script) -> Walk:
    """Plan every block of a script and take the maximum of each quantity."""
    starts = {start.block: scene for scene, start in enumerate(script.starts)}
    scene, stored, named = 0, set[Source](), set[MemoryName]()
    most = Counter[str]()
    for block in range(script.blocks):
        scene = starts.get(block, scene)
        step = Step(block, script.starts[: scene + 1], geometry)
        recache = policy.recache(step) if block in starts and block else None
        plan = policy.block_plan(step)
        stored = stored & plan.keep | set(range(plan.first_frame, plan.first_frame + len(plan.queries)))
        named |= {name for name in plan.keep if isinstance(name, MemoryName)}
        here = Counter(
            stored=len(stored),
            named=len(named),
            named_placed=sum(name.placed for name in named),
            context=max(len(plan.context), len(plan.clean or ()), len(recache.context) if recache else 0),
            recache=len(recache.queries) if recache else 0,
        )
        if (selection := plan.selection) is not None:
            copies = any(isinstance(source, MemoryName) for source in selection.candidates)
            here |= Counter(candidates=len(selection.candidates), chosen=selection.frames, copied=selection.frames * copies)
            here |= Counter(placed=selection.frames * selection.own_spatial)
        most |= here  # the larger of each
        stored, named = stored & plan.keep, named & plan.keep
    return Walk(**{name: most[name] for name in Walk.__dataclass_fields__})


@dataclass(frozen=True)
class Forecast:
    """Bytes by part, and the two phases that they add up to; `as_json` is what a record keeps."""

    setup: Setup
    walk: Walk
    weights: int
    states: int
    store: int
    window: int
    chosen: int
    named: int
    statistics: int
    passes: int
    text: int
    text_work: int
    codec: int
    codec_cache: int
    codec_work: int

    @property
    def cache(self) -> int:
        """Store, window with its selection, named memories, and the policy's statistics."""
        return self.store + self.window + self.chosen + self.named + self.statistics

    @property
    def text_phase(self) -> int:
        """Bytes while prompts are encoded, before the network is loaded; 0 on the network's device if the encoder is elsewhere."""
        return self.text + self.text_work if self.setup.text_on_device else 0

    @property
    def rollout_phase(self) -> int:
        """Bytes while blocks are made and decoded; a pass and a decoding never run at once."""
        return self.weights + self.states + self.cache + self.codec + self.codec_cache + max(self.passes, self.codec_work)

    @property
    def peak(self) -> int:
        return max(self.text_phase, self.rollout_phase)

    def as_json(self) -> Json:
        """Bytes by name, phases and peak, frames counted."""
        parts = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("setup", "walk")}
        totals = {name: getattr(self, name) for name in ("cache", "text_phase", "rollout_phase", "peak")}
        return {"bytes": parts | totals, "capacity_frames": self.setup.store_frames, **dataclasses.asdict(self.walk)}

    def line(self, total_bytes: int | None = None) -> str:
        """The forecast in one line; total_bytes: memory of the device."""
        setup = self.setup
        layers = "one layer's" if setup.window == "shared" else f"{setup.geometry.layers} layers'"
        memories = f", {self.walk.named} memories" if self.walk.named else ""
        where = "freed before the rollout" if setup.text_on_device else "on the CPU"
        room = "" if total_bytes is None else f" of {gb(total_bytes)} GB"
        return (
            f"memory: weights {gb(self.weights)} GB, text {gb(self.text)} GB ({where}), cache {gb(self.cache)} GB "
            f"({setup.store_frames} frames, {layers} window{memories}), passes {gb(self.passes)} GB, "
            f"codec {gb(self.codec + self.codec_cache + self.codec_work)} GB; peak {gb(self.peak)} GB{room}"
        )

    def advice(self, total_bytes: int) -> list[str]:
        """Changes for a device that is too small, the largest saving first, as far as needed; empty if the run fits.

        The last line says if all of them together are not enough.
        """
        best, lines = self, list[str]()
        while best.peak > total_bytes:
            cheaper = {words: forecast(setup) for words, setup in _cheaper(best.setup)}
            words = min(cheaper, key=lambda name: cheaper[name].peak, default="")
            if not words or cheaper[words].peak >= best.peak:
                return [*lines, f"still {gb(best.peak)} GB, and the device has {gb(total_bytes)} GB; nearest is a larger device"]
            saved = best.peak - cheaper[words].peak
            best = cheaper[words]
            lines.append(f"{words} saves {gb(saved)} GB, peak {gb(best.peak)} GB")
        return lines


def _cheaper(setup: Setup) -> Iterator[tuple[str, Setup]]:
    """Every single change that may save memory, as an argument of the command line."""
    changes: tuple[tuple[bool, str, dict[str, Any]], ...] = (
        (setup.window == "resident", "backbone.parts.window=shared", {"window": "shared"}),
        (setup.dtype == "float32", "backbone.dtype=bfloat16", {"dtype": "bfloat16"}),
        (setup.text_on_device, "backbone.parts.text_device=cpu", {"text_on_device": False}),
        (setup.text_on_device and setup.text_dtype == "float32", "backbone.parts.text_dtype=bfloat16", {"text_dtype": "bfloat16"}),
        (setup.codec_dtype == "float32", "backbone.parts.codec_dtype=bfloat16", {"codec_dtype": "bfloat16"}),
        (isinstance(setup.codec, CodecMemory), "backbone.parts.decoder=taehv", {"codec": TaehvMemory()}),
        (setup.batch > 1, f"batch={setup.batch // 2}", {"batch": setup.batch // 2}),
    )
    return ((words, dataclasses.replace(setup, **change)) for possible, words, change in changes if possible)


def forecast(setup: Setup) -> Forecast:
    """A run's memory in bytes. Raises ValueError for an unknown dtype."""
    for name in (setup.dtype, setup.text_dtype, setup.codec_dtype):
        if name not in BYTES:
            raise ValueError(f"dtype {name!r}: one of {', '.join(BYTES)}")
    network, geometry, batch, item = setup.network, setup.geometry, setup.batch, BYTES[setup.dtype]
    most, frame = walk(setup.policy, geometry, setup.script), frame_bytes(geometry, batch, item)
    layers = 1 if setup.window == "shared" else geometry.layers
    codec, codec_item, frame_px = setup.codec, BYTES[setup.codec_dtype], setup.frame_px
    queries = max(geometry.frames_per_block, most.recache)
    return Forecast(
        setup=setup,
        walk=most,
        weights=network_parameters(network) * item,
        states=states(network, geometry, batch, item, setup.timesteps),
        store=setup.store_frames * frame,
        window=geometry.window_frames * frame_bytes(geometry, batch, item, layers),
        chosen=_chosen(setup, most, frame),
        named=most.named * frame + most.named_placed * geometry.layers * batch * geometry.tokens_per_frame * PLACE,
        statistics=setup.policy.memory_bytes(geometry, batch, item),
        passes=pass_bytes(network, geometry, batch, item, context=most.context, candidates=most.candidates, queries=queries),
        text=setup.text.parameters * BYTES[setup.text_dtype],
        text_work=setup.text.work(network.text_len, BYTES[setup.text_dtype]),
        codec=codec.parameters * codec_item if codec else 0,
        codec_cache=batch * codec.cache(*frame_px, codec_item) if codec else 0,
        codec_work=batch * codec.work(*frame_px, codec_item) if codec else 0,
    )


def _chosen(setup: Setup, most: Walk, frame: int) -> int:
    """Bytes of a block's selection, which a shared window writes again in every pass: indices of the tokens, or copies of them."""
    if setup.window != "shared":
        return 0
    g = setup.geometry
    places = g.layers * setup.batch * g.tokens_per_frame * PLACE
    return (most.copied * frame if most.copied else most.chosen * places) + most.placed * places


def gb(size: float) -> str:
    """Bytes as gigabytes of 1000^3, two digits."""
    return f"{size / GB:.2f}"
