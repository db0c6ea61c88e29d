"""`echo-harness bench card`: speed and memory of a GPU, measured in twelve minutes, as one JSON file and one page.

`jobs.bench.sizing` plans the measurements and their order; this module carries them out and writes the file after each one. On a CPU
the same code runs the same plan at tiny sizes, which tests the code and gives no figure of a GPU.
"""

from __future__ import annotations

import gc
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.utils._python_dispatch import TorchDispatchMode

from baselines.presets import make_policy
from echo.backbone import compiled, kernels
from echo.backbone.interface import Stream
from echo.backbone.packed import Network
from echo.backbone.real import RealBackbone
from echo.files import RESULTS, write_atomic
from echo.rollout import Rollout
from echo.scene import PIXEL_FRAMES_PER_LATENT, Script
from eval.store.records import Provenance
from eval.tables.text import markdown_table
from jobs.bench import flops, sizing
from jobs.bench import reference as others
from jobs.bench.command import Ways, config_of, gap, latents, memory_fields, resolved, text_rows
from jobs.bench.measure import Rig, measure, setup_of, steady_blocks, summary
from jobs.bench.overhead import steady_from
from jobs.bench.sizing import CardSize, Measurement, Values, Variant
from jobs.memory.forecast import forecast, gb
from jobs.memory.measured import Meter
from jobs.store import provenance
from jobs.work.models import parts_to_load
from jobs.work.progress import say

USUAL = Ways(method="echo,self_forcing,longlive,deep_forcing_official", blocks=6, kernel="sdpa", seconds=720)
ASSUMED = "NVIDIA H100 80GB HBM3"
"""The GPU of a dry run on a machine without one."""
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "repeat_interleave.Tensor", "unique", "_unique2")
"""Operations whose result the host waits for."""
SHOWN_KERNELS = 15


class CardFile(msgspec.Struct):
    """The JSON file. settings: those of the command line, resolved. peak_tflops: the maker's figure for bf16; None for a CPU."""

    v: int
    what: str
    device: str
    device_name: str
    peak_tflops: float | None
    geometry: str
    settings: dict[str, str]
    provenance: Provenance
    rows: list[Measurement]
    took_s: float = 0.0


