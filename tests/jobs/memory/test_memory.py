"""The forecast of memory against tensors that are really made: counted on the meta device at the true size, and at a tiny one."""

from __future__ import annotations

import weakref
from collections import deque
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode

from baselines.presets import make_policy
from echo.backbone import sizes
from echo.cache.plan import Step
from echo.cache.policy import held_frames
from echo.rollout import Rollout
from echo.scene import SceneStart, Script, Transition
from jobs.memory.forecast import GB, Setup, forecast, walk
from jobs.memory.measured import Meter, reset_peak, resident
from jobs.memory.parts import CodecMemory, TaehvMemory, TextMemory, codec_sizes, frame_bytes, network_parameters, text_sizes
from tests.helpers.policies import PRESETS

torch.set_num_threads(1)
NATIVE = sizes.SIZES["native"]
GEOMETRY = sizes.geometry(NATIVE.network, NATIVE.height_px, NATIVE.width_px, 21)
TINY = sizes.SIZES["tiny"]
SMALL = sizes.geometry(TINY.network, TINY.height_px, TINY.width_px, 21)
SCRIPT = Script(
    (SceneStart(0), SceneStart(9, Transition.hard), SceneStart(17, Transition.smooth), SceneStart(25, Transition.recall, 0)), 34
)
WITH_MEMORY = (
    "echo",
    "echo_recall_none",
    "longlive_echo",
    "deep_forcing_official",
    "deep_forcing_sink",
    "memrope",
    "longlive",
    "self_forcing_recache",
)


