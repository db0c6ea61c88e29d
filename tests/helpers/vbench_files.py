"""Weights files as they are published, but random, and videos to score with them.

RAFT, AMT and ViCLIP take their names and shapes from VBench's own classes, CLIP and DINO from what their papers' files hold.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import av
import numpy as np
import torch
from torch import nn

Shape = tuple[int, ...]
Shapes = dict[str, Shape]
HALF = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias", "conv1.weight", "visual.proj", "text_projection", "mlp.")
"""Tensors that OpenAI's archives hold in half precision."""
TINY = {"dino": (128, 2), "clip_b32": (128, 2, 64, 1, 64), "clip_l14": (128, 2, 64, 1, 768)}
TRUE = {"dino": (768, 12), "clip_b32": (768, 12, 512, 12, 512), "clip_l14": (1024, 24, 768, 12, 768)}
PATCH = {"clip_b32": 32, "clip_l14": 14}


def draw(shape: Shape, name: str, generator: torch.Generator) -> torch.Tensor:
    """Norms about 1, biases small, matrices by their fan-in with a gain that keeps frames apart."""
    values = torch.randn(shape, generator=generator)
    if name.endswith(("ln_1.weight", "ln_2.weight", "ln_pre.weight", "ln_post.weight", "ln_final.weight", "norm1.weight", "norm2.weight")):
        return 1 + 0.1 * values
    if name == "norm.weight":
        return 1 + 0.1 * values
    if len(shape) < 2 or "pos" in name or "token" in name or "embedding" in name:
        return 0.3 * values
    return 1.5 * values / math.sqrt(math.prod(shape[1:]))


def block(width: int, start: str) -> Shapes:
    """Names and shapes of one of OpenAI's blocks."""
    rows = {"ln_1.weight": (width,), "ln_1.bias": (width,), "ln_2.weight": (width,), "ln_2.bias": (width,)}
    rows |= {"attn.in_proj_weight": (3 * width, width), "attn.in_proj_bias": (3 * width,)}
    rows |= {"attn.out_proj.weight": (width, width), "attn.out_proj.bias": (width,)}
    rows |= {"mlp.c_fc.weight": (4 * width, width), "mlp.c_fc.bias": (4 * width,)}
    rows |= {"mlp.c_proj.weight": (width, 4 * width), "mlp.c_proj.bias": (width,)}
    return {f"{start}.{name}": shape for name, shape in rows.items()}