class Dispatched(TorchDispatchMode):
    """Counts operations that compute something, without views and with composite ones split, and operations that the host waits for.

    On a GPU each is one kernel or a few.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.waits = Counter[str](), Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        with self:
            made = func.decompose(*args, **kwargs)
        if made is not NotImplemented:
            return made
        name = str(func).removeprefix("aten.").removesuffix(".default")
        self.operations[name] += not func.is_view
        masked = name == "index.Tensor" and any(index is not None and index.dtype == torch.bool for index in args[1])
        to_host = name == "_to_copy" and args[0].device.type != "cpu" and str(kwargs.get("device")) == "cpu"
        self.waits[name] += name in WAITS or masked or to_host and not kwargs.get("non_blocking")
        return func(*args, **kwargs)


class Decoding:
    """A batch's latents on their way to the host as frames.

    aside: on a graphics card decoding has a stream of its own and copies into pinned memory, so that the next block can be under way
    meanwhile; else a block is decoded when its frames are asked for. The frames are the same.
    """

    def __init__(self, stream: Stream, device: torch.device, *, aside: bool) -> None:
        self._stream, self._device = stream, device
        self._side = torch.cuda.Stream(device) if aside and device.type == "cuda" else None

    def begin(self, latents: Tensor) -> Callable[[], Tensor]:
        """Ask for the frames of a block. What comes back is called in order, waits, and gives uint8 [B, T, H, W, 3] on the host."""
        if self._side is None:
            return lambda: self._stream.decode(latents).cpu()
        self._side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._side):
            decoded = self._stream.decode(latents)
            frames = torch.empty(decoded.shape, dtype=decoded.dtype, pin_memory=True)
            frames.copy_(decoded, non_blocking=True)
            done = self._side.record_event()
        latents.record_stream(self._side)  # its memory is not given to another tensor before it was read there

        def wait() -> Tensor:
            done.synchronize()
            return frames

        return wait


class CardBench:
    """Carries out a plan on one network that all variants share; compiled variants have other code and the same weights."""

    def __init__(self, ways: Ways, peak: float | None, program: Path | None = None) -> None:
        """program: see `jobs.bench.reference`."""
        self.ways, self.peak, self.program = ways, peak, program
        self.parts = parts_to_load(config_of(ways))
        self.meter = Meter(self.parts.device)
        self.meter.start()
        self.base = Variant(ways.method.partition(",")[0], self.parts.kernel, self.parts.compile, self.parts.window)
        self.rows: list[Measurement] = []
        self._networks: dict[str, Network] = {}

    def size(self) -> CardSize:
        """The sizes that forecasts need."""
        parts = self.parts
        rate = self.peak or sizing.UNLISTED[parts.device]
        return CardSize(parts.network, parts.geometry, self.ways.blocks, parts.schedule.draws, rate, parts.size)

    def rig(self, way: Variant) -> Rig:
        """A backbone that computes in this way. Raises ValueError if this device or installation lacks something for it."""
        parts = replace(
            self.parts, compile=way.compile, window=way.window, decoder=way.decoder or self.parts.decoder,
            kernel=kernels.resolve(way.kernel, self.parts.device, self.parts.dtype),
        )  # fmt: skip
        backbone = RealBackbone(parts)
        if "none" not in self._networks:
            self._networks["none"] = RealBackbone(replace(self.parts, compile="none")).network
        if way.compile not in self._networks:  # the plain network and the latest compiled one are kept
            eager = self._networks["none"]
            self._networks = {"none": eager, way.compile: compiled.speed_up(eager, way.compile)}  # type: ignore[arg-type]
        backbone.network = self._networks[way.compile]
        fields = memory_fields(parts) | ({} if way.decoder else {"codec": None})
        return Rig(backbone, parts.network, text_rows(parts, 1), self.ways.blocks, 0.0, 1, fields, self.meter, compile=way.compile)

    def do(self, row: Measurement) -> Values:
        """Make one measurement of the plan."""
        gc.collect()
        if row.kind == "reference":
            assert self.program is not None
            return self._others(others.timed(self.program))
        way = sizing.best(self.rows, row.way, self.base)
        self.meter.again()
        rig = self.rig(way)
        rig.release()
        values: Values = getattr(self, f"_{row.kind}")(rig, way, row)
        return values

    def _full(self, rig: Rig, way: Variant) -> tuple[Rollout, float, float]:
        """A rollout with a full window, the frames that its blocks attend to, and a block's operations in TFLOP."""
        warm, lengths = steady_from(make_policy({"method": way.method}), rig.geometry)
        rollout = rig.rollout(make_policy({"method": way.method}))
        rig.switch(rollout)
        for _ in range(warm):
            rollout.next()
        rig.watch.wait()
        rig.network.taken()
        work = [flops.block(rig.config, rig.geometry, length, rig.backbone.schedule.draws).total for length in lengths]
        return rollout, max(lengths), statistics.fmean(work) / 1e12

    def _block(self, rig: Rig, way: Variant, row: Measurement) -> Values:
        rollout, attended, tflop = self._full(rig, way)
        steady = steady_blocks(rig, rollout, rig.blocks)
        medians = {name: part["median"] for name, part in steady["pass_ms"].items()}
        return self._timed(rig, way, rollout, steady["block_ms"], tflop, pass_ms=medians, window_frames=attended)

    def _decoded(self, rig: Rig, way: Variant, row: Measurement) -> Values:
        """Blocks with their frames on the host; with `aside`, decoded while the next block is computed."""
        rollout, attended, tflop = self._full(rig, way)
        decoding = Decoding(rig.backbone.codec.stream(), rig.backbone.device, aside=way.aside)
        gaps: list[float] = []
        before: Callable[[], Tensor] | None = None
        for _ in range(rig.blocks + 2):
            clock = time.perf_counter()
            asked = decoding.begin(rollout.next().latents)
            frames, before = (before, asked) if way.aside else (asked, None)
            if frames is not None:
                frames()
            gaps.append(1e3 * (time.perf_counter() - clock))
        return self._timed(
            rig, way, rollout, summary(gaps[2:]), tflop, window_frames=attended
        )  # a codec has a cache from its second latent frame on

    def _timed(self, rig: Rig, way: Variant, rollout: Rollout, ms: Mapping[str, Any], tflop: float, **more: Any) -> Values:
        computed = forecast(setup_of(rig, rollout.policy, Script(tuple(rig.starts), rollout.block))).rollout_phase
        return self._speeds(way, ms, tflop, measured_bytes=self.meter.peak(), computed_bytes=computed, **more)

    def _speeds(self, way: Variant, ms: Mapping[str, Any], tflop: float, **more: Any) -> Values:
        median, tflops = ms["median"], 1e3 * tflop / ms["median"]
        shown = self.parts.geometry.frames_per_block * PIXEL_FRAMES_PER_LATENT
        return Values(
            way, median, ms["p95"], fps=round(1e3 * shown / median, 3), tflops=round(tflops, 3),
            percent_of_peak=None if self.peak is None else round(100 * tflops / self.peak, 2), **more,
        )  # fmt: skip

    def _others(self, told: others.Told) -> Values:
        work = flops.block(self.parts.network, self.parts.geometry, told.frames, self.parts.schedule.draws).total / 1e12
        return self._speeds(Variant(told.method, *3 * "-"), summary(told.block_ms), work, window_frames=told.frames)

    def _profile(self, rig: Rig, way: Variant, row: Measurement) -> Values:
        """Operations of a block, counted by torch's dispatcher, then its kernels, timed one by one."""
        rollout, attended, _ = self._full(rig, way)
        with Dispatched() as asked:
            rollout.next()
        card = rig.watch.cuda
        kinds = torch.profiler.ProfilerActivity
        with torch.profiler.profile(activities=[kinds.CPU, *([kinds.CUDA] if card else [])]) as profile:
            rollout.next()
            rig.watch.wait()
        spent = [
            (event.key, event.count, (event.self_device_time_total if card else event.self_cpu_time_total) / 1e3)
            for event in profile.key_averages()
            if (event.device_type is DeviceType.CUDA) == card  # on a GPU only its kernels, without the operations that launched them
        ]
        longest = sorted(spent, key=lambda entry: -entry[2])[:SHOWN_KERNELS]
        return Values(
            way, window_frames=attended, operations=asked.operations.total(), waits=asked.waits.total(),
            kernels=[(name[:100], count, round(ms, 3)) for name, count, ms in longest if ms],
        )  # fmt: skip

    def _parity(self, rig: Rig, way: Variant, row: Measurement) -> Values:
        """Latents of the first eight blocks: bf16 against fp32, and the best way against the plain one."""
        policy, blocks = make_policy({"method": way.method}), sizing.PARITY_BLOCKS
        plain = self.rig(msgspec.structs.replace(self.base, compile="none")).backbone
        exact = RealBackbone(replace(self.parts, dtype="float32", kernel="sdpa", compile="none"))
        fp32, bf16, fast = (latents(one, policy, rig.rows_BLT.to(one.dtype), blocks) for one in (exact, plain, rig.backbone))
        differences = {"bfloat16 against float32": gap(fp32, bf16)["words"], "the best way against the plain one": gap(bf16, fast)["words"]}
        return Values(way, differences=differences)

    def _whole(self, rig: Rig, way: Variant, row: Measurement) -> Values:
        rig.rehearse()
        rig.method_s = row.forecast_s
        return Values(way, whole=measure(rig, way.method))


