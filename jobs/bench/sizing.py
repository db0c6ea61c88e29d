"""The plan of `echo-harness bench card`: measurements in order of importance, each with a forecast of its seconds.

A block's forecast is its operations (`jobs.bench.flops`) divided by a stated share of the maker's peak rate, and at least the time that
the host takes to launch its kernels. Results are written into the plan, so that the file of a killed run shows what was measured and what
was not.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from baselines.presets import make_policy
from echo.backbone.sizes import CELL_PX, CODECS, WanConfig
from echo.geometry import Geometry
from echo.refusals import first_line
from jobs.bench import flops
from jobs.bench.overhead import steady_from
from jobs.memory.parts import CodecMemory, network_parameters

SHARE = 0.25
"""Share of its published peak that a GPU is forecast to reach on a block and on decoding; the model of docs/performance.md has 0.32."""
FP32_SHARE = 0.03
"""The share for fp32 without tensor cores, also of the bf16 peak: an H100 has 67 of 989 TFLOP/s, of which half is assumed."""
UNLISTED = {"cuda": 100.0, "cpu": 0.1}
"""TFLOP/s of a device that `flops.PEAK_TFLOPS` does not list."""
LAUNCHES_S = 0.8e-3
"""Seconds of the host to launch one pass of a layer, about eighty kernels."""
DRAW_S = 15e-9
"""Seconds of one CPU thread to draw a random weight."""
COMPILE_S = {"none": 0.0, "blocks": 50.0, "graphs": 50.0}
START_S = 1.0
"""Seconds of a measurement before its first block: freeing memory, building a rollout and its plans."""
KERNELS = ("sdpa", "cudnn", "flash", "flash3")
PARITY_BLOCKS = 8
WHOLE_BLOCKS = 45
"""Least blocks of `jobs.bench.measure.measure`: two windows are filled, and three switches follow full ones."""
BEST = "best"
"""Placeholder in a plan for the fastest choice that was measured before."""

Kind = Literal["block", "reference", "decoded", "profile", "parity", "whole"]


class Variant(msgspec.Struct, frozen=True):
    """How a rollout is computed.

    decoder: "" if nothing is decoded. aside: whether decoding has a CUDA stream of its own, in parallel with the next block. Another code
    has "-" for kernel, compile and window.
    """

    method: str
    kernel: str = "sdpa"
    compile: str = "none"
    window: str = "shared"
    decoder: str = ""
    aside: bool = False

    def __str__(self) -> str:
        decoded = f", {self.decoder} {'on a stream of its own' if self.aside else 'after each block'}" if self.decoder else ""
        return f"{self.method}: {self.kernel}, compile={self.compile}, window={self.window}{decoded}"


class Values(msgspec.Struct, omit_defaults=True):
    """Results of a measurement; its kind decides which fields are filled.

    block_ms, p95_ms, pass_ms: medians over steady blocks, milliseconds; for decoded blocks, gaps between them on the host's clock. fps:
    pixel frames per second, of network and cache or end to end. differences: largest and mean difference of latents, in words, by
    comparison. operations, waits: torch operations of a block that compute, and those that the host waits for. kernels: name, count per
    block, milliseconds. whole: the result of `jobs.bench.measure.measure`.
    """

    way: Variant
    block_ms: float = 0.0
    p95_ms: float = 0.0
    pass_ms: dict[str, float] = {}
    window_frames: float = 0.0
    fps: float = 0.0
    tflops: float = 0.0
    percent_of_peak: float | None = None
    measured_bytes: int = 0
    computed_bytes: int = 0
    differences: dict[str, str] = {}
    operations: int = 0
    waits: int = 0
    kernels: list[tuple[str, int, float]] = []
    whole: dict[str, Any] = {}


class Measurement(msgspec.Struct):
    """One line of the plan. seconds: the time that it took; None if it was not begun. reason: why there are no values."""

    kind: Kind
    way: Variant
    forecast_s: float
    seconds: float | None = None
    reason: str = "not reached"
    values: Values | None = None


@dataclass(frozen=True)
class CardSize:
    """Input of the forecast: sizes, number of timed blocks, and the device's peak rate in bf16."""

    network: WanConfig
    geometry: Geometry
    blocks: int
    steps: int
    tflops: float
    codec: str = "native"

    def block_s(self, attended: float, share: float = SHARE) -> float:
        """Seconds of a block that attends to `attended` frames."""
        work = flops.block(self.network, self.geometry, attended, self.steps).total
        return max(work / (share * self.tflops * 1e12), LAUNCHES_S * self.network.layers * (self.steps + 1))

    def decoding_s(self) -> float:
        """Seconds to decode a block with the checkpoint's codec, an upper bound for smaller codecs."""
        frame_px = self.geometry.latent_height * CELL_PX, self.geometry.latent_width * CELL_PX
        work = self.geometry.frames_per_block * CodecMemory(**vars(CODECS[self.codec])).operations(*frame_px)
        return work / (SHARE * self.tflops * 1e12)

    def load_s(self) -> float:
        """Seconds to draw random weights."""
        return DRAW_S * network_parameters(self.network)

    def forecast(self, kind: Kind, way: Variant) -> float:
        """Seconds of a measurement without compilation."""
        warm, lengths = steady_from(make_policy({"method": way.method}), self.geometry)
        block_s = self.block_s(statistics.fmean(lengths))
        if kind == "parity":
            return PARITY_BLOCKS * (3 * block_s + self.block_s(max(lengths), FP32_SHARE)) + self.load_s()
        blocks = {"profile": warm + 2, "whole": WHOLE_BLOCKS}.get(kind, warm + self.blocks)
        return blocks * (block_s + (self.decoding_s() if kind in ("decoded", "whole") else 0.0))


