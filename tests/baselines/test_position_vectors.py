"""Frame@position vectors over 80 blocks and across switches, through the trace, against buffers moved by hand.

Path 1: the policies' closed-form plans, as `echo-harness trace` prints them. Path 2: a list for each policy that is shifted,
overwritten and cut block by block, as the released caches are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from echo.cache.policy import plans
from echo.geometry import Geometry
from echo.scene import SceneStart, Script, Transition
from jobs import cli
from tests.helpers.policies import make

Keys = list[tuple[str, int | None]]
SIZES = Geometry(1, 1, 6, 1, 1)
S, HARD, RECALL = Transition.smooth, Transition.hard, Transition.recall
ENTRIES = (SceneStart(13, HARD, None, 45), SceneStart(27, S), SceneStart(40, RECALL, 0, 4), SceneStart(53, S), SceneStart(67, S))
SIX = Script((SceneStart(0), *ENTRIES), 80)
ONE = Script((SceneStart(0),), 80)


def frames(first: int, count: int = 3) -> list[str]:
    return [f"f{first + i}" for i in range(count)]


def at(names: list[str], positions: list[int]) -> Keys:
    return list(zip(names, positions, strict=True))


def walk(script: Script) -> Iterator[tuple[int, SceneStart | None]]:
    """(first frame, the switch that happens there)."""
    begins = {start.block: start for start in script.starts[1:]}
    for block in range(script.blocks):
        yield 3 * block, begins.get(block)


def self_forcing(script: Script) -> Iterator[Keys]:
    buffer: list[str] = []
    for first, _ in walk(script):
        buffer = (buffer + frames(first))[-21:]
        yield at(buffer, [int(name[1:]) for name in buffer])


def longlive(script: Script) -> Iterator[Keys]:
    buffer: list[str] = []
    for first, _ in walk(script):
        if len(buffer) == 12:
            buffer = buffer[:3] + buffer[6:]
        buffer += frames(first)
        yield at(buffer, [int(name[1:]) for name in buffer])


def longlive_relative(script: Script) -> Iterator[Keys]:
    for keys in longlive(script):
        yield [(name, slot) for slot, (name, _) in enumerate(keys)]


def infinity_rope_official(script: Script) -> Iterator[Keys]:
    buffer: list[str] = []
    for first, switch in walk(script):
        if switch is not None:
            buffer = [buffer[0], *buffer[-2:]]
        elif len(buffer) == 6:
            buffer = [buffer[0], *buffer[4:]]
        buffer += frames(first)
        cut = switch is not None and switch.transition is not S
        yield at(buffer, [0, 1, 2, 45, 46, 47] if cut else list(range(len(buffer))))


def infinity_rope(script: Script) -> Iterator[Keys]:
    buffer: list[str] = []
    for first, switch in walk(script):
        buffer = buffer[-2:] if switch is not None else buffer[-18:]
        buffer += frames(first)
        cut = switch is not None and switch.transition is not S
        yield at(buffer, [0, 1, 45, 46, 47] if cut else list(range(len(buffer))))


def rolling_sink(script: Script) -> Iterator[Keys]:
    buffer: list[str] = []
    wave = [*range(18), *range(17, -1, -1)]
    for first, _ in walk(script):
        buffer = (buffer + frames(first))[-21:]
        positions = list(range(first + 3 - len(buffer), first + 3))
        yield at(buffer, positions)
        if first >= 21:
            for slot, position in enumerate(positions):
                if first - 3 <= position < first:
                    buffer[slot] = f"f{wave[position % 36]}"


def deep_forcing_sink(script: Script) -> Iterator[Keys]:
    tail: list[str] = []
    for first, _ in walk(script):
        tail += frames(first)
        if len(tail) > 21:
            tail = tail[:14] + tail[17:]
        start = max(0, first - 21) if first >= 21 else 0
        yield at(tail, [start + i for i in range(min(14, len(tail)))] + [int(name[1:]) for name in tail[14:]])


def deep_forcing_official(script: Script) -> Iterator[Keys]:
    rest: list[str] = []
    start = 0
    for first, _ in walk(script):
        rest += frames(first)
        now = len(rest) > 21
        if now:
            rest = rest[:10] + ["cmp", "cmp"] + rest[-4:]
            start = 21 - 16 if first == 21 else start + 6
        sink = [start + i for i in range(min(10, len(rest)))]
        yield at(rest, sink + [int(name[1:]) if name[0] == "f" else None for name in rest[10:]])
        if now:
            rest[10:12] = ["top0", "top1"]


def memrope(script: Script) -> Iterator[Keys]:
    buffer: list[str] = []
    for first, _ in walk(script):
        if len(buffer) == 12:
            buffer = buffer[:3] + ["long", "short"] + buffer[8:]
        buffer += frames(first)
        yield [(name, slot) for slot, name in enumerate(buffer)]


def echo(script: Script) -> Iterator[Keys]:
    """Sections 2 and 3 of the method: fill, roll, old memory in front, one-block jump."""
    window, old, left, scene, k, head = [], 0, 0, 0, 0, 0
    pool = [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    start = 0
    for first, switch in walk(script):
        jump = 0
        if switch is not None:
            if switch.transition is S:
                window, left = [f"srf{head}", *window[-2:]], 5
            else:
                source = switch.recalls if switch.transition is RECALL else scene
                window, left, head, jump = [f"srf{source}"], 5 if switch.transition is RECALL else 1, scene + 1, switch.jump
            old, scene, k, start = len(window), scene + 1, 0, first
        if len(window) == 21:
            anchors, recent = window[:12], window[18:]
            step = 3 * (k - 7) % 24
            anchors = anchors[3:] + [f"f{start + f}" for f in pool[step : step + 3]]
            window = anchors + ["cmp"] * 3 + recent
        window = window + frames(first)
        positions = list(range(len(window)))
        positions[-3:] = [position + jump for position in positions[-3:]]
        yield at(window, positions)
        k, left = k + 1, left - 1
        if left == 0:
            window, old = window[old:], 0


def forget(script: Script) -> Iterator[Keys]:
    buffer: list[str] = []
    for first, switch in walk(script):
        buffer = [] if switch is not None else buffer[-18:]
        buffer += frames(first)
        cut = switch is not None and switch.transition is not S
        yield at(buffer, [45, 46, 47] if cut else list(range(len(buffer))))


def oracle(script: Script) -> Iterator[Keys]:
    """Twelve anchors and what came last; a cut empties the window, a recall fills it with the first frames of what it recalls."""
    window: list[str] = []
    albums: list[list[str]] = [[]]
    album, begun, turn = albums[0], 0, [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    for first, switch in walk(script):
        if switch is not None and switch.transition is HARD:
            window, album, begun = [], [], 0
        elif switch is not None and switch.transition is RECALL:
            album, begun = albums[switch.recalls], 0
            window = list(album)
        if switch is not None:
            albums.append(album)
        if len(window) == 21:
            window = window[:12] + window[15:]
            window = window[3:12] + [album[f] for f in turn[begun : begun + 3]] + window[12:]
            begun = (begun + 3) % 24
        window = window + frames(first)
        if len(album) < 12:
            album += frames(first)
        yield at(window, list(range(len(window))))


def streaming_llm(script: Script) -> Iterator[Keys]:
    buffer: list[str] = []
    for first, _ in walk(script):
        if len(buffer) == 21:
            del buffer[3:6]
        buffer += frames(first)
        yield at(buffer, list(range(len(buffer))))


def anchor_forcing(script: Script) -> Iterator[Keys]:
    """The junction comes out of its drawer ten frames and more behind the switch; until then the one before it lies there."""
    sink, recent, drawer, waiting, since = [], [], [], [], 0
    for first, switch in walk(script):
        if switch is not None:
            drawer, waiting, since = waiting or drawer, frames(first), first
        if waiting and first - since > 9:
            drawer = waiting
        place = min(18, first)
        keys = at(sink, [0, 1, 2][: len(sink)]) + at(drawer, [6, 7, 8][: len(drawer)])
        yield keys + at(recent, list(range(place - len(recent), place))) + at(frames(first), [place, place + 1, place + 2])
        if not sink:
            sink = frames(first)
        else:
            recent = (recent + frames(first))[-6:]


def relax_forcing(script: Script) -> Iterator[Keys]:
    buffer: list[str] = []
    for first, _ in walk(script):
        own = at(frames(first), [first, first + 1, first + 2])
        if len(buffer) <= 4:
            yield at(buffer, [int(name[1:]) for name in buffer]) + own
        else:
            yield at(["f0", "f1", "cmp", buffer[-1]], [first - 4, first - 3, first - 2, first - 1]) + own
        buffer = (buffer + frames(first))[-120:]


def dummy_forcing(script: Script) -> Iterator[Keys]:
    sink: list[str] = []
    local: list[str] = []
    for first, _ in walk(script):
        yield at([*sink, *local, *frames(first)], [int(name[1:]) for name in [*sink, *local, *frames(first)]])
        local = (local + frames(first))[-3:] if sink else ["f1", "f2"]
        sink = ["f0"]


def dummy_forcing_longlive(script: Script) -> Iterator[Keys]:
    buffer: list[str] = []
    for first, _ in walk(script):
        buffer += frames(first)
        yield at(buffer, [int(name[1:]) for name in buffer])
        buffer = buffer[:1] + buffer[1:][-6:]


def forcing_kv(script: Script) -> Iterator[Keys]:
    """A drawer of three frames before the newest, out of which the dynamic frame comes once none of them is the sink."""
    made: list[str] = []
    for first, _ in walk(script):
        own = at(frames(first), [first, first + 1, first + 2])
        dynamic: Keys = [("cmp", None)] if len(made) > 3 and "f0" not in made[-4:] else []
        last = [(made[-1], first - 1)] if made else []
        yield at(made[:1], [0] * len(made[:1])) + dynamic + last + own
        made += frames(first)


def reward_ema(script: Script) -> Iterator[Keys]:
    buffer: list[str] = []
    for first, _ in walk(script):
        if len(buffer) == 9:
            buffer = ["ema0", "ema1", "ema2", *buffer[6:]]
        buffer += frames(first)
        yield at(buffer, list(range(len(buffer))))


def recency(script: Script) -> Iterator[Keys]:
    buffer: list[str] = []
    for first, _ in walk(script):
        if len(buffer) == 21:
            del buffer[3:6]
        oldest = first if len(buffer) < 6 else int(buffer[3][1:])
        past = at(buffer[:3], [oldest - 3, oldest - 2, oldest - 1][: len(buffer)]) + at(buffer[3:], [int(name[1:]) for name in buffer[3:]])
        yield past + at(frames(first), [first, first + 1, first + 2])
        buffer += frames(first)


def tethercache(script: Script) -> Iterator[Keys]:
    """Frames 3 to 16 are identified by their positions, which they keep until the first frames after them compete for these."""
    sink, places, recent = [], [], []
    for first, _ in walk(script):
        past = sink + places + recent[-1:]
        yield at(past + frames(first), list(range(len(past) + 3)))
        for frame in range(first, first + 3):
            if frame < 3:
                sink.append(f"f{frame}")
            elif frame < 17:
                places.append(f"mem{frame - 3}")
            else:
                recent.append(f"f{frame}")


def memflow(script: Script) -> Iterator[Keys]:
    """Each block's first pass fills a place or replaces one; every third block does not look at the place that it has just filled."""
    filled = 0
    for keys, (first, _) in zip(longlive(script), walk(script), strict=True):
        filled = min(3, filled + 1) if first else 0
        read = [f"bank{place}" for place in range(filled)]
        if first in range(0, 300, 9):
            read = read[:-1]
        sink = [key for key in keys[:3] if first]
        yield sink + [(name, None) for name in read] + keys[len(sink) :]


