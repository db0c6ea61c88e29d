"""Plans in blocks of one frame over the time of 80 blocks of three, against buffers that are moved by hand, one frame a block."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from baselines.deep_forcing import Participation
from echo.backbone.wan import WanConfig, WanModel
from echo.cache.policy import plans
from echo.geometry import Geometry
from echo.noise import keyed_noise
from echo.recording import Recorder
from echo.rollout import Rollout
from echo.scene import SceneStart, Script, Transition
from tests.helpers.policies import frame_wise, make_frame_wise

Keys = list[tuple[str, int | None]]
SIZES = Geometry(1, 1, 6, 1, 1, frames_per_block=1)
S, HARD, RECALL = Transition.smooth, Transition.hard, Transition.recall
ENTRIES = (SceneStart(13, HARD, None, 45), SceneStart(27, S), SceneStart(40, RECALL, 0, 4), SceneStart(53, S), SceneStart(67, S))
SIX = frame_wise(Script((SceneStart(0), *ENTRIES), 80))
ONE = frame_wise(Script((SceneStart(0),), 80))


def walk(script: Script) -> Iterator[tuple[int, SceneStart | None]]:
    """(frame, the switch that happens there)."""
    begins = {start.block: start for start in script.starts[1:]}
    for frame in range(script.blocks):
        yield frame, begins.get(frame)


def at_home(buffer: list[str]) -> Keys:
    """Frames at their own numbers."""
    return [(name, int(name[1:])) for name in buffer]


def in_slots(buffer: list[str]) -> Keys:
    return [(name, slot) for slot, name in enumerate(buffer)]


def self_forcing(script: Script) -> Iterator[Keys]:
    buffer: list[str] = []
    for frame, _ in walk(script):
        if len(buffer) == 21:
            buffer.pop(0)
        buffer.append(f"f{frame}")
        yield at_home(buffer)


def longlive(script: Script) -> Iterator[Keys]:
    buffer: list[str] = []
    for frame, _ in walk(script):
        if len(buffer) == 12:
            buffer.pop(3)
        buffer.append(f"f{frame}")
        yield at_home(buffer)


def streaming_llm(script: Script) -> Iterator[Keys]:
    buffer: list[str] = []
    for frame, _ in walk(script):
        if len(buffer) == 21:
            buffer.pop(3)
        buffer.append(f"f{frame}")
        yield in_slots(buffer)


def infinity_rope(script: Script) -> Iterator[Keys]:
    buffer: list[str] = []
    for frame, switch in walk(script):
        buffer = buffer[-2:] if switch is not None else buffer[-20:]
        buffer.append(f"f{frame}")
        cut = switch is not None and switch.transition is not S
        yield [*in_slots(buffer[:-1]), (buffer[-1], 45 if cut else len(buffer) - 1)]


def rolling_sink(script: Script) -> Iterator[Keys]:
    buffer: list[str] = []
    wave = [*range(18), *range(17, -1, -1)]
    for frame, _ in walk(script):
        buffer = [*buffer[-20:], f"f{frame}"]
        yield [(name, frame + 1 - len(buffer) + slot) for slot, name in enumerate(buffer)]
        if len(buffer) > 3:  # what is no longer among the three recent ones is overwritten
            buffer[-4] = f"f{wave[(frame - 3) % 36]}"


def deep_forcing_official(script: Script) -> Iterator[Keys]:
    rest: list[str] = []
    start = 0
    for frame, _ in walk(script):
        rest.append(f"f{frame}")
        now = len(rest) > 21
        if now:
            rest = rest[:10] + ["cmp", "cmp"] + rest[-4:]
            start = 21 - 16 if frame == 21 else start + 6
        sink: Keys = [(name, start + i) for i, name in enumerate(rest[:10])]
        yield sink + [(name, int(name[1:]) if name[0] == "f" else None) for name in rest[10:]]
        if now:
            rest[10:12] = ["top0", "top1"]


def memrope(script: Script) -> Iterator[Keys]:
    buffer: list[str] = []
    for frame, _ in walk(script):
        if len(buffer) == 12:
            buffer = buffer[:3] + ["long", "short"] + buffer[6:]
        buffer.append(f"f{frame}")
        yield in_slots(buffer)


def reward_ema(script: Script) -> Iterator[Keys]:
    buffer: list[str] = []
    for frame, _ in walk(script):
        if len(buffer) == 9:
            buffer = ["ema0", *buffer[2:]]
        buffer.append(f"f{frame}")
        yield in_slots(buffer)


def relax_forcing(script: Script) -> Iterator[Keys]:
    buffer: list[str] = []
    for frame, _ in walk(script):
        if len(buffer) <= 4:
            yield at_home([*buffer, f"f{frame}"])
        else:
            yield [("f0", frame - 4), ("f1", frame - 3), ("cmp", frame - 2), (buffer[-1], frame - 1), (f"f{frame}", frame)]
        buffer = (buffer + [f"f{frame}"])[-120:]


def echo(script: Script) -> Iterator[Keys]:
    """Fourteen anchors that take in one frame of the pool a block, three compressed, three recent; old memory in front, a jump."""
    window: list[str] = []
    old = left = scene = head = start = turned = 0
    pool = [*range(13, -1, -1), *range(14)]
    for frame, switch in walk(script):
        jump = 0
        if switch is not None:
            if switch.transition is S:
                window, left = [f"srf{head}", *window[-2:]], 5
            else:
                source = switch.recalls if switch.transition is RECALL else scene
                window, left, head, jump = [f"srf{source}"], 5 if switch.transition is RECALL else 1, scene + 1, switch.jump
            old, scene, start, turned = len(window), scene + 1, frame, 0
        if len(window) == 21:
            window = [*window[1:14], f"f{start + pool[turned % 28]}", "cmp", "cmp", "cmp", *window[18:]]
            turned += 1
        window.append(f"f{frame}")
        yield [*in_slots(window[:-1]), (window[-1], len(window) - 1 + jump)]
        left -= 1
        if left == 0:
            window, old = window[old:], 0


def dummy_forcing(script: Script) -> Iterator[Keys]:
    buffer: list[str] = []
    for frame, _ in walk(script):
        if len(buffer) == 5:
            buffer.pop(1)
        buffer.append(f"f{frame}")
        yield at_home(buffer)


def forcing_kv(script: Script) -> Iterator[Keys]:
    made: list[str] = []
    for frame, _ in walk(script):
        dynamic: Keys = [("cmp", None)] if len(made) > 4 else []
        yield at_home(made[:1]) + dynamic + at_home([*made[1:][-1:], f"f{frame}"])
        made.append(f"f{frame}")


HAND = [self_forcing, longlive, streaming_llm, infinity_rope, rolling_sink, deep_forcing_official, memrope, reward_ema, relax_forcing, echo]
HAND += [dummy_forcing, forcing_kv]


@pytest.mark.parametrize("script", [ONE, SIX], ids=["one scene", "six scenes"])
@pytest.mark.parametrize("hand", HAND, ids=lambda hand: hand.__name__)
def test_vectors(hand, script: Script) -> None:
    policy = make_frame_wise(hand.__name__)
    policy.check(SIZES, script.blocks)
    for plan, expected in zip(plans(policy, script, SIZES), hand(script), strict=True):
        assert [(source, position) for source, position in plan.key_positions()] == expected, f"block {plan.block}"
        assert list(plan.queries) == [expected[-1][1]]


def test_deep_forcing_asks_with_the_queries_of_several_blocks() -> None:
    """Path 2: clean queries of every block as the memory was shown them, the three newest put side by side."""
    sizes = Geometry(2, 2, 16, 1, 2, frames_per_block=1)
    torch.manual_seed(7)
    network = WanModel(WanConfig(dim=32, ffn_dim=48, heads=2, layers=2, freq_dim=32, text_dim=16, text_len=6))
    rollout = Rollout(
        network.eval().requires_grad_(False), make_frame_wise("deep_forcing_official"), sizes, keyed_noise(0, ["a"], (1, 16, 2, 4))
    )
    memory = rollout.memory
    assert isinstance(memory, Participation)
    shown: dict[int, list[torch.Tensor]] = {0: [], 1: []}
    observe = memory.observe

    def look(layer, plan, q, k, v):
        shown[layer].append(q.clone())
        observe(layer, plan, q, k, v)

    memory.observe = look  # type: ignore[method-assign]
    recorder = Recorder()
    recorder.watch(rollout)
    rollout.switch(torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(3)))
    for block in range(29):
        rollout.next()
        for layer in range(2):
            past = memory.past[layer]
            assert past is not None
            assert torch.equal(past, torch.cat(shown[layer][-3:], 1)), f"block {block}"