def page(card: CardFile) -> str:
    """The results as a Markdown page."""
    code, packages, gpu = card.provenance.code, card.provenance.packages, card.provenance.gpu or {}
    rehearsed = (
        f"A rehearsal on {card.device} at tiny sizes: it shows that the command works, and says nothing of a card."
        if card.device == "cpu"
        else ""
    )
    facts = [f"driver {gpu.get('driver')}, CUDA {gpu.get('cuda')}, cuDNN {gpu.get('cudnn')}"] if gpu else []
    peak = [] if card.peak_tflops is None else [f"{card.peak_tflops:g} TFLOP/s bf16 by its maker"]
    told = [f"code {(code.commit or 'unknown')[:10]}{', changed' if code.dirty else ''}", f"torch {packages.get('torch')}", *facts, *peak]
    lines = [f"# {card.device_name}", "", "; ".join(told) + f"; {card.took_s:.0f} s.", *(["", rehearsed] if rehearsed else [])]
    lines += ["", f"Weights {card.settings['weights']}, geometry {card.geometry}; texts are random rows, noise is drawn once."]
    for heading, table in _tables(card.rows):
        lines += ["", f"## {heading}", "", *table] if len(table) > 2 else []
    return "\n".join(lines) + "\n"


def _tables(rows: Sequence[Measurement]) -> Iterator[tuple[str, list[str]]]:
    """Headings and tables of the measurements; then those that were not made, with the reasons."""
    made = [(row, row.values) for row in rows if row.values is not None]
    ways = ["method", "attention", "compile", "window"]
    timed = ["block, ms", "p95", "FPS", "TFLOP/s", "% of peak", "memory, GB", "computed, GB"]

    def measured(v: Values) -> list[str]:
        percent = "-" if v.percent_of_peak is None else f"{v.percent_of_peak:.1f}"
        numbers = [f"{v.block_ms:.1f}", f"{v.p95_ms:.1f}", f"{v.fps:.2f}", f"{v.tflops:.2f}", percent]
        return [*numbers, *(gb(size) if size else "-" for size in (v.measured_bytes, v.computed_bytes))]

    def way(v: Values) -> list[str]:
        return [v.way.method, v.way.kernel, v.way.compile, v.way.window]

    blocks = [v for row, v in made if row.kind in ("block", "reference")]
    yield (
        "A block, window full",
        markdown_table(ways, ["frames", *timed], ([*way(v), f"{v.window_frames:g}", *measured(v)] for v in blocks)),
    )
    ours = [v for v in blocks if v.pass_ms]
    names = list(dict.fromkeys(name for v in ours for name in v.pass_ms))
    yield "Its passes, ms", markdown_table(ways, names, ([*way(v), *(f"{v.pass_ms[name]:.1f}" for name in names)] for v in ours))
    places = {False: "after each block", True: "on a stream of its own"}
    decoded = ([*way(v), v.way.decoder, places[v.way.aside], *measured(v)] for row, v in made if row.kind == "decoded")
    yield "End to end: frames on the host", markdown_table([*ways, "decoder", "decoded"], ["gap, ms", *timed[1:]], decoded)
    for v in (v for row, v in made if row.kind == "profile"):
        asked = f"What a block of {v.way.method} asks: {v.operations} operations, {v.waits} waits of the host"
        yield asked, markdown_table(["kernel"], ["times", "ms"], ([f"`{name}`", str(count), f"{ms:.2f}"] for name, count, ms in v.kernels))
    pairs = ([what, words] for row, v in made for what, words in v.differences.items())
    yield "Latents of the first eight blocks", markdown_table(["compared", "difference"], [], pairs)
    switched = ("smooth", "hard", "recall", "recache")
    whole = []
    for v in (v for row, v in made if row.kind == "whole"):
        behind = [v.whole["switch_ms"][name] for name in switched]
        first = f"{v.whole['stream']['first_frames_ms']:.0f}"
        whole.append(
            [
                v.way.method,
                f"{v.whole['overhead']['percent']:.2f}",
                first,
                *("-" if one is None else f"{one['median']:.0f}" for one in behind),
            ]
        )
    yield "Beside a block, ms", markdown_table(["method"], ["overhead, %", "first frames", *switched], whole)
    absent = ([row.kind, str(row.way), row.reason, f"{row.forecast_s:.0f}"] for row in rows if row.values is None)
    yield "Not measured", markdown_table(["what", "how", "why"], ["forecast, s"], absent)
    spent = ([row.kind, str(row.way), f"{row.forecast_s:.1f}", "-" if row.seconds is None else f"{row.seconds:.1f}"] for row in rows)
    yield "The plan", markdown_table(["what", "how"], ["forecast, s", "took, s"], spent)