class Live(TorchDispatchMode):
    """Bytes of all storages made while it is on, now and at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in tree_flatten(out)[0]:
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                key = storage._cdata
                if key not in self._known:
                    self._known.add(key)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._gone, key, storage.nbytes())
        self.most = max(self.most, self.now)
        return out


def policy_of(name: str, changes: dict | None = None):
    return make_policy({"method": name} | {f"method.{key.replace('__', '.')}": value for key, value in (changes or {}).items()})


def rollout_of(policy, network, geometry, device: str, *, shared: bool, batch: int = 1):
    """A real rollout whose attention product is left out."""
    from echo.backbone.wan import WanModel

    with torch.device(device):
        model = WanModel(network).to(torch.bfloat16).eval().requires_grad_(False)
    shape = (batch, geometry.frames_per_block, geometry.latent_channels, geometry.latent_height, geometry.latent_width)
    noise = torch.zeros(shape, dtype=torch.bfloat16, device=device)
    rollout = Rollout(
        model,
        policy,
        geometry,
        lambda block, draw: noise,
        batch=batch,
        shared_window=shared,
        attention=lambda q, *others: torch.empty_like(q),
    )
    return rollout, torch.zeros(batch, network.text_len, network.text_dim, dtype=torch.bfloat16, device=device)


def test_parameters_of_the_network_are_those_of_the_checkpoint():
    from echo.backbone.wan import WanModel

    assert network_parameters(NATIVE.network) == 1_418_996_800
    with torch.device("meta"):
        counted = sum(p.numel() for p in WanModel(TINY.network).parameters())
    assert network_parameters(TINY.network) == counted, f"{network_parameters(TINY.network)} computed, {counted} counted"


@pytest.mark.parametrize("size", ["tiny", "native"])
def test_parameters_and_cache_of_the_decoder(size):
    from echo.backbone.parts.vae import _parts

    parts, codec = _parts(sizes.CODECS[size]), codec_sizes("wan", size)
    counted = sum(p.numel() for part in parts for p in part.parameters())
    assert codec.parameters == counted, f"{codec.parameters} computed, {counted} counted"


def test_parameters_of_the_small_decoder():
    from echo.backbone.parts.taehv import TaehvDecoder

    with torch.device("meta"):
        counted = sum(p.numel() for p in TaehvDecoder().parameters())
    assert TaehvMemory().parameters == counted, f"{TaehvMemory().parameters} computed, {counted} counted"


@pytest.mark.parametrize(("size", "random"), [("native", True), ("native", False), ("tiny", True)])
def test_parameters_of_the_text_encoder(size, random):
    from echo.backbone.parts.umt5 import _model

    ours = text_sizes(size, random)
    with torch.device("meta"):
        model = _model(ours)
    counted = sum(p.numel() for p in model.parameters())
    assert ours.parameters == counted, f"{ours.parameters} computed, {counted} counted"
    assert random or 5.6e9 < counted < 5.7e9


@pytest.mark.parametrize(("name", "window"), [*((name, "shared") for name in WITH_MEMORY), ("echo", "resident")])
def test_cache_is_told_to_the_byte(name, window):
    """Store, window and memories of a rollout over four scenes."""
    policy, network, geometry = policy_of(name), TINY.network, SMALL
    rollout, rows = rollout_of(policy, network, geometry, "cpu", shared=window == "shared")
    starts, most, chosen = {start.block: start for start in SCRIPT.starts}, 0, 0
    for block in range(SCRIPT.blocks):
        if block in starts:
            rollout.switch(rows, starts[block].transition, starts[block].recalls)
        rollout.next()
        choice = tree_flatten([tuple(one) for one in rollout.window._chosen if one is not None])[0]
        chosen = max(chosen, sum(part.numel() * part.element_size() for part in choice if part is not None))
        kept = rollout.store._named.values()
        named = {
            part.untyped_storage()._cdata: part.untyped_storage().nbytes()
            for m in kept
            for n in m.values()
            for part in n
            if part is not None
        }
        most = max(most, sum(named.values()))
    told = forecast(Setup(network, geometry, policy, SCRIPT, window=window))
    window_bytes = rollout.window.k.untyped_storage().nbytes() + rollout.window.v.untyped_storage().nbytes()
    assert (told.store, told.window, told.named, told.chosen) == (rollout.store.bytes, window_bytes, most, chosen)


@pytest.mark.parametrize("name", ["tethercache", "tethercache_commit", "memflow"])
def test_memories_that_a_policy_lays_out_itself_are_told_once(name):
    """All tensors of its device side: what stands under names, and statistics."""
    policy, network = policy_of(name), TINY.network
    rollout, rows = rollout_of(policy, network, SMALL, "cpu", shared=True, batch=2)
    rollout.switch(rows)
    for _ in range(SCRIPT.blocks):
        rollout.next()
    told, counted = forecast(Setup(network, SMALL, policy, SCRIPT, batch=2)), sum(storages(rollout.memory).values())
    assert told.store == rollout.store.bytes and told.named + told.statistics == pytest.approx(counted, rel=0.01)


def test_memories_that_leave_the_pool_are_let_go():
    """Two scenes back can be recalled: two memories, and a third until the block behind a switch is done."""
    cuts = Script((SceneStart(0), *(SceneStart(4 * scene, Transition.hard) for scene in range(1, 8))), 32)
    assert walk(policy_of("echo", {"routing__pool_scenes": 2}), SMALL, cuts).named == 3
    assert walk(policy_of("echo"), SMALL, cuts).named == 7


@pytest.mark.parametrize(("name", "changes"), PRESETS)
def test_the_store_holds_what_the_walk_says(name, changes):
    policy = policy_of(name, changes)
    found, plans = walk(policy, SMALL, SCRIPT), []
    scene = 0
    for block in range(SCRIPT.blocks):
        scene += any(start.block == block for start in SCRIPT.starts[1:])
        plans.append(policy.block_plan(Step(block, SCRIPT.starts[: scene + 1], SMALL)))
    assert found.stored == held_frames(plans) <= policy.store_frames(SMALL)
    assert found.context + 3 <= 21


@pytest.mark.parametrize("name", ["echo", "echo_paper", "deep_forcing_official"])
def test_statistics_are_told_to_the_byte(name):
    """What a policy keeps beside frames, summed over its memory's tensors once all of them are there."""
    policy = policy_of(name)
    rollout, rows = rollout_of(policy, TINY.network, SMALL, "cpu", shared=True, batch=2)
    starts, most = {start.block: start for start in SCRIPT.starts}, 0
    for block in range(SCRIPT.blocks):
        if block in starts:
            rollout.switch(rows, starts[block].transition, starts[block].recalls)
        rollout.next()
        most = max(most, sum(storages(rollout.memory).values()))
    told = forecast(Setup(TINY.network, SMALL, policy, SCRIPT, batch=2)).statistics
    assert told == pytest.approx(most, rel=0.02, abs=2048), f"{told} told, {most} counted"


def storages(memory) -> dict[int, int]:
    """Storages of the tensors that a memory holds, by their address."""
    found: dict[int, int] = {}

    def look(value) -> None:
        if isinstance(value, torch.Tensor):
            found[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, (list, tuple, deque)):
            for part in value:
                look(part)
        elif hasattr(value, "query_sum_BHD"):
            look(list(vars(value).values()))

    for name, value in vars(memory).items():
        if name not in ("store", "policy", "geometry"):
            look(value)
    return found


