"""Speed and memory of cache policies on a backbone of Wan2.1's architecture, on the device at hand.

`speed` ends within `seconds`, divided among the methods; measurements that did not fit are noted. Text embeddings are random: no encoder
is loaded, and its time is in no figure. The JSON file holds all values and their provenance.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from torch import Tensor

from baselines.presets import make_policy, preset
from echo.backbone.extras import need
from echo.backbone.interface import VideoModel, latent_shape
from echo.backbone.real import Parts, RealBackbone
from echo.cache.plan import Step
from echo.cache.policy import Policy, held_frames
from echo.files import RESULTS
from echo.noise import keyed_noise
from echo.rollout import Rollout
from echo.scene import SceneStart, Script
from jobs.bench import flops
from jobs.bench.measure import LEAST_BLOCKS, Rig, measure, setup_of
from jobs.bench.stopwatch import Figures
from jobs.memory.forecast import forecast, gb
from jobs.memory.measured import Meter
from jobs.memory.parts import codec_sizes
from jobs.spec import backbones, compose
from jobs.spec.config import RunConfig
from jobs.spec.mistakes import explained
from jobs.store import provenance
from jobs.work.models import parts_to_load
from jobs.work.progress import say

KINDS = {"speed": "", "parity": "parity", "one_block": "block"}
"""`what` of a JSON file -> the subcommand of `echo-harness bench` that writes it."""


@dataclass(frozen=True)
class Ways:
    """Settings of the measurements.

    Attributes:
        backbone: a backbone of Wan2.1's architecture.
        weights: random or trained.
        method: presets; a measurement of one method takes the last.
        geometry: native or tiny; native on a GPU by default, tiny on a CPU.
        blocks: number of blocks measured once the window is full.
        compile: none, blocks or graphs.
        kernel: the attention kernel.
        window: how the window's keys and values are stored: shared or apart.
        dtype: the network's type.
        decoder: wan or taehv.
        codec_dtype: the decoder's type; its own by default.
        seconds: time limit for all methods together.
        threads: threads on a CPU.
        device: cuda or cpu; by default a GPU if there is one.
        batch: prompts at a time.
        checkpoints: the folder of weights.
    """

    backbone: str = "self_forcing"
    weights: str = "random"
    method: str = "self_forcing,longlive,infinity_rope,deep_forcing_official,rolling_sink,echo"
    geometry: Literal["", "native", "tiny"] = ""
    blocks: int = 20
    compile: str = "none"
    kernel: str = "auto"
    window: str = "shared"
    dtype: str = "bfloat16"
    decoder: str = "wan"
    codec_dtype: str = ""
    seconds: int = 480
    threads: int = 1
    device: str = ""
    batch: int = 1
    checkpoints: str = "checkpoints"


def resolved(what: str, ways: Ways) -> Ways:
    """The settings with `device` and `geometry` filled in. Raises ValueError for invalid values."""
    for key in ("blocks", "seconds", "threads", "batch"):
        if getattr(ways, key) < 1:
            raise ValueError(f"{key}={getattr(ways, key)}: a whole number from 1 on; nearest is {getattr(Ways(), key)}")
    if ways.blocks < LEAST_BLOCKS:
        raise ValueError(f"blocks={ways.blocks}: a median wants some; nearest is {LEAST_BLOCKS}")
    device = ways.device or ("cuda" if torch.cuda.is_available() and what != "block" else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda: torch sees no CUDA card here; nearest is device=cpu")
    torch.set_num_threads(ways.threads)
    return replace(ways, device=device, geometry=ways.geometry or ("native" if device == "cuda" or what == "block" else "tiny"))


def config_of(ways: Ways) -> RunConfig:
    """The run config of these settings, checked and resolved like a run's. Raises ValueError."""
    if "parts" not in preset("backbone", ways.backbone):
        raise ValueError(f"backbone={ways.backbone}: has no parts to be measured; nearest is backbone=self_forcing")
    words = [f"{name}={getattr(ways, name)}" for name in ("backbone", "weights", "geometry", "checkpoints", "batch")]
    words += [f"backbone.{name}={getattr(ways, name)}" for name in ("dtype", "threads")]
    parts = ("device", "kernel", "compile", "window", "decoder", "codec_dtype")
    words += [f"backbone.parts.{name}={value}" for name in parts if (value := getattr(ways, name))]
    with explained(words):
        plain = compose.one(words)
    return backbones.checked(plain, biased=any(make_policy({"method": method}).biased for method in ways.method.split(",")))