def clip_shapes(patch: int, sizes: Sequence[int]) -> Shapes:
    """Names and shapes of OpenAI's CLIP; sizes: width, depth, width and depth of the text's side, and of what both share."""
    width, depth, text_width, text_depth, joint = sizes
    shapes = {"visual.class_embedding": (width,), "visual.positional_embedding": ((224 // patch) ** 2 + 1, width)}
    shapes |= {"visual.conv1.weight": (width, 3, patch, patch), "visual.proj": (width, joint), "text_projection": (text_width, joint)}
    shapes |= {f"visual.{norm}.{kind}": (width,) for norm in ("ln_pre", "ln_post") for kind in ("weight", "bias")}
    shapes |= {"token_embedding.weight": (49408, text_width), "positional_embedding": (77, text_width), "logit_scale": ()}
    shapes |= {"ln_final.weight": (text_width,), "ln_final.bias": (text_width,)}
    for number in range(depth):
        shapes |= block(width, f"visual.transformer.resblocks.{number}")
    for number in range(text_depth):
        shapes |= block(text_width, f"transformer.resblocks.{number}")
    return shapes


def dino_shapes(sizes: Sequence[int]) -> Shapes:
    """Names and shapes of DINO's vision transformer; sizes: width and depth."""
    width, depth = sizes
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 197, width), "norm.weight": (width,), "norm.bias": (width,)}
    shapes |= {"patch_embed.proj.weight": (width, 3, 16, 16), "patch_embed.proj.bias": (width,)}
    for number in range(depth):
        rows = {"norm1.weight": (width,), "norm1.bias": (width,), "norm2.weight": (width,), "norm2.bias": (width,)}
        rows |= {"attn.qkv.weight": (3 * width, width), "attn.qkv.bias": (3 * width,)}
        rows |= {"attn.proj.weight": (width, width), "attn.proj.bias": (width,)}
        rows |= {"mlp.fc1.weight": (4 * width, width), "mlp.fc1.bias": (4 * width,)}
        rows |= {"mlp.fc2.weight": (width, 4 * width), "mlp.fc2.bias": (width,)}
        shapes |= {f"blocks.{number}.{name}": shape for name, shape in rows.items()}
    return shapes


def script(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """A TorchScript archive that holds tensors by these names, and computes nothing."""
    torch.jit.save(torch.jit.script(_tree(tensors)), str(path))


class Holder(nn.Module):
    def forward(self, nothing: torch.Tensor) -> torch.Tensor:
        return nothing


def _tree(tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    below: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        first, _, rest = name.partition(".")
        below.setdefault(first, {})[rest] = value
    numbered = all(name.isdigit() for name in below)
    module: nn.Module = nn.ModuleList() if numbered else Holder()
    for name, part in below.items():
        if "" in part:
            module.register_parameter(name, nn.Parameter(part[""], requires_grad=False))
        else:
            module.add_module(name, _tree(part))
    return module


def write(folder: Path, size: str, seed: int = 0) -> dict[str, Path]:
    """All eight files in a folder, by network. size: "tiny" (two small blocks where a network has sizes) or "true"."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.pth" for name in ("dino", "clip_b32", "clip_l14", "aesthetic", "musiq", "raft", "amt", "viclip")}
    generator, sizes = torch.Generator().manual_seed(seed), TINY if size == "tiny" else TRUE
    for name, patch in PATCH.items():
        tensors = {key: draw(shape, key, generator) for key, shape in clip_shapes(patch, sizes[name]).items()}
        script({key: value.half() if any(part in key for part in HALF) else value for key, value in tensors.items()}, files[name])
    torch.save({key: draw(shape, key, generator) for key, shape in dino_shapes(sizes["dino"]).items()}, files["dino"])
    head = {"weight": 5 * torch.randn((1, 768), generator=generator), "bias": torch.tensor([5.0])}
    torch.save(head, files["aesthetic"])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        _write_others(files, size, generator)
    return files


def _write_others(files: Mapping[str, Path], size: str, generator: torch.Generator) -> None:
    from easydict import EasyDict
    from pyiqa.archs.musiq_arch import MUSIQ
    from vbench.third_party.amt.utils.build_utils import build_from_cfg
    from vbench.third_party.RAFT.core.raft import RAFT
    from vbench.third_party.ViCLIP import viclip

    musiq = MUSIQ(pretrained=False).state_dict()
    musiq["head.weight"], musiq["head.bias"] = 10 * musiq["head.weight"], torch.tensor([50.0])
    torch.save(musiq, files["musiq"])
    torch.manual_seed(0)
    raft = RAFT(EasyDict(small=False, mixed_precision=False, alternate_corr=False)).state_dict()
    for kind in ("weight", "bias"):  # so that two of the three videos move by VBench's rule, and one does not
        raft[f"update_block.flow_head.conv2.{kind}"] *= 0.28
    torch.save({f"module.{name}": value for name, value in raft.items()}, files["raft"])
    amt = build_from_cfg({"name": "networks.AMT-S.Model", "params": {"corr_radius": 3, "corr_lvls": 4, "num_flows": 3}})
    torch.save({"state_dict": amt.state_dict()}, files["amt"])
    if size == "tiny":
        exec((Path(__file__).parents[1] / "vbench" / "small_viclip.py").read_text(encoding="utf-8"), {"__name__": "setup"})
    shapes = {name: value.shape for name, value in viclip.ViCLIP(pretrain=None).state_dict().items()}
    torch.save({"model": {name: draw(tuple(shape), name, generator) for name, shape in shapes.items()}}, files["viclip"])


VIDEOS = ((128, 208, 8, 9, 0.4), (176, 144, 16, 12, 3.0), (128, 544, 24, 11, 7.0))
"""Height and width in px, frames a second, frames, and px that the picture moves between frames."""


def videos(folder: Path) -> list[Path]:
    """Three videos of different size, length and frame rate: a textured picture that moves, brightens and gets noisier."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{height}x{width}.mp4" for height, width, *_ in VIDEOS]
    for number, (path, (height, width, fps, count, speed)) in enumerate(zip(paths, VIDEOS, strict=True)):
        random = np.random.default_rng(number)
        waves = random.uniform(0.02, 0.25, (12, 2)), random.uniform(0, 6.3, (12, 3)), random.uniform(5, 25, 12)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=fps)
            stream.width, stream.height, stream.pix_fmt, stream.options = width, height, "yuv420p", {"crf": "14"}
            for index in range(count):
                frame = picture(height, width, index * speed, waves) * (1 + 0.02 * index) + random.normal(
                    0, 1 + index / 3, (height, width, 3)
                )
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.clip(frame, 0, 255).astype(np.uint8), format="rgb24")))
            container.mux(stream.encode(None))
    return paths


def picture(height: int, width: int, shift: float, waves: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """A texture of sine waves, moved to the side by so many px, [height, width, 3]."""
    rows, columns = np.mgrid[:height, :width].astype(float)
    frequencies, phases, heights = waves
    image = np.full((height, width, 3), 120.0)
    for (down, across), phase, tall in zip(frequencies, phases, heights, strict=True):
        image += tall * np.sin(down * rows[..., None] + across * (columns[..., None] + shift) + phase)
    return image


PROMPTS = ("a red fox crosses a frozen river", "rain falls on the city &amp; the lights go out; it&#39;s night", "word " * 40)