def decoders(ways: Ways) -> list[str]:
    """The requested decoder and the small one."""
    return list(dict.fromkeys((ways.decoder, "taehv")))


def planned(size: CardSize, ways: Ways, base: Variant, program: Path | None) -> list[Measurement]:
    """The plan, with another code's program behind the plain blocks of all methods."""
    methods = ways.method.split(",")
    rows = sizing.plan(size, base, methods, decoders(ways))
    if program is not None:
        rows.insert(len(methods), Measurement("reference", Variant(program.name, *3 * "-"), others.FORECAST_S))
    return rows


def told_plan(ways: Ways, program: Path | None = None) -> Iterator[str]:
    """The plan and its forecast seconds on this machine's GPU or, without one, on an H100; nothing is measured."""
    name = provenance.gpu_name() or ASSUMED
    parts = parts_to_load(config_of(replace(ways, device="cpu", geometry="native")))
    size = CardSize(
        parts.network, parts.geometry, ways.blocks, parts.schedule.draws, flops.peak_tflops(name, ways.dtype) or sizing.UNLISTED["cuda"]
    )
    base = Variant(ways.method.partition(",")[0], ways.kernel, ways.compile, ways.window)
    rows = planned(size, ways, base, program)
    yield from (f"{row.forecast_s:6.1f} s  {row.kind}  {row.way}" for row in rows)
    yield f"{sum(row.forecast_s for row in rows):6.0f} s in all on {name}, of {ways.seconds}; a forecast from operations and published peak"


