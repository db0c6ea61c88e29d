"""What the names of runs rely on: a video of an embedded backbone has the same bytes alone and among any others of its script."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from baselines.presets import make_policy, preset
from echo.backbone.load import Backbone, load
from echo.files import ROOT
from echo.generate import generate
from echo.scene import Prompt, load_prompts
from tests.helpers.compare import report


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load(ROOT / preset("backbone", "tiny")["weights"])


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    """Five prompts of one script, shortened to 14 blocks of three scenes; the window is full from the eighth on."""
    whole = load_prompts(ROOT / "data" / "prompts" / "hard.jsonl")[:5]
    return [
        dataclasses.replace(one, scenes=one.scenes[:3], durations_s=(6.0, 3.0, 1.5), tags=one.tags[:3], tag_meaning=one.tag_meaning)
        for one in whole
    ]


SOME = ["echo", "memflow", "forcing_kv"]
OTHERS = [
    pytest.param(name, marks=pytest.mark.slow) for name in ("deep_forcing_official", "memrope", "tethercache", "self_forcing_recache")
]


@pytest.mark.parametrize("method", [*SOME, *OTHERS])
def test_a_video_is_the_same_alone_and_among_others(method: str, backbone: Backbone, prompts: list[Prompt]) -> None:
    """Path 1: five at once, and two of them in another order. Path 2: one by one."""

    def made(*group: Prompt) -> Tensor:
        return torch.cat([block.latents for block in generate(backbone, make_policy({"method": method}), group, 3)], 1)

    torch.set_num_threads(1)
    alone = [made(prompts[index])[0] for index in (0, 3)]
    five, two = made(*prompts), made(prompts[3], prompts[0])
    for expected, found in zip((alone[0], alone[1]) * 2, (five[0], five[3], two[1], two[0]), strict=True):
        assert torch.equal(found, expected), report(found, expected)
    assert not torch.allclose(alone[0], alone[1], atol=0.1)