def text_rows(parts: Parts, batch: int) -> Tensor:
    """Random text embeddings of full length, [B, text_len, text_dim]."""
    c = parts.network
    rows = torch.randn(batch, c.text_len, c.text_dim, generator=torch.Generator().manual_seed(1))
    dtype = torch.bfloat16 if parts.dtype == "bfloat16" else torch.float32
    return rows.to(parts.device, dtype)


def memory_fields(parts: Parts) -> Figures:
    """Fields of `jobs.memory.forecast.Setup` that describe how the parts are computed."""
    return {
        "dtype": parts.dtype, "codec_dtype": parts.codec_dtype, "codec": codec_sizes(parts.decoder, parts.size), "text_on_device": False,
        "timesteps": len(parts.schedule.clock),
    }  # fmt: skip


def speed(ways: Ways, methods: Sequence[str], tell: Callable[[str], None] = say) -> Figures:
    """Measure methods one after the other; returns the content of the JSON file."""
    for method in methods:
        make_policy({"method": method})  # refuse it now rather than minutes later
    begun = time.monotonic()
    config = config_of(ways)
    parts = parts_to_load(config)
    if parts.decoder == "wan":
        need("diffusers.models.autoencoders.autoencoder_kl_wan")  # before measuring, so that the library's memory is in no figure
    whole = Meter(parts.device)
    whole.start()
    backbone = RealBackbone(parts)
    _ = backbone.network, backbone.codec
    loaded_s = time.monotonic() - begun
    blocks, batch = ways.blocks, ways.batch
    rig = Rig(backbone, parts.network, text_rows(parts, batch), blocks, 0.0, batch, memory_fields(parts), whole, compile=parts.compile)
    rig.rehearse(methods)
    head = _head("speed", ways, config, backbone)  # code and settings at the start, whatever is committed meanwhile
    peak = flops.peak_tflops(provenance.gpu_name(), parts.dtype) if parts.device == "cuda" else None
    rows, failed = list[Figures](), dict[str, str]()
    for index, method in enumerate(methods):
        rig.method_s = 0.95 * max(0.0, ways.seconds - (time.monotonic() - begun)) / (len(methods) - index)
        try:
            row = measure(rig, method)
        except (RuntimeError, ValueError) as error:  # if memory is too small for one method, the others are still measured
            failed[method] = str(error).splitlines()[0]
            tell(f"{method}: not measured: {failed[method]}")
            rig.release()
            continue
        row["percent_of_peak"] = None if peak is None else round(100 * row["tflops"] / peak, 2)
        rows.append(row)
        tell(_told(row))
    return head | {
        "load_s": round(loaded_s, 2),
        "clock": rig.watch.clock,
        "device_peak_tflops": peak,
        "text": "random rows; encoding is in no figure",
        "noise": "drawn once; drawing is in no figure",
        "methods": rows,
        "failed": failed,
        "seconds": round(time.monotonic() - begun, 1),
    }


def _told(row: Mapping[str, Any]) -> str:
    memory = row["memory"]
    return (
        f"{row['method']}: block {row['block_ms']['median']:.1f} ms (p95 {row['block_ms']['p95']:.1f}), {row['fps_dit']:.2f} FPS, "
        f"end to end {row['fps_end_to_end']:.2f}, overhead {row['overhead']['percent']:.2f} %, memory {gb(memory['measured_bytes'])} GB "
        f"({gb(memory['computed_bytes'])} computed)" + "".join(f"; {note}" for note in row["notes"])
    )