HAND = [self_forcing, longlive, longlive_relative, infinity_rope_official, infinity_rope, rolling_sink, deep_forcing_sink]
HAND += [streaming_llm, anchor_forcing, relax_forcing, reward_ema, recency, tethercache, memflow]
HAND += [dummy_forcing, dummy_forcing_longlive, forcing_kv]
HAND += [deep_forcing_official, memrope, echo, forget, oracle]


@pytest.mark.parametrize("script", [ONE, SIX], ids=["one scene", "six scenes"])
@pytest.mark.parametrize("hand", HAND, ids=lambda hand: hand.__name__)
def test_vectors(hand, script: Script) -> None:
    planned = list(plans(make(hand.__name__), script, SIZES))
    for plan, expected in zip(planned, hand(script), strict=True):
        ours = [(source, position) for source, position in plan.key_positions()]
        assert ours == expected, f"block {plan.block}"
        assert list(plan.queries) == [position for _, position in expected[-3:]]


@pytest.mark.parametrize("script", [ONE, SIX], ids=["one scene", "six scenes"])
@pytest.mark.parametrize(("name", "local", "last_whole"), [("dummy_forcing", 3, 1), ("dummy_forcing_longlive", 6, 2)])
def test_heads_keep_a_buffer_for_each_group(name: str, local: int, last_whole: int, script: Script) -> None:
    """Path 2: three lists, shifted as their group says; up to the block that divides the heads there is one for all."""
    first_heads, mid_heads, dummy_heads = ["f0"], [f"f{frame}" for frame in range(3)][-local:], ["f2"]
    for plan, (first, _) in zip(plans(make(name), script, SIZES), walk(script), strict=True):
        assert bool(plan.groups) == (plan.block > last_whole)
        met = {group.name: [plan.context[slot].label() for slot in group.slots] for group in plan.groups}
        if met:
            assert met == {"first": first_heads, "mid": mid_heads, "dummy": dummy_heads}, f"block {plan.block}"
        if first:
            mid_heads, dummy_heads = (mid_heads + frames(first))[-local:], frames(first)[-1:]