def card(ways: Ways = USUAL, *, reference: Path | None = None, output: Path | None = None, dry_run: bool = False) -> Iterator[str]:
    """Measure speed and memory of a GPU in twelve minutes: one JSON file and one page, written after every measurement.

    Measured are blocks and passes with each mode of compilation, each attention kernel that is installed, and a shared and a resident
    window; frames end to end with either decoder, after each block and beside the next one; kernels by time, counts of operations and
    waits; bf16 against fp32; and for each method the same as `echo-harness bench`. A measurement for which this machine lacks something
    becomes a line with the reason. A CPU runs everything at tiny sizes as a rehearsal.

        echo-harness bench card --dry-run
        echo-harness bench card seconds=540 --output card.json

    Args:
        ways: what is measured; the first two methods are measured in every variant, one setting changed at a time.
        reference: a program that times another code's blocks in an environment of its own, and ends with its times as one line of JSON.
        output: the JSON file, with the page beside it as .md; by default under results/bench, named after what it holds.
        dry_run: only print the plan and its forecast seconds, on an H100 if this machine has no GPU.
    """
    if reference is not None:
        others.check(reference)
    if dry_run:
        yield from told_plan(ways, reference)
        return
    begun, ways = time.monotonic(), resolved("card", ways)
    for method in ways.method.split(","):
        make_policy({"method": method})
    name = provenance.gpu_name() if ways.device == "cuda" else provenance.cpu()
    peak = flops.peak_tflops(name, ways.dtype) if ways.device == "cuda" else None
    work = CardBench(ways, peak, reference)
    work.rows = planned(work.size(), ways, work.base, reference)
    settings = {key: str(value) for key, value in asdict(ways).items()}
    argv = ["echo-harness bench card", *(f"{key}={value}" for key, value in settings.items())]
    argv += [] if reference is None else ["--reference", str(reference)]
    file = CardFile(1, "card", ways.device, name, peak, ways.geometry, settings, provenance.describe(argv, settings), work.rows)
    path = output or RESULTS / "bench" / f"card-{re.sub('[^a-z0-9]+', '-', f'{ways.backbone} {ways.geometry} {name}'.lower())}.json"

    def keep(row: Measurement) -> None:
        file.took_s = round(time.monotonic() - begun, 1)
        write_atomic(path, msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n")
        write_atomic(path.with_suffix(".md"), page(file).encode())
        say(f"{row.kind} {row.way}: {row.reason or f'{row.seconds} s'}")

    sizing.carry_out(work.rows, ways.seconds - (time.monotonic() - begun), work.do, keep)
    yield f"{sum(row.values is not None for row in work.rows)} of {len(work.rows)} measurements in {file.took_s:.0f} s on {name}"
    yield f"written: {path} and {path.with_suffix('.md').name}"