def _head(what: str, ways: Ways, config: RunConfig, backbone: VideoModel) -> Figures:
    """The JSON file's head: measurement, settings, device and code."""
    parts, g = backbones.parts_of(config), backbone.geometry
    values = {key: str(value) for key, value in asdict(ways).items()}
    used = values | {"device": parts.device, "kernel": parts.kernel, "codec_dtype": parts.codec_dtype}
    facts = provenance.describe([f"echo-harness bench {KINDS[what]}".rstrip(), *(f"{key}={value}" for key, value in values.items())], used)
    return {
        "v": 1,
        "what": what,
        "backbone": config.backbone.name,
        "label": config.backbone.label,
        "weights": config.weights,
        "geometry": config.geometry,
        "frame_px": [parts.height_px, parts.width_px],
        "tokens_per_frame": g.tokens_per_frame,
        "device": parts.device,
        "device_name": provenance.gpu_name() if parts.device == "cuda" else provenance.cpu(),
        **{name: used[name] for name in ("dtype", "kernel", "compile", "window", "decoder", "codec_dtype", "threads", "batch")},
        "provenance": msgspec.to_builtins(facts),
    }


def latents(backbone: VideoModel, policy: Policy, rows_BLT: Tensor, blocks: int) -> list[Tensor]:
    """Clean latents of the first blocks, fp32 on the host; the noise is the same for every type and device.

    The frame store has room for these blocks only, so that fp32 at full size fits a GPU with 24 GB.
    """
    geometry = backbone.geometry
    noise = keyed_noise(0, ["parity"] * len(rows_BLT), latent_shape(geometry), dtype=backbone.dtype, device=backbone.device)
    plans = [policy.block_plan(Step(block, (SceneStart(0),), geometry)) for block in range(blocks)]
    rollout = Rollout(
        backbone.network, policy, geometry, noise, batch=len(rows_BLT), steps=backbone.schedule,
        attention=backbone.attention, shared_window=backbone.shared_window, capacity=held_frames(plans),
    )  # fmt: skip
    rollout.switch(rows_BLT.to(backbone.device, backbone.dtype))
    return [rollout.next().latents.float().cpu().clone() for _ in range(blocks)]


def gap(some: Sequence[Tensor], others: Sequence[Tensor]) -> Figures:
    """Largest and mean difference of each block's latents, and the standard deviation of the first list's latents for comparison."""
    gaps = [(a - b).abs() for a, b in zip(some, others, strict=True)]
    largest, mean = [float(part.max()) for part in gaps], [float(part.mean()) for part in gaps]
    spread, blocks = float(some[0].std()), len(gaps)
    return {
        "blocks": blocks,
        "max": [round(value, 9) for value in largest],
        "mean": [round(value, 9) for value in mean],
        "std": round(spread, 6),
        "words": f"{blocks} blocks, largest difference {max(largest):.3g}, mean {sum(mean) / blocks:.3g}; latents' deviation {spread:.3g}",
    }


def parity(ways: Ways) -> Figures:
    """bf16 against fp32, and each mode of compilation that this device supports against eager, with equal noise; one network at a time."""
    config = config_of(replace(ways, compile="none", dtype="float32"))
    parts, blocks, method = parts_to_load(config), min(8, ways.blocks), ways.method.split(",")[-1]
    policy, card = make_policy({"method": method}), parts.device == "cuda"
    eager, modes = ("bfloat16", ["blocks", "graphs"]) if card else ("float32", ["blocks"])
    asked = [("float32", "none"), ("bfloat16", "none"), *((eager, mode) for mode in modes)]
    backbone, made = RealBackbone(parts), dict[tuple[str, str], list[Tensor]]()
    head = _head("parity", replace(ways, dtype="float32"), config, backbone)
    for dtype, mode in asked:
        backbone = RealBackbone(replace(parts, dtype=dtype, compile=mode))
        made[dtype, mode] = latents(backbone, policy, text_rows(parts, 1), blocks)
    pairs = {"bfloat16 against float32": gap(made["float32", "none"], made["bfloat16", "none"])}
    pairs |= {f"compile={mode} against eager, {eager}": gap(made[eager, "none"], made[eager, mode]) for mode in modes}
    return head | {"method": method, "pairs": pairs}


