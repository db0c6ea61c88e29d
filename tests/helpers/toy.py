"""A real backbone of the smallest useful size with random weights, and prompts that it can read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from baselines.forcing_kv import labels_file
from echo.files import file_digest

TEXTS = ("a red ball moving left over a plain meadow", "a red ball moving up over a striped desert")


def write_backbone(path: Path, seed: int = 0, grid: int = 2) -> Path:
    """A backbone file with random weights and labels of heads: 2 layers, `grid` x `grid` tokens a frame, the full window of 21 frames."""
    import torch

    from echo.backbone.load import save
    from echo.backbone.parts.codec import PatchCodec
    from echo.backbone.parts.text import WordEncoder
    from echo.backbone.parts.words import Vocabulary
    from echo.backbone.wan import WanConfig, WanModel
    from echo.geometry import Geometry

    torch.manual_seed(seed)
    model = WanModel(WanConfig(dim=32, ffn_dim=64, heads=2, layers=2, freq_dim=16, text_dim=12, text_len=6))
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(torch.randn_like(weights) * 0.05)
    words = Vocabulary(
        ("red", "ball", "left", "up", "meadow", "desert", "plain", "striped"), {"crimson": "red"}, frozenset({"a", "moving", "over"})
    )
    codec = PatchCodec.fit(torch.randint(0, 256, (4, 8, 24, 24, 3), dtype=torch.uint8), channels=16)
    geometry = Geometry(layers=2, heads=2, head_dim=16, grid_height=grid, grid_width=grid)
    save(path, model, WordEncoder(words, 12, 6), codec, geometry)
    labels_file([path]).write_text(json.dumps({"heads": ["dd", "sd"], "weights": [file_digest(path)]}), encoding="utf-8")
    return path


def write_prompts(path: Path, count: int, scene_s: float = 3.0, texts: Sequence[str] = TEXTS) -> Path:
    """A prompt set of equal scripts: scenes of `scene_s` seconds with hard cuts between them."""
    lines = []
    for index in range(count):
        record = {
            "id": f"toy-{index:03d}",
            "scenes": list(texts),
            "durations": [scene_s] * len(texts),
            "tags": ["", *["#"] * (len(texts) - 1)],
            "tag_meaning": "enter",
            "version": 1,
        }
        lines.append(json.dumps(record))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def overrides(folder: Path, count: int = 3, scene_s: float = 3.0, name: str = "hard") -> list[str]:
    """Command-line words that put the toy in place of the shipped backbone and prompts; nothing is scored."""
    weights, prompts = folder / "model.safetensors", folder / f"prompts-{count}-{scene_s:g}.jsonl"  # tests share a folder
    if not weights.exists():
        write_backbone(weights)
    write_prompts(prompts, count, scene_s)
    return [
        f"backbone.weights={weights}",
        f"task={name}",
        f"task.prompt_set={prompts}",
        f"prompts={count}",
        "eval=none",
        "video.height_px=16",
        f"store={folder / 'store'}",
    ]


def changed(plain: dict, path: str, value: object) -> dict:
    """A plain config with one value set."""
    from omegaconf import OmegaConf

    config = OmegaConf.create(plain)
    OmegaConf.update(config, path, value, force_add=True)
    return OmegaConf.to_container(config)
