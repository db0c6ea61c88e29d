"""VBench's preprocessing of frames, in torch only; VBench itself uses torchvision's `Resize` and `CenterCrop`.

Frames are uint8 [T, H, W, 3]; all sizes are in pixels; only `resized` antialiases. Source: VBench 0.1.5, `vbench/utils.py` and the modules
of the dimensions. Its choices are the metric's definition, including odd ones (values outside 0..255 are kept in one path, rounded in
another).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from eval.measures.formulas import Frames
from eval.vbench.networks.interface import LEAST_SIDE_PX

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE_PX = 224
QUALITY_SIDE_PX = 512


def planes(frames: Frames, device: torch.device) -> Tensor:
    """Frames [T, H, W, 3] as uint8 [T, 3, H, W] on a device. Raises ValueError for another type or shape, and without frames."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"frames {frames.dtype} {list(frames.shape)}: networks take uint8 [T, H, W, 3], at least one frame")
    return torch.from_numpy(np.ascontiguousarray(frames)).to(device).permute(0, 3, 1, 2).contiguous()


def big_enough(frames: Frames, asked: str) -> None:
    """Raise ValueError, naming the network `asked`, if a side is too short for RAFT and AMT."""
    height, width = frames.shape[1:3]
    if min(height, width) < LEAST_SIDE_PX:
        raise ValueError(f"{asked}: frames of {width}x{height} px; it answers NaN for a side under {LEAST_SIDE_PX} px, so it is not asked")


def resized(frames: Frames, size: tuple[int, int], device: torch.device) -> Tensor:
    """Frames [T, H, W, 3] as floats [T, 3, h, w] in 0..255, bicubic, antialiased, with overshoot outside 0..255 kept.

    VBench-Long's transforms do not set antialiasing, and torchvision's default for tensors is to antialias.
    """
    return F.interpolate(planes(frames, device).float(), size=size, mode="bicubic", align_corners=False, antialias=True)


def shorter_side(images: Tensor, side: int, mode: str) -> Tensor:
    """Images [T, 3, H, W] with the shorter side resized to `side`; the longer one is rounded down, like in torchvision."""
    height, width = images.shape[-2:]
    short, long = min(height, width), max(height, width)
    other = int(side * long / short)
    size = (side, other) if height <= width else (other, side)
    return images if size == (height, width) else F.interpolate(images, size=size, mode=mode, align_corners=False)


def middle(images: Tensor, side: int) -> Tensor:
    """The central square of `side` pixels of images [T, 3, H, W]."""
    height, width = images.shape[-2:]
    top, left = round((height - side) / 2.0), round((width - side) / 2.0)
    return images[..., top : top + side, left : left + side]


def normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Images of 0..255, divided by 255, minus the mean and divided by the standard deviation of each colour."""
    return (images.float() / 255.0 - images.new_tensor(mean, dtype=torch.float32)[:, None, None]) / images.new_tensor(
        std, dtype=torch.float32
    )[:, None, None]


def for_clip(frames: Frames, device: torch.device) -> Tensor:
    """Float path, [T, 3, 224, 224]: bicubic overshoot outside 0..255 is kept."""
    images = shorter_side(planes(frames, device).float(), SIDE_PX, "bicubic")
    return normalised(middle(images, SIDE_PX), CLIP_MEAN, CLIP_STD)


def for_clip_in_bytes(frames: Frames, device: torch.device) -> Tensor:
    """Byte path, [T, 3, 224, 224]: clamped and rounded to whole bytes after the resize."""
    images = shorter_side(planes(frames, device).float(), SIDE_PX, "bicubic").clamp(0, 255).round()
    return normalised(middle(images, SIDE_PX), CLIP_MEAN, CLIP_STD)


def for_dino(frames: Frames, device: torch.device) -> Tensor:
    """[T, 3, 224, W] or [T, 3, H, 224], without a crop."""
    images = shorter_side(planes(frames, device).float(), SIDE_PX, "bilinear")
    return normalised(images, IMAGENET_MEAN, IMAGENET_STD)


def for_quality(frames: Frames, device: torch.device) -> Tensor:
    """[T, 3, H, W] in 0..1, the longer side at most 512."""
    images = planes(frames, device).float()
    height, width = images.shape[-2:]
    if max(height, width) > QUALITY_SIDE_PX:
        scale = QUALITY_SIDE_PX / max(height, width)
        images = F.interpolate(images, size=(int(scale * height), int(scale * width)), mode="bilinear", align_corners=False)
    return images / 255.0


def padding(height: int, width: int, divisor: int) -> tuple[int, int, int, int]:
    """Pixels to add left, right, above and below so that `divisor` divides both sides; an odd one goes right or below."""
    across, down = -width % divisor, -height % divisor
    return across // 2, across - across // 2, down // 2, down - down // 2


def padded(images: Tensor, divisor: int) -> Tensor:
    """Images [N, 3, H, W] padded by repeating their outermost pixels."""
    height, width = images.shape[-2:]
    return F.pad(images, padding(height, width, divisor), mode="replicate")