@pytest.mark.parametrize(("name", "window"), [("echo", "shared"), ("self_forcing_recache", "resident")])
def test_a_rollouts_peak_at_the_true_size(name, window):
    """Every tensor of whole blocks on the meta device, one layer of the true size and no attention product."""
    policy, network = policy_of(name), replace(NATIVE.network, layers=1)
    geometry = sizes.geometry(network, NATIVE.height_px, NATIVE.width_px, 21)
    script = Script((SceneStart(0), SceneStart(8, Transition.hard)), 9)
    with Live() as live:
        rollout, rows = rollout_of(policy, network, geometry, "meta", shared=window == "shared")
        for block in range(script.blocks):
            if block in (0, 8):
                rollout.switch(rows, Transition.hard if block else None)
            rollout.next()
    told = forecast(Setup(network, geometry, policy, script, window=window, codec=None)).rollout_phase
    assert 0.97 < told / live.most < 1.25, f"{told / GB:.3f} GB told, {live.most / GB:.3f} GB counted"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_decodings_peak_at_the_true_size(dtype):
    from echo.backbone.parts.vae import CHANNELS, LATENT_MEAN, LATENT_STD, WanCodec, _parts

    decoder, entry = (part.to(dtype) for part in _parts(sizes.CodecSizes()))
    codec = WanCodec(decoder, entry, torch.tensor(LATENT_MEAN).to("meta"), torch.tensor(LATENT_STD).to("meta"))
    stream, shape = codec.stream(), (1, 1, CHANNELS, GEOMETRY.latent_height, GEOMETRY.latent_width)
    item = torch.empty(0, dtype=dtype).element_size()
    with Live() as live:
        stream.decode(torch.zeros(shape, device="meta"))
        stream.decode(torch.zeros(shape, device="meta"))
        kept = live.now
        stream.decode(torch.zeros(shape, device="meta"))
    with FlopCounterMode(display=False) as counter:
        stream.decode(torch.zeros(shape, device="meta"))
    told = CodecMemory()
    counted = counter.get_total_flops()
    assert told.operations(480, 832) == pytest.approx(counted, rel=0.01), "of convolutions; an attention in the middle is below a hundredth"
    cache, work = told.cache(480, 832, item), told.work(480, 832, item)
    assert cache == pytest.approx(kept, rel=0.02), f"{cache} told, {kept} counted"
    assert 0.97 < (cache + work) / live.most < 1.25, f"{(cache + work) / GB:.3f} GB told, {live.most / GB:.3f} GB counted"


def test_echo_at_the_real_geometry_needs_less_than_half_of_the_released_codes_cache():
    """The target: 11.5 GB of cache state, all on a 24 GB card with the text encoder freed; the released code needs about 25 GB."""
    six = Script(
        (
            SceneStart(0),
            *(SceneStart(13 * i, Transition.recall, i - 3) if i > 2 else SceneStart(13 * i, Transition.hard) for i in range(1, 6)),
        ),
        80,
    )
    told = forecast(Setup(NATIVE.network, GEOMETRY, policy_of("echo"), six))
    assert told.cache <= 11.5 * GB, told.line()
    assert told.peak <= 24 * GB and not told.advice(24 * 1024**3), told.line()
    assert frame_bytes(GEOMETRY, 1, 2) * 21 == 6_038_323_200, "the published 6.04 GB of a window of 21"


def test_the_line_and_the_advice_name_what_they_save():
    setup = Setup(
        NATIVE.network,
        GEOMETRY,
        policy_of("self_forcing"),
        Script((SceneStart(0),), 80),
        batch=2,
        dtype="float32",
        window="resident",
        codec_dtype="float32",
    )
    told = forecast(setup)
    assert "peak" in told.line(24 * GB) and "of 24.00 GB" in told.line(24 * GB) and "\n" not in told.line()
    lines = told.advice(12 * GB)
    assert any(line.startswith("backbone.parts.window=shared saves ") for line in lines), lines
    assert any(line.startswith("backbone.dtype=bfloat16 saves ") for line in lines), lines
    assert any(line.startswith("batch=1 saves ") for line in lines), lines
    assert told.advice(10**15) == [] and "larger device" in told.advice(10**6)[-1]


def test_memory_grows_as_its_parts_say():
    base = Setup(NATIVE.network, GEOMETRY, policy_of("echo"), SCRIPT)
    told = forecast(base)
    assert forecast(replace(base, dtype="float32")).store == 2 * told.store
    assert forecast(replace(base, batch=2)).store == 2 * told.store
    assert forecast(replace(base, window="resident")).window == 30 * told.window
    assert forecast(replace(base, text_on_device=False)).text_phase == 0
    small = forecast(replace(base, policy=policy_of("memrope")))
    assert told.peak == told.rollout_phase > told.text_phase and small.peak == small.text_phase > small.rollout_phase
    assert told.as_json()["bytes"]["peak"] == told.peak
    with pytest.raises(ValueError, match="dtype 'int4': one of float32, bfloat16"):
        forecast(replace(base, dtype="int4"))


def test_text_encoder_in_bfloat16_is_what_people_see():
    assert 11.3 * GB < TextMemory().parameters * 2 < 11.4 * GB


def test_meter_sees_what_a_process_takes():
    if not resident("VmRSS"):
        pytest.skip("the system does not tell")
    meter = Meter("cpu")
    meter.start()
    held = torch.ones(16 * 2**20)  # 64 MiB, every page of it written
    first = meter.peak()
    del held
    reset_peak()
    meter.again()
    assert 60 * 2**20 < first < 80 * 2**20 and meter.peak() < 20 * 2**20
    assert meter.compared(first)["measured"].startswith("growth of resident memory")