def one_block(ways: Ways) -> Figures:
    """The first block of a rollout at full size; its memory holds the block's own frames in the store and no past."""
    config = config_of(ways)
    parts, method = parts_to_load(config), ways.method.split(",")[-1]
    policy, begun, meter = make_policy({"method": method}), time.perf_counter(), Meter(parts.device)
    meter.start()
    backbone = RealBackbone(parts)
    rig = Rig(backbone, parts.network, text_rows(parts, 1), 1, 0.0, 1, memory_fields(parts) | {"codec": None}, meter)
    head = _head("one_block", ways, config, backbone)
    loaded_s, start = time.perf_counter() - begun, time.perf_counter()
    rollout = rig.rollout(policy)
    rig.switch(rollout)
    block = rollout.next()
    rig.watch.wait()
    block_s = time.perf_counter() - start
    computed = forecast(setup_of(rig, policy, Script(tuple(rig.starts), 1)))
    work = flops.block(parts.network, backbone.geometry, backbone.geometry.frames_per_block, backbone.schedule.draws)
    passes = [round(ms / 1e3, 3) for _, ms in rig.network.taken()]
    return head | {
        "method": method,
        "load_s": round(loaded_s, 2),
        "block_s": round(block_s, 2),
        "clock": rig.watch.clock,
        "pass_s": passes,
        "tflop": round(work.total / 1e12, 3),
        "gflops": round(work.total / 1e9 / block_s, 1),
        "finite": bool(torch.isfinite(block.latents).all()),
        "latents_std": round(float(block.latents.float().std()), 4),
        "memory": meter.compared(computed.rollout_phase),
        "forecast": computed.as_json(),
        "note": "the codec is not loaded; the store is made whole, as for a video without end, and holds the block's own frames",
    }


def write(result: Mapping[str, Any], output: Path | None) -> Path:
    """Write the JSON file, by default in results/bench, and return its path."""
    name = re.sub(r"[^a-z0-9]+", "-", f"{result['what']} {result['backbone']} {result['geometry']} {result['device_name']}".lower()).strip(
        "-"
    )
    path = output or RESULTS / "bench" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path


def bench(ways: Ways = Ways(), *, output: Path | None = None) -> list[str]:
    """Measure speed and memory of cache policies on a backbone of Wan2.1's architecture, on the device at hand.

    Measured are milliseconds of a block and of each pass, the three speeds, policy overhead, the first block after each kind of switch,
    recache, codec, measured and computed memory, and TFLOP/s.

        echo-harness bench backbone=self_forcing weights=random method=echo,self_forcing

    Args:
        ways: settings of the measurement.
        output: the JSON file; by default under results/bench, named after what it holds.
    """
    result = speed(resolved("speed", ways), ways.method.split(","))
    done = f"{len(result['methods'])} methods in {result['seconds']:.0f} s on {result['device_name']}"
    return [done, f"written: {write(result, output)}"]


def compare(ways: Ways = Ways(), *, output: Path | None = None) -> list[str]:
    """Compare latents of bf16 with fp32, and compiled with eager, with the same noise, text and random weights.

        echo-harness bench parity geometry=tiny blocks=6

    Args:
        ways: settings of the comparison.
        output: the JSON file; by default under results/bench, named after what it holds.
    """
    result = parity(resolved("parity", ways))
    return [*(f"{name}: {pair['words']}" for name, pair in result["pairs"].items()), f"written: {write(result, output)}"]


def block(ways: Ways = Ways(), *, output: Path | None = None) -> list[str]:
    """Measure a single block at full size with an almost empty cache.

        echo-harness bench block method=echo threads=2

    Args:
        ways: settings of the measurement.
        output: the JSON file; by default under results/bench, named after what it holds.
    """
    result = one_block(resolved("block", ways))
    memory = result["memory"]
    return [
        f"{result['method']}: one block in {result['block_s']} s ({result['gflops']} GFLOP/s); "
        f"memory {gb(memory['measured_bytes'])} GB, computed {gb(memory['computed_bytes'])} GB",
        f"written: {write(result, output)}",
    ]
