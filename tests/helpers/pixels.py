"""A few pixels of the whole path - text, noise, network, policy, codec - pinned to `PIXEL_EPOCH`: `tests.helpers.pixels` records."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from baselines.presets import make_policy
from echo.backbone.load import load
from echo.generate import generate
from echo.scene import load_prompts
from jobs.spec.identity import PIXEL_EPOCH
from tests.helpers.toy import write_backbone, write_prompts

RECORDED = Path(__file__).resolve().parents[1] / "golden" / "pixels.json"
METHODS = ("echo", "deep_forcing_official", "longlive", "memrope", "infinity_rope")


def measure() -> dict[str, Any]:
    """Latents and pixels at a few places, for some policies, on the toy backbone."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {"epoch": PIXEL_EPOCH}
    with tempfile.TemporaryDirectory() as folder:
        backbone = load(str(write_backbone(Path(folder) / "model.safetensors")))
        prompt = load_prompts(write_prompts(Path(folder) / "prompts.jsonl", 1, scene_s=7.0))[0]
    for name in METHODS:
        latents = torch.cat([block.latents for block in generate(backbone, make_policy({"method": name}), [prompt], 0)], 1)
        frames = backbone.codec.decode(latents)
        found[name] = {
            "latents": [round(value, 4) for value in latents.flatten()[:: latents.numel() // 9].tolist()],
            "frames": frames.flatten()[:: frames.numel() // 9].tolist(),
        }
    return found


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
