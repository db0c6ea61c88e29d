"""The shared list: every preset of conf/method, each with settings that stress it. A new policy adds one row."""

from __future__ import annotations

PRESETS: list[tuple[str, dict[str, object]]] = [
    ("echo", {}),
    ("echo", {"pool_frames": 18, "compressed": 6, "anchors": 9, "compressed_position": "own_spatial"}),
    ("echo_official", {"anchors": 15, "pool_frames": 15, "compressed": 0}),
    ("echo_paper", {}),
    ("self_forcing", {}),
    ("infinity_rope", {}),
    ("infinity_rope", {"window_frames": 6, "sink_frames": 1}),
]