@pytest.mark.parametrize("script", [ONE, SIX], ids=["one scene", "six scenes"])
@pytest.mark.parametrize(("name", "newest"), [("longlive", 12), ("streaming_llm", 21), ("rolling_sink", 21), ("echo", 12)])
def test_a_commit_reads_a_queue_of_true_frames(name: str, newest: int, script: Script) -> None:
    """Nothing but the clean pass differs. Its queue holds the newest frames, of echo's scenes each its own, right before the block."""
    with_commit, without = plans(make(f"{name}_commit"), script, SIZES), plans(make(name), script, SIZES)
    queue: list[str] = []
    for plan, plain, (first, switch) in zip(with_commit, without, walk(script), strict=True):
        if name == "echo" and switch is not None:
            queue = []
        assert plan.clean is not None and plan.key_positions() == plain.key_positions() and plan.queries == plain.queries
        read = [(slot.label(), slot.position) for slot in plan.clean]
        room = queue[len(queue) - min(len(queue), plan.queries[0]) :]
        assert read == at(room, [plan.queries[0] - len(room) + i for i in range(len(room))]), f"block {plan.block}"
        queue = (queue + frames(first))[-(newest - 3) :]


def test_the_command_prints_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    borders = (13, 27, 40, 53, 67)
    cuts = Script((SceneStart(0), *(SceneStart(b, HARD, None, 45) for b in borders)), 80)
    for name in ("self_forcing", "infinity_rope", "rolling_sink", "deep_forcing_official", "echo"):
        words = [f"method={name}", "task=hard"]
        assert cli.main(["trace", *words]) == 0
        printed = [json.loads(line)["keys"] for line in capsys.readouterr().out.splitlines()]
        hand = {h.__name__: h for h in HAND}[name]
        assert printed == [[list(key) for key in keys] for keys in hand(cuts)], name