def plan(size: CardSize, base: Variant, methods: Sequence[str], decoders: Sequence[str]) -> list[Measurement]:
    """All measurements, the most important first, with variants of the same compilation next to each other.

    For the first two methods one setting at a time differs from `base`; the others are measured at `base` and at the best variant.
    """
    made = list[Measurement]()
    compiled = "none"
    for index, (kind, way) in enumerate(_ways(base, methods, decoders)):
        extra = START_S + (0.0 if index else size.load_s())
        if way.compile not in (compiled, BEST):
            compiled, extra = way.compile, extra + COMPILE_S[way.compile]
        made.append(Measurement(kind, way, round(size.forecast(kind, way) + extra, 2)))
    return made


def _ways(base: Variant, methods: Sequence[str], decoders: Sequence[str]) -> Iterator[tuple[Kind, Variant]]:
    change = msgspec.structs.replace
    bases = [change(base, method=method) for method in methods]
    yield from (("block", way) for way in bases)
    for way in bases[:2]:
        yield from (("block", change(way, kernel=kernel)) for kernel in KERNELS if kernel != base.kernel)
        yield "block", change(way, window="resident" if base.window == "shared" else "shared")
    for compiled in (mode for mode in COMPILE_S if mode != base.compile):
        yield from (("block", change(way, compile=compiled)) for way in bases[:2])
    best = [change(way, kernel=BEST, compile=BEST, window=BEST) for way in bases]
    yield from (("block", way) for way in best)
    yield from (("decoded", change(best[0], decoder=decoder, aside=aside)) for decoder in decoders for aside in (False, True))
    yield from (("profile", way) for way in bases[:2])
    yield "parity", best[0]
    yield from (("whole", change(way, decoder=decoders[0])) for way in bases)


def best(rows: Iterable[Measurement], way: Variant, base: Variant) -> Variant:
    """`way` with each BEST replaced by the fastest choice that was measured by itself, or the base's if none was faster."""
    chosen = {}
    for name in [name for name in ("kernel", "compile", "window") if getattr(way, name) == BEST]:
        own = getattr(base, name)
        alike = [row for row in rows if row.kind == "block" and msgspec.structs.replace(row.way, **{name: own}) == base]
        times = {getattr(row.way, name): row.values.block_ms for row in alike if row.values is not None}
        chosen[name] = min(times, key=times.__getitem__, default=own)
    return msgspec.structs.replace(way, **chosen)


def carry_out(
    rows: Sequence[Measurement],
    seconds: float,
    do: Callable[[Measurement], Values],
    keep: Callable[[Measurement], object],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Measure in order what fits into `seconds`, calling `keep` after each; a measurement that fails or does not fit gets a reason.

    Forecasts of the remaining measurements are corrected by the times so far. If the first variant of a mode of compilation does not fit,
    all of that mode are left out, because the next one would have to compile instead.
    """
    begun, forecast_s, taken_s = clock(), 0.0, 0.0
    modes: dict[str, bool] = {BEST: True}  # mode of compilation -> whether its first variant fitted
    for row in rows:
        ours = row.kind != "reference"  # whose time tells nothing of ours, nor ours of it
        wanted, left = row.forecast_s * (taken_s / forecast_s if ours and forecast_s else 1.0), seconds - (clock() - begun)
        compiles = modes.setdefault(row.way.compile, wanted <= left)
        if wanted > left:
            row.reason = f"left out: {wanted:.0f} s are forecast, {max(0.0, left):.0f} s are left"
        elif not compiles:
            row.reason = f"left out: the first way with compile={row.way.compile} did not fit"
        else:
            start = clock()
            try:
                row.values, row.reason = do(row), ""
            except Exception as error:  # this machine lacks a kernel, a compiler or memory; the rest is still measured
                row.reason = first_line(error)
            row.seconds = round(clock() - start, 2)
            if ours and row.values is not None:
                forecast_s, taken_s = forecast_s + row.forecast_s, taken_s + row.seconds
        keep(row)
